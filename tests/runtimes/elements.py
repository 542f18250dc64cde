"""Tensors for tests of the workers: elements of every datatype, the first and the last of each among them."""

import struct
from collections.abc import Sequence

INTEGERS = {
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
}


def texts(*elements: str | bytes) -> bytes:
    """Elements of BYTES."""
    encoded = [element.encode() if isinstance(element, str) else element for element in elements]
    return b"".join(struct.pack("<I", len(element)) + element for element in encoded)


def numbers(code: str, *elements: float) -> bytes:
    """Elements of a datatype by its code of `struct`."""
    return struct.pack(f"<{len(elements)}{code}", *elements)


def _limits(code: str) -> bytes:
    bits = 8 * struct.calcsize(code)
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if code.islower() else (0, 2**bits - 1)
    return numbers(code, least, most, 0, 1, 2, 3)


# Six elements of each. The halves are zeros, the least and the greatest numbers, one that is no sum of few powers of
# two, and infinity.
SIX: dict[str, bytes] = {
    "BOOL": bytes([1, 0, 0, 1, 1, 0]),
    **{datatype: _limits(code) for datatype, code in INTEGERS.items()},
    "FP16": numbers("H", 0x0000, 0x8000, 0x0001, 0x7BFF, 0x3555, 0xFC00),
    "BF16": numbers("H", 0x0000, 0x8000, 0x0001, 0x7F7F, 0x3EAB, 0xFF80),
    "FP32": numbers("f", 0.0, -0.0, 1e-45, 3.4028234663852886e38, 0.1, -float("inf")),
    "FP64": numbers("d", 0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1, -float("inf")),
    "BYTES": texts("", "one", "zwei", "äöü \U0001f600", "5", "six\nlines"),
}
SHAPES: Sequence[list[int]] = ([6], [2, 3], [6, 1], [1, 3, 2], [3, 1, 2, 1])
