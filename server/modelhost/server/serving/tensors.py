"""Tensors on their way between a call and a worker: elements stay bytes, row by row, little-endian.

Of BYTES each element has its length in 4 bytes before it. Nothing here knows of the API's messages.
"""

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Final

import msgspec

from modelhost.server.errors import InvalidRequest, PredictionFailed
from modelhost.server.resources import TensorSpec
from modelhost.server.serving.link import Header, Part, Received
from modelhost.v1.error_reason_pb2 import ErrorReason

ELEMENT_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8,
    "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip
DATATYPES: Final = (*ELEMENT_BYTES, "BYTES")
_KNOWN: Final = frozenset(DATATYPES)
MOST_TENSORS: Final = 100  # of a call, and as many requested outputs: a header of the link has 1 MiB at most
MOST_DIMENSIONS: Final = 32  # as many as NumPy before 2.0 has
NAME_BYTES: Final = 200

LENGTH_BYTES: Final = 4  # before each element of BYTES
_LENGTH = struct.Struct("<I")

Parameter = bool | int | float | str | None


class Tensor(msgspec.Struct, frozen=True):
    """A tensor and its elements."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Part


class TensorCall(msgspec.Struct, frozen=True):
    """What a model is called with: tensors, what came beside them, and the names of outputs that are wanted, if any."""

    tensors: Sequence[Tensor]
    parameters: Mapping[str, Parameter]
    outputs: Sequence[str]

    @property
    def message(self) -> tuple[Header, tuple[Part, ...]]:
        """The message `call`: its header, and its body, the tensors' data one after the other."""
        tensors, body = [], []
        for one in self.tensors:
            data = one.data
            tensors.append({"name": one.name, "datatype": one.datatype, "shape": one.shape, "size": len(data)})
            body.append(data)
        header: Header = {"type": "call", "tensors": tensors}
        if self.parameters:
            header["parameters"] = self.parameters
        if self.outputs:
            header["outputs"] = self.outputs
        return header, tuple(body)


@dataclass(frozen=True)
class Signature:
    """The tensors that a model declares to take and to return; where it declares none, any will do."""

    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()

    @property
    def declares_any(self) -> bool:
        """Whether there is anything to check."""
        return bool(self.inputs or self.outputs)

    def check_call(self, call: TensorCall) -> None:
        """Raise `InvalidRequest` TENSOR_INVALID for a call that is not as declared."""
        if self.inputs:
            given = {one.name: one for one in call.tensors}
            declared = {one.name: one for one in self.inputs}
            for name in declared:
                if name not in given:
                    raise invalid("inputs", name, "the model needs it, and the call does not have it")
            for index, tensor in enumerate(call.tensors):
                spec = declared.get(tensor.name)
                if spec is None:
                    raise invalid(f"inputs[{index}]", tensor.name, f"the model takes {_listed(declared)} and no other")
                if problem := _difference(tensor, spec):
                    raise invalid(f"inputs[{index}]", tensor.name, problem)
        if self.outputs:
            names = [one.name for one in self.outputs]
            for index, name in enumerate(call.outputs):
                if name not in names:
                    raise invalid(f"outputs[{index}]", name, f"the model returns {_listed(names)} and no other")

    def check_result(self, outputs: Sequence[Tensor], wanted: Collection[str]) -> None:
        """Raise `PredictionFailed` for a result that is not as declared. `wanted` are names, or none for all."""
        given = {one.name: one for one in outputs}
        for spec in self.outputs:
            if wanted and spec.name not in wanted:
                continue
            tensor = given.get(spec.name)
            problem = "the model has not returned it" if tensor is None else _difference(tensor, spec)
            if problem:
                raise PredictionFailed(
                    ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE,
                    "the model declares the output {tensor}: {problem}",
                    tensor=spec.name,
                    problem=problem,
                )


ANY: Final = Signature()


def elements(data: Part) -> Iterator[Part]:
    """The elements of BYTES. Raises `ValueError` if the last is not whole."""
    start = 0
    while start < len(data):
        if start + LENGTH_BYTES > len(data):
            raise ValueError
        (size,) = _LENGTH.unpack_from(data, start)
        start += LENGTH_BYTES + size
        if start > len(data):
            raise ValueError
        yield data[start - size : start]


def invalid(field: str, tensor: str, problem: str) -> InvalidRequest:
    """A tensor of a call is not what it should be."""
    return InvalidRequest(
        field,
        "tensor {tensor}: {problem}",
        reason=ErrorReason.ERROR_REASON_TENSOR_INVALID,
        tensor=repr(tensor[:NAME_BYTES]),
        problem=problem,
    )


_Extent = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Head(msgspec.Struct):
    """What a worker says of a tensor in its answer; `size` in bytes."""

    name: str
    datatype: str
    shape: Annotated[tuple[_Extent, ...], msgspec.Meta(max_length=MOST_DIMENSIONS)]
    size: _Extent


class _Answer(msgspec.Struct):
    """The header of a `result` that holds tensors."""

    tensors: list[Head]


def heads_of(header: Header) -> list[Head]:
    """What a worker's `result` says of its tensors. Raises `PredictionFailed` for one that holds none."""
    try:
        heads = msgspec.convert(header, _Answer).tensors
    except ValueError:  # msgspec's own
        raise _no_tensors() from None
    if not all(head.datatype in _KNOWN for head in heads):
        raise _no_tensors()
    return heads


def result_tensors(header: Header, body: Received) -> list[Tensor]:
    """The tensors of a worker's `result`. Raises `PredictionFailed` for one that holds none."""
    tensors, start = [], 0
    view = memoryview(body)
    for head in heads_of(header):
        data = view[start : start + head.size]
        size = ELEMENT_BYTES.get(head.datatype)
        if len(data) != head.size or (size and prod(head.shape) * size != head.size):
            raise _no_tensors()
        tensors.append(Tensor(head.name, head.datatype, head.shape, data))
        start += head.size
    return tensors


def _no_tensors() -> PredictionFailed:
    return PredictionFailed(
        ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE, "the worker's answer does not hold tensors"
    )


def _difference(tensor: Tensor, spec: TensorSpec) -> str:
    """What is not as declared; empty if nothing is."""
    if tensor.datatype != spec.datatype:
        return f"it is declared as {spec.datatype}, not {tensor.datatype}"
    fits = len(tensor.shape) == len(spec.shape) and all(
        size in (given, -1) for given, size in zip(tensor.shape, spec.shape, strict=True)
    )
    return "" if fits else f"its shape is declared as {list(spec.shape)}, and {list(tensor.shape)} does not fit"


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names))
