"""Batches: calls of one model that go to a worker together, for its batch function. docs/adr/0022 has the reasons.

A batch is what waits when a worker becomes free: a call that finds an idle worker goes at once, and under load the
queue makes batches while the workers are busy. `Patience` says when it pays to wait a moment longer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from modelhost.server.errors import DomainError, PredictionFailed
from modelhost.server.serving.alarm import Alarm
from modelhost.server.serving.answers import call_failure, too_large
from modelhost.server.serving.calls import Free, Queued, QueuedCall
from modelhost.server.serving.host import WorkerSpec
from modelhost.server.serving.link import Head, Header, Received
from modelhost.server.serving.stacking import can_be_stacked, check_rows, rows_of, stacked, unstacked
from modelhost.server.serving.worker import Worker
from modelhost.v1.error_reason_pb2 import ErrorReason

SHORTEST_WAIT_SECONDS = 0.001  # timers of the loop are no finer
PART_OF_A_RUN = 0.25  # that may be waited for others
NEWEST_WEIGHT = 0.1  # of a run's duration in the mean
VAIN_DOUBLINGS = 6
JSON = "json"  # the key of calls for a batch function; those with tensors have a `Stack`
ALONE = "alone"  # the key of a call that goes with no other, as after a batch that failed as a whole
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
    """Makes batches of the calls of one pool, those that wait in `queue`.

    `serve` is called when calls that were kept back should go; `observe` hears how many went together.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        queue: deque[Queued[Any]],
        *,
        queue_size: int,
        serve: Callable[[], None],
        observe: Callable[[int], None],
    ) -> None:
        self._most = spec.batch_size
        self._bytes = spec.message_limit
        self._mask = spec.mask
        self._queue = queue
        self._serve = serve
        self._observe = observe
        self._patience = Patience(min(spec.batch_size, queue_size), spec.batch_delay)
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._wake)

    def keep_back(self, idle: int) -> bool:
        """Whether those that wait should wait a moment longer, though so many workers are idle."""
        waiting = len(self._queue)
        until = self._patience.until(waiting, self._loop.time()) if idle == 1 and self._queue else 0.0
        if until and all(_may_wait(each, until) for each in self._queue):
            self._alarm.no_later_than(until)
            return True
        self._patience.went(waiting)
        self.close()
        return False

    def take(self, first: QueuedCall, worker: Worker) -> "Batch":
        """A batch for a worker: of a call that was first in the queue, and of those behind it that go with it.

        They keep their order, and have together no more bytes than a message may have.
        """
        calls, size = [first], first.size
        now = self._loop.time()
        alone = first.key == ALONE or (first.key == JSON and not worker.loaded.batch)
        most = 1 if alone else self._most
        while self._queue and len(calls) < most:
            call = self._queue[0]
            if call.key != first.key or size + call.size > self._bytes or not isinstance(call, QueuedCall):
                break
            self._queue.popleft()
            if not call.expire(now):
                calls.append(call)
                size += call.size
        self._observe(len(calls))
        return Batch(calls, self)

    def ended(self, batch: "Batch", seconds: float) -> None:
        """A batch has been run, in so many seconds, and its calls have their answers or wait again."""
        self._patience.ran(len(batch.calls), seconds, len(self._queue), self._loop.time())

    def put_back(self, calls: "Sequence[QueuedCall]") -> None:
        """Have these run by themselves, before all others."""
        for call in reversed(calls):
            if not call.answer.done():  # those that are, whose callers went away, are never run
                call.key = ALONE
                call.wait_again()
                self._queue.appendleft(call)

    def split(self, calls: "Sequence[QueuedCall]", header: Header, body: Received, worker: Worker) -> None:
        """Give each call its own part of an answer."""
        failed = set(header["failed"])
        start = 0
        for number, (call, size) in enumerate(zip(calls, header["sizes"], strict=True)):
            part = body[start : start + size]
            start += size
            if number in failed:
                failure = call_failure(_fields(part), self._mask)
                worker.note(failure.traceback, call.request_id)
                call.fail(failure)
            elif size > self._bytes:
                call.fail(too_large(size, self._bytes))
            else:
                call.succeed(header, part)

    def close(self) -> None:
        """Keep nobody back any more."""
        self._alarm.close()

    def _wake(self) -> None:
        self._patience.went(len(self._queue))
        self._serve()


class Batch:
    """Calls that are one for their worker; in a pool as one `Queued` that was begun."""

    def __init__(self, calls: "Sequence[QueuedCall]", batches: Batches) -> None:
        self.calls = calls
        self._is_stack = can_be_stacked(calls[0].head.fields)
        self._batches = batches

    @property
    def expires(self) -> float:
        """When the first of them fails, if nothing else happens."""
        return min(call.expires for call in self.calls)

    def expire(self, now: float) -> bool:
        """Fail those whose time is over; whether nobody waits for any of them."""
        waited_for = [call for call in self.calls if not call.expire(now)]
        return not waited_for

    def begin(self, worker: Worker, free: Free) -> None:
        """Send them to a worker; `free` is told when that has ended them, and what each of them took."""
        self._worker, self._free = worker, free
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        for call in self.calls:
            call.hand_over(worker, free)
        first = self.calls[0]
        if len(self.calls) == 1:
            worker.call(self, first.head, first.body, first.request_id)
        elif self._is_stack:
            fields, body = stacked([call.head.fields for call in self.calls], [call.body for call in self.calls])
            worker.call(self, Head(fields), body, _names(self.calls), count=len(self.calls))
        else:
            worker.call_batch(self, [part for call in self.calls for part in call.body], _names(self.calls))

    # -- what the worker tells

    def answered(self, header: Header, body: Received) -> None:
        """The worker has results."""
        try:
            self._hand_out(header, body)
        except Exception as error:
            for call in self.calls:
                call.fail(error)
        self._over()

    def _hand_out(self, header: Header, body: Received) -> None:
        if self._is_stack:
            self._unstack(header, body)
        elif len(self.calls) == 1:
            self.calls[0].succeed(header, body)
        else:
            self._batches.split(self.calls, header, body, self._worker)

    def _unstack(self, header: Header, body: Received) -> None:
        rows = [rows_of(call.head.fields) for call in self.calls]
        try:
            if len(rows) == 1:
                check_rows(header, rows[0])
                answers = iter([(header, body)])
            else:
                answers = unstacked(header, body, rows)
        except PredictionFailed as error:
            if len(rows) == 1:
                self.calls[0].fail(error)
            else:
                self._run_each(error)
        else:
            for call, answer in zip(self.calls, answers, strict=True):
                call.succeed(*answer)

    def failed(self, error: BaseException) -> None:
        """The worker has none: those that it could answer by itself are each run again, which the rest fail with."""
        calls = self.calls
        if len(calls) > 1 and isinstance(error, DomainError) and error.reason in _ANSWERS:
            self._run_each(error)
        else:
            for call in calls:
                call.fail(_own(error))
        self._over()

    def _run_each(self, error: DomainError) -> None:
        text = f"the batch of {len(self.calls)} calls failed, and each is run by itself: {error.message}"
        self._worker.note(text, _names(self.calls))
        self._batches.put_back(self.calls)

    def _over(self) -> None:
        seconds = self._loop.time() - self._begun
        self._batches.ended(self, seconds)
        self._free(self._worker, seconds / len(self.calls))


def _may_wait(call: Queued[Any], until: float) -> bool:
    return call.key not in (None, ALONE) and (call.deadline is None or call.deadline > until)


def _names(calls: "Sequence[QueuedCall]") -> str:
    """Whose lines those of a batch are: the ids of its calls, of which none has a blank, as far as there is room."""
    names = " ".join(call.request_id for call in calls)
    return names if len(names) <= NAMES_CHARACTERS else names[:NAMES_CHARACTERS].rpartition(" ")[0]


def _fields(part: Received) -> Header:
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
