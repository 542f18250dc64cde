"""Streams and tensors of a real server: what a caller does reaches the model, and no caller costs the server much."""

import json
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from modelhost.client import ModelHostError, PredictionStream
from modelhost.client.prediction import request_for
from modelhost.client.transport import Calls, endpoint
from modelhost.v1.predict_pb2_grpc import PredictStub
from tests.checks import Gate
from tests.e2e.command import Command
from tests.e2e.daemon import Daemon, alive, python
from tests.e2e.steps import Operator
from tests.git_repos import Repo
from tests.inference import InferenceClient, raw_outputs
from tests.obedient import OBEDIENT, do
from tests.running import eventually, reason_of

ROOM_ITEMS, ROOM_BYTES = 16, 1 << 20  # that the server has for items that were made and not taken, as documented
SENT_AHEAD_BYTES = 64 << 10  # to a caller that lets gRPC take no more than it must
MOST_MEMORY = 16 << 20  # that such a stream may cost the server: its room, and copies on their way


@pytest.fixture
def notes(shared: Path) -> Path:
    """Where a model notes each item that it makes, and that its `finally` has run."""
    path = shared / "notes"
    path.touch()
    path.chmod(0o666)
    return path


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()


@pytest.fixture
def model(operator: Operator, repo: Repo) -> str:
    return deploy(operator, repo)


def deploy(operator: Operator, repo: Repo) -> str:
    repo.commit(OBEDIENT)
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    return "model"


def count(**arguments: Any) -> dict[str, Any]:
    return do("count", **arguments)


def noted(notes: Path, word: str) -> int:
    return notes.read_text().split().count(word)


def rest(stream: PredictionStream) -> tuple[list[Any], str]:
    """All that still comes, and the reason for its end."""
    items: list[Any] = []
    try:
        items.extend(item.result for item in stream)
    except ModelHostError as error:
        return items, error.reason
    return items, ""


def test_a_stream_is_read_to_its_end(daemon: Daemon, operator: Operator, model: str) -> None:
    pid = operator.predict(model, do("nothing"))

    assert rest(daemon.client.predict_stream(model, count(stop=500))) == (list(range(500)), "")
    assert rest(daemon.client.predict_stream(model, count(fail_at=3))) == ([0, 1, 2], "MODEL_RAISED")
    assert operator.predict(model, do("nothing")) == pid


def test_a_stream_that_is_left_in_the_middle_ends_in_the_model(
    daemon: Daemon, operator: Operator, model: str, notes: Path
) -> None:
    pid = operator.predict(model, do("nothing"))
    with daemon.client.predict_stream(model, count(notes=str(notes))) as stream:
        assert [next(stream).result for _ in range(5)] == list(range(5))

    assert operator.predict(model, do("nothing")) == pid
    assert noted(notes, "closed") == 1


# ---- a caller who does not read


def settled(notes: Path) -> int:
    """How many items the model has made when it makes no more."""
    seen, same = 0, 0
    deadline = time.monotonic() + 60
    while same < 20:
        assert time.monotonic() < deadline, f"it goes on: {seen} items"
        time.sleep(0.03)
        now = noted(notes, "made")
        seen, same = now, same + 1 if now == seen and now else 0
    return seen


def memory_of(daemon: Daemon) -> int:
    """The most that the server itself has had at any time, in bytes."""
    status = Path("/proc", str(daemon.pid), "status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.fixture
def reluctant(daemon: Daemon) -> Iterator[PredictStub]:
    """A caller to whom gRPC sends as little ahead as it can."""
    to = endpoint(daemon.address, root_certificates=None, client_certificate=None, server_name="", max_message_bytes=-1)
    with grpc.insecure_channel(to.address.target, [*to.options, ("grpc.http2.bdp_probe", 0)]) as channel:
        yield PredictStub(cast(grpc.Channel, Calls(channel, to.address, daemon.token, None)))


@pytest.mark.parametrize("size", [40_000, 500_000])
def test_a_caller_who_does_not_read_holds_the_model_up_and_costs_no_memory(
    daemon: Daemon, operator: Operator, model: str, notes: Path, reluctant: PredictStub, size: int
) -> None:
    operator.predict(model, do("nothing"))
    list(daemon.client.predict_stream(model, count(stop=20, item="x", times=size)))  # what a first stream costs once
    before = memory_of(daemon)
    endless = count(item="x", times=size, notes=str(notes))

    stream = reluctant.PredictStream(request_for(model, endless))
    next(stream)
    made = settled(notes)

    room = min(ROOM_ITEMS, ROOM_BYTES // size + 1)
    on_the_way = SENT_AHEAD_BYTES // size + 3  # and the first, one that is written, one that the model has at hand
    assert made <= room + on_the_way
    assert memory_of(daemon) - before < MOST_MEMORY
    stream.cancel()
    eventually(lambda: noted(notes, "closed"))


# ---- deadlines

DAWDLING = b"""import time

def predict(parameters):
    return count() if parameters == "stream" else time.sleep(0.1)

def count():
    while True:
        time.sleep(0.003)
        yield "item"
"""
HURRIED_CALLS = 400


@pytest.mark.parametrize("kind", ["stream", "call"])
def test_a_deadline_that_passes_is_no_fault_of_the_server(
    daemon: Daemon, operator: Operator, repo: Repo, kind: str
) -> None:
    repo.commit({"main.py": DAWDLING})
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    operator.predict("model", "call")

    def hurry(number: int) -> str:
        limit = 0.03 + number % 100 * 0.0003  # the server's clock and gRPC's are to meet in some of them
        if kind == "stream":
            return rest(daemon.client.predict_stream("model", kind, timeout=limit))[1]
        return reason_of(lambda: daemon.client.predict("model", kind, timeout=limit))

    with ThreadPoolExecutor(6) as callers:
        reasons = set(callers.map(hurry, range(HURRIED_CALLS)))

    assert reasons <= {"DEADLINE_EXCEEDED", ""}  # without a reason, it is the client's own clock that has said so
    assert [line for line in daemon.log_text().splitlines() if json.loads(line)["level"] == "error"] == []


# ---- the command


@pytest.fixture
def command(daemon: Daemon, tmp_path: Path) -> Command:
    return Command(daemon, tmp_path)


def test_the_command_prints_each_item_as_it_comes(
    command: Command, operator: Operator, model: str, notes: Path, gate: Gate
) -> None:
    parameters = json.dumps(count(stop=3, wait_at=1, path=gate.path, notes=str(notes)))
    with command.begin(f"predict model '{parameters}' --stream") as following:
        following.read_until("0")
        gate.open()
        following.read_until("2")
    eventually(lambda: noted(notes, "closed"))

    assert command.ok("predict model --stream", parameters).lines == ["0", "1", "2"]
    failed = command("predict model --stream", json.dumps(count(fail_at=2)))
    assert failed.code == 7
    assert failed.lines == ["0", "1"]
    assert "the model raised ZeroDivisionError: so it goes" in failed.err


def test_ctrl_c_in_the_command_ends_the_models_work(
    command: Command, operator: Operator, model: str, notes: Path
) -> None:
    pid = operator.predict(model, do("nothing"))
    parameters = json.dumps(count(notes=str(notes)))
    with command.begin(f"predict model '{parameters}' --stream") as following:
        following.read_until("100")
        following.interrupt()

    eventually(lambda: noted(notes, "closed"))
    assert operator.predict(model, do("nothing")) == pid


# ---- a server that is told to end


def begin_stream(daemon: Daemon, model: str, gate: Gate) -> PredictionStream:
    """A stream of three whose model waits at the gate after the first."""
    stream = daemon.client.predict_stream(model, count(stop=3, wait_at=1, path=gate.path))
    assert next(stream).result == 0
    return stream


def test_a_stream_comes_to_its_end_when_the_server_is_told_to_end(daemon: Daemon, model: str, gate: Gate) -> None:
    stream = begin_stream(daemon, model, gate)
    running = daemon.processes()

    os.kill(daemon.pid, signal.SIGTERM)
    eventually(lambda: '"ending; calls under way may finish' in daemon.log_text())
    gate.open()

    assert rest(stream) == ([1, 2], "")
    assert daemon.wait() == 0
    assert alive(running) == []


def test_a_stream_that_is_not_over_when_the_grace_is_over_is_told_why(
    make_daemon: Callable[..., Daemon], repo: Repo, gate: Gate
) -> None:
    daemon = make_daemon("hasty", "--stop-grace", "0.5", "--interpreter", str(python("3.6"))).start()
    stream = begin_stream(daemon, deploy(Operator(daemon), repo), gate)
    running = daemon.processes()

    assert daemon.stop() == 0

    assert rest(stream) == ([], "SERVER_STOPPING")
    assert alive(running) == []


# ---- tensors


def test_tensors_go_through_a_server_that_was_killed_meanwhile(daemon: Daemon, operator: Operator, repo: Repo) -> None:
    repo.commit({"main.py": b"def predict(tensors):\n    return {'twice': [2 * each for each in tensors['x']]}\n"})
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    values = list(range(10_000))

    for _ in range(2):
        with InferenceClient(daemon.address, daemon.token) as client:
            answer = client.infer("model", ("x", "INT64", [len(values)], struct.pack(f"<{len(values)}q", *values)))
        expected = struct.pack(f"<{len(values)}q", *(2 * each for each in values))
        assert raw_outputs(answer) == [("twice", "INT64", [len(values)], expected)]
        assert operator.predict("model", {"x": [1, 2]}) == {"twice": [2, 4]}
        daemon.restart()
        assert operator.predict_when_up("model", {"x": [3]}) == {"twice": [6]}
