"""A server that is killed in the middle of a build is started again, carries on, and leaves nothing half-made."""

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.e2e.daemon import Daemon, alive
from tests.e2e.slow import Gate, SlowGit, Stray
from tests.e2e.steps import Operator
from tests.git_repos import Repo
from tests.running import eventually

MODEL = b"def predict(parameters):\n    return 'here'\n"


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()


@pytest.fixture
def stray(shared: Path) -> Stray:
    return Stray(shared / "strays")


@pytest.fixture
def slow_git(repo: Repo) -> Iterator[SlowGit]:
    with SlowGit(repo.path.parent).running() as git:
        yield git


def assert_runs_with_nothing_left_of_before(daemon: Daemon, operator: Operator, name: str) -> None:
    """The deployment comes up by itself, and the state directory holds only what is whole or in use."""
    operator.wait_until_running(name)
    assert operator.predict(name) == "here"
    state = daemon.state_dir
    folders = [folder for folder in (state / "environments").iterdir() if folder.name != ".locks"]
    assert len(folders) == 1
    assert (folders[0] / "manifest.json").exists()
    assert not (folders[0] / ".build").exists()
    assert list((state / "environments" / ".locks").iterdir()) == []
    assert [entry.name for entry in (state / "snapshots").iterdir() if len(entry.name) != 64] == []
    assert len(list((state / "workers").iterdir())) == operator.get(name).observed.live_workers == 1


@pytest.mark.parametrize(("held", "connection"), [("asking for the branch", 1), ("fetching the commit", 2)])
def test_killed_while_it_talks_to_the_git_server(
    daemon: Daemon, operator: Operator, repo: Repo, slow_git: SlowGit, held: str, connection: int
) -> None:
    repo.commit({"main.py": MODEL})
    operator.add_source("models", f"{slow_git.url}/{repo.path.name}")
    slow_git.hold(connection)
    operator.begin("model", "models")
    slow_git.wait_until_reached()
    assert operator.revision_state("model") == "FETCHING"

    before = daemon.kill()
    assert [process for process in alive(before) if "git" in process.command], "Git outlives the server, to be ended"
    slow_git.release()
    daemon.start()

    assert alive(before) == []
    assert_runs_with_nothing_left_of_before(daemon, operator, "model")


def test_killed_while_it_writes_a_snapshot(daemon: Daemon, operator: Operator, repo: Repo) -> None:
    repo.commit({"main.py": MODEL, **{f"data/{number}": b"%d" % number for number in range(800)}})
    operator.add_source("models", repo)
    operator.begin("model", "models")
    snapshots = daemon.state_dir / "snapshots"
    eventually(lambda: list(snapshots.glob(".tmp-*/files/data/1*")))

    before = daemon.kill()
    assert list(snapshots.glob(".tmp-*")), "killed too late to show anything"
    daemon.start()

    assert alive(before) == []
    assert_runs_with_nothing_left_of_before(daemon, operator, "model")


def test_killed_while_pip_builds_a_package(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate, stray: Stray
) -> None:
    setup = f"{stray.code}{gate.code}from setuptools import setup\nsetup(name='slow', version='1.0')\n"
    repo.commit({"main.py": MODEL, "requirements.txt": b"./slow\n", "slow/setup.py": setup.encode()})
    operator.add_source("models", repo)
    operator.begin("model", "models")
    gate.wait_until_reached()
    strayed = stray.wait_until_there()
    assert operator.revision_state("model") == "PROVISIONING"

    before = daemon.kill()
    commands = [process.command for process in alive(before)]
    assert any("setup.py" in command for command in commands), commands
    assert strayed in [process.pid for process in alive(before)]
    daemon.start()

    assert alive(before) == []
    gate.wait_until_reached()
    gate.open()
    assert_runs_with_nothing_left_of_before(daemon, operator, "model")


def test_killed_twice_while_a_worker_loads_the_model(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate, stray: Stray
) -> None:
    repo.commit({"main.py": f"{stray.code}{gate.code}".encode() + MODEL})
    operator.add_source("models", repo)
    operator.begin("model", "models")
    gate.wait_until_reached()
    strayed = stray.wait_until_there()
    assert operator.revision_state("model") == "LOADING"
    directories = os.listdir(daemon.state_dir / "workers")
    assert len(directories) == 1

    first = daemon.kill()
    eventually(lambda: [process.pid for process in alive(first)] == [strayed])  # the kernel ends the worker itself
    daemon.start()

    assert alive(first) == []
    gate.wait_until_reached()
    assert not set(directories) & set(os.listdir(daemon.state_dir / "workers"))
    second = daemon.restart()
    assert alive(second) == []
    gate.wait_until_reached()
    gate.open()
    assert_runs_with_nothing_left_of_before(daemon, operator, "model")


def test_killed_while_a_data_source_is_tested(
    daemon: Daemon, operator: Operator, repo: Repo, slow_git: SlowGit
) -> None:
    """What an operator asks for is no build, but it runs Git, too."""
    repo.commit({"main.py": MODEL})
    operator.add_source("models", f"{slow_git.url}/{repo.path.name}")
    slow_git.hold(1)
    testing = operator.begin_source_test("models")
    slow_git.wait_until_reached()

    before = daemon.kill()
    with pytest.raises(grpc.RpcError):
        testing.result()
    assert [process for process in alive(before) if "git" in process.command], "Git outlives the server, to be ended"
    daemon.start()

    assert alive(before) == []


def test_a_model_that_cannot_be_built_is_not_tried_for_ever(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate
) -> None:
    repo.commit({"main.py": f"{gate.code}raise ImportError('no luck')\n".encode()})
    operator.add_source("models", repo)
    operator.begin("model", "models")
    gate.wait_until_reached()

    daemon.restart()
    gate.open()

    eventually(lambda: operator.state("model") == "FAILED")
    daemon.restart()
    assert operator.state("model") == "FAILED"
    assert operator.get("model").failure.message == "ImportError: no luck"
