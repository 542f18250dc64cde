"""Requests that are like one before are read without a look, and are what they would be with one."""

import gc
import itertools
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.api.inference import codec, patterns
from modelhost.server.api.inference.messages import InferRequest
from modelhost.server.api.inference.patterns import Patterns
from modelhost.server.api.inference.wire import LARGE_BYTES
from modelhost.server.errors import InvalidRequest
from modelhost.server.serving.tensors import ELEMENT_BYTES, TensorCall

UNKNOWN_FIELD = bytes([15 << 3 | 2])
Shape = tuple[str, int]  # datatype, elements


class Server:
    """Reads requests as a server does, one after the other."""

    def __init__(self) -> None:
        self.patterns = Patterns()

    def parsed(self, data: bytes) -> InferRequest:
        received = InferRequest(self.patterns)
        received.ParseFromString(data)
        return received

    def looked_at(self, data: bytes) -> TensorCall:
        """What a request says that nothing is known of; it is remembered."""
        received = self.parsed(data)
        assert received.call is None
        return codec.decode(received)


@pytest.fixture
def server() -> Server:
    return Server()


def message(tensors: Sequence[Shape], seed: int, **fields: Any) -> pb.ModelInferRequest:
    """A request with tensors of such elements as chance has them."""
    made = pb.ModelInferRequest(model_name="model", **fields)
    chance = random.Random(seed)
    for number, (datatype, count) in enumerate(tensors):
        made.inputs.add(name=f"x{number}", datatype=datatype, shape=[count])
        made.raw_input_contents.append(chance.randbytes(count * ELEMENT_BYTES[datatype]))
    return made


def said(call: TensorCall) -> tuple[object, ...]:
    tensors = [(one.name, one.datatype, one.shape, bytes(one.data)) for one in call.tensors]
    return call.head.fields, tensors, call.parameters, call.outputs


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
    server = Server()
    first, second = (message(tensors, seed, model_version=version) for seed in (1, 2))
    if more:
        for one in (first, second):
            one.parameters["temperature"].double_param = 0.5
            one.outputs.add(name="y")
    wanted = said(Server().looked_at(second.SerializeToString()))
    server.looked_at(first.SerializeToString())

    received = server.parsed(second.SerializeToString())

    assert received.call is not None
    assert said(received.call) == wanted
    assert received.message.model_name == "model"
    assert received.message.model_version == version
    assert received.size == second.ByteSize()


def test_large_contents_lie_in_the_bytes_that_came(server: Server) -> None:
    server.looked_at(message([("UINT8", LARGE_BYTES)], 1).SerializeToString())
    data = message([("UINT8", LARGE_BYTES)], 2).SerializeToString()

    call = server.parsed(data).call

    assert call is not None
    assert call.body[0].obj is data  # type: ignore[union-attr]


def changed(change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    """A request of one tensor, a parameter and an output, with a change that leaves its size."""
    made = message([("UINT16", 10)], 2, model_version="1")
    made.inputs[0].shape[:] = [2, 5]
    made.parameters["seed"].int64_param = 1
    made.outputs.add(name="y")
    change(made)
    return made


@pytest.mark.parametrize(
    "other",
    [
        changed(lambda made: setattr(made, "model_name", "other")),
        changed(lambda made: setattr(made, "model_version", "2")),
        changed(lambda made: setattr(made.inputs[0], "name", "y0")),
        changed(lambda made: setattr(made.inputs[0], "datatype", "UINT32")),
        changed(lambda made: made.inputs[0].shape.reverse()),
        changed(lambda made: setattr(made.parameters["seed"], "int64_param", 2)),
        changed(lambda made: setattr(made.outputs[0], "name", "z")),
    ],
    ids=["model", "version", "name", "datatype", "shape", "parameter", "output"],
)
def test_a_request_that_differs_in_more_than_elements_is_looked_at(server: Server, other: pb.ModelInferRequest) -> None:
    first = changed(lambda made: None)
    assert first.ByteSize() == other.ByteSize()
    server.looked_at(first.SerializeToString())

    assert server.parsed(other.SerializeToString()).call is None
    assert server.parsed(first.SerializeToString()).call is not None


def seeded(seed: int) -> bytes:
    """Requests that differ in a parameter."""
    return changed(lambda made: setattr(made.parameters["seed"], "int64_param", seed)).SerializeToString()


def test_requests_of_one_size_are_known_beside_each_other(server: Server) -> None:
    wanted = [said(server.looked_at(seeded(seed))) for seed in range(8)]

    calls = [server.parsed(seeded(seed)).call for seed in range(8)]

    assert [call is not None and said(call) for call in calls] == wanted


def test_what_changes_with_each_request_is_not_kept_for_ever(server: Server) -> None:
    for seed in range(50):
        server.looked_at(seeded(seed))
    assert len(server.patterns) == patterns.MOST_ALIKE


def test_nothing_is_kept_of_what_the_tensors_held(server: Server) -> None:
    data = message([("UINT8", LARGE_BYTES)], 1).SerializeToString()
    received = server.parsed(data)
    codec.decode(received)
    assert len(server.patterns) == 1
    del received
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, memoryview) and one.nbytes == LARGE_BYTES]
    assert sys.getrefcount(data) == 2


def test_what_stands_between_contents_is_looked_at(server: Server) -> None:
    tensors = [("UINT8", 10), ("UINT8", 20)]
    server.looked_at(message(tensors, 1).SerializeToString())
    data = bytearray(message(tensors, 2).SerializeToString())
    assert data[-22:-20] == bytes([7 << 3 | 2, 20])
    data[-22] = UNKNOWN_FIELD[0]  # so that the second tensor has no contents

    received = server.parsed(bytes(data))

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
def test_such_a_request_is_looked_at_each_time(server: Server, make: Any) -> None:
    data = make()
    first = server.looked_at(data)
    assert said(server.looked_at(data)) == said(first)


def test_what_is_remembered_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MOST_PATTERNS", 2)
    for count, version in itertools.product(range(1, 8), "1234"):
        server.looked_at(message([("UINT8", count)], 1, model_version=version).SerializeToString())
        kept = [each for alike in server.patterns._known.values() for each in alike.patterns]
        assert len(kept) == len(server.patterns) <= 2
    assert server.parsed(message([("UINT8", 7)], 2, model_version="4").SerializeToString()).call is not None


def test_a_request_that_is_looked_at_twice_is_remembered_once(server: Server) -> None:
    received = server.parsed(message([("FP64", 3)], 1).SerializeToString())
    assert said(codec.decode(received)) == said(codec.decode(received))
    assert len(server.patterns) == 1


def test_nobody_takes_another_models_places(server: Server) -> None:
    theirs = pb.ModelInferRequest(model_name="theirs").SerializeToString()
    server.looked_at(theirs + message([("FP64", 3)], 1).SerializeToString())
    assert len(server.patterns) == 0


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\x05mod", b"\xff" * 40])
def test_what_is_no_request_is_like_none(data: bytes) -> None:
    assert Patterns().find(data) is None
