"""Between the tensors of Open Inference messages and those of `serving.tensors`: typed contents become raw, and back.

What is not as the protocol has it is told with the tensor's name. The conversion of large typed contents, or of many
BYTES, takes its time: `is_slow` says for which requests it belongs on a thread.
"""

import math
import struct
import sys
from array import array
from collections.abc import Sequence
from math import prod
from typing import Any

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.api.inference.messages import InferRequest
from modelhost.server.errors import InvalidRequest
from modelhost.server.serving.link import Part
from modelhost.server.serving.tensors import (
    DATATYPES,
    ELEMENT_BYTES,
    MOST_DIMENSIONS,
    MOST_TENSORS,
    NAME_BYTES,
    Parameter,
    Tensor,
    TensorCall,
    elements,
    invalid,
)
from modelhost.v1.error_reason_pb2 import ErrorReason

SLOW_BYTES = 64 * 1024  # of a request that is not taken as it is
PARAMETER_BYTES = 64 * 1024
MOST_EMPTY_ROWS = 1_000_000  # of nested lists, which take memory where their elements take none
LONGEST_CHARACTER = 4  # bytes, in UTF-8
_LENGTH = struct.Struct("<I")

# The field of the typed contents of each datatype, and what Python's array calls its elements. Others have no field.
_TYPED = {
    "BOOL": ("bool_contents", "B"),
    "INT8": ("int_contents", "b"), "INT16": ("int_contents", "h"), "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"), "UINT16": ("uint_contents", "H"), "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"), "FP64": ("fp64_contents", "d"),
    "BYTES": ("bytes_contents", ""),
}  # fmt: skip
_REFUSED = {
    "shared_memory_region": "this server takes no tensors from shared memory: send its contents",
    "classification": "this server makes no classifications of outputs",
}


def is_slow(request: InferRequest) -> bool:
    """Whether a request takes longer to decode than the event loop should wait."""
    if request.size <= SLOW_BYTES:
        return False
    return not request.raw or any(one.datatype == "BYTES" for one in request.message.inputs)


def is_typed(request: InferRequest) -> bool:
    """Whether the request has typed contents, so that its answer is to have such, too."""
    return not request.raw and any(one.HasField("contents") for one in request.message.inputs)


def decode(received: InferRequest) -> TensorCall:
    """What the model is to be called with. Raises `InvalidRequest`, mostly TENSOR_INVALID."""
    request, raw = received.message, received.raw
    inputs = request.inputs
    if len(inputs) > MOST_TENSORS or len(request.outputs) > MOST_TENSORS:
        raise InvalidRequest("inputs", "a call has at most {most} inputs and outputs", most=MOST_TENSORS)
    if raw and len(raw) != len(inputs):
        raise InvalidRequest(
            "raw_input_contents",
            "the call has {inputs} inputs, but {raw} raw_input_contents: all inputs have an entry there, or none has",
            reason=ErrorReason.ERROR_REASON_TENSOR_INVALID,
            inputs=len(inputs),
            raw=len(raw),
        )
    tensors: list[Tensor] = []
    names: set[str] = set()
    all_plain = bool(raw)
    for index, tensor in enumerate(inputs):
        name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
        data: Part = raw[index] if raw else b""
        if not _is_plain(tensor, name, datatype, shape, data) or name in names:
            all_plain = False
            data = _examined(tensor, index, names, data if raw else None)
        names.add(name)
        tensors.append(Tensor(name, datatype, shape, data))
    call = TensorCall(tensors, _parameters(request), _outputs(request))
    if all_plain:
        received.keep(call)
    return call


def can_be_typed(outputs: Sequence[Tensor]) -> bool:
    """Whether all have typed contents, for all must be alike."""
    return all(one.datatype in _TYPED for one in outputs)


def encode_typed(response: pb.ModelInferResponse, outputs: Sequence[Tensor]) -> None:
    """Put a model's tensors into a response as typed contents, which they can have."""
    for one in outputs:
        message = response.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        field, code = _TYPED[one.datatype]
        message.contents.SetInParent()
        getattr(message.contents, field).extend(_unpacked(one, code))


def _is_plain(
    tensor: pb.ModelInferRequest.InferInputTensor, name: str, datatype: str, shape: tuple[int, ...], data: Part
) -> bool:
    """Whether a tensor is raw numbers in which nothing is wrong, as most are: seen without a look at each rule."""
    size = ELEMENT_BYTES.get(datatype, 0)
    for extent in shape:
        if extent <= 0:
            return False
        size *= extent
    return (
        0 < size == len(data)
        and len(shape) <= MOST_DIMENSIONS
        and 0 < len(name) <= NAME_BYTES // LONGEST_CHARACTER
        and not tensor.parameters
        and not tensor.HasField("contents")
    )


def _examined(tensor: pb.ModelInferRequest.InferInputTensor, index: int, names: set[str], raw: Part | None) -> Part:
    """The elements of a tensor, typed ones as raw, once all rules are seen to be kept. Raises `InvalidRequest`."""
    field = f"inputs[{index}]"
    problem = _problem(tensor, names)
    if not problem and raw is not None and tensor.HasField("contents"):
        problem = "it has contents, but the call has raw_input_contents: only one of them may be used"
    if not problem and raw is not None:
        problem = _size_problem(tensor, raw)
    if problem:
        raise invalid(field, tensor.name, problem)
    return _packed(tensor, field) if raw is None else raw


def _problem(tensor: pb.ModelInferRequest.InferInputTensor, names: set[str]) -> str:
    """What is wrong with a tensor, but for its contents; empty if nothing is. `names` are those before it."""
    if not 0 < len(tensor.name.encode()) <= NAME_BYTES:
        return f"its name must have 1 to {NAME_BYTES} bytes"
    if tensor.name in names:
        return "the call has it twice"
    if tensor.datatype not in DATATYPES:
        return f"there is no datatype {tensor.datatype[:80]!r}, but {', '.join(DATATYPES)}"
    if len(tensor.shape) > MOST_DIMENSIONS:
        return f"it has {len(tensor.shape)} dimensions; at most {MOST_DIMENSIONS} are allowed"
    if any(size < 0 for size in tensor.shape):
        return f"its shape {list(tensor.shape)} has a negative size"
    if 0 in tensor.shape and prod(size or 1 for size in tensor.shape) > MOST_EMPTY_ROWS:
        return f"its shape {list(tensor.shape)} has no elements, but too many rows"
    return _refused(tensor.parameters)


def _refused(parameters: Any) -> str:
    return next((why for name, why in _REFUSED.items() if name in parameters), "")


def _size_problem(tensor: pb.ModelInferRequest.InferInputTensor, data: Part) -> str:
    """Why raw contents are not those of the shape; empty if they are."""
    count = prod(tensor.shape)
    shown = f"{tensor.datatype} of shape {list(tensor.shape)}"
    if tensor.datatype != "BYTES":
        wanted = count * ELEMENT_BYTES[tensor.datatype]
        return "" if len(data) == wanted else f"its raw contents have {len(data)} bytes; {shown} has {wanted}"
    found = 0
    try:
        for _ in elements(data):
            found += 1
    except ValueError:
        return "its raw contents end within an element: each must have its length in 4 bytes before it"
    return "" if found == count else f"its raw contents have {found} elements; {shown} has {count}"


def _packed(tensor: pb.ModelInferRequest.InferInputTensor, field: str) -> bytes:
    """Typed contents as raw ones. Raises `InvalidRequest`."""
    contents, datatype, count = tensor.contents, tensor.datatype, prod(tensor.shape)
    if datatype not in _TYPED:
        raise invalid(field, tensor.name, f"{datatype} has no typed contents: send raw_input_contents")
    wanted, code = _TYPED[datatype]
    if others := [each.name for each, _ in contents.ListFields() if each.name != wanted]:
        raise invalid(field, tensor.name, f"it has {others[0]}; {datatype} belongs into {wanted}")
    values = getattr(contents, wanted)
    if len(values) != count:
        problem = f"its {wanted} have {len(values)} elements; {datatype} of shape {list(tensor.shape)} has {count}"
        raise invalid(field, tensor.name, problem)
    if datatype == "BYTES":
        return b"".join(part for value in values for part in (_LENGTH.pack(len(value)), value))
    try:
        return _little_endian(array(code, values)).tobytes()
    except OverflowError:
        raise invalid(field, tensor.name, f"one of its {wanted} is out of the range of {datatype}") from None


def _unpacked(tensor: Tensor, code: str) -> Any:
    """The elements of raw contents."""
    if not code:
        return map(bytes, elements(tensor.data))
    values = array(code)
    values.frombytes(tensor.data)
    return map(bool, values) if tensor.datatype == "BOOL" else _little_endian(values)


def _little_endian(values: "array[Any]") -> "array[Any]":
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _parameters(request: pb.ModelInferRequest) -> dict[str, Parameter]:
    """What comes beside the tensors. Raises `InvalidRequest`."""
    found: dict[str, Parameter] = {}
    if not request.parameters:
        return found
    for name, value in request.parameters.items():
        kind = value.WhichOneof("parameter_choice")
        found[name] = None if kind is None else getattr(value, kind)
    if any(isinstance(value, float) and not math.isfinite(value) for value in found.values()):
        raise InvalidRequest(
            "parameters",
            "a parameter is infinite or no number",
            reason=ErrorReason.ERROR_REASON_PARAMETERS_INVALID,
        )
    size = sum(len(name) + (len(value) if isinstance(value, str) else 8) for name, value in found.items())
    if size > PARAMETER_BYTES:
        raise InvalidRequest(
            "parameters", "the parameters have {size} characters; at most {most} are allowed: send a tensor of BYTES",
            reason=ErrorReason.ERROR_REASON_PARAMETERS_INVALID, size=size, most=PARAMETER_BYTES,
        )  # fmt: skip
    return found


def _outputs(request: pb.ModelInferRequest) -> list[str]:
    """Names of the outputs that are wanted. Raises `InvalidRequest`."""
    names: list[str] = []
    if not request.outputs:
        return names
    for index, output in enumerate(request.outputs):
        problem = "its name must have 1 to 200 bytes" if not 0 < len(output.name.encode()) <= NAME_BYTES else ""
        problem = problem or ("the call asks for it twice" if output.name in names else _refused(output.parameters))
        if problem:
            raise invalid(f"outputs[{index}]", output.name, problem)
        names.append(output.name)
    return names
