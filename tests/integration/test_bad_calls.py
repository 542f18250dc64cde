"""Calls that fail: who failed is said, nobody else is hurt, and the next call is answered."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from modelhost.client import Busy, ModelFailed, TimedOut
from modelhost.v1 import deployment_pb2, predict_pb2
from tests.checks import Gate, refused
from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import RunningServer, eventually


@pytest.fixture(scope="session")
def source(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    repo = Repo(tmp_path_factory.mktemp("bad-calls") / "repo")
    repo.commit(OBEDIENT)
    server.add_source("bad-calls", repo)
    return "bad-calls"


@pytest.fixture(scope="session", params=["python2.7", "python3.6", "r"])
def on_every_runtime(server: RunningServer, source: str, request: pytest.FixtureRequest) -> str:
    """A deployment on each language's runtime."""
    runtime = server.runtime_of_r() if request.param == "r" else request.param
    name = f"bad-calls-{request.param.replace('.', '')}"
    server.deploy(name, source, runtime=runtime, unbox=True)
    return name


@pytest.fixture(scope="session")
def model(server: RunningServer, source: str) -> str:
    """A deployment that takes its time where it is told to, and has one place in its queue."""
    server.deploy("bad-calls", source, limits={"queue_size": 1})
    return "bad-calls"


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def observed(server: RunningServer, name: str) -> deployment_pb2.Observed:
    return server.get(name).observed


def test_parameters_that_a_model_rejects_are_the_callers_fault(server: RunningServer, on_every_runtime: str) -> None:
    with refused("PARAMETERS_INVALID") as caught:
        server.predict(on_every_runtime, do("reject"))

    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message == "age must not be negative"
    assert server.predict(on_every_runtime, do("nothing")) > 1


def test_what_a_model_raises_is_told_by_type_and_words_without_its_traceback(
    server: RunningServer, on_every_runtime: str
) -> None:
    with refused("MODEL_RAISED") as caught:
        server.predict(on_every_runtime, do("raise"))

    assert isinstance(caught.value, ModelFailed)
    assert caught.value.code is grpc.StatusCode.UNKNOWN
    assert caught.value.metadata["text"] == "so it goes"
    assert caught.value.metadata["exception"] in ("ZeroDivisionError", "simpleError")
    assert caught.value.message == f"the model raised {caught.value.metadata['exception']}: so it goes"
    assert server.predict(on_every_runtime, do("nothing")) > 1


def test_a_worker_that_dies_in_a_call_fails_that_call_alone(server: RunningServer, on_every_runtime: str) -> None:
    before = server.predict(on_every_runtime, do("nothing"))
    restarts = observed(server, on_every_runtime).restarts

    with refused("WORKER_DIED") as caught:
        server.predict(on_every_runtime, do("die"))

    assert caught.value.code is grpc.StatusCode.INTERNAL
    assert "signal SIGKILL" in caught.value.message
    assert server.predict(on_every_runtime, do("nothing")) != before
    assert observed(server, on_every_runtime).restarts == restarts + 1


def test_a_subclass_of_invalid_parameters_counts_and_keeps_its_words(server: RunningServer, model: str) -> None:
    with refused("PARAMETERS_INVALID") as caught:
        server.predict(model, do("reject_otherwise"))

    assert caught.value.message == "äge"


def test_a_model_that_exits_in_a_call_is_like_one_that_raises(server: RunningServer, model: str) -> None:
    worker = server.predict(model, do("nothing"))

    with refused("MODEL_RAISED") as caught:
        server.predict(model, do("leave"))

    assert caught.value.message == "the model raised SystemExit: 3"
    assert server.predict(model, do("nothing")) == worker


def test_a_call_over_its_call_timeout_ends_its_worker_and_the_next_is_answered(
    server: RunningServer, source: str, name: str, gate: Gate
) -> None:
    server.deploy(name, source, limits={"call_timeout": {"nanos": 300_000_000}})
    worker = server.predict(name, do("nothing"))

    with refused("MODEL_TIMED_OUT") as caught:
        server.predict(name, do("wait", path=gate.path))

    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert isinstance(caught.value, ModelFailed)
    assert "0.3 s" in caught.value.message
    assert server.predict(name, do("nothing")) != worker


def test_a_callers_deadline_abandons_the_answer_and_not_the_worker(
    server: RunningServer, model: str, gate: Gate
) -> None:
    worker = server.predict(model, do("nothing"))

    with pytest.raises(TimedOut):
        server.predict(model, do("wait", path=gate.path), timeout=0.2)
    gate.open()

    assert server.predict(model, do("nothing")) == worker


def test_a_callers_cancel_abandons_the_answer_and_not_the_worker(server: RunningServer, model: str, gate: Gate) -> None:
    worker = server.predict(model, do("nothing"))
    call = server.client.predict_stub.Predict.future(
        predict_pb2.PredictRequest(service=model, parameters_json=json.dumps(do("wait", path=gate.path)))
    )
    eventually(lambda: observed(server, model).running_calls == 1)

    call.cancel()
    gate.open()

    assert server.predict(model, do("nothing")) == worker


def test_a_full_queue_refuses_at_once_and_says_when_to_try_again(
    server: RunningServer, model: str, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    worker = server.predict(model, do("nothing"))
    running = pool.submit(server.predict, model, do("wait", path=gate.path))
    eventually(lambda: observed(server, model).running_calls == 1)
    queued = pool.submit(server.predict, model, do("nothing"))
    eventually(lambda: observed(server, model).queued_calls == 1)

    with refused("QUEUE_FULL") as caught:
        server.predict(model, do("nothing"))

    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(caught.value, Busy)
    assert caught.value.retry_after
    gate.open()
    assert (running.result(), queued.result()) == (worker, worker)


def test_a_queued_call_whose_caller_has_gone_is_never_given_to_the_model(
    server: RunningServer, model: str, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    running = pool.submit(server.predict, model, do("wait", path=gate.path))
    eventually(lambda: observed(server, model).running_calls == 1)

    with pytest.raises(TimedOut):
        server.predict(model, do("die"), timeout=0.2)
    eventually(lambda: observed(server, model).queued_calls == 0)
    gate.open()

    assert server.predict(model, do("nothing")) == running.result()


@pytest.mark.parametrize("service", ["svc-0123456789abcdef", "no-such-deployment", "services/nope", "deployments/nope"])
def test_a_service_that_does_not_exist_is_not_found(server: RunningServer, service: str) -> None:
    with refused("SERVICE_NOT_FOUND") as caught:
        server.predict(service, 1)

    assert caught.value.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", ["", "services/", "runtimes/x", "a/b/c"])
def test_a_name_that_no_service_can_have_is_invalid(server: RunningServer, service: str) -> None:
    with refused("FIELD_INVALID") as caught:
        server.predict(service, 1)

    assert [each.subject for each in caught.value.violations] == ["service"]


def test_a_service_that_has_never_run_is_told_from_one_that_does_not_exist(
    server: RunningServer, source: str, name: str
) -> None:
    service = server.create(name, source).service.removeprefix("services/")

    for each in (name, service):
        with refused("SERVICE_NOT_RUNNING") as caught:
            server.predict(each, 1)
        assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert f"`modelhost start {name}`" in caught.value.message
