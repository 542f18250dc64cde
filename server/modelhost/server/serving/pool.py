"""The workers of one revision: a call goes to an idle one or waits in a bounded queue."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from modelhost.server.errors import Busy, Conflict, DomainError, NotTaken, StepFailed
from modelhost.server.serving.alarm import NEVER, Alarm
from modelhost.server.serving.answers import deadline_exceeded
from modelhost.server.serving.batching import ALONE, JSON, Batch, Batches
from modelhost.server.serving.calls import Queued, QueuedCall, QueuedStream
from modelhost.server.serving.crew import Crew, Room
from modelhost.server.serving.debugged import Debugged
from modelhost.server.serving.finish import finish
from modelhost.server.serving.host import WorkerHost, WorkerSpec
from modelhost.server.serving.link import Received
from modelhost.server.serving.stacking import stack_of
from modelhost.server.serving.stream import Stream
from modelhost.server.serving.tensors import Tensor, TensorCall, result_tensors
from modelhost.server.serving.worker import CALL, CAPTURED, Loaded, Worker
from modelhost.v1.error_reason_pb2 import ErrorReason

RETRY_SHORTEST_SECONDS = 0.05
RETRY_LONGEST_SECONDS = 30.0
NEWEST_WEIGHT = 0.1  # of a call's duration in the mean

T = TypeVar("T")


@dataclass(frozen=True)
class PoolStatus:
    """What is seen of a pool at one moment. `starting` are workers that load, or wait for their next attempt."""

    live: int = 0
    starting: int = 0
    queued: int = 0
    running: int = 0
    restarts: int = 0


@dataclass(frozen=True)
class PoolListener:
    """What is called when something happens to a pool.

    `changed`: the number of live workers is another. `ended`: a worker was lost or exchanged, as `Desk.ended` has it.
    `batched`: so many calls went to a worker together; only of a pool that makes batches.
    `broken`: no worker lives and none can be loaded; the pool has given up, and `Pool.failure` says why. `closed`:
    nothing of the pool is left.
    """

    changed: Callable[[], None] = lambda: None
    ended: Callable[[str], None] = lambda cause: None
    batched: Callable[[int], None] = lambda size: None
    broken: Callable[[], None] = lambda: None
    closed: Callable[[], None] = lambda: None


class Pool:
    """`size` workers of one spec, and the calls that wait for them."""

    def __init__(
        self, host: WorkerHost, spec: WorkerSpec, *, size: int, queue_size: int, room: Room, listener: PoolListener
    ) -> None:
        self._spec = spec
        self._call_timeout = spec.call_timeout
        self._signature = spec.signature if spec.signature.declares_any else None
        self._queue_size = queue_size
        self._listener = listener
        self._crew = Crew(host, spec, size, room, self)
        self._idle: list[Worker] = []
        self._busy: dict[Worker, Queued[Any] | Batch] = {}
        self._waiting: deque[Queued[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._expiry = Alarm(self._expire)  # of calls that wait, and of those under way
        self._joins_json = self._joins_tensors = False  # which calls go together
        self._batches: Batches | None = None  # where any do
        self._moved = asyncio.Event()  # a worker became free or was lost
        self._mean_seconds = 0.0  # that a call takes
        self._closing = False
        self.failure: StepFailed | None = None  # why it has given up

    @property
    def call_timeout(self) -> float:
        """How long a call under way may still take, at most, in seconds."""
        return self._call_timeout

    @property
    def size(self) -> int:
        """How many workers it is to have."""
        return self._crew.size

    @property
    def status(self) -> PoolStatus:
        """Counts as of now."""
        crew = self._crew
        return PoolStatus(crew.live, crew.starting, len(self._waiting), len(self._busy), crew.restarts)

    async def start(self) -> Loaded:
        """Start all workers; returns when all have loaded the model. Raises `StepFailed`, and none is left then."""
        try:
            loaded = await self._crew.start()
        except BaseException:
            await self.close()
            raise
        self._joins_json = loaded.batch and self._spec.batch_size > 1
        self._joins_tensors = self._spec.batch_dimension and self._spec.batch_size > 1
        if self._joins_json or self._joins_tensors:
            self._batches = Batches(
                self._spec,
                self._waiting,
                queue_size=self._queue_size,
                serve=self._serve,
                observe=self._listener.batched,
            )
        return loaded

    def resize(self, size: int) -> None:
        """Have so many workers from now on, without a failed call. Raises `StepFailed` MEMORY_NOT_AVAILABLE."""
        self._crew.resize(size)

    async def call(self, parameters: bytes, deadline: float | None = None, request_id: str = "") -> Received:
        """Call the model once: JSON in, JSON out. `deadline` is the caller's, in the loop's time.

        What the model writes meanwhile is logged as `request_id`'s.

        Raises `PredictionFailed`, where the queue is full `Busy`, and `Conflict` where the pool is closed. A caller
        that is cancelled gives up its place in the queue; a call that already runs goes on, its answer dropped.
        """
        key = JSON if self._joins_json else None
        call = QueuedCall(CALL, (parameters,), request_id, deadline, self._call_timeout, key=key)
        _, body = await self._take(call)
        return body

    async def stream(self, parameters: bytes, deadline: float | None = None, request_id: str = "") -> Stream:
        """Call the model once, and have what it returns item by item; raises as `call`, before the first and after.

        The stream is to be closed. `call_timeout` is for each item; the worker is the stream's until it is over.
        """
        call = QueuedStream(CALL, (parameters,), request_id, deadline, self._call_timeout)
        return await self._take(call)

    async def infer(self, wanted: TensorCall, deadline: float | None, request_id: str) -> list[Tensor]:
        """Call the model once: tensors in, tensors out; otherwise as `call`.

        Raises `InvalidRequest` for what is not as the signature declares it, before anything is sent.
        """
        if self._signature is not None:
            self._signature.check_call(wanted)
        key = (stack_of(wanted) or ALONE) if self._joins_tensors else None
        call = QueuedCall(wanted.head, wanted.body, request_id, deadline, self._call_timeout, key=key)
        header, body = await self._take(call)
        outputs = result_tensors(header, body)
        if self._signature is not None:
            self._signature.check_result(outputs, wanted.outputs)
        return outputs

    async def debug(self, parameters: bytes, deadline: float | None, request_id: str) -> Debugged:
        """Call the model once and keep all that it says. Raises as `call`, but for what fails in the model."""
        asked = time.time()
        call = QueuedCall(CAPTURED, (parameters,), request_id, deadline, self._call_timeout, capture=True)
        header, body = await self._take(call)
        return Debugged.of(header, body, self._spec.mask, asked=asked, sent=asked + call.waited)

    async def _take(self, call: Queued[T]) -> T:
        """Have a call made, by an idle worker or in its turn; returns its answer."""
        self._check(call.deadline)
        if self._waiting or not self._idle:
            self._check_room()
        self._waiting.append(call)
        self._serve()
        self._expiry.no_later_than(call.expires)
        try:
            return await call.answer
        except BaseException:
            call.leave()
            if not call.sent and call in self._waiting:
                self._waiting.remove(call)
                self._moved.set()
            raise

    def _freed(self, worker: Worker, seconds: float) -> None:
        """A worker has ended a call that took so long, or several that took so long each."""
        self._mean_seconds += (seconds - self._mean_seconds) * NEWEST_WEIGHT
        if self._closing:
            self._send_away(_stopped())  # those of a batch that failed are back in the queue
        elif self._waiting and self._waiting[0].key == ALONE:  # they may have new times
            self._expiry.no_later_than(min(call.expires for call in self._waiting))
        self._offer(worker)

    async def drain(self, grace: float) -> None:
        """Let calls under way and in the queue finish, for at most `grace` seconds, then close. Closes if cancelled."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    while self._waiting or self._busy:
                        self._moved.clear()
                        await self._moved.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """End all workers, however long that takes, even if cancelled; calls that still wait or run fail."""
        self._closing = True
        if self._batches is not None:
            self._batches.close()
        await finish(self._close())

    async def _close(self) -> None:
        self._send_away(_stopped())
        await self._crew.close()
        self._expiry.close()
        self._listener.closed()

    def _send_away(self, error: DomainError) -> None:
        """Fail all calls that wait."""
        while self._waiting:
            self._waiting.popleft().fail(error)

    def _check(self, deadline: float | None) -> None:
        """Raise if no call may begin now."""
        if self._closing:
            raise _stopped()
        if self.failure is not None:
            raise _given_up(self.failure)
        if deadline is not None and deadline <= self._loop.time():
            raise deadline_exceeded("before it began")

    def _check_room(self) -> None:
        """Raise `Busy` if no more may wait."""
        if len(self._waiting) >= self._queue_size:
            raise Busy(
                ErrorReason.ERROR_REASON_QUEUE_FULL,
                "all {workers} workers are busy and {queued} calls wait already",
                retry_after=self._retry_after(),
                workers=self.size,
                queued=len(self._waiting),
            )

    def _retry_after(self) -> float:
        """Seconds in which half of those that wait now will have had their turn, as long as calls take."""
        expected = self._mean_seconds * len(self._waiting) / 2 / self.size
        return min(max(expected, RETRY_SHORTEST_SECONDS), RETRY_LONGEST_SECONDS)

    def _offer(self, worker: Worker) -> None:
        """Take back a worker that has no call, and hand it to those that wait."""
        self._moved.set()
        self._busy.pop(worker, None)
        if not self._crew.finished(worker):
            return
        self._idle.append(worker)
        self._serve()

    def _serve(self) -> None:
        """Have idle workers make the calls that wait, the first first."""
        while self._waiting and self._idle:
            if self._batches is not None and self._batches.keep_back(len(self._idle)):
                return
            worker = self._idle.pop()
            if worker.lost.done():  # a moment ago
                continue
            call = self._waiting.popleft()
            if call.answer.done() or call.expire(self._loop.time()):
                self._idle.append(worker)
                self._moved.set()
                continue
            made: Queued[Any] | Batch = call
            if self._batches is not None and isinstance(call, QueuedCall) and call.key is not None:
                made = self._batches.take(call, worker)
            self._busy[worker] = made
            made.begin(worker, self._freed)

    def _expire(self) -> None:
        """Fail the calls whose time is over."""
        now = self._loop.time()
        waiting = [call for call in self._waiting if not call.expire(now)]
        if len(waiting) < len(self._waiting):
            self._waiting.clear()
            self._waiting.extend(waiting)
            self._moved.set()
        for made in self._busy.values():
            made.expire(now)
        calls: list[Queued[Any] | Batch] = [*self._waiting, *self._busy.values()]
        self._expiry.set(min((call.expires for call in calls), default=NEVER))

    # -- what the crew tells its desk

    def ready(self, worker: Worker) -> None:
        """Have it called from now on."""
        self._offer(worker)
        self._listener.changed()

    def withdraw(self, worker: Worker) -> bool:
        """Have it called no more, if it has no call now."""
        if worker not in self._idle:
            return False
        self._idle.remove(worker)
        return True

    def gone(self, worker: Worker) -> None:
        """Forget it. If it has a call, that is under way until it has failed."""
        self._moved.set()
        if not worker.is_busy:
            self._busy.pop(worker, None)
        self.withdraw(worker)
        self._listener.changed()

    def ended(self, cause: str) -> None:
        """Pass on why a worker ended."""
        self._listener.ended(cause)

    def broken(self, failure: StepFailed) -> None:
        """Send everyone away, for good."""
        self.failure = failure
        self._send_away(_given_up(failure))
        self._listener.broken()


def _stopped() -> DomainError:
    return NotTaken(ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING, "the deployment is being stopped")


def _given_up(failure: StepFailed) -> DomainError:
    return Conflict(
        ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING,
        "the model cannot be loaded any more: {cause}",
        cause=failure.message,
    )
