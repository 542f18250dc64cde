"""What tests do with revisions: run them again, compare them, and have removed what none of them needs."""

from modelhost.v1 import deployment_pb2, runtime_pb2
from tests.running import Deployment, RunningServer, eventually

Revision = deployment_pb2.Revision


def model(word: str) -> bytes:
    return f"def predict(parameters):\n    return {word!r}\n".encode()


def rollback(server: RunningServer, name: str, number: int, *, wait: bool = True) -> Deployment:
    request = deployment_pb2.RollbackDeploymentRequest(name=name, revision=number)
    server.client.admin.RollbackDeployment(request)
    if wait:
        eventually(lambda: is_settled(server.get(name)), seconds=60)
    return server.get(name)


def is_settled(deployment: Deployment) -> bool:
    updating = deployment.update_state == Deployment.UPDATE_STATE_IN_PROGRESS
    return deployment.state in (Deployment.STATE_RUNNING, Deployment.STATE_FAILED) and not updating


def revisions(server: RunningServer, name: str) -> dict[int, Revision]:
    request = deployment_pb2.ListRevisionsRequest(parent=name, page_size=1000)
    return {one.number: one for one in server.client.admin.ListRevisions(request).revisions}


def collect(server: RunningServer, *, only_say: bool = False) -> runtime_pb2.CollectEnvironmentsResponse:
    request = runtime_pb2.CollectEnvironmentsRequest(validate_only=only_say)
    return server.client.admin.CollectEnvironments(request)


def snapshots(server: RunningServer) -> set[str]:
    return {path.name for path in (server.state_dir / "snapshots").iterdir()}


def diff(server: RunningServer, name: str, number: int, base: int = 0) -> deployment_pb2.DiffRevisionsResponse:
    request = deployment_pb2.DiffRevisionsRequest(name=f"deployments/{name}/revisions/{number}", base_revision=base)
    return server.client.admin.DiffRevisions(request)
