"""`modelhost serve` ends when it is asked to: cleanly, and without losing anything."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelhost.client import Client, ModelHostError
from tests.e2e.daemon import STOP_SECONDS, Daemon, alive, python
from tests.e2e.slow import Gate, SlowGit
from tests.e2e.steps import Deployment, Operator
from tests.git_repos import Repo
from tests.running import eventually

MODEL = b"def predict(parameters):\n    return 'here'\n"


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_it_ends_when_it_is_asked_to_once_the_calls_under_way_are_finished(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate, number: signal.Signals
) -> None:
    body = "".join(f"    {line}\n" for line in gate.code.splitlines())
    repo.commit({"main.py": f"def predict(parameters):\n{body}    return 'finished'\n".encode()})
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    call = operator.begin_call("model")
    gate.wait_until_reached()
    running = daemon.processes()
    assert len(running) == 1

    address, token = daemon.address, daemon.token
    os.kill(daemon.pid, number) if number is signal.SIGTERM else os.killpg(daemon.pid, number)
    eventually(lambda: not is_listening(address, token))
    assert not call.done()
    gate.open()

    assert call.result(STOP_SECONDS) == "finished"
    assert daemon.wait() == 0
    assert alive(running) == []
    assert list((daemon.state_dir / "workers").iterdir()) == []
    assert list(Path(daemon.environment["XDG_RUNTIME_DIR"], "modelhost").iterdir()) == []
    assert json.loads(daemon.log_text().splitlines()[-1])["event"] == "stopped"


def test_asked_a_second_time_it_ends_at_once_whatever_the_calls_under_way_do(
    make_daemon: Callable[..., Daemon], repo: Repo, gate: Gate
) -> None:
    daemon = make_daemon("patient", "--stop-grace", "3600", "--interpreter", str(python("3.6"))).start()
    operator = Operator(daemon)
    body = "".join(f"    {line}\n" for line in gate.code.splitlines())
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    repo.commit({"main.py": f"{stubborn}def predict(parameters):\n{body}    return 'finished'\n".encode()})
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    call = operator.begin_call("model")
    gate.wait_until_reached()
    running = daemon.processes()

    os.kill(daemon.pid, signal.SIGTERM)
    eventually(lambda: '"ending; calls under way may finish' in daemon.log_text())
    assert not call.done()
    os.kill(daemon.pid, signal.SIGTERM)

    assert daemon.wait() == 0
    assert alive(running) == []
    assert isinstance(call.exception(STOP_SECONDS), ModelHostError)
    assert json.loads(daemon.log_text().splitlines()[-1])["event"] == "stopped"
    daemon.start()
    assert operator.get("model").state == Deployment.STATE_RUNNING


def test_a_call_that_is_not_finished_when_the_grace_is_over_is_told_why(
    make_daemon: Callable[..., Daemon], repo: Repo, gate: Gate
) -> None:
    daemon = make_daemon("hasty", "--stop-grace", "0.5", "--interpreter", str(python("3.6"))).start()
    operator = Operator(daemon)
    body = "".join(f"    {line}\n" for line in gate.code.splitlines())
    repo.commit({"main.py": f"def predict(parameters):\n{body}    return 'finished'\n".encode()})
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    call = operator.begin_call("model")
    gate.wait_until_reached()
    running = daemon.processes()

    assert daemon.stop() == 0

    error = call.exception(STOP_SECONDS)
    assert isinstance(error, ModelHostError)
    assert (error.code.name, error.reason) == ("UNAVAILABLE", "SERVER_STOPPING")
    assert alive(running) == []


def is_listening(address: str, token: str) -> bool:
    """Whether a new call is taken."""
    try:
        with Client(address, token, timeout=3) as client:
            client.admin.ListDeployments(Operator.list_request())
    except ModelHostError as error:
        # What comes as gRPC closes answers CANCELLED (grpc#41785), or never: then the next call tells.
        if error.code.name not in ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"):
            raise
        return error.code.name == "DEADLINE_EXCEEDED"
    return True


def test_asked_to_end_in_the_middle_of_a_build_it_ends_what_it_started_and_carries_on_later(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate
) -> None:
    setup = f"{gate.code}from setuptools import setup\nsetup(name='slow', version='1.0')\n"
    repo.commit({"main.py": MODEL, "requirements.txt": b"./slow\n", "slow/setup.py": setup.encode()})
    operator.add_source("models", repo)
    operator.begin("model", "models")
    gate.wait_until_reached()
    running = daemon.processes()
    assert any("setup.py" in process.command for process in running)

    assert daemon.stop() == 0

    assert alive(running) == []
    assert list((daemon.state_dir / "environments").glob("[!.]*")) == []
    gate.open()
    daemon.start()
    assert "interrupted" in operator.build_log("model")
    operator.wait_until_running("model")
    assert operator.predict("model") == "here"


def test_a_git_server_that_does_not_answer_does_not_keep_it_from_ending(
    daemon: Daemon, operator: Operator, repo: Repo
) -> None:
    repo.commit({"main.py": MODEL})
    with SlowGit(repo.path.parent).running() as git:
        operator.add_source("models", f"{git.url}/{repo.path.name}")
        git.hold(1)
        testing = operator.begin_source_test("models")
        validating = operator.begin_validation("model", "models")
        eventually(lambda: git.connections == 2)
        running = daemon.processes()

        assert daemon.stop() == 0

        assert alive(running) == []
        assert testing.exception() is not None
        assert validating.exception() is not None
