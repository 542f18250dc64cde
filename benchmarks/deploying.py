"""What deploying costs: environments, starts, memory of workers, lists of many deployments, a start of the server."""

import asyncio
import random
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.ours import NUMPY, Host
from benchmarks.processes import memory_mib
from modelhost.envs import EnvironmentStore, Job, Language, Requirements, find_interpreters
from modelhost.server.statedir import StateDir
from modelhost.server.store import deployments
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import deployment_pb2
from tests.e2e.steps import RUNTIME
from tests.running import eventually

REQUIREMENTS = (NUMPY, "scikit-learn==0.24.2")
BUILDS = 3
WARM_STARTS = 9
IDLE_SECONDS = 2
FEW, MANY = 10, 10_000
LISTS = 200
PAGE = 10
RUNNING = 100


@dataclass(frozen=True)
class Cost:
    """A measure that is no throughput."""

    name: str
    what: str
    value: float
    unit: str


def environment(folder: Path, interpreter: Path) -> list[Cost]:
    """A cold environment against virtualenv and pip by hand, both with nothing in their caches."""
    (found,) = [each for each in find_interpreters([interpreter], languages={Language.PYTHON}) if each.name == RUNTIME]
    requirements = Requirements(Language.PYTHON, REQUIREMENTS)
    ours: list[float] = []
    plain: list[float] = []

    def build(place: Path) -> None:
        store = EnvironmentStore(place / "environments", cache=place / "cache")
        store.build(store.specify(found, requirements), None, Job())

    def by_hand(place: Path) -> None:
        argv = [sys.executable, "-m", "virtualenv", "-q", "-p", str(interpreter), "--app-data", str(place / "seeds")]
        subprocess.run([*argv, str(place / "env")], check=True, capture_output=True)
        pip = [str(place / "env/bin/pip"), "install", "-q", "--cache-dir", str(place / "cache"), *REQUIREMENTS]
        subprocess.run(pip, check=True, capture_output=True)

    for number in range(BUILDS):
        sides = [(build, ours), (by_hand, plain)]
        for act, times in sides if number % 2 else reversed(sides):
            place = folder / "cold"
            place.mkdir()
            times.append(_seconds(partial(act, place)))
            shutil.rmtree(place)
    ratio = statistics.median(one / other for one, other in zip(ours, plain, strict=True))
    packages = " and ".join(REQUIREMENTS)
    return [
        Cost("environment", f"cold environment with {packages} over virtualenv and pip by hand", ratio, ""),
        Cost("environment_seconds", "the same in seconds", statistics.median(ours), "s"),
    ]


def warm_start(folder: Path, interpreter: Path) -> list[Cost]:
    """From StartDeployment to the first answer, with environment and snapshot there; then the worker's idle memory."""
    host = Host(folder, interpreter)
    try:
        host.add_model("trivial")
        host.deploy(["trivial"], "trivial")
        times = []
        for _ in range(WARM_STARTS):
            host.operator.stop("trivial")
            eventually(lambda: host.operator.state("trivial") == "STOPPED")
            times.append(_seconds(lambda: _start_and_call(host)) * 1000)
        pid = int(host.operator.predict("trivial"))
        time.sleep(IDLE_SECONDS)
        rss, pss = memory_mib(pid)
    finally:
        host.close()
    return [
        Cost("warm_start", "start of a trivial Python 3.6 model to its first answer", statistics.median(times), "ms"),
        Cost("warm_start_worst", f"the slowest of {WARM_STARTS}", max(times), "ms"),
        Cost("idle_worker", "RSS of its worker, idle", rss, "MiB"),
        Cost("idle_worker_pss", "PSS of it", pss, "MiB"),
    ]


def _start_and_call(host: Host) -> None:
    """Wait as the `modelhost` command does: calls that only ask whether it runs would take the time of its start."""
    host.operator.start("trivial")
    changes = host.operator.admin.WatchDeployment(deployment_pb2.WatchDeploymentRequest(name="trivial"))
    while next(changes).deployment.state != deployment_pb2.Deployment.STATE_RUNNING:
        pass
    host.operator.predict("trivial")
    changes.cancel()


def list_scale(folder: Path, interpreter: Path) -> list[Cost]:
    """A page of `List`, and `Get`, with few deployments and with many."""
    hosts = []
    try:
        for count in (FEW, MANY):
            (folder / str(count)).mkdir(mode=0o711)
            hosts.append(_host_with(folder / str(count), interpreter, count))
        few, many = hosts
        middle = _token_after(many, MANY // 2)
        questions: list[tuple[str, Callable[[], object]]] = [
            ("few", lambda: _page(few, "")),
            ("many", lambda: _page(many, "")),
            ("middle", lambda: _page(many, middle)),
            ("get_few", lambda: few.operator.get("listed")),
            ("get_many", lambda: many.operator.get("listed-05000")),
        ]
        times: dict[str, list[float]] = {}
        for _ in range(LISTS):
            random.shuffle(questions)  # no question is always asked after the same other one
            for name, ask in questions:
                times.setdefault(name, []).append(_seconds(ask) * 1000)
        found = {name: statistics.median(each) for name, each in times.items()}
    finally:
        for host in hosts:
            host.close()
    worst = max(found["many"], found["middle"])
    return [
        Cost("list_scale", f"page of {PAGE} of {MANY:,} deployments over one of {FEW}", worst / found["few"], ""),
        Cost("list_few", f"first page of {FEW}", found["few"], "ms"),
        Cost("list_many", f"first page of {MANY:,}", found["many"], "ms"),
        Cost("list_middle", f"a page in the middle of {MANY:,}", found["middle"], "ms"),
        Cost("get_few", f"Get with {FEW} registered", found["get_few"], "ms"),
        Cost("get_many", f"Get with {MANY:,} registered", found["get_many"], "ms"),
    ]


def _host_with(folder: Path, interpreter: Path, count: int) -> Host:
    host = Host(folder, interpreter)
    host.add_model("trivial")
    host.operator.create("listed", "trivial")
    host.daemon.stop()
    asyncio.run(_multiply(host.daemon.state_dir, count))
    host.daemon.start()
    return host


async def _multiply(state_dir: Path, count: int) -> None:
    """Have so many deployments like the one that is there."""
    database = Database(StateDir(state_dir).database)

    def insert(tx: Transaction) -> None:
        first = deployments.get(tx, "listed")
        assert first is not None
        revision = deployments.revision(tx, first.uid, first.target)
        assert revision is not None
        for number in range(1, count):
            uid, name = uuid.uuid4().hex, f"listed-{number:05}"
            deployments.insert(tx, replace(first, uid=uid, id=name, service_id=f"svc-{uid[:16]}"))
            deployments.insert_revision(tx, replace(revision, deployment_uid=uid))

    await database.run(insert)
    database.close()


def _page(host: Host, token: str, size: int = PAGE) -> deployment_pb2.ListDeploymentsResponse:
    request = deployment_pb2.ListDeploymentsRequest(page_size=size, page_token=token)
    answer: deployment_pb2.ListDeploymentsResponse = host.operator.admin.ListDeployments(request)
    assert len(answer.deployments) == size, f"a page has {len(answer.deployments)} deployments, not {size}"
    return answer


def _token_after(host: Host, count: int) -> str:
    token = ""
    for _ in range(count // 100):
        token = _page(host, token, 100).next_page_token
    return token


def restart(folder: Path, interpreter: Path) -> list[Cost]:
    """A start of the server whose state has many deployments that run."""
    host = Host(folder, interpreter)
    try:
        host.add_model("trivial")
        names = [f"running-{number:03}" for number in range(RUNNING)]
        host.deploy(names[:1], "trivial")
        host.deploy(names[1:], "trivial")
        host.daemon.stop()
        begun = time.perf_counter()
        host.daemon.start()
        serving = time.perf_counter() - begun
        for name in names:
            host.operator.predict_when_up(name)
        answering = time.perf_counter() - begun
    finally:
        host.close()
    return [
        Cost(
            "restart_serving", f"start of the server with {RUNNING} deployments that run, until it serves", serving, "s"
        ),
        Cost("restart_answering", f"the same, until all {RUNNING} have answered", answering, "s"),
    ]


def _seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


MEASURES: dict[str, Callable[[Path, Path], list[Cost]]] = {
    "warm_start": warm_start,
    "list_scale": list_scale,
    "restart": restart,
    "environment": environment,
}
