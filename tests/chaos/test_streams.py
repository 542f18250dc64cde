"""That a run would see what is wrong with a stream, or with tensors."""

import json
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from modelhost.client import Client, ModelHostError
from modelhost.client.prediction import Prediction
from modelhost.client.transport import Metadata
from modelhost.inference import open_inference_pb2
from modelhost.v1.predict_pb2 import PredictStreamResponse
from tests.chaos.causes import OF_POISONS, Causes
from tests.chaos.journal import Journal
from tests.chaos.judge import Call, Judge
from tests.chaos.models import STREAM_POISONS, fault_of
from tests.chaos.streams import Reading, Stream
from tests.chaos.tally import Tally
from tests.chaos.tensors import prediction_of, request_of


@pytest.fixture
def judge() -> Iterator[Judge]:
    with Client("127.0.0.1:1") as client:
        yield Judge(Tally(0), Causes(), Journal(client))


class Answers:
    """A server that sends so many items; `changed` are fields of them, or of their messages, by their places.

    With a reason the stream fails after them.
    """

    def __init__(self, count: int, changed: dict[int, dict[str, Any]] | None = None, reason: str = "") -> None:
        self.count = count
        self.changed = changed or {}
        self.reason = reason
        self.cancelled = False

    def PredictStream(self, _: object, *, timeout: float | None, metadata: Metadata) -> "Answers":
        assert timeout is not None
        self._items = self._make(str(metadata[0][1]))
        return self

    def _make(self, request_id: str) -> Iterator[PredictStreamResponse]:
        for index in range(self.count):
            item = {"constant": 3, "echo": "it", "value": 65, "pid": 1, "opened": 1, "index": index}
            item["filling"] = "abc"[index] * 2
            fields = {"index": index, "revision": 1, "request_id": request_id}
            for name, value in self.changed.get(index, {}).items():
                (fields if name.startswith("message ") else item)[name.removeprefix("message ")] = value
            yield PredictStreamResponse(result_json=json.dumps(item), **fields)
        if self.reason:
            raise ModelHostError("so it goes", reason=self.reason)

    def __next__(self) -> PredictStreamResponse:
        return next(self._items)

    def cancel(self) -> None:
        self.cancelled = True


def read(judge: Judge, answers: Answers, most: int | None = None, **more: Any) -> Stream:
    sent = {"x": 2, "echo": "it", "items": 3, "size": 2, **more}
    stream = Stream(judge, answers, Call("python36", sent, time.monotonic() + 5), Reading(most), 5)
    stream.read()
    return stream


def test_a_stream_that_is_right_is_counted_with_its_items(judge: Judge) -> None:
    read(judge, Answers(3))
    read(judge, Answers(3), most=2)

    assert judge.tally.problems == []
    assert (judge.tally.calls, judge.tally.ok, judge.tally.streams, judge.tally.items) == (2, 2, 2, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"index": 2},
        {"filling": "aa"},
        {"echo": "another"},
        {"pid": 2},
        {"constant": 4, "value": 66},
        {"opened": 2},
        {"message index": 2},
        {"message revision": 2},
        {"message request_id": "another"},
    ],
)
def test_a_wrong_item_is_seen(judge: Judge, wrong: dict[str, Any]) -> None:
    judge._journal.entry("python36").revisions.update({1: 3, 2: 3})
    answers = Answers(3, {1: wrong})

    assert read(judge, answers).count == 1

    assert len(judge.tally.wrong) == 1
    assert answers.cancelled


@pytest.mark.parametrize(("come", "wanted"), [(0, 3), (2, 3), (3, 2)])
def test_a_stream_that_ends_early_or_late_without_an_error_is_seen(judge: Judge, come: int, wanted: int) -> None:
    read(judge, Answers(come), items=wanted)

    assert len(judge.tally.wrong) == 1


def test_what_a_model_raises_comes_after_all_its_items(judge: Judge) -> None:
    read(judge, Answers(2, reason="MODEL_RAISED"), at=2)
    assert judge.tally.wrong == []

    read(judge, Answers(1, reason="MODEL_RAISED"), at=2)
    assert len(judge.tally.wrong) == 1


def test_an_answer_tells_of_a_stream_that_the_model_has_not_closed() -> None:
    answer = {"constant": 3, "echo": "it", "value": 65, "pid": 1, "opened": 1}
    assert fault_of({"x": 2, "echo": "it"}, answer)
    assert not fault_of({"x": 2, "echo": "it"}, {**answer, "opened": 0})


def test_every_poison_of_a_stream_has_an_end_that_is_expected() -> None:
    assert set(STREAM_POISONS) <= set(OF_POISONS)


# ---- tensors


def tensors(*, raw: bool, **changed: Any) -> tuple[Call, Prediction]:
    """A call with tensors and what is made of its answer; `changed` are fields of that."""
    call = Call("python36", {"x": [2, 3], "echo": "ü"}, time.monotonic() + 5)
    request = request_of(call, raw=raw)
    response = open_inference_pb2.ModelInferResponse(model_name="python36", model_version="1", id="ü")
    values = {"constant": [3], "value": [65, 96], "pid": [1], "opened": [0], **changed}
    for name, numbers in values.items():
        output = response.outputs.add(name=name, datatype="INT64", shape=[len(numbers)])
        if raw:
            response.raw_output_contents.append(struct.pack(f"<{len(numbers)}q", *numbers))
        else:
            output.contents.int64_contents.extend(numbers)
    echo = response.outputs.add(name="echo", datatype="BYTES", shape=[1])
    if raw:
        response.raw_output_contents.append(struct.pack("<I", 2) + "ü".encode())
    else:
        echo.contents.bytes_contents.append("ü".encode())
    return call, prediction_of(request, response)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("wrong", [{"value": [96, 65]}, {"value": [65]}, {"constant": [4]}, {"more": [1]}])
def test_wrong_tensors_are_seen(judge: Judge, wrong: dict[str, Any], raw: bool) -> None:
    judge.answered(*tensors(raw=raw))
    assert judge.tally.problems == []

    judge.answered(*tensors(raw=raw, **wrong))
    assert len(judge.tally.wrong) == 1
