"""Models that do all they should not, deployed beside one that is called without a pause: it does not notice.

Each is deployed as anybody would, does its worst, and is deleted: then nothing of it is left.
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelhost.client import ModelHostError
from modelhost.server.serving.isolation import landlock_abi
from modelhost.v1 import deployment_pb2
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.checks import leftovers
from tests.e2e.daemon import processes_of
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually

MODELS = Path(__file__).parents[1] / "models"
CALLERS = 3
FIRST_UID, RANGES = 400_000, 500
USERS = range(start := FIRST_UID + os.getpid() % RANGES * 200, start + 200)  # of this process's servers alone
MIB = 1 << 20
DENIED = {"EACCES", "EPERM", "ENOENT"}


class Neighbour:
    """A deployment, and callers that check each of its answers."""

    def __init__(self, server: RunningServer, name: str) -> None:
        self.answers = 0
        self.faults: list[str] = []
        self.pid = 0  # of its worker
        self._server = server
        self._name = name
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _call(self, caller: int) -> None:
        number = caller
        while not self._done.is_set():
            number += CALLERS
            try:
                answer = self._server.predict(self._name, {"x": number, "echo": f"of {caller}"})
            except ModelHostError as error:
                self.faults.append(f"{error.code.name} {error}")
            else:
                if (answer["value"], answer["echo"]) != (number * 31 + 7, f"of {caller}"):
                    self.faults.append(f"{number} is answered with {answer}")
                self.pid = answer["pid"]
                self.answers += 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("neighbours") / "state", worker_uids=USERS) as running:
        yield running


@pytest.fixture(scope="module")
def neighbour(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbour]:
    """One for all tests: it is called throughout."""
    repo = Repo(tmp_path_factory.mktemp("neighbour") / "repo")
    repo.commit({"main.py": (MODELS / "chaos" / "main.py").read_bytes(), "constant": b"7\n"})
    server.add_source("neighbour", repo)
    server.deploy("neighbour", "neighbour")
    neighbour = Neighbour(server, "neighbour")
    neighbour.start()
    yield neighbour
    neighbour.stop()
    assert neighbour.faults == []


@pytest.fixture
def undisturbed(server: RunningServer, neighbour: Neighbour, name: str) -> Iterator[None]:
    """The neighbour is answered all the time; and when the other is deleted, nothing of it is left."""
    before, answered = remains(server), neighbour.answers
    yield
    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))
    eventually(lambda: name not in deployments(server))
    assert remains(server) == before
    assert neighbour.answers > answered
    assert neighbour.faults == []


def remains(server: RunningServer) -> set[str]:
    """Workers, what they have started, and their directories."""
    return leftovers(server.state_dir) | {f"{process.pid} {process.command}" for process in processes_of(USERS)}


def deployments(server: RunningServer) -> set[str]:
    found = server.client.admin.ListDeployments(deployment_pb2.ListDeploymentsRequest(page_size=1000)).deployments
    return {each.name.removeprefix("deployments/") for each in found}


# ---- models that are called


@dataclass(frozen=True)
class Misdeed:
    """What a model is called with, in turn, and how each of the calls must end: a reason, or what it returns."""

    what: str
    model: str
    calls: list[tuple[Any, Any]]
    settings: dict[str, Any] = field(default_factory=dict)


def fails(reason: str) -> str:
    return f"fails with {reason}"


DIES, OVERRUNS, RAISES = fails("WORKER_DIED"), fails("MODEL_TIMED_OUT"), fails("MODEL_RAISED")
SOON = {"limits": {"call_timeout": {"seconds": 1}}}
MISDEEDS = [
    Misdeed("crashes on the third call", "dies_on_the_third_call", [(0, 1), (0, 2), (0, DIES)] * 2),
    Misdeed("ends its process", "exits_quietly", [(0, DIES)]),
    Misdeed("reads at address zero", "segfaults", [(0, DIES)]),
    Misdeed("never returns", "never_returns", [("loop", OVERRUNS), ("pid", int)], SOON),
    Misdeed("ignores SIGTERM", "never_returns", [("stubborn", OVERRUNS), ("pid", int)], SOON),
    Misdeed(
        "leaves children",
        "leaves_children",
        [(kind, int) for kind in ("group", "session", "twice", "bare")] + [("die", DIES), ("session", int)],
    ),
    Misdeed("prints a gigabyte", "floods", [({"megabytes": 1024, "lines": True, "width": 4096}, 1 << 30)]),
    Misdeed("prints a long line", "floods", [({"megabytes": 64, "lines": False}, 64 * MIB)]),
    Misdeed("closes its stdout", "closes_stdout", [("close", 1), ("again", "again")]),
    Misdeed("writes to every low descriptor", "writes_everywhere", [("once", "once"), ("twice", "twice")]),
    Misdeed(
        "takes more and more memory",
        "grows",
        [({"take": 300, "stay": True}, DIES), ({"take": 10}, int)],
        {"limits": {"memory_bytes": 150 * MIB}},
    ),
    Misdeed("returns 200 MB", "returns_much", [(200, fails("RESULT_TOO_LARGE")), (0, "")]),
    Misdeed("raises what cannot be printed", "raises_the_unspeakable", [("raise", RAISES), ("on", "on")]),
    Misdeed("ends where its error is printed", "raises_the_unspeakable", [("end", DIES), ("on", "on")]),
    Misdeed("kills its process group", "kills_its_group", [("kill", DIES), ("on", "on")]),
    Misdeed("closes its link", "meddles_with_the_link", [(["close", 2], DIES), (["pid", 3], int)]),
    Misdeed("writes noise into its link", "meddles_with_the_link", [(["noise", 2], DIES), (["pid", 3], int)]),
]  # fmt: skip


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("misdeed", MISDEEDS, ids=lambda misdeed: misdeed.what.replace(" ", "-"))
def test_a_model_that_misbehaves_in_calls_harms_those_calls_alone(
    server: RunningServer, repo: Repo, source: str, name: str, misdeed: Misdeed
) -> None:
    repo.commit({"main.py": (MODELS / f"{misdeed.model}.py").read_bytes()})
    server.deploy(name, source, **misdeed.settings)

    for parameters, expected in misdeed.calls:
        try:
            found = server.predict(name, parameters)
        except ModelHostError as error:
            found = fails(error.reason)

        assert isinstance(found, expected) if isinstance(expected, type) else found == expected

    assert server.get(name).state == Deployment.STATE_RUNNING


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.skipif(os.geteuid() != 0, reason="without a user of its own, nothing tells it from anybody's")
def test_a_child_that_has_not_even_its_environment_goes_with_its_model(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": (MODELS / "leaves_children.py").read_bytes()})
    server.deploy(name, source)

    stranger = server.predict(name, "stranger")

    assert stranger in {process.pid for process in processes_of(USERS)}


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.skipif(os.geteuid() != 0 and landlock_abi() < 6, reason="nothing here keeps it from ending this process")
def test_a_model_that_prowls_gets_nowhere(
    server: RunningServer, neighbour: Neighbour, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": (MODELS / "prowls.py").read_bytes()})
    server.deploy(name, source)
    state = server.state_dir

    assert server.predict(name, {"do": "kill", "pid": os.getpid()}) == "EPERM"
    assert server.predict(name, {"do": "kill", "pid": neighbour.pid}) in ("EPERM", "ESRCH")
    for path in ("admin.token", "secret.key", "modelhost.db"):
        assert server.predict(name, {"do": "read", "path": str(state / path)}) in DENIED
    for path in ("logs", "snapshots"):
        assert server.predict(name, {"do": "list", "path": str(state / path)}) in DENIED
    # What it needs lies in there, so it may pass; where the way is covered, it sees that and nothing else.
    own = Path(server.predict(name, {"do": "me"})["cwd"]).parent.name
    for path, seen in (("", ["environments", "workers"]), ("workers", [own])):
        assert server.predict(name, {"do": "list", "path": str(state / path)}) in (seen, *DENIED)


# ---- models that never come up


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    ("model", "reason", "words"),
    [
        ("dies_at_import", "WORKER_DIED_LOADING", "signal SIGSEGV"),
        ("raises_at_import", "IMPORT_FAILED", "not like this"),
        ("sleeps_in_setup", "LOAD_TIMED_OUT", "within 1 s"),
    ],
)
def test_a_model_that_cannot_be_loaded_fails_and_says_why(
    server: RunningServer, repo: Repo, source: str, name: str, model: str, reason: str, words: str
) -> None:
    repo.commit({"main.py": (MODELS / f"{model}.py").read_bytes()})
    limits = {"load_timeout": {"seconds": 1 if reason == "LOAD_TIMED_OUT" else 60}}
    server.create(name, source, limits=limits)

    failed = server.start(name)

    assert failed.state == Deployment.STATE_FAILED
    assert ErrorReason.Name(failed.failure.reason) == f"ERROR_REASON_{reason}"
    assert words in failed.failure.message
