"""ModelInfer's messages, whose raw contents are not copied where that would cost: they are most of a large message.

protobuf copies them twice on their way in, into the message and out of it, and twice on their way out. Here those of a
large request are views of the bytes that came, and those of a response are written behind the rest of it.
"""

from collections.abc import Sequence
from functools import lru_cache

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.api.inference.patterns import Patterns
from modelhost.server.api.inference.wire import LARGE_BYTES, MOST_KEPT, before_raw_output, split
from modelhost.server.serving.link import Part
from modelhost.server.serving.tensors import NAME_BYTES, Tensor, TensorCall


class InferRequest:
    """A ModelInferRequest as far as the dispatcher knows messages.

    `message` is all of it but for raw contents, which are in `raw`, or also there; `size` is how many bytes came.
    Where a request before was the same but for the elements, `call` is what the model is to be called with, and the
    contents are nowhere else.
    """

    DESCRIPTOR = pb.ModelInferRequest.DESCRIPTOR

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self.message: pb.ModelInferRequest
        self.raw: Sequence[Part] = ()
        self.size = 0
        self.call: TensorCall | None = None
        self._data = b""

    def ParseFromString(self, data: bytes) -> None:  # noqa: N802 - as the library calls it
        """Fill it. Raises `DecodeError`."""
        self.size = len(data)
        if (pattern := self._patterns.find(data)) is not None:
            self.message, self.call = pattern.message, pattern.call(data)
            return
        self._data = data
        self.message = pb.ModelInferRequest()
        parts = split(data) if len(data) > LARGE_BYTES else None
        if parts is None:
            self.message.ParseFromString(data)
            self.raw = self.message.raw_input_contents
        else:
            rest, self.raw = parts
            self.message.ParseFromString(rest)

    def keep(self, call: TensorCall) -> None:
        """It is this call, all of whose tensors are raw numbers: others that differ in those alone need no look.

        Of requests that have an id, each has another.
        """
        if not self.message.id:
            self._patterns.keep(self._data, call)


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
            parts += (before_raw_output(len(one.data)), one.data)
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
