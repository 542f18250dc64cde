"""What Prometheus reads of a server says exactly what happened in it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from modelhost.client import ModelHostError, TimedOut
from modelhost.server.app import App
from modelhost.server.config import ServerSettings
from modelhost.v1 import deployment_pb2, predict_pb2
from tests.checks import Gate, raw_call, raw_channel, refused
from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import RunningServer, eventually
from tests.scraping import Scrape, get, scrape

PREDICT = "/modelhost.v1.Predict/Predict"
RPC = predict_pb2.DESCRIPTOR.services_by_name["Predict"].methods_by_name["Predict"]
CALLS = "modelhost_calls_total"
STEP_COUNT = "modelhost_build_step_duration_seconds_count"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    state = tmp_path_factory.mktemp("metrics") / "state"
    with RunningServer(state, metrics="127.0.0.1:0") as running:
        yield running


@pytest.fixture(scope="session")
def model(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A deployment that does what it is told to, and has one place in its queue."""
    repo = Repo(tmp_path_factory.mktemp("metrics-model") / "repo")
    repo.commit(OBEDIENT)
    server.add_source("metrics", repo)
    server.deploy("metrics", "metrics", limits={"queue_size": 1})
    return "metrics"


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


class Counting:
    """What was counted since it was made."""

    def __init__(self, server: RunningServer) -> None:
        self._address = server.metrics_address
        self._before = scrape(self._address)

    def __call__(self, name: str, **labels: str) -> float:
        return scrape(self._address).value(name, **labels) - self._before.value(name, **labels)

    def calls(self, deployment: str) -> dict[tuple[str, str], float]:
        """Calls by code and reason."""
        now = scrape(self._address)
        keys = [(s.labels["code"], s.labels["reason"]) for s in now.samples if s.name == CALLS]
        counted = {key: self(CALLS, deployment=deployment, code=key[0], reason=key[1]) for key in keys}
        return {key: number for key, number in counted.items() if number}


@pytest.fixture
def counted(server: RunningServer, model: str) -> Counting:
    return Counting(server)


def labels_of(server: RunningServer, name: str) -> dict[str, str]:
    return {"service": server.get(name).service.removeprefix("services/"), "deployment": name}


# ---- calls


def test_calls_count_by_how_they_ended(server: RunningServer, model: str, counted: Counting) -> None:
    for number in range(3):
        server.predict(model, do("nothing"))
        if number:
            with refused("MODEL_RAISED"):
                server.predict(model, do("raise"))
    with refused("PARAMETERS_INVALID"):
        server.predict(model, do("reject"))
    with refused("WORKER_DIED"):
        server.predict(model, do("die"))
    server.predict(model, do("nothing"))

    assert counted.calls(model) == {
        ("OK", ""): 4,
        ("UNKNOWN", "MODEL_RAISED"): 2,
        ("INVALID_ARGUMENT", "PARAMETERS_INVALID"): 1,
        ("INTERNAL", "WORKER_DIED"): 1,
    }
    seconds = "modelhost_call_duration_seconds_count"
    assert counted(seconds, outcome="ok", **labels_of(server, model)) == 4
    assert counted(seconds, outcome="error", **labels_of(server, model)) == 4


def test_a_service_counts_as_one_by_whatever_name_it_is_called(
    server: RunningServer, model: str, counted: Counting
) -> None:
    service = labels_of(server, model)["service"]
    for name in (model, service, f"services/{service}", f"deployments/{model}"):
        server.predict(name, do("nothing"))

    assert counted(CALLS, service=service, deployment=model) == 4


def test_calls_of_many_at_once_are_all_counted(
    server: RunningServer, model: str, counted: Counting, threads: ThreadPoolExecutor
) -> None:
    def call(_: int) -> str:
        try:
            server.predict(model, do("nothing"))
        except ModelHostError as error:
            return error.code.name
        return "OK"

    ended = list(threads.map(call, range(200)))

    found = counted.calls(model)
    assert found.get(("OK", ""), 0) == ended.count("OK")
    assert found.get(("RESOURCE_EXHAUSTED", "QUEUE_FULL"), 0) == ended.count("RESOURCE_EXHAUSTED")
    assert sum(found.values()) == 200


def test_calls_that_reach_no_service_count_under_none(server: RunningServer, model: str, counted: Counting) -> None:
    names = [f"nobody-{number}" for number in range(20)]
    for name in names:
        with refused("SERVICE_NOT_FOUND"):
            server.predict(name, 1)
    with refused("FIELD_INVALID"):
        server.predict("a/b/c", 1)
    with server.connect("mha_wrong") as stranger, refused("UNAUTHENTICATED"):
        stranger.predict(model, do("nothing"))
    with raw_channel(server.address) as channel, pytest.raises(grpc.RpcError):
        raw_call(channel, PREDICT, RPC, b"\xff\xff", f"Bearer {server.token}")

    assert counted.calls("") == {
        ("NOT_FOUND", "SERVICE_NOT_FOUND"): 20,
        ("INVALID_ARGUMENT", "FIELD_INVALID"): 1,
        ("UNAUTHENTICATED", "UNAUTHENTICATED"): 1,
        ("INVALID_ARGUMENT", "MALFORMED_REQUEST"): 1,
    }
    assert counted.calls(model) == {}
    assert not any(value in names for s in scrape(server.metrics_address).samples for value in s.labels.values())


def test_a_caller_that_gives_up_counts_as_cancelled_and_one_whose_deadline_passes_as_that(
    server: RunningServer, model: str, counted: Counting, gate: Gate
) -> None:
    with pytest.raises(TimedOut):
        server.predict(model, do("wait", path=gate.path), timeout=0.3)
    gate.open()
    eventually(lambda: counted(CALLS, deployment=model) == 1)
    gate.close()
    call = server.client.predict_stub.Predict.future(
        predict_pb2.PredictRequest(service=model, parameters_json=json.dumps(do("wait", path=gate.path)))
    )
    eventually(lambda: server.get(model).observed.running_calls == 1)

    call.cancel()

    eventually(lambda: counted(CALLS, deployment=model) == 2)
    assert counted.calls(model) == {("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"): 1, ("CANCELLED", ""): 1}


def test_calls_that_go_together_count_as_a_batch(
    server: RunningServer, repo: Repo, source: str, name: str, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    repo.commit({"main.py": OBEDIENT["main.py"] + b"\n\ndef predict_batch(batch):\n    return [0] * len(batch)\n"})
    server.deploy(name, source, batching={"max_size": 8})
    labels = labels_of(server, name)
    first = threads.submit(server.predict, name, do("wait", path=gate.path))
    eventually(lambda: server.get(name).observed.running_calls == 1)
    waiting = [threads.submit(server.predict, name, do("nothing")) for _ in range(5)]
    eventually(lambda: server.get(name).observed.queued_calls == 5)

    gate.open()

    assert [each.result() for each in waiting] == [0] * 5
    first.result()
    seen = scrape(server.metrics_address)
    assert seen.value("modelhost_batch_size_count", **labels) == 2
    assert seen.value("modelhost_batch_size_sum", **labels) == 6


def test_nothing_but_predictions_counts_as_one(server: RunningServer, model: str, counted: Counting) -> None:
    server.client.admin.DebugDeployment(
        deployment_pb2.DebugDeploymentRequest(name=model, parameters_json=json.dumps(do("nothing")))
    )
    server.client.predict_stub.DescribeService(predict_pb2.DescribeServiceRequest(service=model))
    server.get(model)

    assert counted(CALLS) == 0


# ---- pools and deployments


def test_a_queue_and_what_workers_do_are_as_they_are(
    server: RunningServer, model: str, counted: Counting, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    labels = labels_of(server, model)

    def seen() -> tuple[dict[str, float], float, float]:
        now = scrape(server.metrics_address)
        states = {state: number for state, number in now.by("state", "modelhost_workers", **labels).items() if number}
        return states, now.value("modelhost_queued_calls", **labels), now.value("modelhost_running_calls", **labels)

    eventually(lambda: seen() == ({"idle": 1}, 0, 0))
    calls = [threads.submit(server.predict, model, do("wait", path=gate.path)) for _ in range(2)]
    eventually(lambda: seen() == ({"busy": 1}, 1, 1))
    with refused("QUEUE_FULL"):
        server.predict(model, do("nothing"))

    gate.open()
    for call in calls:
        call.result()

    eventually(lambda: seen() == ({"idle": 1}, 0, 0))
    assert counted.calls(model) == {("OK", ""): 2, ("RESOURCE_EXHAUSTED", "QUEUE_FULL"): 1}


def test_steps_of_builds_are_timed_however_they_end(
    server: RunningServer, model: str, repo: Repo, name: str, counted: Counting
) -> None:
    repo.commit({"main.py": b"def predict(parameters):\n    return 1\n"})
    server.add_source(name, repo)
    server.deploy(name, name)

    assert [counted(STEP_COUNT, step=step, outcome="ok") for step in ("fetch", "provision", "load")] == [1, 1, 1]
    assert counted("modelhost_build_step_duration_seconds_sum", step="load", outcome="ok") > 0

    repo.commit({"main.py": b"raise RuntimeError('no')\n"})
    server.update(name, ref="main")

    assert counted(STEP_COUNT, step="load", outcome="failed") == 1
    assert counted(STEP_COUNT, step="load", outcome="ok") == 1
    assert counted(STEP_COUNT, outcome="interrupted") == 0


def test_a_build_that_is_not_wanted_any_more_was_interrupted(
    server: RunningServer, model: str, repo: Repo, name: str, counted: Counting, gate: Gate
) -> None:
    repo.commit(
        {"main.py": f"import os, time\nwhile not os.path.exists({gate.path!r}):\n    time.sleep(0.02)\n".encode()}
    )
    server.add_source(name, repo)
    server.create(name, name)
    server.client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name))
    eventually(lambda: counted(STEP_COUNT, step="provision", outcome="ok") == 1)
    eventually(lambda: "loading" in server.build_log(name, 1))

    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))

    eventually(lambda: counted(STEP_COUNT, step="load", outcome="interrupted") == 1)


def test_deployments_are_counted_by_their_state_from_creation_to_the_end(
    server: RunningServer, model: str, repo: Repo, name: str
) -> None:
    def by_state() -> dict[str, float]:
        return scrape(server.metrics_address).by("state", "modelhost_deployments")

    def changed(before: dict[str, float], **changes: float) -> bool:
        return {
            state: number - before[state] for state, number in by_state().items() if number != before[state]
        } == changes

    repo.commit({"main.py": b"def predict(parameters):\n    return 1\n"})
    server.add_source(name, repo)
    before = by_state()
    assert before["running"] >= 1

    server.create(name, name)
    eventually(lambda: changed(before, stopped=1))
    server.start(name)
    eventually(lambda: changed(before, running=1))
    server.predict(name, 1)
    assert scrape(server.metrics_address).with_label("deployment", name) > {CALLS, "modelhost_workers"}
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    eventually(lambda: changed(before, stopped=1))
    assert scrape(server.metrics_address).with_label("deployment", name) & {CALLS, "modelhost_workers"} == {CALLS}
    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name))

    eventually(lambda: by_state() == before)
    assert scrape(server.metrics_address).with_label("deployment", name) == set()


# ---- the server


def test_the_event_loop_is_watched(server: RunningServer, model: str, counted: Counting) -> None:
    eventually(lambda: counted("modelhost_event_loop_lag_seconds_count") >= 2)


def test_the_version_is_that_of_the_distribution(server: RunningServer) -> None:
    from modelhost.client._version import __version__

    assert scrape(server.metrics_address).value("modelhost_build_info", version=__version__) == 1


def test_many_may_read_at_once(server: RunningServer, model: str, threads: ThreadPoolExecutor) -> None:
    pages = list(threads.map(lambda _: get(server.metrics_address), range(50)))

    assert {status for status, _, _ in pages} == {200}
    assert all(Scrape(body.decode()).value(CALLS) >= 0 for _, _, body in pages)


def test_a_server_without_the_option_has_no_listener(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "state") as other:
        assert other.metrics_address == ""


async def test_a_server_that_cannot_listen_for_metrics_leaves_its_state_to_another(
    server: RunningServer, tmp_path: Path
) -> None:
    settings = ServerSettings(state_dir=tmp_path / "state", listen="127.0.0.1:0", metrics=server.metrics_address)
    with pytest.raises(OSError, match="for metrics: Address already in use"):
        App(settings)

    with RunningServer(tmp_path / "state") as other:
        assert other.client.admin.ListDeployments(deployment_pb2.ListDeploymentsRequest()).deployments == []
