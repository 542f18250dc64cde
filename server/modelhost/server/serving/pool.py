"""The workers of one revision: a call goes to an idle one or waits in a bounded queue."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from modelhost.server.errors import Busy, Conflict, DomainError, NotTaken, StepFailed
from modelhost.server.serving.answers import deadline_exceeded, never_free
from modelhost.server.serving.batching import BatchedCall, Batches
from modelhost.server.serving.crew import Crew, Room
from modelhost.server.serving.debugged import Debugged
from modelhost.server.serving.finish import finish
from modelhost.server.serving.host import WorkerHost, WorkerSpec
from modelhost.server.serving.link import Header
from modelhost.server.serving.stream import Stream
from modelhost.server.serving.tensors import Signature, Tensor, TensorCall, result_tensors
from modelhost.server.serving.worker import Loaded, Worker
from modelhost.v1.error_reason_pb2 import ErrorReason

RETRY_SHORTEST_SECONDS = 0.05
RETRY_LONGEST_SECONDS = 30.0
NEWEST_WEIGHT = 0.1  # of a call's duration in the mean


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
        self._queue_size = queue_size
        self._listener = listener
        self._crew = Crew(host, spec, size, room, self)
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()  # handed to a call
        self._waiting: deque[asyncio.Future[Worker] | BatchedCall] = deque()
        self._batches: Batches | None = None  # where the model has a batch function, and is to have batches
        self._moved = asyncio.Event()  # a worker became free or was lost
        self._mean_seconds = 0.0  # that a call takes
        self._closing = False
        self.failure: StepFailed | None = None  # why it has given up

    @property
    def call_timeout(self) -> float:
        """How long a call under way may still take, at most, in seconds."""
        return self._spec.call_timeout

    @property
    def signature(self) -> Signature:
        """The tensors that the model declares."""
        return self._spec.signature

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
        if loaded.batch and self._spec.batch_size > 1:
            self._batches = Batches(
                self._spec,
                self._waiting,
                queue_size=self._queue_size,
                free=self._freed,
                serve=self._serve,
                observe=self._listener.batched,
            )
        return loaded

    def resize(self, size: int) -> None:
        """Have so many workers from now on, without a failed call. Raises `StepFailed` MEMORY_NOT_AVAILABLE."""
        self._crew.resize(size)

    async def call(self, parameters: bytes, deadline: float | None = None, request_id: str = "") -> bytes:
        """Call the model once: JSON in, JSON out. `deadline` is the caller's, in the loop's time.

        What the model writes meanwhile is logged as `request_id`'s.

        Raises `PredictionFailed`, where the queue is full `Busy`, and `Conflict` where the pool is closed. A caller
        that is cancelled gives up its place in the queue; a call that already runs goes on, its answer dropped.
        """
        if self._batches is not None:
            return await self._call_batched(parameters, deadline, request_id)
        worker = await self._free_worker(deadline)
        _, body = await self._answer(worker, worker.call(parameters, request_id), deadline)
        return body

    async def stream(self, parameters: bytes, deadline: float | None = None, request_id: str = "") -> Stream:
        """Call the model once, and have what it returns item by item; raises as `call`, before the first and after.

        The stream is to be closed. `call_timeout` is for each item; the worker is the stream's until it is over.
        """
        worker = await self._free_worker(deadline)
        stream = worker.stream(parameters, request_id)
        self._offer_after(worker, stream.ended)
        if deadline is not None:
            stream.end_at(deadline, deadline_exceeded("while the model ran"))
        return stream

    async def infer(self, wanted: TensorCall, deadline: float | None, request_id: str) -> list[Tensor]:
        """Call the model once: tensors in, tensors out; otherwise as `call`.

        Raises `InvalidRequest` for what is not as the signature declares it, before anything is sent.
        """
        self.signature.check_call(wanted)
        worker = await self._free_worker(deadline)
        header, body = await self._answer(worker, worker.infer(wanted, request_id), deadline)
        outputs = result_tensors(header, body)
        self.signature.check_result(outputs, wanted.outputs)
        return outputs

    async def debug(self, parameters: bytes, deadline: float | None, request_id: str) -> Debugged:
        """Call the model once and keep all that it says. Raises as `call`, but for what fails in the model."""
        asked = time.time()
        worker = await self._free_worker(deadline)
        sent = time.time()
        header, body = await self._answer(worker, worker.call(parameters, request_id, capture=True), deadline)
        return Debugged.of(header, body, self._spec.mask, asked=asked, sent=sent)

    async def _call_batched(self, parameters: bytes, deadline: float | None, request_id: str) -> bytes:
        """The same, perhaps in a batch with others."""
        self._check(deadline)
        self._check_room()
        call = BatchedCall(parameters, request_id, deadline, self._spec.call_timeout)
        call.wait()
        self._waiting.append(call)
        self._serve()
        try:
            return await call.answer
        finally:
            call.leave()
            if not call.sent and call in self._waiting:
                self._waiting.remove(call)
                self._moved.set()

    async def _free_worker(self, deadline: float | None) -> Worker:
        self._check(deadline)
        worker = self._take_idle() or await self._wait(deadline)
        while worker.lost.done():  # a moment ago; nothing was written to it
            self._busy.discard(worker)
            worker = self._take_idle() or await self._wait(deadline, again=True)
        return worker

    def _take_idle(self) -> Worker | None:
        if not self._idle or self._waiting:  # those that are kept back for a batch come first
            return None
        worker = self._idle.pop()
        self._busy.add(worker)
        return worker

    async def _answer(
        self, worker: Worker, answer: "asyncio.Future[tuple[Header, bytes]]", deadline: float | None
    ) -> tuple[Header, bytes]:
        self._offer_after(worker, answer)
        if deadline is None:
            return await asyncio.shield(answer)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(answer)
        except TimeoutError:
            raise deadline_exceeded("while the model ran") from None

    def _offer_after(self, worker: Worker, answer: "asyncio.Future[tuple[Header, bytes]]") -> None:
        """Have the worker take another call when it has answered this one."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        def ended(_: object) -> None:
            self._freed(worker, loop.time() - began)

        answer.add_done_callback(ended)

    def _freed(self, worker: Worker, seconds: float) -> None:
        """A worker has ended a call that took so long, or several that took so long each."""
        self._mean_seconds += (seconds - self._mean_seconds) * NEWEST_WEIGHT
        if self._closing:
            self._send_away(_stopped())  # those of a batch that failed are back in the queue
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
        self._listener.closed()

    def _send_away(self, error: DomainError) -> None:
        """Fail all calls that wait."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def _check(self, deadline: float | None) -> None:
        """Raise if no call may begin now."""
        if self._closing:
            raise _stopped()
        if self.failure is not None:
            raise _given_up(self.failure)
        if deadline is not None and deadline <= asyncio.get_running_loop().time():
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

    async def _wait(self, deadline: float | None, *, again: bool = False) -> Worker:
        """Take a place in the queue until a worker is handed over; the first, if it had one before that died.

        The queue ends at the deadline; for a call without one, when it has waited as long as it may run.
        """
        self._check(deadline)
        if not again:
            self._check_room()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Worker] = loop.create_future()
        if again:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
        try:
            async with asyncio.timeout_at(loop.time() + self._spec.call_timeout if deadline is None else deadline):
                await waiter
            self._check(deadline)
            return waiter.result()
        except BaseException as error:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._moved.set()
            elif not waiter.cancelled() and waiter.exception() is None:  # handed over in the same turn, or too late
                self._offer(waiter.result())
            if isinstance(error, TimeoutError):
                if deadline is None:
                    raise never_free(self._spec.call_timeout) from None
                raise deadline_exceeded("while it waited for a worker") from None
            raise

    def _retry_after(self) -> float:
        """Seconds in which half of those that wait now will have had their turn, as long as calls take."""
        expected = self._mean_seconds * len(self._waiting) / 2 / self.size
        return min(max(expected, RETRY_SHORTEST_SECONDS), RETRY_LONGEST_SECONDS)

    def _offer(self, worker: Worker) -> None:
        """Take back a worker that has no call, and hand it to those that wait."""
        self._moved.set()
        self._busy.discard(worker)
        if not self._crew.finished(worker):
            return
        self._idle.append(worker)
        self._serve()

    def _serve(self) -> None:
        """Hand idle workers to those that wait, the first first."""
        while self._waiting and self._idle:
            if self._batches is not None and self._batches.keep_back(len(self._idle)):
                return
            worker = self._idle.pop()
            if worker.lost.done():  # a moment ago
                continue
            waiter = self._waiting[0]
            if isinstance(waiter, BatchedCall):
                taken = self._batches is not None and self._batches.send(worker)
            else:
                self._waiting.popleft()
                if taken := not waiter.done():
                    waiter.set_result(worker)
            if taken:
                self._busy.add(worker)
            else:
                self._idle.append(worker)

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
        """Forget it."""
        self._moved.set()
        self._busy.discard(worker)
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
