"""ModelHost as it is measured: `modelhost serve` with models of benchmarks/models, behind tokens, grants and limits."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import grpc

from benchmarks.frames import LIVE
from benchmarks.processes import Cpu, cpu_of
from benchmarks.work import MANY, NUMBERS, Work, json_sum, large_tensor, lm, many, many_json, tensor_sum
from modelhost.client import Client
from modelhost.client.signing import ServiceAccountKey, signed_request
from modelhost.v1 import deployment_pb2, service_account_pb2
from tests.e2e.daemon import Daemon
from tests.e2e.steps import Operator
from tests.git_repos import Repo

MODELS = Path(__file__).parent / "models"
ACCOUNT = "bench"
NUMPY = "numpy==1.19.5"  # the last one for Python 3.6
LIMITS = service_account_pb2.GrantLimits(
    requests_per_second=1_000_000,
    burst=1_000_000,
    requests_per_day=10**12,
    concurrent_calls=1_000_000,
    request_bytes=10**9,
)


QUEUE = deployment_pb2.Limits(queue_size=1000)  # more than are ever under way here


class Host:
    """A server with a state of its own below `folder`, and a data source for each model of benchmarks/models."""

    def __init__(self, folder: Path, interpreter: Path, *options: str) -> None:
        self._folder = folder
        self.daemon = Daemon(folder / "host", "--interpreter", str(interpreter), "--log-level", "warning", *options)
        self.daemon.start()
        self.operator = Operator(self.daemon)

    def add_model(self, model: str, more: dict[str, bytes] | None = None) -> None:
        """Register the files of a model, and more than those."""
        repo = Repo(self._folder / f"{model}.git")
        files = {path.name: path.read_bytes() for path in (MODELS / model).iterdir() if path.is_file()}
        repo.commit({**files, **(more or {})})
        self.operator.add_source(model, repo)

    def deploy(self, names: Iterable[str], model: str, **settings: object) -> None:
        """Have deployments of a model, all at once; returns when all run."""
        names = list(names)
        for name in names:
            self.operator.begin(name, model, limits=QUEUE, **settings)
        for name in names:
            self.operator.wait_until_running(name)

    def close(self) -> None:
        """End the server and all that it had started."""
        self.daemon.close()


class Ours:
    """A `Server`: the work of the benchmark on one warm worker for each deployment."""

    name: str = "modelhost"

    works: Mapping[str, Work]
    headers: tuple[str, ...]

    def __init__(self, folder: Path, interpreter: Path, *, with_many: bool, with_r: bool) -> None:
        """Go on with what `prepare` has left in the folder."""
        self._host = Host(folder, interpreter)
        try:
            self.address = self._host.daemon.address
            self.has_infer = has_open_inference(self.address)
            """Whether it speaks the Open Inference Protocol, without which there is no work with tensors."""
            self._deploy(with_many=with_many, with_r=with_r)
            self.works = {work.name: work for work in self._works(with_many=with_many, with_r=with_r)}
            self.headers = (f"authorization: Bearer {grant(self._host, self._services)}",)
        except BaseException:
            self.close()
            raise

    def _deploy(self, *, with_many: bool, with_r: bool) -> None:
        self._services = ["sum", *(MANY if with_many else ())]
        self._host.operator.predict_when_up("sum", NUMBERS)
        self._host.deploy(self._services[1:], "sum", requirements=[NUMPY])
        if with_r:
            self._host.add_model("lm")
            self._host.deploy(["lm"], "lm", runtime=self._host.operator.r_runtime())
            self._services.append("lm")

    def _works(self, *, with_many: bool, with_r: bool) -> list[Work]:
        works = [json_sum()]
        if self.has_infer:
            works += [tensor_sum(), large_tensor(1), large_tensor(16)]
        if with_many:
            works.append(many() if self.has_infer else many_json())
        if with_r:
            works.append(lm())
        return works

    def cpu(self) -> Cpu:
        """CPU seconds so far."""
        return cpu_of(self._host.daemon.pid)

    def close(self) -> None:
        """End it."""
        self._host.close()


def prepare(folder: Path, interpreter: Path) -> None:
    """Have a state with the environment of the sum in it, for which the package index is asked."""
    host = Host(folder, interpreter)
    try:
        declared = {"modelhost.toml": b'tensors = "numpy"\n'} if has_open_inference(host.daemon.address) else {}
        host.add_model("sum", declared)
        host.deploy(["sum"], "sum", requirements=[NUMPY])
    finally:
        host.close()


def grant(host: Host, services: list[str]) -> str:
    """Let a service account call these, with a limit of every kind; returns a token of it."""
    admin = host.operator.admin
    account = admin.CreateServiceAccount(service_account_pb2.CreateServiceAccountRequest(service_account_id=ACCOUNT))
    for service in services:
        admin.GrantService(
            service_account_pb2.GrantServiceRequest(service_account=ACCOUNT, service=service, limits=LIMITS)
        )
    with Client(host.daemon.address) as client:
        key = ServiceAccountKey(account.access_key, account.secret_key)
        return str(client.predict_stub.IssueToken(signed_request(key)).token)


def has_open_inference(address: str) -> bool:
    """Whether a server knows the methods of the Open Inference Protocol."""
    with grpc.insecure_channel(address) as channel:
        try:
            live: Callable[..., bytes] = channel.unary_unary(f"/{LIVE}")
            live(b"", timeout=10)
        except grpc.RpcError as error:
            return bool(error.code() is not grpc.StatusCode.UNIMPLEMENTED)
    return True
