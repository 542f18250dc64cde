"""PredictStream on a real server: items as they come, who holds up whom, and every way in which a stream ends."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelhost.client import AsyncClient, Client, ModelFailed, ModelHostError, PredictionStream, TimedOut
from modelhost.v1 import deployment_pb2, log_pb2, predict_pb2, usage_pb2
from tests.access import AccessAdmin, Account
from tests.checks import Gate, refused
from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import Deployment, RunningServer, eventually, reason_of

MOST_ON_THE_WAY = 150  # items of 200 kB: the server has room for 6; the rest is what a client lets gRPC send ahead


@pytest.fixture(scope="session")
def models(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data source with the obedient model."""
    repo = Repo(tmp_path_factory.mktemp("streams") / "repo")
    repo.commit(OBEDIENT)
    server.add_source("streams", repo)
    return "streams"


@pytest.fixture(scope="session")
def model(server: RunningServer, models: str) -> str:
    """A deployment with one worker."""
    server.deploy("streams", models)
    return "streams"


@pytest.fixture
def own(server: RunningServer, models: str, name: str) -> str:
    """A deployment of the test's own."""
    server.deploy(name, models)
    return name


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()


class Notes:
    """What a model says that it does."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notes"
        self._path.touch()
        self._path.chmod(0o666)
        self.path = str(self._path)

    def count(self, word: str) -> int:
        return self._path.read_text().split().count(word)

    def wait_for_end(self) -> None:
        """Until the model's `finally` has run."""
        eventually(lambda: self.count("closed"))


@pytest.fixture
def notes(shared: Path) -> Notes:
    return Notes(shared)


def count(**arguments: Any) -> dict[str, Any]:
    return do("count", **arguments)


def results(stream: PredictionStream, number: int) -> list[Any]:
    return [next(stream).result for _ in range(number)]


def rest(stream: PredictionStream) -> tuple[list[Any], str]:
    """All that still comes, and the reason for its end."""
    items: list[Any] = []
    return items, reason_of(lambda: items.extend(item.result for item in stream))


def settled(notes: Notes) -> int:
    """How many items the model has made when it makes no more."""
    seen, same = 0, 0
    deadline = time.monotonic() + 30
    while same < 10:
        assert time.monotonic() < deadline, f"it goes on: {seen} items"
        time.sleep(0.03)
        now = notes.count("made")
        seen, same = now, same + 1 if now == seen and now else 0
    return seen


def lines_of(server: RunningServer, name: str, request_id: str) -> list[str]:
    """What was written in a call."""
    request = log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_RUN, request_id=request_id)
    return [entry.text for entry in server.client.admin.ReadLog(request).entries]


# ---- items


@pytest.mark.parametrize("runtime", ["python2.7", "python3.6"])
def test_items_come_with_their_place_and_their_call(
    server: RunningServer, models: str, name: str, runtime: str
) -> None:
    server.deploy(name, models, runtime=runtime)
    request = predict_pb2.PredictRequest(service=name, parameters_json=json.dumps(count(stop=3)))

    answers = list(server.client.predict_stub.PredictStream(request, metadata=(("x-request-id", "order-4711"),)))

    assert [(each.result_json, each.index, each.revision, each.request_id) for each in answers] == [
        ("0", 0, 1, "order-4711"),
        ("1", 1, 1, "order-4711"),
        ("2", 2, 1, "order-4711"),
    ]
    assert server.predict(name, count(stop=3)) == [0, 1, 2]
    assert rest(server.client.predict_stream(name, do("echo", value=7))) == ([7], "")


def test_a_model_in_r_gives_one_item(server: RunningServer, models: str, name: str) -> None:
    server.deploy(name, models, runtime=server.runtime_of_r())
    items, reason = rest(server.client.predict_stream(name, do("nothing")))
    assert (len(items), reason) == (1, "")
    assert rest(server.client.predict_stream(name, do("raise"))) == ([], "MODEL_RAISED")


def test_items_have_the_form_of_the_request(server: RunningServer, model: str) -> None:
    request = predict_pb2.PredictRequest(service=model)
    request.parameters.struct_value.update(count(stop=2, item="é"))
    answers = list(server.client.predict_stub.PredictStream(request))
    assert [(each.result.string_value, each.index) for each in answers] == [("é", 0), ("é", 1)]

    with refused("PARAMETERS_INVALID"):
        list(server.client.predict_stub.PredictStream(predict_pb2.PredictRequest(service=model)))
    with refused("SERVICE_NOT_FOUND"):
        next(server.client.predict_stream("nobody", None))


async def test_asyncio_streams_too(server: RunningServer, model: str, notes: Notes) -> None:
    async with AsyncClient(server.address, server.token) as client:
        stream = client.predict_stream(model, count(notes=notes.path))
        assert [(await anext(stream)).result for _ in range(100)] == list(range(100))
        await stream.aclose()
        assert (await client.predict(model, do("nothing"))).result
    assert notes.count("closed") == 1


def test_a_debug_call_has_all_items_and_what_they_wrote(server: RunningServer, model: str) -> None:
    request = deployment_pb2.DebugDeploymentRequest(name=model, parameters_json=json.dumps(count(stop=2)))
    seen = server.client.admin.DebugDeployment(request)
    assert (seen.result_json, seen.stdout) == ("[0,1]", "item 0\nitem 1\n")


def test_a_list_of_items_has_the_message_limit(server: RunningServer, model: str) -> None:
    with refused("RESULT_TOO_LARGE"):
        server.predict(model, count(item="x", times=1_000_000))
    stream = server.client.predict_stream(model, count(item="x", times=1_000_000, stop=12))
    assert sum(len(item.result) for item in stream) == 12_000_000


# ---- a slow caller


def test_a_caller_who_does_not_read_holds_the_model_up(server: RunningServer, model: str, notes: Notes) -> None:
    with server.connect(server.token) as client:
        stream = client.predict_stream(model, count(item="x", times=200_000, notes=notes.path))
        assert len(next(stream).result) == 200_000

        made = settled(notes)
        assert made < MOST_ON_THE_WAY
        assert len(results(stream, MOST_ON_THE_WAY)) == MOST_ON_THE_WAY
        assert settled(notes) < MOST_ON_THE_WAY * 2
        stream.close()
    notes.wait_for_end()


# ---- callers who want no more


def test_a_cancelled_stream_ends_the_generator_and_keeps_the_worker(
    server: RunningServer, model: str, notes: Notes
) -> None:
    pid = server.predict(model, do("nothing"))
    for _ in range(20):
        with server.client.predict_stream(model, count(notes=notes.path)) as stream:
            next(stream)

    assert server.predict(model, do("nothing")) == pid
    assert notes.count("closed") == 20


def test_a_client_that_goes_away_ends_it_too(server: RunningServer, model: str, notes: Notes) -> None:
    pid = server.predict(model, do("nothing"))
    with server.connect(server.token) as client:
        stream = client.predict_stream(model, count(notes=notes.path))
        next(stream)
    notes.wait_for_end()
    assert server.predict(model, do("nothing")) == pid


@pytest.mark.parametrize("reads", [True, False])
def test_the_callers_deadline_ends_it(server: RunningServer, model: str, notes: Notes, reads: bool) -> None:
    pid = server.predict(model, do("nothing"))
    stream = server.client.predict_stream(model, count(notes=notes.path, item="x", times=10_000), timeout=0.5)
    if reads:
        with pytest.raises(TimedOut):
            list(stream)
    notes.wait_for_end()
    assert server.predict(model, do("nothing")) == pid
    stream.close()


# ---- models that fail


def test_what_a_model_raises_comes_after_its_items(server: RunningServer, own: str) -> None:
    stream = server.client.predict_stream(own, count(fail_at=3), request_id="fails")
    assert results(stream, 3) == [0, 1, 2]
    with pytest.raises(ModelFailed, match="the model raised ZeroDivisionError: so it goes") as caught:
        next(stream)
    assert caught.value.reason == "MODEL_RAISED"
    assert caught.value.metadata["request_id"] == "fails"
    eventually(lambda: "ZeroDivisionError: so it goes" in lines_of(server, own, "fails"))


def test_a_worker_that_dies_in_a_stream(server: RunningServer, own: str) -> None:
    pid = server.predict(own, do("nothing"))
    assert rest(server.client.predict_stream(own, count(die_at=3))) == ([0, 1, 2], "WORKER_DIED")
    second = server.predict(own, do("nothing"))
    assert second != pid

    stream = server.client.predict_stream(own, count())
    next(stream)
    os.kill(second, signal.SIGKILL)
    assert rest(stream)[1] == "WORKER_DIED"


# ---- what happens to deployments


def test_an_update_lets_a_stream_come_to_its_end(server: RunningServer, own: str, gate: Gate) -> None:
    stream = server.client.predict_stream(own, count(stop=30, wait_at=1, path=gate.path))
    first = next(stream)

    server.update(own, env={"WORD": "second"})
    assert server.client.predict(own, do("nothing")).revision == 2
    gate.open()

    others = list(stream)
    assert [first.result, *(item.result for item in others)] == list(range(30))
    assert {item.revision for item in others} == {1}


def test_a_deployment_that_is_stopped_ends_its_streams(server: RunningServer, models: str, name: str) -> None:
    server.deploy(name, models, limits={"call_timeout": {"seconds": 1}})
    stream = server.client.predict_stream(name, count())
    next(stream)
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    assert rest(stream)[1] == "SERVICE_NOT_RUNNING"
    server.wait(name, Deployment.STATE_STOPPED)


def takes_calls(server: RunningServer) -> bool:
    with server.connect(server.token) as client:
        try:
            client.predict_stub.DescribeService(predict_pb2.DescribeServiceRequest(service="own"))
        except ModelHostError:
            return False
        return True


def test_a_stream_comes_to_its_end_while_the_server_is_stopping(tmp_path: Path, repo: Repo) -> None:
    repo.commit(OBEDIENT)
    with RunningServer(tmp_path / "state") as server:
        server.add_source("own", repo)
        server.deploy("own", "own")
        gate = Gate(server.shared / "gate")
        client = server.connect(server.token)
        stream = client.predict_stream("own", count(stop=3, wait_at=1, path=gate.path))
        assert next(stream).result == 0
        server.begin_to_stop()
        eventually(lambda: not takes_calls(server))
        gate.open()
        assert rest(stream) == ([1, 2], "")
        client.close()


# ---- access


@pytest.fixture
def admin(server: RunningServer) -> AccessAdmin:
    return AccessAdmin(server)


@pytest.fixture
def shop(server: RunningServer, admin: AccessAdmin, name: str) -> Iterator[tuple[Account, Client]]:
    """A service account that is granted nothing, and a client with its key."""
    account = admin.account(name)
    with server.connect(admin.api_key(account)[1]) as client:
        yield account, client


@pytest.mark.parametrize("reads", [True, False])
def test_a_grant_that_is_revoked_ends_its_streams(
    server: RunningServer, model: str, admin: AccessAdmin, shop: tuple[Account, Client], notes: Notes, reads: bool
) -> None:
    account, client = shop
    admin.grant(account, model)
    stream = client.predict_stream(model, count(notes=notes.path, item="x", times=10_000))
    next(stream)
    if not reads:
        settled(notes)

    admin.revoke(account, model)

    if not reads:
        notes.wait_for_end()
    assert rest(stream)[1] == "SERVICE_NOT_FOUND"
    notes.wait_for_end()
    assert server.predict(model, do("nothing"))


def test_changes_of_others_leave_a_stream_alone(
    server: RunningServer, model: str, admin: AccessAdmin, shop: tuple[Account, Client], name: str
) -> None:
    account, client = shop
    admin.grant(account, model)
    stream = client.predict_stream(model, count())
    next(stream)
    other = admin.account(f"{name[:40]}-other", model)
    admin.revoke(other, model)
    admin.grant(account, model, concurrent_calls=3)
    assert len(results(stream, 1000)) == 1000
    stream.close()


def test_a_service_that_is_closed_ends_the_streams_of_those_who_were_let_in_by_its_being_open(
    server: RunningServer, model: str, admin: AccessAdmin
) -> None:
    admin.set_open(model, open_=True)
    with server.connect(None) as anybody:
        stream = anybody.predict_stream(model, count())
        next(stream)
        admin.set_open(model, open_=False)
        assert rest(stream)[1] == "UNAUTHENTICATED"


def test_a_stream_is_a_call_under_way_for_its_whole_length(
    server: RunningServer, model: str, admin: AccessAdmin, shop: tuple[Account, Client]
) -> None:
    account, client = shop
    admin.grant(account, model, concurrent_calls=1)
    stream = client.predict_stream(model, count())
    assert results(stream, 100) == list(range(100))

    assert reason_of(lambda: client.predict(model, do("nothing"))) == "CONCURRENCY_LIMIT_EXCEEDED"
    assert reason_of(lambda: next(client.predict_stream(model, count()))) == "CONCURRENCY_LIMIT_EXCEEDED"

    stream.close()
    eventually(lambda: reason_of(lambda: client.predict(model, do("nothing"))) == "")
    assert admin.used_today(account) == 2


def test_a_stream_is_counted_once_when_it_has_ended(
    server: RunningServer, own: str, admin: AccessAdmin, shop: tuple[Account, Client]
) -> None:
    account, client = shop
    admin.grant(account, own)

    def counts() -> usage_pb2.UsageCounts:
        return server.client.admin.GetServiceUsage(usage_pb2.GetServiceUsageRequest(service=own)).past_hour.counts

    running = client.predict_stream(own, count())
    next(running)
    assert counts().requests == 0
    running.close()
    eventually(lambda: counts().requests == 1)
    before = counts().response_bytes

    assert rest(client.predict_stream(own, count(stop=10, item="x", times=5_000)))[1] == ""
    assert rest(client.predict_stream(own, count(fail_at=2)))[1] == "MODEL_RAISED"

    found = counts()
    assert found.requests == 3
    assert {each.code: each.count for each in found.failures} == {"CANCELLED": 1, "UNKNOWN": 1}
    assert 50_000 < found.response_bytes - before < 53_000


def test_lines_belong_to_the_stream_in_which_they_were_written(server: RunningServer, own: str) -> None:
    assert rest(server.client.predict_stream(own, count(stop=3), request_id="the-stream")) == ([0, 1, 2], "")
    server.predict(own, do("say", lines=1))

    eventually(lambda: "line 0" in server.run_log(own))
    assert lines_of(server, own, "the-stream") == ["item 0", "item 1", "item 2"]


def test_a_call_over_the_wire_ends_with_its_status(server: RunningServer, model: str) -> None:
    with pytest.raises(ModelHostError) as caught:
        list(server.client.predict_stream(model, count(fail_at=0)))
    assert isinstance(caught.value.__cause__, grpc.Call)
    assert caught.value.code is grpc.StatusCode.UNKNOWN
