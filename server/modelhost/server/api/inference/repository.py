"""The model repository of the Open Inference Protocol: deployments, started and stopped. For operators."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeVar

from google.protobuf.message import Message

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.api import convert, names
from modelhost.server.api.auditing import Subject
from modelhost.server.api.call import Call
from modelhost.server.api.mutations import Mutations
from modelhost.server.control.changes import Changes
from modelhost.server.control.deployments import Deployments
from modelhost.server.errors import Conflict, InvalidRequest, NotFound
from modelhost.server.identities import Role
from modelhost.server.resources import Deployment, DeploymentState
from modelhost.server.serving.pool import PoolStatus
from modelhost.server.serving.router import Router
from modelhost.server.store import deployments
from modelhost.server.store.database import Database, Transaction
from modelhost.v1.error_reason_pb2 import ErrorReason

R = TypeVar("R", bound=Message)

ROLES: Final[Mapping[str, Role]] = {
    "RepositoryIndex": Role.VIEWER,
    "RepositoryModelLoad": Role.DEPLOYER,
    "RepositoryModelUnload": Role.DEPLOYER,
}
PAGE = 500  # deployments read at once: other calls of the database have their turn
_STATES = {
    DeploymentState.STARTING: "LOADING",
    DeploymentState.STOPPING: "UNLOADING",
    DeploymentState.DELETING: "UNLOADING",
}


class RepositoryMethods:
    """Handlers of the repository's methods. Those that start and stop answer when that is done."""

    def __init__(
        self, database: Database, commands: Deployments, mutations: Mutations, router: Router, changes: Changes
    ) -> None:
        self._database = database
        self._commands = commands
        self._mutations = mutations
        self._router = router
        self._changes = changes

    async def repository_index(self, call: Call, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """List the deployments."""
        _check_repository(request.repository_name)
        response = pb.RepositoryIndexResponse()
        after = ""
        while page := await self._database.run(partial(deployments.page, after=after, limit=PAGE)):
            models = (self._index(one) for one in page)
            response.models.extend(one for one in models if one.state == "READY" or not request.ready)
            after = page[-1].id
        return response

    async def repository_model_load(
        self, call: Call, request: pb.RepositoryModelLoadRequest
    ) -> pb.RepositoryModelLoadResponse:
        """Start a deployment. Raises `Conflict` with the failure's reason if it does not come up."""
        _check_repository(request.repository_name)
        if request.parameters:
            raise InvalidRequest(
                "parameters",
                "loading takes no parameters: `modelhost update {deployment}` changes how a model is run",
                deployment=request.model_name,
            )
        deployment = await self._change(call, request, pb.RepositoryModelLoadResponse, self._commands.start)
        found = await self._settled(deployment, DeploymentState.STARTING)
        if found is not None and found.state is DeploymentState.FAILED and found.failure is not None:
            raise Conflict(
                found.failure.reason_value,
                "{deployment} did not start: {cause}",
                hint=found.failure.hint,
                deployment=found.id,
                cause=found.failure.message,
            )
        if found is None or found.state is not DeploymentState.RUNNING:
            raise Conflict(
                ErrorReason.ERROR_REASON_STATE_CONFLICT,
                "{deployment} was stopped by somebody else while it was started",
                deployment=deployment.id,
            )
        return pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, call: Call, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        """Stop a deployment."""
        _check_repository(request.repository_name)
        deployment = await self._change(call, request, pb.RepositoryModelUnloadResponse, self._commands.stop)
        await self._settled(deployment, DeploymentState.STOPPING)
        return pb.RepositoryModelUnloadResponse()

    async def _change(
        self,
        call: Call,
        request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest,
        kind: type[R],
        command: Callable[[Transaction, str, str], Deployment],
    ) -> Deployment:
        """Have the wish stored and recorded. Raises `NotFound` SERVICE_NOT_FOUND."""
        name = self._router.find(names.parse_service(request.model_name, "model_name")).deployment_id
        changed: list[Deployment] = []

        def change(tx: Transaction) -> R:
            changed.append(command(tx, name, ""))
            return kind()

        def look(tx: Transaction) -> Message | None:
            found = deployments.get(tx, name)
            return convert.deployment(found, PoolStatus()) if found else None

        await self._mutations.run(call, request, kind, change, Subject(names.join(names.DEPLOYMENTS, name), look))
        return changed[0]

    async def _settled(self, deployment: Deployment, passing: DeploymentState) -> Deployment | None:
        """The deployment as soon as it has left a state; None if it is deleted."""
        with self._changes.watch(deployment.uid) as changed:
            while True:
                changed.clear()
                found = await self._database.run(lambda tx: deployments.by_uid(tx, deployment.uid))
                if found is None or found.state is not passing:
                    return found
                await changed.wait()

    def _index(self, deployment: Deployment) -> pb.RepositoryIndexResponse.ModelIndex:
        live = self._router.status(deployment.service_id).live
        running = deployment.state is DeploymentState.RUNNING
        if running and live:
            state, reason = "READY", ""
        elif running:
            state, reason = "LOADING", "no worker has loaded it at the moment"
        else:
            state = _STATES.get(deployment.state, "UNAVAILABLE")
            reason = deployment.failure.message if deployment.failure else deployment.state
        return pb.RepositoryIndexResponse.ModelIndex(
            name=deployment.id,
            version=str(deployment.active) if deployment.active else "",
            state=state,
            reason=reason,
        )


def _check_repository(name: str) -> None:
    if name:
        raise NotFound(
            ErrorReason.ERROR_REASON_SERVICE_NOT_FOUND,
            "there is no repository {repository}; this server has one, without a name",
            repository=repr(name[:80]),
        )
