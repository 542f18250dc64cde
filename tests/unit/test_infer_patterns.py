"""Requests that are like one before are read without a look, and are what they would be with one."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.api.inference import codec, patterns
from modelhost.server.api.inference.messages import LARGE_BYTES, InferRequest
from modelhost.server.errors import InvalidRequest
from modelhost.server.serving.tensors import ELEMENT_BYTES, TensorCall

UNKNOWN_FIELD = bytes([15 << 3 | 2])
Shape = tuple[str, int]  # datatype, elements


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    patterns._patterns.clear()
    yield
    patterns._patterns.clear()


def message(tensors: Sequence[Shape], fill: int, **fields: Any) -> pb.ModelInferRequest:
    """A request with tensors whose bytes are all `fill`."""
    made = pb.ModelInferRequest(model_name="model", **fields)
    for number, (datatype, count) in enumerate(tensors):
        made.inputs.add(name=f"x{number}", datatype=datatype, shape=[count])
        made.raw_input_contents.append(bytes([fill]) * (count * ELEMENT_BYTES[datatype]))
    return made


def parsed(data: bytes) -> InferRequest:
    received = InferRequest()
    received.ParseFromString(data)
    return received


def looked_at(data: bytes) -> TensorCall:
    """What a request says that nothing is known of; it is remembered."""
    received = parsed(data)
    assert received.call is None
    return codec.decode(received)


def said(call: TensorCall) -> tuple[object, ...]:
    return call.head.fields, b"".join(call.body), [len(part) for part in call.body], call.parameters, call.outputs


TENSORS = st.lists(
    st.tuples(st.sampled_from(sorted(ELEMENT_BYTES)), st.sampled_from([1, 3, 17, 100, LARGE_BYTES])),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(TENSORS, st.booleans(), st.sampled_from(["", "3"]))
def test_a_request_like_one_before_is_what_a_look_at_it_would_find(
    tensors: list[Shape], more: bool, version: str
) -> None:
    patterns._patterns.clear()
    first, second = (message(tensors, fill, model_version=version) for fill in (1, 2))
    if more:
        for one in (first, second):
            one.parameters["temperature"].double_param = 0.5
            one.inputs[0].parameters["of the tensor"].bool_param = False
            one.outputs.add(name="y")
    wanted = said(looked_at(second.SerializeToString()))
    patterns._patterns.clear()
    looked_at(first.SerializeToString())

    received = parsed(second.SerializeToString())

    if more:  # what a tensor has beside its elements is looked at each time
        assert received.call is None
    else:
        assert received.call is not None
        assert said(received.call) == wanted
    assert received.message.model_name == "model"
    assert received.message.model_version == version
    assert received.size == second.ByteSize()


def test_what_comes_beside_tensors_is_known_too() -> None:
    made = [message([("FP64", 3)], fill, model_version="2") for fill in (1, 2)]
    for one in made:
        one.parameters["temperature"].double_param = 0.5
        one.outputs.add(name="y")
    looked_at(made[0].SerializeToString())

    call = parsed(made[1].SerializeToString()).call

    assert call is not None
    assert call.parameters == {"temperature": 0.5}
    assert call.outputs == ["y"]
    assert call.head.fields["parameters"] == {"temperature": 0.5}
    assert call.body == [b"\2" * 24]


def test_large_contents_lie_in_the_bytes_that_came() -> None:
    looked_at(message([("UINT8", LARGE_BYTES)], 1).SerializeToString())
    data = message([("UINT8", LARGE_BYTES)], 2).SerializeToString()

    call = parsed(data).call

    assert call is not None
    assert call.body[0].obj is data  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "other",
    [
        message([("FP64", 3)], 2, model_version="1"),
        message([("FP64", 4)], 2),
        message([("INT64", 3)], 2),
        message([("FP64", 3), ("BOOL", 1)], 2),
        message([("FP64", 3)], 2, id="7"),
    ],
    ids=["version", "size", "datatype", "another tensor", "an id"],
)
def test_a_request_that_differs_in_more_than_elements_is_looked_at(other: pb.ModelInferRequest) -> None:
    looked_at(message([("FP64", 3)], 1).SerializeToString())
    assert parsed(other.SerializeToString()).call is None


def test_what_stands_between_contents_is_looked_at() -> None:
    tensors = [("UINT8", 10), ("UINT8", 20)]
    looked_at(message(tensors, 1).SerializeToString())
    data = bytearray(message(tensors, 2).SerializeToString())
    assert data[-22:-20] == bytes([7 << 3 | 2, 20])
    data[-22] = UNKNOWN_FIELD[0]  # so that the second tensor has no contents

    received = parsed(bytes(data))

    assert received.call is None
    with pytest.raises(InvalidRequest, match="has 2 inputs, but 1 raw_input_contents"):
        codec.decode(received)


def of_bytes() -> bytes:
    made = pb.ModelInferRequest(model_name="model", raw_input_contents=[b"\1\0\0\0a"])
    made.inputs.add(name="x", datatype="BYTES", shape=[1])
    return made.SerializeToString()


def typed() -> bytes:
    made = pb.ModelInferRequest(model_name="model")
    made.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(1)
    return made.SerializeToString()


def backwards() -> bytes:
    made = message([("UINT8", 10)], 1)
    raw = pb.ModelInferRequest(raw_input_contents=made.raw_input_contents)
    del made.raw_input_contents[:]
    return raw.SerializeToString() + made.SerializeToString()


def with_contents_in_an_unknown_field() -> bytes:
    made = message([("UINT8", 10)], 1)
    raw = pb.ModelInferRequest(raw_input_contents=[b"\2" * 10]).SerializeToString()
    return made.SerializeToString() + UNKNOWN_FIELD + bytes([len(raw)]) + raw


def with_an_id() -> bytes:
    return message([("UINT8", 10)], 1, id="7").SerializeToString()


def with_a_long_name() -> bytes:
    made = message([("UINT8", 10)], 1)
    made.model_name = "m" * 200
    return made.SerializeToString()


def with_much_beside() -> bytes:
    made = message([("UINT8", 10)], 1)
    made.parameters["text"].string_param = "t" * patterns.MOST_BYTES
    return made.SerializeToString()


@pytest.mark.parametrize(
    "make",
    [
        of_bytes,
        typed,
        backwards,
        with_contents_in_an_unknown_field,
        with_an_id,
        with_a_long_name,
        with_much_beside,
    ],
)
def test_such_a_request_is_looked_at_each_time(make: Any) -> None:
    data = make()
    first = looked_at(data)
    assert said(looked_at(data)) == said(first)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MOST_PATTERNS", 2)
    for count in range(1, 8):
        looked_at(message([("UINT8", count)], 1).SerializeToString())
        assert len(patterns._patterns) <= 2
    assert parsed(message([("UINT8", 7)], 2).SerializeToString()).call is not None


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\x05mod", b"\xff" * 40])
def test_what_is_no_request_is_like_none(data: bytes) -> None:
    assert patterns.pattern_of(data) is None
