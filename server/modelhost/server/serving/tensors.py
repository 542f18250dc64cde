"""Tensors on their way between a call and a worker: elements stay bytes, row by row, little-endian.

Of BYTES each element has its length in 4 bytes before it. Nothing here knows of the API's messages.
"""

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Annotated, Final

import msgspec

from modelhost.server.errors import InvalidRequest, PredictionFailed
from modelhost.server.resources import TensorSpec
from modelhost.server.serving.link import Head, Header, Part, Received
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

KEPT_BYTES: Final = 2048  # of what is said of an answer's tensors, at most
MOST_KEPT: Final = 1000

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
    kept: Head | None = None  # that of another call which differs in the elements alone

    @property
    def head(self) -> Head:
        """The header of the message `call`."""
        return self.kept or Head(self._header())

    @property
    def body(self) -> list[Part]:
        """The body of the message `call`: the tensors' data one after the other."""
        return [one.data for one in self.tensors]

    def _header(self) -> Header:
        header: Header = {
            "type": "call",
            "tensors": [
                {"name": one.name, "datatype": one.datatype, "shape": one.shape, "size": len(one.data)}
                for one in self.tensors
            ],
        }
        if self.parameters:
            header["parameters"] = self.parameters
        if self.outputs:
            header["outputs"] = self.outputs
        return header


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


class Output(msgspec.Struct, frozen=True):
    """What a worker says of a tensor in its answer; `size` in bytes."""

    name: str
    datatype: str
    shape: Annotated[tuple[_Extent, ...], msgspec.Meta(max_length=MOST_DIMENSIONS)]
    size: _Extent


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Output]).decode


def outputs_of(header: Header) -> list[Output]:
    """What a worker's `result` says of its tensors. Raises `PredictionFailed` for one that holds none.

    A model answers with the same tensors again and again, but for their elements: what is said of them is kept.
    """
    try:
        text = _encode(header.get("tensors"))
        return _outputs(text) if len(text) <= KEPT_BYTES else _outputs.__wrapped__(text)
    except (ValueError, RecursionError):  # the first is msgspec's own
        raise _no_tensors() from None


@lru_cache(MOST_KEPT)
def _outputs(text: bytes) -> list[Output]:
    outputs = _decode(text)
    for one in outputs:
        size = ELEMENT_BYTES.get(one.datatype)
        if one.datatype not in _KNOWN or (size and prod(one.shape) * size != one.size):
            raise _no_tensors()
    return outputs


def result_tensors(header: Header, body: Received) -> list[Tensor]:
    """The tensors of a worker's `result`. Raises `PredictionFailed` for one that holds none."""
    tensors, start = [], 0
    view = memoryview(body)
    for one in outputs_of(header):
        data = view[start : start + one.size]
        if len(data) != one.size:
            raise _no_tensors()
        tensors.append(Tensor(one.name, one.datatype, one.shape, data))
        start += one.size
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
