"""The wire format of ModelInfer: https://protobuf.dev/programming-guides/encoding/ says that the order is free."""

from functools import lru_cache

from google.protobuf.message import DecodeError

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.serving.tensors import MOST_TENSORS

LARGE_BYTES = 64 * 1024  # of a message: below that, to copy contents costs less than to look for them
MOST_FIELDS = 4 * MOST_TENSORS  # that are looked at one by one; no right request has so many
MOST_KEPT = 1000
_RAW_INPUT = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_RAW_OUTPUT = pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number
_VARINT, _LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}  # wire types; bytes of those that are always as long


@lru_cache(MOST_KEPT)
def before_raw_input(size: int) -> bytes:
    """What stands before raw contents of so many bytes in a request."""
    return _varint(_RAW_INPUT << 3 | _LENGTH) + _varint(size)


@lru_cache(MOST_KEPT)
def before_raw_output(size: int) -> bytes:
    """What stands before raw contents of so many bytes in a response."""
    return _varint(_RAW_OUTPUT << 3 | _LENGTH) + _varint(size)


def split(data: bytes) -> tuple[bytes, list[memoryview]] | None:
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
