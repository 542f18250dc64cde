"""A server that is killed and started again has forgotten nothing: what ran runs, what was wished is done."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelhost.client import ModelHostError
from tests.e2e.daemon import Daemon, alive, python
from tests.e2e.slow import Gate, Stray
from tests.e2e.steps import Deployment, Operator
from tests.git_repos import Repo
from tests.running import eventually

PYTHON = b"def predict(parameters):\n    return {'here': parameters}\n"
PREDICT, ADMIN = "modelhost.v1.Predict", "modelhost.v1.Admin"
R = b"score <- function(parameters) list(here = parameters)\n"


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()


def model_that_waits_in_a_call(gate: Gate, *, stubborn: bool = False) -> bytes:
    """A call stays until the gate is open; a stubborn model does not end when it is asked to."""
    body = "".join(f"    {line}\n" for line in gate.code.splitlines())
    ignore = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    return f"{ignore}def predict(parameters):\n{body}    return 'finished'\n".encode()


def test_running_deployments_of_every_runtime_are_back_with_their_service_ids_and_answers(
    make_daemon: Callable[..., Daemon], repo: Repo, shared: Path
) -> None:
    daemon = make_daemon("host", "--interpreter", str(python("2.7")), "--interpreter", str(python("3.6"))).start()
    operator = Operator(daemon)
    stray = Stray(shared / "strays")
    repo.commit({"main.py": stray.code.encode() + PYTHON, "main.R": R})
    operator.add_source("models", repo)
    runtimes = {"old": "python2.7", "newer": "python3.6", "r": operator.r_runtime()}
    for name, runtime in runtimes.items():
        operator.begin(name, "models", runtime=runtime, unbox=True)
    services = {name: operator.wait_until_running(name).service.removeprefix("services/") for name in runtimes}
    answers = {name: operator.predict(name, 7) for name in runtimes}
    assert all(answer == {"here": 7} for answer in answers.values()), answers
    stray.wait_until_there()

    before = daemon.restart()

    assert len(before) >= 2 * len(runtimes) - 1, "three workers and the children of two"
    assert alive(before) == []
    for name, service in services.items():
        assert operator.get(name).service == f"services/{service}"
        assert operator.predict_when_up(service, 7) == {"here": 7}
        assert operator.get(name).active_revision == 1
    assert len(list((daemon.state_dir / "workers").iterdir())) == len(runtimes)
    assert len(list((daemon.state_dir / "environments").glob("*/manifest.json"))) == len(runtimes), "none was rebuilt"


def test_a_server_is_alive_at_once_and_ready_when_what_ran_runs_again(
    daemon: Daemon, operator: Operator, repo: Repo, gate: Gate
) -> None:
    gate.open()
    repo.commit({"main.py": gate.code.encode() + PYTHON})
    operator.add_source("models", repo)
    operator.deploy("slow", "models")
    gate.wait_until_reached()
    gate.close()

    daemon.restart()
    gate.wait_until_reached()

    with grpc.insecure_channel(daemon.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=PREDICT))
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", ADMIN):
            alive_too = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
            assert alive_too.status == health_pb2.HealthCheckResponse.SERVING
        gate.open()
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
    assert operator.predict("slow", 1) == {"here": 1}


def test_stopped_deployments_failures_and_failed_updates_are_as_they_were(
    daemon: Daemon, operator: Operator, repo: Repo
) -> None:
    repo.commit({"main.py": PYTHON})
    operator.add_source("models", repo)
    operator.deploy("stopped", "models")
    operator.stop("stopped")
    operator.deploy("updated", "models")
    repo.commit({"main.py": b"import no_such_module\n"})
    operator.update("updated")
    operator.begin("failed", "models")
    states = ["FAILED", "STOPPED", "RUNNING"]
    names = ["failed", "stopped", "updated"]
    eventually(lambda: [operator.state(name) for name in names] == states)
    eventually(lambda: operator.get("updated").update_state == Deployment.UPDATE_STATE_FAILED)
    before = [operator.get(name) for name in names]

    daemon.restart()

    assert operator.predict_when_up("updated", 1) == {"here": 1}
    after = [operator.get(name) for name in names]
    assert after[:2] == before[:2]
    assert [operator.state(name) for name in names] == states
    assert (after[2].update_state, after[2].failure) == (before[2].update_state, before[2].failure)
    assert len(daemon.processes()) == 1


def test_killed_while_it_stops_a_deployment(daemon: Daemon, operator: Operator, repo: Repo, gate: Gate) -> None:
    repo.commit({"main.py": model_that_waits_in_a_call(gate)})
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    call = operator.begin_call("model")
    gate.wait_until_reached()
    operator.stop("model")
    assert operator.state("model") == "STOPPING", "a call is under way"

    before = daemon.restart()

    with pytest.raises(ModelHostError) as lost:
        call.result()
    assert lost.value.code.name == "UNAVAILABLE"
    assert alive(before) == []
    eventually(lambda: operator.state("model") == "STOPPED")
    assert list((daemon.state_dir / "workers").iterdir()) == []
    operator.start("model")
    gate.open()
    assert operator.predict_when_up("model") == "finished"


def test_killed_while_it_deletes_a_deployment(daemon: Daemon, operator: Operator, repo: Repo, gate: Gate) -> None:
    repo.commit({"main.py": model_that_waits_in_a_call(gate, stubborn=True)})
    operator.add_source("models", repo)
    deployment = operator.deploy("model", "models")
    operator.begin_call("model")
    gate.wait_until_reached()
    operator.delete("model")
    assert operator.state("model") == "DELETING", "its worker does not want to end"

    before = daemon.restart()

    assert alive(before) == []
    eventually(lambda: operator.names() == [])
    with pytest.raises(ModelHostError) as gone:
        operator.predict(deployment.service.removeprefix("services/"))
    assert gone.value.reason == "SERVICE_NOT_FOUND"
    assert list((daemon.state_dir / "logs").iterdir()) == []
    assert operator.create("model", "models").service != deployment.service


def test_what_was_acknowledged_survives_a_kill_right_after_the_answer(
    daemon: Daemon, operator: Operator, repo: Repo
) -> None:
    repo.commit({"main.py": PYTHON})
    operator.add_source("models", repo)
    daemon.restart()
    request_id = str(uuid.uuid4())
    created = operator.create("model", "models", function="predict", request_id=request_id)
    daemon.restart()
    assert operator.get("model") == created
    assert operator.create("model", "models", function="predict", request_id=request_id) == created, "a repeat"

    updated = operator.update("model")
    daemon.restart()
    assert operator.get("model") == updated
    assert updated.target_revision == 2

    operator.start("model")
    daemon.restart()
    operator.wait_until_running("model")
    assert operator.get("model").active_revision == 2

    operator.delete("model")
    daemon.restart()
    eventually(lambda: operator.names() == [])


def test_an_environment_that_vanished_is_built_again(daemon: Daemon, operator: Operator, repo: Repo) -> None:
    repo.commit({"main.py": PYTHON})
    operator.add_source("models", repo)
    operator.deploy("model", "models")

    daemon.kill()
    for manifest in (daemon.state_dir / "environments").glob("*/manifest.json"):
        manifest.unlink()
    for file in (daemon.state_dir / "snapshots").glob("*/files/main.py"):
        file.write_bytes(b"damaged")
    daemon.start()

    assert operator.predict_when_up("model", 1) == {"here": 1}
