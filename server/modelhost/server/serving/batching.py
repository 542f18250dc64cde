"""Batches: calls of one model that go to a worker together, for its batch function. docs/adr/0022 has the reasons.

A batch is what waits when a worker becomes free: a call that finds an idle worker goes at once, and under load the
queue makes batches while the workers are busy. `Patience` says when it pays to wait a moment longer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from modelhost.server.errors import DomainError
from modelhost.server.serving.answers import call_failure, deadline_exceeded, never_free, too_large
from modelhost.server.serving.host import WorkerSpec
from modelhost.server.serving.link import Header
from modelhost.server.serving.worker import Worker
from modelhost.v1.error_reason_pb2 import ErrorReason

SHORTEST_WAIT_SECONDS = 0.001  # timers of the loop are no finer
PART_OF_A_RUN = 0.25  # that may be waited for others
NEWEST_WEIGHT = 0.1  # of a run's duration in the mean
VAIN_DOUBLINGS = 6
NAMES_CHARACTERS = 1_000  # on each line that a batch writes to the run log

# What a worker answered with: it lives on, and each call of the batch can be tried by itself.
_ANSWERS = frozenset(
    {
        ErrorReason.ERROR_REASON_MODEL_RAISED,
        ErrorReason.ERROR_REASON_PARAMETERS_INVALID,
        ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE,
        ErrorReason.ERROR_REASON_RESULT_TOO_LARGE,
    }
)

_decode = msgspec.json.Decoder(Header).decode


class BatchedCall:
    """A call that waits for a worker, or is in one, perhaps with others. `answer` is its result, or why it has none.

    `longest` is how many seconds it waits for a worker where its caller has set no deadline. Whoever awaits the answer
    ends with `leave`.
    """

    def __init__(self, parameters: bytes, request_id: str, deadline: float | None, longest: float) -> None:
        self.parameters = parameters
        self.request_id = request_id
        self.deadline = deadline
        self.sent = False
        self.alone = False  # the batch that it was in failed as a whole
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._longest = longest
        self._timer: asyncio.TimerHandle | None = None

    def done(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.answer.done()

    def set_result(self, result: bytes) -> None:
        """Answer; of no effect if nobody waits any more."""
        if not self.answer.done():
            self.answer.set_result(result)

    def set_exception(self, error: BaseException) -> None:
        """Fail; of no effect if nobody waits any more."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def wait(self) -> None:
        """It is in the queue from now on, until its deadline at most."""
        self.sent = False
        if self._timer is None:
            loop = asyncio.get_running_loop()
            at = loop.time() + self._longest if self.deadline is None else self.deadline
            self._timer = loop.call_at(at, self._expire)

    def send(self) -> None:
        """It is a worker's from now on, and ends by its caller's deadline, if there is one."""
        self.sent = True
        if self.deadline is None:
            self._stop_timer()

    def leave(self) -> None:
        """Nothing is waited for any more."""
        self._stop_timer()
        if self.answer.done() and not self.answer.cancelled():
            self.answer.exception()  # seen, though its caller may have been cancelled in the same turn

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def is_late(self) -> bool:
        """Whether its deadline has passed; it fails then."""
        if self.deadline is not None and self.deadline <= asyncio.get_running_loop().time():
            self._expire()
        return self.answer.done()

    def _expire(self) -> None:
        if self.sent:
            error = deadline_exceeded("while the model ran")
        elif self.deadline is not None:
            error = deadline_exceeded("while it waited for a worker")
        else:
            error = never_free(self._longest)
        self.set_exception(error)


class Patience:
    """Whether those that wait should go now, or will be more in a moment.

    Callers who have just been answered tend to come back at once. So after a run of a calls, when b wait, a + b are
    expected, for a quarter of what a run takes and no longer than `longest` seconds. Where fewer than half of the a
    have come by then, the wait was in vain, and the next 1, 3, 7 … 63 times nobody waits. Times are of any one clock.
    """

    def __init__(self, most: int, longest: float) -> None:
        self._most = most
        self._longest = longest
        self._run_seconds = 0.0
        self._before = 0  # waited when the last run ended
        self._expected = 0
        self._until = 0.0
        self._waited = False
        self._vain = 0
        self._skip = 0

    def ran(self, size: int, seconds: float, waiting: int, now: float) -> None:
        """A run of so many calls has ended, while so many wait."""
        newest = NEWEST_WEIGHT if self._run_seconds else 1.0
        self._run_seconds += (seconds - self._run_seconds) * newest
        self._before, self._expected = waiting, min(waiting + size, self._most)
        self._until, self._waited = 0.0, False
        length = min(self._run_seconds * PART_OF_A_RUN, self._longest)
        if length < SHORTEST_WAIT_SECONDS or waiting >= self._expected or self._expected < 2:
            return
        if self._skip:
            self._skip -= 1
            return
        self._until = now + length

    def until(self, waiting: int, now: float) -> float:
        """Until when those that wait should be kept back; 0 if they should go now."""
        if waiting >= self._expected or now >= self._until:
            return 0.0
        self._waited = True
        return self._until

    def went(self, waiting: int) -> None:
        """Those that wait are going."""
        if self._waited:
            in_vain = (waiting - self._before) * 2 < self._expected - self._before
            self._vain = min(self._vain + 1, VAIN_DOUBLINGS) if in_vain else 0
            self._skip = 2**self._vain - 1
        self._until, self._waited = 0.0, False


class Batches:
    """Sends the calls of one pool, those that wait in `queue`, to workers in batches.

    `free` is told of each worker whose run has ended, and what the run took by call, in seconds; `serve` is called
    when calls that were kept back should go; `observe` hears how many went together.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        queue: deque[Any],
        *,
        queue_size: int,
        free: Callable[[Worker, float], None],
        serve: Callable[[], None],
        observe: Callable[[int], None],
    ) -> None:
        self._most = spec.batch_size
        self._bytes = spec.message_limit
        self._mask = spec.mask
        self._queue = queue
        self._free = free
        self._serve = serve
        self._observe = observe
        self._patience = Patience(min(spec.batch_size, queue_size), spec.batch_delay)
        self._timer: asyncio.TimerHandle | None = None

    def keep_back(self, idle: int) -> bool:
        """Whether those that wait should wait a moment longer, though so many workers are idle."""
        waiting = len(self._queue)
        now = asyncio.get_running_loop().time()
        until = self._patience.until(waiting, now) if idle == 1 and self._queue else 0.0
        if until and all(self._may_wait(each, until) for each in self._queue):
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_at(until, self._wake)
            return True
        self._patience.went(waiting)
        self.close()
        return False

    def send(self, worker: Worker) -> bool:
        """Send what is first in the queue, a batched call, and what goes with it; false if nobody waits for it."""
        calls = self._next_calls(self._most if worker.loaded.batch else 1)
        if not calls:
            return False
        for call in calls:
            call.send()
        self._observe(len(calls))
        loop = asyncio.get_running_loop()
        began = loop.time()
        if len(calls) == 1:
            answer = worker.call(calls[0].parameters, calls[0].request_id)
        else:
            answer = worker.call_batch([call.parameters for call in calls], _names(calls))
        answer.add_done_callback(lambda done: self._ended(worker, calls, done, loop.time() - began))
        return True

    def close(self) -> None:
        """Keep nobody back any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        self._patience.went(len(self._queue))
        self._serve()

    @staticmethod
    def _may_wait(waiting: object, until: float) -> bool:
        if not isinstance(waiting, BatchedCall) or waiting.alone:
            return False
        return waiting.deadline is None or waiting.deadline > until

    def _next_calls(self, most: int) -> list[BatchedCall]:
        """Take them out of the queue: in their order, and together no more bytes than a message may have."""
        calls: list[BatchedCall] = []
        size = 0
        while self._queue and len(calls) < most:
            call = self._queue[0]
            if not isinstance(call, BatchedCall):  # it wants a worker for itself
                break
            size += len(call.parameters)
            if calls and (size > self._bytes or call.alone):
                break
            self._queue.popleft()
            if not call.is_late():
                calls.append(call)
                if call.alone:
                    break
        return calls

    def _ended(
        self,
        worker: Worker,
        calls: "Sequence[BatchedCall]",
        answer: "asyncio.Future[tuple[Header, bytes]]",
        seconds: float,
    ) -> None:
        error = answer.exception()
        if error is not None:
            self._failed(worker, calls, error)
        elif len(calls) == 1:
            calls[0].set_result(answer.result()[1])
        else:
            self._split(worker, calls, *answer.result())
        self._patience.ran(len(calls), seconds, len(self._queue), asyncio.get_running_loop().time())
        self._free(worker, seconds / len(calls))

    def _failed(self, worker: Worker, calls: "Sequence[BatchedCall]", error: BaseException) -> None:
        if len(calls) > 1 and isinstance(error, DomainError) and error.reason in _ANSWERS:
            text = f"the batch of {len(calls)} calls failed, and each is run by itself: {error.message}"
            worker.note(text, _names(calls))
            for call in reversed(calls):
                if not call.done():  # those that are, whose callers went away, are never run
                    call.alone = True
                    call.wait()
                    self._queue.appendleft(call)
            return
        for call in calls:
            call.set_exception(_own(error))

    def _split(self, worker: Worker, calls: "Sequence[BatchedCall]", header: Header, body: bytes) -> None:
        failed = set(header["failed"])
        start = 0
        for number, (call, size) in enumerate(zip(calls, header["sizes"], strict=True)):
            part = body[start : start + size]
            start += size
            if number in failed:
                failure = call_failure(_fields(part), self._mask)
                worker.note(failure.traceback, call.request_id)
                call.set_exception(failure)
            elif size > self._bytes:
                call.set_exception(too_large(size, self._bytes))
            else:
                call.set_result(part)


def _names(calls: "Sequence[BatchedCall]") -> str:
    """Whose lines those of a batch are: the ids of its calls, of which none has a blank, as far as there is room."""
    names = " ".join(call.request_id for call in calls)
    return names if len(names) <= NAMES_CHARACTERS else names[:NAMES_CHARACTERS].rpartition(" ")[0]


def _fields(part: bytes) -> Header:
    try:
        return _decode(part)
    except (msgspec.DecodeError, RecursionError):  # a model has meddled with its link
        return {}


def _own(error: BaseException) -> BaseException:
    """A copy of an error that several calls fail with: whoever passes it on adds to it, as the id of the call."""
    if not isinstance(error, DomainError):
        return error
    copy = type(error).__new__(type(error), *error.args)
    vars(copy).update({**vars(error), "values": dict(error.values)})
    return copy
