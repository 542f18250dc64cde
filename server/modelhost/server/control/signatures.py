"""What a model declares of its tensors: formats and limits."""

from collections.abc import Sequence

from modelhost.server.errors import InvalidRequest
from modelhost.server.resources import ModelSettings, TensorSpec
from modelhost.server.serving.tensors import DATATYPES, MOST_DIMENSIONS, MOST_TENSORS, NAME_BYTES


def check_tensors(tensors: Sequence[TensorSpec], field: str) -> None:
    """Check the declared inputs or outputs. Raises `InvalidRequest` for the field."""
    if len(tensors) > MOST_TENSORS:
        raise InvalidRequest(
            field, "{field} has {count} tensors; at most {most} are allowed", count=len(tensors), most=MOST_TENSORS
        )
    seen = set()
    for tensor in tensors:
        if problem := _problem(tensor):
            raise InvalidRequest(field, "tensor {tensor}: {problem}", tensor=repr(tensor.name[:80]), problem=problem)
        if tensor.name in seen:
            raise InvalidRequest(field, "tensor {tensor} is declared twice", tensor=repr(tensor.name))
        seen.add(tensor.name)


def without_batch_dimension(settings: ModelSettings) -> str:
    """Why the first dimension of a model's tensors cannot be that of a batch; empty if it can."""
    if (settings.max_batch_size or 1) < 2:
        return "it is of no effect unless max_size is 2 or more: how many calls go together"
    for name, tensors in (("inputs", settings.inputs), ("outputs", settings.outputs)):
        if not tensors:
            return f"the model declares no {name}, of which the first dimension could count rows"
        for tensor in tensors:
            if not tensor.shape or tensor.shape[0] != -1:
                return f"{name}: tensor {tensor.name!r} has to have -1 for its first dimension, which counts rows"
    return ""


def _problem(tensor: TensorSpec) -> str:
    if not 0 < len(tensor.name.encode()) <= NAME_BYTES:
        return f"its name must have 1 to {NAME_BYTES} bytes"
    if tensor.datatype not in DATATYPES:
        return f"its datatype must be one of {', '.join(DATATYPES)}, not {tensor.datatype[:80]!r}"
    if len(tensor.shape) > MOST_DIMENSIONS or any(size < -1 for size in tensor.shape):
        return f"its shape must have at most {MOST_DIMENSIONS} sizes, each 0 or more, or -1 for any"
    return ""
