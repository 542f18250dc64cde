"""A server that speaks the real protocol and remembers, for tests of those who call it.

It does what a test tells it to: `refuse()` makes a method fail, `build` is how the next start goes. The real server is
what the end-to-end tests are for.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import grpc
from google.protobuf.message import Message

from modelhost.v1 import admin_pb2_grpc, predict_pb2_grpc
from modelhost.v1.data_source_pb2 import (
    DataSource,
    DeleteDataSourceResponse,
    ListDataSourcesResponse,
    ListFilesResponse,
    ListProjectsResponse,
    ListRefsResponse,
    Project,
    ReadFileResponse,
    Ref,
    SourceFile,
    TestDataSourceResponse,
)
from modelhost.v1.deployment_pb2 import (
    DebugDeploymentResponse,
    Deployment,
    DiffRevisionsResponse,
    Failure,
    ListDeploymentsResponse,
    ListRevisionsResponse,
    Revision,
    RevisionFile,
    WatchDeploymentResponse,
)
from modelhost.v1.error_reason_pb2 import ErrorReason
from modelhost.v1.log_pb2 import LOG_KIND_RUN, LogEntry, ReadLogResponse, TailLogResponse
from modelhost.v1.runtime_pb2 import (
    CollectEnvironmentsResponse,
    Environment,
    ListEnvironmentsResponse,
    ListRuntimesResponse,
    Runtime,
)
from tests.unit.client.fake_access import FakeAccess
from tests.unit.client.fake_answers import PAGE, Code, abort, last_part, page, request_id_of
from tests.unit.client.fake_model import FakeModel

TOKEN = "the-token"
COMMIT = "4f2c1a90d1" + "0" * 30


@dataclass
class Refusal:
    """How a method fails."""

    code: Code
    message: str
    reason: str = ""
    details: tuple[Message, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Build:
    """How a revision is brought up."""

    lines: list[str] = field(default_factory=lambda: ["commit resolved", "environment found", "model loaded"])
    failure: Failure | None = None
    hangs: bool = False


@dataclass
class Held:
    """A method whose calls wait."""

    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


class FakeServer(FakeModel, FakeAccess, admin_pb2_grpc.AdminServicer, predict_pb2_grpc.PredictServicer):
    """Data sources, deployments and a model, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.address = ""
        self.stop: Callable[[], object] = lambda: None
        self.calls: list[tuple[str, Any]] = []
        self.refusals: dict[str, Refusal] = {}
        self.held: dict[str, Held] = {}
        self.sources: dict[str, DataSource] = {}
        self.test_answer = TestDataSourceResponse(ok=True, message="Git repository", default_branch="main", ref_count=3)
        self.text, self.text_size = "def predict(p):\n    return p\n", 0
        self.deployments: dict[str, Deployment] = {}
        self.revisions: dict[str, list[Revision]] = {}
        self.build = Build()
        self.difference = DiffRevisionsResponse()
        self.debugged = DebugDeploymentResponse()
        self.environments: list[Environment] = []
        self.collected = CollectEnvironmentsResponse()
        self.run_log: list[LogEntry] = []
        self.on_watch: Callable[[Deployment], object] = lambda deployment: None
        self.log_time: int | None = None
        self.watched = threading.Event()
        self.released = threading.Event()

    def refuse(
        self, called: str, code: Code, message: str, reason: str = "", *details: Message, **metadata: str
    ) -> None:
        """Have a method fail from now on."""
        self.refusals[called] = Refusal(code, message, reason, details, metadata)

    def hold(self, method: str) -> Held:
        """Have the calls of a method wait until they are let go on, or are given up."""
        self.held[method] = Held()
        return self.held[method]

    def requests(self, method: str) -> list[Any]:
        """Return what a method was asked."""
        return [request for name, request in self.calls if name == method]

    # Data sources

    def CreateDataSource(self, request, context):
        source = DataSource()
        source.CopyFrom(request.data_source)
        source.name = f"dataSources/{request.data_source_id}"
        source.create_time.GetCurrentTime()
        if source.HasField("gitlab"):
            source.gitlab.token = ""
        self.sources[source.name] = source
        return source

    def GetDataSource(self, request, context):
        return self.sources[f"dataSources/{last_part(request.name)}"]

    def UpdateDataSource(self, request, context):
        source = self.sources[f"dataSources/{last_part(request.data_source.name)}"]
        for path in request.update_mask.paths:
            _copy_field(request.data_source, source, path)
        if source.HasField("gitlab"):
            source.gitlab.token = ""
        return source

    def ListDataSources(self, request, context):
        return page(ListDataSourcesResponse, "data_sources", list(self.sources.values()), request)

    def DeleteDataSource(self, request, context):
        return DeleteDataSourceResponse()

    def TestDataSource(self, request, context):
        return self.test_answer

    def ListProjects(self, request, context):
        projects = [
            Project(id="7", path="forecasting/turbine", title="Turbine", default_branch="main"),
            Project(id="9", path="solar", title="Solar"),
        ]
        return page(ListProjectsResponse, "projects", [p for p in projects if request.search in p.path], request)

    def ReadFile(self, request, context):
        return ReadFileResponse(text=self.text, size=self.text_size or len(self.text), commit=COMMIT)

    def ListRefs(self, request, context):
        refs = [
            Ref(name="main", kind=Ref.KIND_BRANCH, commit=COMMIT, is_default=True),
            Ref(name="v1.0", kind=Ref.KIND_TAG, commit=COMMIT),
            Ref(name="v1.1", kind=Ref.KIND_TAG, commit=COMMIT),
        ]
        return page(ListRefsResponse, "refs", [ref for ref in refs if ref.name.startswith(request.prefix)], request)

    def ListFiles(self, request, context):
        files = [
            SourceFile(path="data", kind=SourceFile.KIND_SUBMODULE),
            SourceFile(path="main.py", size=120, kind=SourceFile.KIND_FILE),
            SourceFile(path="model.pkl", size=2_500_000, kind=SourceFile.KIND_FILE),
        ]
        return page(ListFilesResponse, "files", files, request, commit=COMMIT)

    # Runtimes

    def ListRuntimes(self, request, context):
        runtimes = [
            Runtime(name="runtimes/python2.7", version="2.7.18", path="/usr/bin/python2", found_by="PATH", usable=True),
            Runtime(name="runtimes/r3.6", version="3.6.3", path="/opt/R/bin/R", found_by="/opt/R", problem="no make"),
        ]
        return page(ListRuntimesResponse, "runtimes", runtimes, request)

    def GetEnvironment(self, request, context):
        return Environment(name=request.name, lock=["numpy==1.16.6", "scikit-learn==0.20.4"])

    def ListEnvironments(self, request, context):
        return page(ListEnvironmentsResponse, "environments", self.environments, request)

    def CollectEnvironments(self, request, context):
        return self.collected

    # Deployments

    def CreateDeployment(self, request, context):
        deployment = Deployment()
        deployment.CopyFrom(request.deployment)
        name = request.deployment_id
        deployment.name = f"deployments/{name}"
        deployment.uid = f"uid-{name}"
        deployment.service = f"services/svc-{name}"
        deployment.state = Deployment.STATE_STOPPED
        if not request.validate_only:
            self.deployments[name] = deployment
            self.revisions[name] = []
            self.add_revision(name)
        return deployment

    def add_deployment(self, name: str, **fields: Any) -> Deployment:
        """Have a deployment there from the beginning, RUNNING unless said otherwise."""
        fields = {"state": Deployment.STATE_RUNNING, "active_revision": 1, **fields}
        self.deployments[name] = Deployment(
            name=f"deployments/{name}", uid=f"uid-{name}", service=f"services/svc-{name}", **fields
        )
        self.revisions[name] = []
        self.add_revision(name)
        return self.deployments[name]

    def add_revision(self, name: str) -> Revision:
        """Make the next revision of a deployment, its target."""
        deployment, revisions = self.deployments[name], self.revisions[name]
        number = len(revisions) + 1
        revision = Revision(
            name=f"deployments/{name}/revisions/{number}",
            number=number,
            state=Revision.STATE_PENDING,
            source=deployment.source,
            requested_settings=deployment.settings,
        )
        revision.create_time.GetCurrentTime()
        revisions.append(revision)
        deployment.target_revision = number
        deployment.update_time.GetCurrentTime()
        return revision

    def GetDeployment(self, request, context):
        return self._find(request.name, context)

    def ListDeployments(self, request, context):
        return page(ListDeploymentsResponse, "deployments", list(self.deployments.values()), request)

    def UpdateDeployment(self, request, context):
        deployment = self._find(request.deployment.name, context)
        if request.validate_only:
            return deployment
        for path in request.update_mask.paths:
            _copy_field(request.deployment, deployment, path)
        if any(path.startswith(("source", "settings")) for path in request.update_mask.paths):
            self.add_revision(last_part(deployment.name))
            if deployment.state == Deployment.STATE_RUNNING:
                deployment.update_state = Deployment.UPDATE_STATE_IN_PROGRESS
        return deployment

    def StartDeployment(self, request, context):
        deployment = self._find(request.name, context)
        if deployment.state != Deployment.STATE_RUNNING:
            deployment.state = Deployment.STATE_STARTING
            deployment.ClearField("failure")
        deployment.update_time.GetCurrentTime()
        return deployment

    def RollbackDeployment(self, request, context):
        deployment = self._find(request.name, context)
        deployment.target_revision = request.revision
        if deployment.state == Deployment.STATE_RUNNING:
            deployment.update_state = Deployment.UPDATE_STATE_IN_PROGRESS
        else:
            deployment.state = Deployment.STATE_STARTING
        deployment.ClearField("failure")
        deployment.update_time.GetCurrentTime()
        return deployment

    def DebugDeployment(self, request, context):
        self._find(request.name, context)
        self.debugged.request_id = request_id_of(context)
        return self.debugged

    def StopDeployment(self, request, context):
        deployment = self._find(request.name, context)
        deployment.state = Deployment.STATE_STOPPING
        return deployment

    def DeleteDeployment(self, request, context):
        deployment = self._find(request.name, context)
        deployment.state = Deployment.STATE_DELETING
        return deployment

    def WatchDeployment(self, request, context):
        deployment = self._find(request.name, context)
        name = last_part(deployment.name)
        revision = self.revisions[name][deployment.target_revision - 1]
        self.on_watch(deployment)
        yield WatchDeploymentResponse(deployment=deployment, revision=revision)
        self.watched.set()
        if self.build.hangs:
            _wait(self.released, context)
        if deployment.state == Deployment.STATE_DELETING:
            del self.deployments[name]
            return
        for _ in self._changes(deployment, revision):
            yield WatchDeploymentResponse(deployment=deployment, revision=revision)
        _wait(self.released, context)

    def _changes(self, deployment: Deployment, revision: Revision) -> Iterator[None]:
        if deployment.state == Deployment.STATE_STOPPING:
            deployment.state = Deployment.STATE_STOPPED
            yield
            return
        for state in (Revision.STATE_FETCHING, Revision.STATE_PROVISIONING, Revision.STATE_LOADING):
            revision.state = state
            yield
        is_update = deployment.state == Deployment.STATE_RUNNING
        if self.build.failure:
            revision.state = Revision.STATE_FAILED
            deployment.failure.CopyFrom(self.build.failure)
            deployment.failure.revision = revision.number
            if is_update:
                deployment.update_state = Deployment.UPDATE_STATE_FAILED
            else:
                deployment.state = Deployment.STATE_FAILED
        else:
            revision.state, revision.commit = Revision.STATE_READY, COMMIT
            if not revision.HasField("ready_time"):
                revision.ready_time.GetCurrentTime()
            revision.settings.CopyFrom(revision.requested_settings)
            revision.settings.test_call.parameters_json = '{"age": 41}'
            deployment.state, deployment.active_revision = Deployment.STATE_RUNNING, revision.number
            deployment.update_state = Deployment.UPDATE_STATE_DONE if is_update else 0
        yield

    def GetRevision(self, request, context):
        _, name, _, number = request.name.split("/")
        self._find(name, context)
        if int(number) > len(self.revisions[name]):
            abort(context, Code.NOT_FOUND, f"{name} has no revision {number}", "REVISION_NOT_FOUND")
        revision = Revision()
        revision.CopyFrom(self.revisions[name][int(number) - 1])
        revision.files.append(RevisionFile(path="main.py", size=120, sha256="ab" * 32))
        revision.environment = "environments/e"
        return revision

    def ListRevisions(self, request, context):
        return ListRevisionsResponse(revisions=reversed(self.revisions[last_part(request.parent)]))

    def DiffRevisions(self, request, context):
        self.difference.revision = int(last_part(request.name))
        self.difference.base_revision = request.base_revision or max(1, self.difference.revision - 1)
        return self.difference

    # Logs

    def ReadLog(self, request, context):
        self._find(request.deployment, context)
        entries = self._log(request)
        start = int(request.page_token or 0)
        more = str(start + PAGE) if start + PAGE < len(entries) else ""
        return ReadLogResponse(entries=entries[start : start + PAGE], next_page_token=more)

    def TailLog(self, request, context):
        self._find(request.deployment, context)
        entries = self._log(request)
        if request.HasField("last_lines"):
            entries = entries[len(entries) - request.last_lines :]
        for entry in entries:
            yield TailLogResponse(entries=[entry])
        if request.kind == LOG_KIND_RUN:
            self.watched.set()
            _wait(self.released, context)

    def _log(self, request: Any) -> list[LogEntry]:
        entries = self.run_log if request.kind == LOG_KIND_RUN else self._build_log()
        return [entry for entry in entries if request.request_id in {"", entry.request_id}]

    def _build_log(self) -> list[LogEntry]:
        entries = []
        for step, text in zip(("fetch", "provision", "load"), self.build.lines, strict=False):
            entry = LogEntry(step=step, text=text, revision=1, stream=LogEntry.STREAM_SERVER, seconds=0.5)
            entry.time.GetCurrentTime()
            if self.log_time is not None:
                entry.time.FromSeconds(self.log_time)
            entries.append(entry)
        return entries

    def _find(self, name: str, context: grpc.ServicerContext) -> Deployment:
        if last_part(name) not in self.deployments:
            text = f"there is no deployment {last_part(name)}"
            abort(context, Code.NOT_FOUND, text, "DEPLOYMENT_NOT_FOUND")
        return self.deployments[last_part(name)]


def _copy_field(given: Message, target: Message, path: str) -> None:
    """Do what an update mask's path says."""
    *parents, last = path.split(".")
    for parent in parents:
        given, target = getattr(given, parent), getattr(target, parent)
    target.ClearField(last)
    part = type(target)()
    part.CopyFrom(given)
    for other in given.DESCRIPTOR.fields_by_name:
        if other != last:
            part.ClearField(other)
    target.MergeFrom(part)


def _wait(event: threading.Event, context: grpc.ServicerContext) -> None:
    while context.is_active() and not event.wait(0.01):
        pass


def _method(fake: FakeServer, name: str, handler: Callable[..., Any], *, streams: bool) -> Callable[..., Any]:
    """Record a call and check its token before it is handled."""

    def check(request: Any, context: grpc.ServicerContext) -> None:
        copy = type(request)()
        copy.CopyFrom(request)
        fake.calls.append((name, copy))
        token = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
        if name != "IssueToken" and token not in {TOKEN, *fake.tokens}:
            abort(context, Code.UNAUTHENTICATED, "credentials are missing or unknown", "UNAUTHENTICATED")
        if held := fake.held.get(name):
            held.reached.set()
            _wait(held.go_on, context)
        if refusal := fake.refusals.get(name):
            abort(context, refusal.code, refusal.message, refusal.reason, *refusal.details, **refusal.metadata)

    @wraps(handler)
    def unary(request: Any, context: grpc.ServicerContext) -> Any:
        check(request, context)
        return handler(request, context)

    @wraps(handler)
    def stream(request: Any, context: grpc.ServicerContext) -> Any:
        check(request, context)
        yield from handler(request, context)

    return stream if streams else unary


@contextmanager
def running(
    port: int = 0, max_message_bytes: int = 64 * 1024 * 1024, credentials: grpc.ServerCredentials | None = None
) -> Iterator[FakeServer]:
    """Run a server on a port of this host; on a free one if none is said."""
    fake = FakeServer()
    for name in dir(fake):
        if name[0].isupper():
            streams = name in {"WatchDeployment", "TailLog", "PredictStream"}
            setattr(fake, name, _method(fake, name, getattr(fake, name), streams=streams))
    options = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
    ]
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=options)
        admin_pb2_grpc.add_AdminServicer_to_server(fake, server)
        predict_pb2_grpc.add_PredictServicer_to_server(fake, server)
        address = f"127.0.0.1:{port}"
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        fake.address = f"127.0.0.1:{bound}"
        server.start()
        fake.stop = lambda: server.stop(None).wait()
        try:
            yield fake
        finally:
            fake.released.set()
            fake.stop()


def reason(name: str) -> "ErrorReason.ValueType":
    """Return the number of an error reason."""
    return ErrorReason.Value(f"ERROR_REASON_{name}")
