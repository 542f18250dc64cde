"""What the host has: runtimes and environments."""

import asyncio

from modelhost.envs import Environment, EnvironmentStore
from modelhost.server.api import convert, names, paging
from modelhost.server.api.auditing import Auditor
from modelhost.server.api.call import Call
from modelhost.server.control.collector import Collector
from modelhost.server.control.runtimes import Runtimes
from modelhost.server.errors import NotFound
from modelhost.server.store import deployments
from modelhost.server.store.database import Database
from modelhost.v1 import runtime_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason


class HostMethods:
    """Handlers of the Runtime and Environment methods."""

    def __init__(
        self,
        database: Database,
        runtimes: Runtimes,
        environments: EnvironmentStore,
        collector: Collector,
        auditor: Auditor,
    ) -> None:
        self._database = database
        self._auditor = auditor
        self._runtimes = runtimes
        self._environments = environments
        self._collector = collector

    async def get_runtime(self, call: Call, request: pb.GetRuntimeRequest) -> pb.Runtime:
        """Show one runtime."""
        return convert.runtime(await self._runtimes.get(names.parse(request.name, names.RUNTIMES)))

    async def list_runtimes(self, call: Call, request: pb.ListRuntimesRequest) -> pb.ListRuntimesResponse:
        """List the runtimes."""
        size = paging.page_size(request.page_size)
        after = paging.key_in(request.page_token, "runtimes")
        found = [one for one in await self._runtimes.all(refresh=request.refresh) if one.name > after][: size + 1]
        return pb.ListRuntimesResponse(
            runtimes=[convert.runtime(one) for one in found[:size]],
            next_page_token=paging.cut("runtimes", [one.name for one in found], size),
        )

    async def get_environment(self, call: Call, request: pb.GetEnvironmentRequest) -> pb.Environment:
        """Show one environment."""
        digest = names.parse(request.name, names.ENVIRONMENTS)
        found = await asyncio.to_thread(self._environments.find, digest) if digest.isalnum() else None
        if found is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_ENVIRONMENT_NOT_FOUND,
                "there is no environment {environment}",
                environment=digest,
            )
        return await self._with_users(found)

    async def list_environments(self, call: Call, request: pb.ListEnvironmentsRequest) -> pb.ListEnvironmentsResponse:
        """List the environments."""
        size = paging.page_size(request.page_size)
        after = paging.key_in(request.page_token, "environments")
        known = sorted(await asyncio.to_thread(self._environments.list), key=lambda one: one.spec_digest)
        found = [one for one in known if one.spec_digest > after][: size + 1]
        return pb.ListEnvironmentsResponse(
            environments=[await self._with_users(one) for one in found[:size]],
            next_page_token=paging.cut("environments", [one.spec_digest for one in found], size),
        )

    async def collect_environments(
        self, call: Call, request: pb.CollectEnvironmentsRequest
    ) -> pb.CollectEnvironmentsResponse:
        """Remove what nothing names."""
        # What is removed is recorded, whether or not anybody still waits for the answer.
        return await asyncio.shield(asyncio.ensure_future(self._collect(call, request)))

    async def _collect(self, call: Call, request: pb.CollectEnvironmentsRequest) -> pb.CollectEnvironmentsResponse:
        collected = await self._collector.collect(only_say=request.validate_only)
        response = pb.CollectEnvironmentsResponse(
            environments=[names.join(names.ENVIRONMENTS, digest) for digest in collected.environments],
            snapshots=collected.snapshots,
            freed_bytes=collected.freed_bytes,
        )
        if not request.validate_only:
            await self._database.run(lambda tx: self._auditor.record(tx, call, names.ENVIRONMENTS, response, None))
        return response

    async def _with_users(self, found: Environment) -> pb.Environment:
        users = await self._database.run(lambda tx: deployments.environment_users(tx, found.spec_digest))
        return convert.environment(found, users)
