"""Deployments."""

from collections.abc import AsyncIterator
from dataclasses import replace

from google.protobuf.message import Message

from modelhost.server.api import convert, masks, names, paging
from modelhost.server.api.admin import fields
from modelhost.server.api.auditing import Subject
from modelhost.server.api.call import Call
from modelhost.server.api.mutations import Mutations
from modelhost.server.control.changes import Changes
from modelhost.server.control.deployments import SERVICE_PREFIX, Deployments
from modelhost.server.control.preview import Preview
from modelhost.server.errors import InvalidRequest
from modelhost.server.resources import Deployment, Revision
from modelhost.server.serving.pool import PoolStatus
from modelhost.server.serving.router import Router
from modelhost.server.store import deployments
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import deployment_pb2 as pb


class DeploymentMethods:
    """Handlers of the Deployment methods."""

    def __init__(
        self,
        *,
        database: Database,
        commands: Deployments,
        preview: Preview,
        mutations: Mutations,
        router: Router,
        changes: Changes,
    ) -> None:
        self._database = database
        self._commands = commands
        self._preview = preview
        self._mutations = mutations
        self._router = router
        self._changes = changes

    async def create_deployment(self, call: Call, request: pb.CreateDeploymentRequest) -> pb.Deployment:
        """Create one, STOPPED."""
        names.check_new_id(request.deployment_id, "deployment_id", letter_first=True, reserved=SERVICE_PREFIX)
        wish = fields.wish(request.deployment)

        def create(tx: Transaction) -> pb.Deployment:
            made = self._commands.create(
                tx,
                request.deployment_id,
                description=wish.description,
                workers=wish.workers,
                source=wish.source,
                settings=wish.settings,
            )
            tx.after_commit(lambda: self._router.add(made.service_id, made.id, made.uid))
            return self._shown(made)

        created = await self._mutations.run(
            call,
            request,
            pb.Deployment,
            create,
            self._subject(request.deployment_id),
            validate_only=request.validate_only,
        )
        if request.validate_only:
            await self._preview.check(wish.source, wish.settings)
        return created

    async def get_deployment(self, call: Call, request: pb.GetDeploymentRequest) -> pb.Deployment:
        """Show one."""
        return self._shown(await self._find(request.name))

    async def list_deployments(self, call: Call, request: pb.ListDeploymentsRequest) -> pb.ListDeploymentsResponse:
        """List them."""
        size = paging.page_size(request.page_size)
        after = paging.key_in(request.page_token, "deployments")
        found = await self._database.run(lambda tx: deployments.page(tx, after, size + 1))
        return pb.ListDeploymentsResponse(
            deployments=[self._shown(one) for one in found[:size]],
            next_page_token=paging.cut("deployments", [one.id for one in found], size),
        )

    async def update_deployment(self, call: Call, request: pb.UpdateDeploymentRequest) -> pb.Deployment:
        """Change one; a change of source or settings makes a revision."""
        deployment_id = names.parse(request.deployment.name, names.DEPLOYMENTS, "deployment.name")
        etag = request.deployment.etag
        checked: list[Deployment] = []

        def update(tx: Transaction) -> pb.Deployment:
            current = self._commands.find(tx, deployment_id)
            message, paths = masks.merged(
                self._shown(current), request.deployment, request.update_mask,
                mutable=fields.MUTABLE, parts=fields.PARTS,
            )  # fmt: skip
            wish = fields.wish(message)
            wanted = replace(current, description=wish.description, workers=wish.workers)
            if paths and all(path in fields.LIVE for path in paths):
                return self._shown(self._commands.adjust(tx, wanted, etag))
            wanted = replace(wanted, source=wish.source, settings=wish.settings)
            checked.append(wanted)
            return self._shown(self._commands.update(tx, wanted, etag))

        updated = await self._mutations.run(
            call, request, pb.Deployment, update, self._subject(deployment_id), validate_only=request.validate_only
        )
        if request.validate_only and checked:
            await self._preview.check(checked[0].source, checked[0].settings)
        return updated

    async def start_deployment(self, call: Call, request: pb.StartDeploymentRequest) -> pb.Deployment:
        """Start one."""
        deployment_id = names.parse(request.name, names.DEPLOYMENTS)
        return await self._mutations.run(
            call,
            request,
            pb.Deployment,
            lambda tx: self._shown(self._commands.start(tx, deployment_id, request.etag)),
            self._subject(deployment_id),
        )

    async def stop_deployment(self, call: Call, request: pb.StopDeploymentRequest) -> pb.Deployment:
        """Stop one."""
        deployment_id = names.parse(request.name, names.DEPLOYMENTS)
        return await self._mutations.run(
            call,
            request,
            pb.Deployment,
            lambda tx: self._shown(self._commands.stop(tx, deployment_id, request.etag)),
            self._subject(deployment_id),
        )

    async def rollback_deployment(self, call: Call, request: pb.RollbackDeploymentRequest) -> pb.Deployment:
        """Run a kept revision."""
        deployment_id = names.parse(request.name, names.DEPLOYMENTS)
        if request.revision < 1:
            raise InvalidRequest("revision", "{field} is needed: the number of a revision, see ListRevisions")
        return await self._mutations.run(
            call,
            request,
            pb.Deployment,
            lambda tx: self._shown(self._commands.rollback(tx, deployment_id, request.revision, request.etag)),
            self._subject(deployment_id),
        )

    async def delete_deployment(self, call: Call, request: pb.DeleteDeploymentRequest) -> pb.Deployment:
        """Delete one."""
        deployment_id = names.parse(request.name, names.DEPLOYMENTS)

        def delete(tx: Transaction) -> pb.Deployment:
            return self._shown(self._commands.delete(tx, deployment_id, request.etag, force=request.force))

        return await self._mutations.run(call, request, pb.Deployment, delete, self._subject(deployment_id))

    async def watch_deployment(
        self, call: Call, request: pb.WatchDeploymentRequest
    ) -> AsyncIterator[pb.WatchDeploymentResponse]:
        """Show one now and after each change, until it is deleted."""
        uid = (await self._find(request.name)).uid
        last = None
        with self._changes.watch(uid) as changed:
            while True:
                changed.clear()
                seen = await self._database.run(lambda tx: _with_target(tx, uid))
                if seen is None:
                    return
                deployment, revision = seen
                response = pb.WatchDeploymentResponse(
                    deployment=self._shown(deployment),
                    revision=convert.revision(revision, deployment.id) if revision else None,
                )
                if response != last:
                    last = response
                    yield response
                await changed.wait()

    def _subject(self, deployment_id: str) -> Subject:
        def look(tx: Transaction) -> Message | None:
            found = deployments.get(tx, deployment_id)
            return convert.deployment(found, PoolStatus()) if found else None

        return Subject(names.join(names.DEPLOYMENTS, deployment_id), look)

    async def _find(self, name: str) -> Deployment:
        deployment_id = names.parse(name, names.DEPLOYMENTS)
        return await self._database.run(lambda tx: self._commands.find(tx, deployment_id))

    def _shown(self, deployment: Deployment) -> pb.Deployment:
        return convert.deployment(deployment, self._router.status(deployment.service_id))


def _with_target(tx: Transaction, uid: str) -> tuple[Deployment, Revision | None] | None:
    deployment = deployments.by_uid(tx, uid)
    return (deployment, deployments.revision(tx, uid, deployment.target)) if deployment else None
