"""ModelInfer's messages, whose raw contents are not copied where that would cost: they are most of a large message.

protobuf copies them twice on their way in, into the message and out of it, and twice on their way out. Here those of a
large request are views of the bytes that came, and those of a response are written behind the rest of it.
https://protobuf.dev/programming-guides/encoding/ says how fields lie in a message, and that their order is free.
"""

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.message import DecodeError

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.serving.link import Part
from modelhost.server.serving.tensors import MOST_TENSORS, NAME_BYTES, Tensor

LARGE_BYTES = 64 * 1024  # below that, to copy costs less than to look
MOST_FIELDS = 4 * MOST_TENSORS  # that are looked at one by one; no right request has so many
MOST_KEPT = 1000
_RAW_INPUT = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_RAW_OUTPUT = pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number
_VARINT, _LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}  # wire types; bytes of those that are always as long


class InferRequest:
    """A ModelInferRequest as far as the dispatcher knows messages.

    `message` is all of it, but for the raw contents of a large one; `raw` are those, and `size` is how many bytes came.
    """

    DESCRIPTOR = pb.ModelInferRequest.DESCRIPTOR

    def __init__(self) -> None:
        self.message = pb.ModelInferRequest()
        self.raw: Sequence[Part] = ()
        self.size = 0

    def ParseFromString(self, data: bytes) -> None:  # noqa: N802 - as the library calls it
        """Fill it. Raises `DecodeError`."""
        self.size = len(data)
        split = _split(data) if len(data) > LARGE_BYTES else None
        if split is None:
            self.message.ParseFromString(data)
            self.raw = self.message.raw_input_contents
        else:
            rest, self.raw = split
            self.message.ParseFromString(rest)


class InferResponse:
    """A ModelInferResponse with raw contents, as far as the dispatcher knows messages; `size` is what it will have.

    A model answers with the same tensors again and again, but for their elements: what is said of them is kept.
    """

    def __init__(self, model_name: str, model_version: str, request_id: str, outputs: Sequence[Tensor]) -> None:
        parts: list[Part] = [_beginning(model_name, model_version)]
        if request_id:
            parts.append(pb.ModelInferResponse(id=request_id).SerializeToString())
        for one in outputs:
            output = _output if len(one.name) <= NAME_BYTES else _output.__wrapped__  # few and short ones are kept
            parts.append(output(one.name, one.datatype, one.shape))
        for one in outputs:
            parts += (_before_raw(len(one.data)), one.data)
        self._parts = parts
        self.size = sum(map(len, parts))

    def SerializeToString(self) -> bytes:  # noqa: N802 - as the library calls it
        """Its bytes."""
        return b"".join(self._parts)


@lru_cache(MOST_KEPT)
def _beginning(model_name: str, model_version: str) -> bytes:
    return pb.ModelInferResponse(model_name=model_name, model_version=model_version).SerializeToString()


@lru_cache(MOST_KEPT)
def _output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    output = pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)
    return pb.ModelInferResponse(outputs=[output]).SerializeToString()


@lru_cache(MOST_KEPT)
def _before_raw(size: int) -> bytes:
    return _varint(_RAW_OUTPUT << 3 | _LENGTH) + _varint(size)


def _split(data: bytes) -> tuple[bytes, list[memoryview]] | None:
    """A request without its raw contents, and these; None for what is better parsed whole, as what is no message."""
    view = memoryview(data)
    raw: list[memoryview] = []
    rest: list[memoryview] = []
    at = 0
    try:
        while at < len(data):
            start = at
            tag, at = _read_varint(data, at)
            kind = tag & 7
            if kind == _LENGTH:
                size, at = _read_varint(data, at)
                at += size
                if tag >> 3 == _RAW_INPUT and at <= len(data):
                    raw.append(view[at - size : at])
                    start = at
            elif kind == _VARINT:
                _, at = _read_varint(data, at)
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                return None
            rest.append(view[start:at])
            if len(rest) > MOST_FIELDS:
                return None
    except (IndexError, DecodeError):
        return None
    return (b"".join(rest), raw) if at == len(data) else None


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends. Raises `IndexError`, and `DecodeError` for one that is too long."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise DecodeError


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
