"""ModelInfer requests that differ in the elements of their tensors alone, as those of one client mostly do.

All that comes before the elements is the same then, byte for byte, and what it says was found out when the first of
them came. What follows is known, too: official clients and stubs write fields in the order of their numbers, and raw
contents have the last one. Requests that are written in another order are read each by itself, and so are those where
something else changes, too.
"""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from modelhost.inference import open_inference_pb2 as pb
from modelhost.server.api.inference.wire import LARGE_BYTES, before_raw_input
from modelhost.server.serving.link import Part
from modelhost.server.serving.tensors import Tensor, TensorCall

MOST_BYTES = 512  # before the contents; what is kept of them takes up to 60 times as much
MOST_ALIKE = 8  # of one size and model; where there are more, something changes with each request
MOST_PATTERNS = 500  # then all are forgotten
_NAME_TAG = b"\x0a"  # of model_name, the first field; its length follows in one byte
_LONGEST_NAME = 0x7F

Key = tuple[int, bytes]


class Pattern:
    """What such requests have in common. `message` is what they say but for raw contents."""

    __slots__ = ("_between", "_head", "_outputs", "_parameters", "_spans", "message")

    def __init__(self, begin: int, message: pb.ModelInferRequest, call: TensorCall) -> None:
        """`begin` is where what stands before the first contents begins. Of the call's elements nothing is kept."""
        self.message = message
        self._head = call.head
        self._parameters = call.parameters
        self._outputs = call.outputs
        self._spans: list[tuple[str, str, tuple[int, ...], int, int]] = []
        self._between: list[tuple[bytes, int]] = []
        for one in call.tensors:
            between = before_raw_input(len(one.data))
            self._between.append((between, begin))
            begin += len(between)
            end = begin + len(one.data)
            self._spans.append((one.name, one.datatype, one.shape, begin, end))
            begin = end

    def has_contents(self, data: bytes) -> bool:
        """Whether a request of the right size that begins as these has its contents where they have theirs."""
        for between, at in self._between:  # noqa: SIM110 - `all` takes longer, and this is on every call's way
            if not data.startswith(between, at):
                return False
        return True

    def call(self, data: bytes) -> TensorCall:
        """What the model is to be called with for one of these."""
        source: Part = data if len(data) <= LARGE_BYTES else memoryview(data)
        tensors = [Tensor(name, datatype, shape, source[at:end]) for name, datatype, shape, at, end in self._spans]
        return TensorCall(tensors, self._parameters, self._outputs, self._head)


class _Alike:
    """Requests of one size for one model: where their contents begin, and patterns by what comes before that."""

    __slots__ = ("begin", "patterns")

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.patterns: dict[bytes, Pattern] = {}


class Patterns:
    """Those of the requests that a server has had. On the event loop only."""

    def __init__(self) -> None:
        self._known: dict[Key, _Alike] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, data: bytes) -> Pattern | None:
        """What a request has in common with one before."""
        if len(data) < 2 or (alike := self._known.get((len(data), data[: 2 + data[1]]))) is None:
            return None
        pattern = alike.patterns.get(data[: alike.begin])
        return pattern if pattern is not None and pattern.has_contents(data) else None

    def keep(self, data: bytes, call: TensorCall) -> None:
        """Remember what a request says: it is this call, and its tensors are raw numbers, in the order of inputs."""
        begin = len(data) - _size_of_raw(call.tensors)
        if not (data.startswith(_NAME_TAG) and data[1] <= _LONGEST_NAME and 0 < begin <= MOST_BYTES):
            return
        key = len(data), data[: 2 + data[1]]
        alike = self._known.get(key) or _Alike(begin)
        beginning = data[:begin]
        if alike.begin != begin or beginning in alike.patterns or len(alike.patterns) >= MOST_ALIKE:
            return
        message = pb.ModelInferRequest()
        try:
            message.ParseFromString(beginning)
        except DecodeError:
            return
        # If that is a message, then the whole is it and what follows, and those are the contents if they stand there.
        pattern = Pattern(begin, message, call)
        if message.raw_input_contents or not pattern.has_contents(data):
            return
        if message.model_name.encode() != key[1][2:]:  # it has two: nobody is to take another model's places
            return
        if self._count >= MOST_PATTERNS:
            self._known.clear()
            self._count = 0
            alike.patterns.clear()
        self._known[key] = alike
        alike.patterns[beginning] = pattern
        self._count += 1


def _size_of_raw(tensors: Sequence[Tensor]) -> int:
    """Bytes of raw contents with what stands before each."""
    return sum(len(before_raw_input(len(one.data))) + len(one.data) for one in tensors)
