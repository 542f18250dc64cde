"""A real server for tests: the whole application on an event loop in a thread of its own, and a client of it."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import uvloop

from modelhost.client import Client, ModelHostError
from modelhost.server.app import App
from modelhost.server.config import ServerSettings
from modelhost.v1 import data_source_pb2, deployment_pb2, log_pb2, runtime_pb2
from tests.git_repos import Repo
from tests.local_hosts import LOCAL_HOSTS

Deployment = deployment_pb2.Deployment
T = TypeVar("T")

START_SECONDS = 180.0
MESSAGE_LIMIT = 8 * 1024 * 1024  # small, so that tests of it are quick


def eventually(probe: Callable[[], T], *, seconds: float = 30.0) -> T:
    """Ask until the answer is true, and return it; the last answer is in the failure."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds:g} s"
        time.sleep(0.02)
    return answer


def shared_folder(folder: Path) -> Path:
    """A folder that models of any user may use, for what they and a test tell each other."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    return folder


def reason_of(call: Callable[[], object]) -> str:
    """The reason that the call fails with; empty if it does not fail."""
    try:
        call()
    except ModelHostError as error:
        return error.reason
    return ""


class RunningServer:
    """A server, its admin client, and what most tests do with it. A context manager."""

    def __init__(self, state_dir: Path, **settings: Any) -> None:
        self.state_dir = state_dir
        self.shared = shared_folder(state_dir.parent / "shared")
        self._settings = ServerSettings(
            state_dir=state_dir,
            listen="127.0.0.1:0",
            **{
                "message_limit": MESSAGE_LIMIT,
                "shared_folders": (self.shared,),
                "git_hosts": LOCAL_HOSTS,
                **settings,
            },
        )
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="server")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        self.token = (self.state_dir / "admin.token").read_text().strip()
        self.client = Client(self.admin_address, self.token, timeout=START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.begin_to_stop()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def begin_to_stop(self) -> None:
        """Have it stop, without waiting for that; of no effect once it has."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)

    def connect(self, token: str | None, **options: Any) -> Client:
        """A client with that token. Close it."""
        return Client(self.address, token, timeout=START_SECONDS, **options)

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            self._error = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = App(self._settings)
        self.address, self.admin_address = app.address, app.admin_address
        self.metrics_address = app.metrics_address
        await app.start()
        self._ready.set()
        await self._stop.wait()
        await app.stop()

    # -- steps of tests ----------------------------------------------------------------------------------------------

    def add_source(self, source_id: str, repo: Repo) -> None:
        """Register a repository."""
        self.client.admin.CreateDataSource(
            data_source_pb2.CreateDataSourceRequest(
                data_source_id=source_id,
                data_source=data_source_pb2.DataSource(git=data_source_pb2.GitLocation(url=str(repo.path))),
            )
        )

    def create(
        self, name: str, source: str, *, runtime: str = "python3.6", ref: str = "", workers: int = 0, **settings: Any
    ) -> Deployment:
        """Create a deployment; `settings` are fields of ModelSettings, and `directory` and `paths` of ModelSource."""
        where = {key: settings.pop(key) for key in ("directory", "paths", "project") if key in settings}
        return self.client.admin.CreateDeployment(
            deployment_pb2.CreateDeploymentRequest(
                deployment_id=name,
                deployment=Deployment(
                    source=deployment_pb2.ModelSource(data_source=source, ref=ref, **where),
                    settings=deployment_pb2.ModelSettings(runtime=runtime, **settings),
                    workers=workers,
                ),
            )
        )

    def scale(self, name: str, workers: int, *, wait: bool = True) -> Deployment:
        """Have so many workers; waits until they are there and no others, or that is refused."""
        deployment = self.client.admin.UpdateDeployment(
            deployment_pb2.UpdateDeploymentRequest(
                deployment=Deployment(name=f"deployments/{name}", workers=workers), update_mask={"paths": ["workers"]}
            )
        )

        def settled() -> bool:
            now = self.get(name)
            there = now.observed.live_workers == workers and not now.observed.starting_workers
            return there or now.HasField("failure")

        if wait:
            eventually(settled, seconds=START_SECONDS)
            deployment = self.get(name)
        return deployment

    def runtime_of_r(self) -> str:
        """The id of the R that this host has."""
        found = self.client.admin.ListRuntimes(runtime_pb2.ListRuntimesRequest()).runtimes
        return next(each.name for each in found if each.language == runtime_pb2.Runtime.LANGUAGE_R)

    def get(self, name: str) -> Deployment:
        """The deployment as it is."""
        return self.client.admin.GetDeployment(deployment_pb2.GetDeploymentRequest(name=name))

    def start(self, name: str) -> Deployment:
        """Start, and wait until that is over one way or the other."""
        self.client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name))
        return self.wait(name, Deployment.STATE_RUNNING, Deployment.STATE_FAILED)

    def deploy(self, name: str, source: str, **settings: Any) -> Deployment:
        """Create and start; the deployment must come up."""
        self.create(name, source, **settings)
        deployment = self.start(name)
        assert deployment.state == Deployment.STATE_RUNNING, (deployment.failure, self.build_log(name))
        return deployment

    def wait(self, name: str, *states: int) -> Deployment:
        """Wait for one of the states."""
        eventually(lambda: self.get(name).state in states, seconds=START_SECONDS)
        return self.get(name)

    def update(self, name: str, *, wait: bool = True, **settings: Any) -> Deployment:
        """Set fields of ModelSettings (or `ref`); waits until the update is over."""
        ref = settings.pop("ref", None)
        self.client.admin.UpdateDeployment(
            deployment_pb2.UpdateDeploymentRequest(
                deployment=Deployment(
                    name=f"deployments/{name}",
                    source=deployment_pb2.ModelSource(ref=ref),
                    settings=deployment_pb2.ModelSettings(**settings),
                ),
                update_mask={"paths": [*(["source.ref"] if ref else []), *(f"settings.{key}" for key in settings)]},
            )
        )
        if wait:
            busy = (Deployment.UPDATE_STATE_IN_PROGRESS,)
            eventually(lambda: self.get(name).update_state not in busy, seconds=START_SECONDS)
        return self.get(name)

    def predict(self, service: str, parameters: Any, **options: Any) -> Any:
        """Call the model."""
        return self.client.predict(service, parameters, **options).result

    def build_log(self, name: str, revision: int = 0) -> str:
        """The build log's text."""
        request = log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_BUILD, revision=revision)
        return "\n".join(entry.text for entry in self.client.admin.ReadLog(request).entries)

    def run_log(self, name: str) -> str:
        """The run log's text."""
        request = log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_RUN)
        return "\n".join(entry.text for entry in self.client.admin.ReadLog(request).entries)
