"""Tensor calls as one: the rows of their tensors one after the other, and the rows of the outputs cut apart again.

It is for models that say that the first dimension of all their tensors counts rows which know nothing of each other
(`batch_dimension`). As rows lie one after the other in memory, numbers are not looked at here; the elements of BYTES
are each found, so there may not be too many of them.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from math import prod

from modelhost.server.errors import PredictionFailed
from modelhost.server.serving.link import Header, Part, Received
from modelhost.server.serving.tensors import LENGTH_BYTES, Tensor, TensorCall, elements, outputs_of, result_tensors
from modelhost.v1.error_reason_pb2 import ErrorReason

MOST_ELEMENTS = 65_536  # of an output of BYTES: to find so many takes the event loop some 30 ms


@dataclass(frozen=True)
class Stack:
    """What tensor calls that go together have in common: all but the number of rows, and the elements."""

    tensors: Hashable
    parameters: Hashable
    outputs: Hashable


def stack_of(call: TensorCall) -> Stack | None:
    """Which calls a call can go with; None if with no other, for its tensors do not have the same number of rows."""
    if not _have_rows([one.shape for one in call.tensors]):
        return None
    return Stack(
        tuple((one.name, one.datatype, one.shape[1:]) for one in call.tensors),
        tuple(sorted((name, repr(value)) for name, value in call.parameters.items())),
        tuple(call.outputs),
    )


def can_be_stacked(header: Header) -> bool:
    """Whether a call has tensors with the same number of rows."""
    return _have_rows([one["shape"] for one in header.get("tensors", ())])


def _have_rows(shapes: Sequence[Sequence[int]]) -> bool:
    return bool(shapes and all(shape and shape[0] == shapes[0][0] for shape in shapes) and shapes[0][0])


def rows_of(header: Header) -> int:
    """How many rows a call has that can go with others."""
    return int(header["tensors"][0]["shape"][0])


def stacked(headers: Sequence[Header], bodies: Sequence[Sequence[Part]]) -> tuple[Header, list[Part]]:
    """Calls of one stack as one call."""
    rows = sum(map(rows_of, headers))
    tensors: list[Header] = []
    body: list[Part] = []
    for one, parts in zip(headers[0]["tensors"], zip(*bodies, strict=True), strict=True):
        size = sum(map(len, parts))
        tensors.append({**one, "shape": (rows, *one["shape"][1:]), "size": size})
        body += parts
    return {**headers[0], "tensors": tensors}, body


def check_rows(header: Header, rows: int) -> None:
    """Raise `PredictionFailed` where an answer to calls of so many rows has outputs with others, or no tensors."""
    for one in outputs_of(header):
        if not one.shape or one.shape[0] != rows:
            raise _unlike(one.name, one.shape, rows)


def unstacked(header: Header, body: Received, rows: Sequence[int]) -> Iterator[tuple[Header, Received]]:
    """The answer to a stack as answers to its calls, which have so many rows each.

    Raises `PredictionFailed`, before the first, where an output has another number of rows than all calls together, or
    none at all.
    """
    check_rows(header, sum(rows))
    outputs = result_tensors(header, body)
    cuts = [_cuts(one, rows) for one in outputs]
    return (_answer(outputs, cuts, number, count) for number, count in enumerate(rows))


def _cuts(output: Tensor, rows: Sequence[int]) -> list[int]:
    """Where the bytes of each call begin in an output, and where the last ones end."""
    row = prod(output.shape[1:])
    ends = [row * end for end in accumulate(rows, initial=0)]  # in elements
    if output.datatype == "BYTES":
        if ends[-1] > MOST_ELEMENTS:
            raise _too_many(output.name, ends[-1])
        found = islice(elements(output.data), ends[-1] + 1)
        try:
            of_elements = [0, *accumulate(LENGTH_BYTES + len(each) for each in found)]
        except ValueError:
            of_elements = []
        if len(of_elements) - 1 != ends[-1]:
            raise _unlike(output.name, output.shape, rows=sum(rows))
        return [of_elements[end] for end in ends]
    size = len(output.data) // (ends[-1] or 1)
    return [size * end for end in ends]


def _answer(
    outputs: Sequence[Tensor], cuts: Sequence[Sequence[int]], number: int, rows: int
) -> tuple[Header, Received]:
    parts = [one.data[cut[number] : cut[number + 1]] for one, cut in zip(outputs, cuts, strict=True)]
    tensors = [
        {"name": one.name, "datatype": one.datatype, "shape": (rows, *one.shape[1:]), "size": len(part)}
        for one, part in zip(outputs, parts, strict=True)
    ]
    return {"tensors": tensors}, b"".join(parts)


def _too_many(name: str, count: int) -> PredictionFailed:
    return PredictionFailed(
        ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE,
        "the output {tensor} has {count} elements; of BYTES no more than {most} are cut apart for the calls of a batch",
        tensor=name,
        count=count,
        most=MOST_ELEMENTS,
    )


def _unlike(name: str, shape: Sequence[int], rows: int) -> PredictionFailed:
    return PredictionFailed(
        ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE,
        "the output {tensor} has not a row for each of the inputs', as batch_dimension has it: its shape is"
        " {shape}, and the inputs have {rows} rows",
        tensor=name,
        shape=list(shape),
        rows=rows,
    )
