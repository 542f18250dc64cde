"""ModelInfer requests that differ in the elements of their tensors alone, as those of one client mostly do.

All that comes before the elements is the same then, byte for byte, and what it says was found out when the first of
them came. What follows is known, too: official clients and stubs write fields in the order of their numbers, and raw
contents have the last one. Requests that are written in another order, or have an id, are read each by itself.
"""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.api.inference.wire import before_raw_input
from modelhost.server.serving.link import Head, Part
from modelhost.server.serving.tensors import Tensor, TensorCall

LARGE_BYTES = 64 * 1024  # of a tensor that is not copied
MOST_BYTES = 4096  # of what is kept of a request
MOST_PATTERNS = 1000  # then all are forgotten
_NAME_TAG = b"\x0a"  # of model_name, the first field; its length follows in one byte
_LONGEST_NAME = 0x7F

Key = tuple[int, bytes]


class Pattern:
    """What such requests have in common. `message` is what they say but for raw contents."""

    __slots__ = ("_between", "_call", "_head", "_spans", "_start", "message")

    def __init__(self, start: bytes, message: pb.ModelInferRequest, call: TensorCall) -> None:
        self.message = message
        self._start = start
        self._call = call
        self._head = Head(call.head.fields)
        self._spans: list[tuple[str, str, tuple[int, ...], int, int]] = []
        self._between: list[tuple[bytes, int]] = []
        end = len(start)
        for number, one in enumerate(call.tensors):
            if number:
                between = before_raw_input(len(one.data))
                self._between.append((between, end))
                end += len(between)
            self._spans.append((one.name, one.datatype, one.shape, end, end + len(one.data)))
            end += len(one.data)

    def fits(self, data: bytes) -> bool:
        """Whether a request of the right size is one of these."""
        if not data.startswith(self._start):
            return False
        for each, at in self._between:  # noqa: SIM110 - `all` takes longer, and this is on every call's way
            if not data.startswith(each, at):
                return False
        return True

    def call(self, data: bytes) -> TensorCall:
        """What the model is to be called with for one of these."""
        source: Part = data if len(data) <= LARGE_BYTES else memoryview(data)
        tensors = [Tensor(name, datatype, shape, source[at:end]) for name, datatype, shape, at, end in self._spans]
        return TensorCall(tensors, self._call.parameters, self._call.outputs, self._head)


_patterns: dict[Key, Pattern] = {}


def pattern_of(data: bytes) -> Pattern | None:
    """That which a request has in common with one before."""
    if len(data) < 2:
        return None
    pattern = _patterns.get((len(data), data[: 2 + data[1]]))
    return pattern if pattern is not None and pattern.fits(data) else None


def keep(data: bytes, call: TensorCall) -> None:
    """Remember what a request says: it is this call, and all of its tensors are raw numbers, in the order of inputs."""
    start = len(data) - _size_of_raw(call.tensors)
    if not (data.startswith(_NAME_TAG) and data[1] <= _LONGEST_NAME and 0 < start <= MOST_BYTES):
        return
    before = before_raw_input(len(call.tensors[0].data))
    message = pb.ModelInferRequest()
    try:
        message.ParseFromString(data[:start])
    except DecodeError:
        return
    # Whatever stands there, the whole is this message and then those contents, if they are where they should be.
    if message.id or message.raw_input_contents or not data.startswith(before, start):
        return
    pattern = Pattern(data[: start + len(before)], message, call)
    if not pattern.fits(data):
        return
    if len(_patterns) >= MOST_PATTERNS:
        _patterns.clear()
    _patterns[len(data), data[: 2 + data[1]]] = pattern


def _size_of_raw(tensors: Sequence[Tensor]) -> int:
    """Bytes of raw contents with what stands before each."""
    return sum(len(before_raw_input(len(one.data))) + len(one.data) for one in tensors)
