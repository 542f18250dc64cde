"""What an operator does with a server in these tests, through the public API."""

import threading
from concurrent.futures import Future
from typing import Any

from modelhost.client import ModelHostError
from modelhost.v1 import data_source_pb2, deployment_pb2, log_pb2, runtime_pb2
from tests.e2e.daemon import Daemon
from tests.git_repos import Repo
from tests.running import eventually

Deployment = deployment_pb2.Deployment
Revision = deployment_pb2.Revision

RUNTIME = "python3.6"
PATIENCE = 120.0


class Operator:
    """Calls whatever server runs at the moment."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @property
    def admin(self) -> Any:
        """The methods for operators."""
        return self._daemon.client.admin

    def add_source(self, source_id: str, where: Repo | str) -> None:
        """Register a repository."""
        url = str(where.path) if isinstance(where, Repo) else where
        self.admin.CreateDataSource(
            data_source_pb2.CreateDataSourceRequest(
                data_source_id=source_id,
                data_source=data_source_pb2.DataSource(git=data_source_pb2.GitLocation(url=url)),
            )
        )

    def begin_source_test(self, source_id: str) -> Any:
        """Have a data source tested; `result()` of what this returns is the answer, and raises gRPC's own errors."""
        request = data_source_pb2.TestDataSourceRequest(name=f"dataSources/{source_id}")
        return self.admin.TestDataSource.future(request)

    def begin_validation(self, name: str, source: str) -> Any:
        """Have it checked whether a deployment could be made; returns as `begin_source_test` does."""
        request = self._creation(name, source, settings={"runtime": RUNTIME})
        request.validate_only = True
        return self.admin.CreateDeployment.future(request)

    def create(self, name: str, source: str, *, runtime: str = RUNTIME, request_id: str = "", **settings: Any) -> Any:
        """Create a deployment of the branch `main`; `settings` are fields of ModelSettings."""
        request = self._creation(name, source, settings={"runtime": runtime, **settings})
        request.request_id = request_id
        return self.admin.CreateDeployment(request)

    def _creation(self, name: str, source: str, *, settings: dict[str, Any]) -> Any:
        return deployment_pb2.CreateDeploymentRequest(
            deployment_id=name,
            deployment=Deployment(
                source=deployment_pb2.ModelSource(data_source=source, ref="main"),
                settings=deployment_pb2.ModelSettings(**settings),
            ),
        )

    def start(self, name: str) -> None:
        """Wish it running."""
        self.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name))

    def begin(self, name: str, source: str, **settings: Any) -> Any:
        """Create and start; returns it as created."""
        created = self.create(name, source, **settings)
        self.start(name)
        return created

    def deploy(self, name: str, source: str, **settings: Any) -> Any:
        """Create, start and wait until it runs."""
        self.begin(name, source, **settings)
        return self.wait_until_running(name)

    def update(self, name: str) -> Any:
        """Take the newest commit of its branch; waits for nothing."""
        return self.admin.UpdateDeployment(
            deployment_pb2.UpdateDeploymentRequest(
                deployment=Deployment(name=f"deployments/{name}", source=deployment_pb2.ModelSource(ref="main")),
                update_mask={"paths": ["source.ref"]},
            )
        )

    def stop(self, name: str) -> None:
        """Wish it stopped."""
        self.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))

    def delete(self, name: str) -> None:
        """Wish it gone, whatever it does."""
        self.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))

    def get(self, name: str) -> Any:
        """The deployment as it is."""
        return self.admin.GetDeployment(deployment_pb2.GetDeploymentRequest(name=name))

    def names(self) -> list[str]:
        """All deployments."""
        answer = self.admin.ListDeployments(self.list_request())
        return [deployment.name.removeprefix("deployments/") for deployment in answer.deployments]

    @staticmethod
    def list_request() -> Any:
        """A question that every server answers."""
        return deployment_pb2.ListDeploymentsRequest()

    def clear(self) -> None:
        """Have no deployments and no data sources any more."""
        for name in self.names():
            self.delete(name)
        eventually(lambda: not self.names(), seconds=PATIENCE)
        for source in self.admin.ListDataSources(data_source_pb2.ListDataSourcesRequest()).data_sources:
            self.admin.DeleteDataSource(data_source_pb2.DeleteDataSourceRequest(name=source.name))

    def state(self, name: str) -> str:
        """`RUNNING`, …"""
        return Deployment.State.Name(self.get(name).state).removeprefix("STATE_")

    def revision(self, name: str, number: int = 1) -> Any:
        """A revision of a deployment."""
        return self.admin.GetRevision(deployment_pb2.GetRevisionRequest(name=f"deployments/{name}/revisions/{number}"))

    def revision_state(self, name: str, number: int = 1) -> str:
        """`LOADING`, …"""
        return Revision.State.Name(self.revision(name, number).state).removeprefix("STATE_")

    def wait_until_running(self, name: str) -> Any:
        """Wait for RUNNING; a failure shows the build log."""

        def running() -> bool:
            deployment = self.get(name)
            assert deployment.state != Deployment.STATE_FAILED, (deployment.failure, self.build_log(name))
            return bool(deployment.state == Deployment.STATE_RUNNING)

        eventually(running, seconds=PATIENCE)
        return self.get(name)

    def predict(self, service: str, parameters: Any = None) -> Any:
        """Call the model."""
        return self._daemon.client.predict(service, parameters).result

    def predict_when_up(self, service: str, parameters: Any = None) -> Any:
        """Call the model as soon as it can be called: after a start of the server its workers need a moment."""
        answers: list[Any] = []

        def answered() -> bool:
            try:
                answers.append(self.predict(service, parameters))
            except ModelHostError as error:
                if error.reason != "SERVICE_NOT_RUNNING":
                    raise
            return bool(answers)

        eventually(answered, seconds=PATIENCE)
        return answers[0]

    def begin_call(self, service: str) -> "Future[Any]":
        """Call the model on a thread of its own; returns when the call is on its way."""
        call: Future[Any] = Future()

        def run() -> None:
            try:
                call.set_result(self.predict(service))
            except ModelHostError as error:
                call.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return call

    def r_runtime(self) -> str:
        """The R of this host. The project needs one; `make test` installs it."""
        return max(name for name, runtime in self.runtimes().items() if runtime.usable and name.startswith("r"))

    def runtimes(self) -> dict[str, Any]:
        """What the host has."""
        answer = self.admin.ListRuntimes(runtime_pb2.ListRuntimesRequest())
        return {runtime.name.removeprefix("runtimes/"): runtime for runtime in answer.runtimes}

    def build_log(self, name: str, revision: int = 0) -> str:
        """The build log's text."""
        request = log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_BUILD, revision=revision)
        return "\n".join(entry.text for entry in self.admin.ReadLog(request).entries)
