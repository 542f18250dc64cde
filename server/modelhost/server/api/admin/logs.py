"""Logs: a part of one, or all of one as it grows."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from modelhost.server.api import convert, names, paging
from modelhost.server.api.call import Call
from modelhost.server.control.deployments import Deployments
from modelhost.server.errors import InvalidRequest
from modelhost.server.resources import Deployment, DeploymentState, UpdateState
from modelhost.server.store import deployments
from modelhost.server.store.database import Database, Transaction
from modelhost.server.store.logs import Log, LogEntry, Logs, Position
from modelhost.v1 import log_pb2 as pb

PAGE_DEFAULT = 1_000
PAGE_MOST = 10_000
BATCH = 500
POLL_SECONDS = 0.1


class LogMethods:
    """Handlers of the log methods."""

    def __init__(self, database: Database, commands: Deployments, logs: Logs) -> None:
        self._database = database
        self._commands = commands
        self._logs = logs

    async def read_log(self, call: Call, request: pb.ReadLogRequest) -> pb.ReadLogResponse:
        """Read a page."""
        size = paging.page_size(request.page_size, default=PAGE_DEFAULT, most=PAGE_MOST)
        deployment, revision = await self._find(request.deployment, request.revision, request.kind)
        _check_filter(request.kind, request.request_id)
        listing = f"log {deployment.uid} {request.kind} {request.revision} {request.request_id}"
        start = Position(*paging.numbers_in(request.page_token, listing, 2))
        log = self._log(deployment, revision, request.kind)
        lines, end = await asyncio.to_thread(log.read, start, size)
        return pb.ReadLogResponse(
            entries=[
                convert.log_entry(line) for _, line in lines if _is_wanted(request.revision, request.request_id, line)
            ],
            next_page_token=paging.token(listing, f"{end.segment} {end.offset}") if len(lines) == size else "",
        )

    async def tail_log(self, call: Call, request: pb.TailLogRequest) -> AsyncIterator[pb.TailLogResponse]:
        """Follow a log: a build log to the build's end, a run log to the deployment's."""
        deployment, revision = await self._find(request.deployment, request.revision, request.kind)
        _check_filter(request.kind, request.request_id)
        log = self._log(deployment, revision, request.kind)
        wanted = partial(_is_wanted, request.revision, request.request_id)
        position = Position()
        if request.HasField("last_lines"):
            if request.last_lines < 0:
                raise InvalidRequest("last_lines", "last_lines must not be negative")
            position = await asyncio.to_thread(log.last, request.last_lines, wanted)
        while True:
            current = await self._database.run(lambda tx: deployments.by_uid(tx, deployment.uid))
            growing = current is not None and (request.kind == pb.LOG_KIND_RUN or current.is_building(revision))
            lines, position = await asyncio.to_thread(log.read, position, BATCH)
            if chosen := [line for _, line in lines if wanted(line)]:
                yield pb.TailLogResponse(entries=[convert.log_entry(line) for line in chosen])
            if not lines:
                if not growing:
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def _find(self, name: str, number: int, kind: "pb.LogKind.ValueType") -> tuple[Deployment, int]:
        """The deployment and which revision's build log is meant."""
        deployment_id = names.parse(name, names.DEPLOYMENTS, "deployment")
        if kind not in pb.LogKind.values():
            raise InvalidRequest("kind", "there is no log of kind {kind}", kind=kind)

        def find(tx: Transaction) -> tuple[Deployment, int]:
            deployment = self._commands.find(tx, deployment_id)
            if number:
                self._commands.find_revision(tx, deployment, number)
            return deployment, number or _built_last(deployment)

        return await self._database.run(find)

    def _log(self, deployment: Deployment, revision: int, kind: "pb.LogKind.ValueType") -> Log:
        if kind == pb.LOG_KIND_RUN:
            return self._logs.run(deployment.uid)
        return self._logs.build(deployment.uid, revision)


def _built_last(deployment: Deployment) -> int:
    """The revision whose build people ask about: the one that failed last, else the one that runs or is to."""
    failed = deployment.state is DeploymentState.FAILED or deployment.update_state is UpdateState.FAILED
    return deployment.failure.revision if failed and deployment.failure else deployment.target


def _check_filter(kind: "pb.LogKind.ValueType", request_id: str) -> None:
    if request_id and kind != pb.LOG_KIND_RUN:
        raise InvalidRequest("request_id", "{field} is for run logs: a build log has no calls")


def _is_wanted(revision: int, request_id: str, line: LogEntry) -> bool:
    return (not revision or line.revision == revision) and (
        not request_id or request_id in line.request_id.split(" ")  # of a batch there are several
    )
