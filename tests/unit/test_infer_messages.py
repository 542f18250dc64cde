"""ModelInfer's messages whose raw contents are not copied say what the library's own would say."""

import random

import pytest
from google.protobuf.message import DecodeError

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.api.inference.messages import InferRequest, InferResponse, _output
from modelhost.server.api.inference.patterns import Patterns
from modelhost.server.api.inference.wire import LARGE_BYTES, MOST_FIELDS
from modelhost.server.serving.tensors import Tensor

UNKNOWN = bytes([15 << 3 | 0, 1]) + bytes([15 << 3 | 5, 1, 2, 3, 4]) + bytes([15 << 3 | 1]) + b"12345678"


def request(*raw: bytes) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="model", model_version="3", id="é", raw_input_contents=raw)
    for number, data in enumerate(raw):
        message.inputs.add(name=f"x{number}", datatype="UINT8", shape=[len(data)])
    message.parameters["temperature"].double_param = 0.5
    message.outputs.add(name="y")
    return message


def parsed(data: bytes) -> InferRequest:
    received = InferRequest(Patterns())
    received.ParseFromString(data)
    return received


def whole(received: InferRequest) -> pb.ModelInferRequest:
    """What was received as the library has it."""
    message = pb.ModelInferRequest.FromString(received.message.SerializeToString())
    del message.raw_input_contents[:]
    message.raw_input_contents.extend(map(bytes, received.raw))
    return message


@pytest.mark.parametrize("sizes", [(0,), (10,), (10, LARGE_BYTES), (LARGE_BYTES, 0, 1, 200_000), (1 << 21,)])
def test_a_request_is_what_the_library_reads(sizes: tuple[int, ...]) -> None:
    sent = request(*(random.Random(size).randbytes(size) for size in sizes))
    data = sent.SerializeToString()

    received = parsed(data)

    assert whole(received) == sent
    assert received.size == len(data)


def test_the_raw_contents_of_a_large_request_lie_in_the_bytes_that_came() -> None:
    data = request(b"x" * LARGE_BYTES).SerializeToString()

    received = parsed(data)

    assert [type(part) for part in received.raw] == [memoryview]
    assert received.raw[0].obj is data  # type: ignore[union-attr]
    assert not received.message.raw_input_contents


@pytest.mark.parametrize("seed", range(10))
def test_fields_may_come_in_any_order_and_some_may_be_unknown(seed: int) -> None:
    chance = random.Random(seed)
    pieces = [
        pb.ModelInferRequest(model_name="first").SerializeToString(),
        pb.ModelInferRequest(model_name="last", id="7").SerializeToString(),
        *(pb.ModelInferRequest(raw_input_contents=[chance.randbytes(40_000)]).SerializeToString() for _ in range(3)),
        pb.ModelInferRequest(inputs=[{"name": "x"}]).SerializeToString(),
        UNKNOWN,
    ]
    chance.shuffle(pieces)
    data = b"".join(pieces)

    received = parsed(data)

    assert [type(part) for part in received.raw] == [memoryview] * 3
    assert whole(received) == pb.ModelInferRequest.FromString(data)


@pytest.mark.parametrize(
    "cut",
    [lambda data: data[:-1], lambda data: data[: LARGE_BYTES // 2] + data[:LARGE_BYTES], lambda data: data + b"\x07"],
    ids=["the end is missing", "a piece in the middle of another", "a tag that is none"],
)
def test_what_the_library_does_not_take_is_not_taken(cut: object) -> None:
    data = cut(request(b"x" * LARGE_BYTES * 2).SerializeToString())  # type: ignore[operator]
    with pytest.raises(DecodeError):
        pb.ModelInferRequest.FromString(data)

    with pytest.raises(DecodeError):
        parsed(data)


@pytest.mark.parametrize("tail", [b"\xff" * 11, b"\x08" + b"\xff" * 10, b"\x3a\xff\xff\xff\xff\xff\x01x"])
def test_numbers_that_are_too_long_end_in_an_error_as_they_do_there(tail: bytes) -> None:
    data = request(b"x" * LARGE_BYTES).SerializeToString() + tail

    with pytest.raises(DecodeError):
        parsed(data)


def test_a_request_of_very_many_fields_is_left_to_the_library() -> None:
    message = pb.ModelInferRequest(id="x" * LARGE_BYTES)
    message.outputs.extend([pb.ModelInferRequest.InferRequestedOutputTensor(name="y")] * (MOST_FIELDS + 1))
    message.raw_input_contents.append(b"x")

    received = parsed(message.SerializeToString())

    assert received.message == message
    assert list(received.raw) == [b"x"]


def test_very_many_raw_contents_are_left_to_the_library() -> None:
    message = pb.ModelInferRequest(raw_input_contents=[b""] * LARGE_BYTES)

    received = parsed(message.SerializeToString())

    assert received.message == message


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_a_response_is_what_the_library_would_write(size: int) -> None:
    data = random.Random(size).randbytes(size)
    message = pb.ModelInferResponse(model_name="model", model_version="3", id="é", raw_output_contents=[data, b"\1"])
    message.outputs.add(name="a", datatype="UINT8", shape=[size])
    message.outputs.add(name="ü", datatype="BOOL", shape=[1, 1])
    outputs = [Tensor("a", "UINT8", (size,), memoryview(data)), Tensor("ü", "BOOL", (1, 1), b"\1")]

    response = InferResponse("model", "3", "é", outputs)

    written = response.SerializeToString()
    assert len(written) == response.size
    assert pb.ModelInferResponse.FromString(written) == message


def test_a_response_without_id_and_outputs_is_what_the_library_would_write() -> None:
    written = InferResponse("model", "3", "", []).SerializeToString()

    assert pb.ModelInferResponse.FromString(written) == pb.ModelInferResponse(model_name="model", model_version="3")


def test_what_is_kept_of_one_response_is_not_said_of_another() -> None:
    for name, datatype, shape in [
        ("a", "UINT8", (2,)),
        ("a", "INT8", (2,)),
        ("a", "INT8", (1, 2)),
        ("b", "INT8", (2,)),
    ]:
        for model, version in [("m", "1"), ("m", "2"), ("n", "1")]:
            written = InferResponse(model, version, "", [Tensor(name, datatype, shape, b"xy")]).SerializeToString()

            message = pb.ModelInferResponse(model_name=model, model_version=version, raw_output_contents=[b"xy"])
            message.outputs.add(name=name, datatype=datatype, shape=shape)
            assert pb.ModelInferResponse.FromString(written) == message


def test_of_outputs_with_long_names_nothing_is_kept() -> None:
    before = _output.cache_info().currsize
    for number in range(3):
        name = f"{number}" * 10_000
        written = InferResponse("m", "1", "", [Tensor(name, "INT8", (1,), b"x")]).SerializeToString()
        assert pb.ModelInferResponse.FromString(written).outputs[0].name == name
    assert _output.cache_info().currsize == before
