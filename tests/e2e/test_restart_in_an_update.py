"""A server that is killed in any step of an update: the old revision serves, the new one ends well or says why."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhost.server.errors import reason_name
from modelhost.v1 import deployment_pb2
from tests.e2e.daemon import Daemon, alive
from tests.e2e.slow import Gate, SlowGit
from tests.e2e.steps import Deployment, Operator
from tests.git_repos import Repo
from tests.running import eventually

OLD = b"def predict(parameters):\n    return 'old'\n"
NEW = b"def predict(parameters):\n    return 'new'\n"


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()


@pytest.fixture
def service(operator: Operator, repo: Repo) -> str:
    """Of a deployment that runs its first revision."""
    repo.commit({"main.py": OLD})
    operator.add_source("models", repo)
    return str(operator.deploy("model", "models").service.removeprefix("services/"))


def in_a_call(gate: Gate, result: str) -> bytes:
    """A model whose calls wait at the gate."""
    body = "".join(f"    {line}\n" for line in gate.code.splitlines())
    return f"def predict(parameters):\n{body}    return {result!r}\n".encode()


def setup_py(gate: Gate) -> bytes:
    return f"{gate.code}from setuptools import setup\nsetup(name='slow', version='1.0')\n".encode()


def assert_ended(daemon: Daemon, operator: Operator, service: str, answer: str, active: int) -> None:
    """The update is over, `answer` is what is served, and nothing half-made is left."""
    eventually(lambda: operator.get("model").update_state != Deployment.UPDATE_STATE_IN_PROGRESS, seconds=120)
    deployment = operator.get("model")
    assert (deployment.state, deployment.active_revision) == (Deployment.STATE_RUNNING, active)
    assert operator.predict(service) == answer
    state = daemon.state_dir
    for folder in (state / "environments").iterdir():
        assert folder.name == ".locks" or (folder / "manifest.json").exists()
    assert [entry.name for entry in (state / "snapshots").iterdir() if len(entry.name) != 64] == []
    eventually(lambda: len(list((state / "workers").iterdir())) == 1)


@pytest.mark.parametrize("step", ["PROVISIONING", "LOADING", "the test call"])
def test_killed_in_a_step_of_an_update(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate, service: str, step: str
) -> None:
    match step:
        case "PROVISIONING":
            repo.commit({"main.py": NEW, "requirements.txt": b"./slow\n", "slow/setup.py": setup_py(gate)})
        case "LOADING":
            repo.commit({"main.py": gate.code.encode() + NEW})
        case _:
            repo.commit({"main.py": in_a_call(gate, "new"), "modelhost.toml": b"[test]\nparameters = 1\n"})
    operator.update("model")
    gate.wait_until_reached()
    assert operator.revision_state("model", 2) == ("LOADING" if step == "the test call" else step)

    before = daemon.restart()

    assert alive(before) == []
    assert operator.predict_when_up(service) == "old"
    gate.wait_until_reached()
    assert operator.predict(service) == "old"
    gate.open()
    assert_ended(daemon, operator, service, "new", 2)
    assert operator.get("model").update_state == Deployment.UPDATE_STATE_DONE
    assert operator.revision_state("model", 2) == "READY"


@pytest.mark.parametrize(("held", "connection"), [("asking for the branch", 1), ("fetching the commit", 2)])
def test_killed_while_an_update_is_fetched(
    daemon: Daemon, operator: Operator, repo: Repo, held: str, connection: int
) -> None:
    with SlowGit(repo.path.parent).running() as git:
        repo.commit({"main.py": OLD})
        operator.add_source("models", f"{git.url}/{repo.path.name}")
        service = operator.deploy("model", "models").service.removeprefix("services/")
        repo.commit({"main.py": NEW})
        git.hold(connection)
        operator.update("model")
        git.wait_until_reached()
        assert operator.revision_state("model", 2) == "FETCHING"

        before = daemon.restart()

        assert alive(before) == []
        assert operator.predict_when_up(service) == "old"  # Git is still held
        assert operator.get("model").update_state == Deployment.UPDATE_STATE_IN_PROGRESS
        git.release()
        assert_ended(daemon, operator, service, "new", 2)


def test_killed_while_the_old_revision_finishes_its_calls(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate
) -> None:
    repo.commit({"main.py": in_a_call(gate, "old")})
    operator.add_source("models", repo)
    service = operator.deploy("model", "models").service.removeprefix("services/")
    operator.begin_call(service)
    gate.wait_until_reached()
    repo.commit({"main.py": NEW})
    operator.update("model")
    eventually(lambda: operator.get("model").active_revision == 2)

    before = daemon.restart()

    assert alive(before) == []
    assert operator.predict_when_up(service) == "new"
    assert_ended(daemon, operator, service, "new", 2)


def test_killed_in_an_update_that_then_fails(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate, service: str
) -> None:
    repo.commit({"main.py": gate.code.encode() + b"raise ValueError('not today')\n"})
    operator.update("model")
    gate.wait_until_reached()

    daemon.restart()

    assert operator.predict_when_up(service) == "old"
    gate.open()
    assert_ended(daemon, operator, service, "old", 1)
    failed = operator.get("model")
    assert failed.update_state == Deployment.UPDATE_STATE_FAILED
    assert "not today" in failed.failure.message
    assert operator.revision_state("model", 2) == "FAILED"
    assert operator.begin_call(service).result() == "old"


def test_killed_in_a_rollback(daemon: Daemon, operator: Operator, repo: Repo, gate: Gate) -> None:
    repo.commit({"main.py": gate.code.encode() + OLD})
    operator.add_source("models", repo)
    gate.open()
    service = operator.deploy("model", "models").service.removeprefix("services/")
    repo.commit({"main.py": NEW})
    operator.update("model")
    eventually(lambda: operator.get("model").active_revision == 2)
    gate.wait_until_reached()
    gate.close()
    operator.admin.RollbackDeployment(deployment_pb2.RollbackDeploymentRequest(name="model", revision=1))
    gate.wait_until_reached()

    daemon.restart()

    assert operator.predict_when_up(service) == "new"
    gate.wait_until_reached()
    gate.open()
    assert_ended(daemon, operator, service, "old", 1)


def test_killed_after_many_updates_only_the_last_is_built(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate, service: str
) -> None:
    repo.commit({"main.py": gate.code.encode() + b"def predict(parameters):\n    return 'between'\n"})
    for _ in range(5):
        operator.update("model")
    gate.wait_until_reached()
    repo.commit({"main.py": NEW})
    operator.update("model")

    daemon.restart()

    gate.open()
    operator.predict_when_up(service)
    assert_ended(daemon, operator, service, "new", 7)
    found = operator.admin.ListRevisions(deployment_pb2.ListRevisionsRequest(parent="model")).revisions
    states = {one.number: deployment_pb2.Revision.State.Name(one.state) for one in found}
    assert states == {1: "STATE_READY", 7: "STATE_READY", **dict.fromkeys(range(2, 7), "STATE_FAILED")}
    reasons = {reason_name(one.failure.reason) for one in found if 1 < one.number < 7}
    assert reasons == {"REVISION_SUPERSEDED"}
