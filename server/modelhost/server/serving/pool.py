"""The workers of one revision: calls go to an idle one or wait in a bounded queue; a worker that dies is replaced."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from modelhost.server.errors import Busy, Conflict, DomainError, PredictionFailed, StepFailed
from modelhost.server.serving.debugged import Debugged
from modelhost.server.serving.finish import finish
from modelhost.server.serving.link import Header
from modelhost.server.serving.worker import Loaded, Worker, WorkerHost, WorkerSpec
from modelhost.v1.error_reason_pb2 import ErrorReason

BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_CAP_SECONDS = 30.0
BACKOFF_DOUBLINGS = 10
STABLE_SECONDS = 30.0  # a worker that lived so long was not part of a series of deaths
LOADING_DEATHS = 5  # in a row, after which the revision is given up

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class PoolStatus:
    """What is seen of a pool at one moment."""

    live: int = 0
    queued: int = 0
    running: int = 0
    restarts: int = 0


class Pool:
    """`size` workers of one spec. `on_change` is called when the number of live ones changes; `on_broken` when the
    workers died `LOADING_DEATHS` times in a row while loading: the pool has given up then, and `broken` says why;
    `on_closed` when nothing of it is left.
    """

    def __init__(
        self,
        host: WorkerHost,
        spec: WorkerSpec,
        *,
        size: int,
        queue_size: int,
        on_change: Callable[[], None],
        on_broken: Callable[[StepFailed], None],
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._spec = spec
        self._size = size
        self._queue_size = queue_size
        self._on_change = on_change
        self._on_broken = on_broken
        self._on_closed = on_closed
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._waiting: deque[asyncio.Future[Worker]] = deque()
        self._replacing: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()  # a worker became free or was lost
        self._restarts = 0
        self._failures = 0
        self._closing = False
        self.broken: StepFailed | None = None

    @property
    def call_timeout(self) -> float:
        """How long a call under way may still take, at most, in seconds."""
        return self._spec.call_timeout

    @property
    def status(self) -> PoolStatus:
        """Counts as of now."""
        live = len(self._workers)
        return PoolStatus(live, len(self._waiting), live - len(self._idle), self._restarts)

    async def start(self) -> Loaded:
        """Start all workers; returns when all have loaded the model. Raises `StepFailed`, and none is left then."""
        starts = [asyncio.ensure_future(self._add()) for _ in range(self._size)]
        try:
            loaded = await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await finish(asyncio.gather(*starts, return_exceptions=True))
            await self.close()
            raise
        return loaded[0]

    async def call(self, parameters: bytes, deadline: float | None = None, request_id: str = "") -> bytes:
        """Call the model once: JSON in, JSON out. `deadline` is the caller's, in the loop's time.

        What the model writes meanwhile is logged as `request_id`'s.

        Raises `PredictionFailed`, where the queue is full `Busy`, and `Conflict` where the pool is closed. A caller
        that is cancelled gives up its place in the queue; a call that already runs goes on, its answer dropped.
        """
        worker = await self._free_worker(deadline)
        _, body = await self._answer(worker, worker.call(parameters, request_id), deadline)
        return body

    async def debug(self, parameters: bytes, deadline: float | None, request_id: str) -> Debugged:
        """Call the model once and keep all that it says. Raises as `call`, but for what fails in the model."""
        asked = time.time()
        worker = await self._free_worker(deadline)
        sent = time.time()
        header, body = await self._answer(worker, worker.call(parameters, request_id, capture=True), deadline)
        return Debugged.of(header, body, self._spec.mask, asked=asked, sent=sent)

    async def _free_worker(self, deadline: float | None) -> Worker:
        self._check(deadline)
        worker = self._idle.pop() if self._idle else await self._wait(deadline)
        while worker.lost.done():  # a moment ago; nothing was written to it
            worker = self._idle.pop() if self._idle else await self._wait(deadline, again=True)
        return worker

    async def _answer(
        self, worker: Worker, answer: "asyncio.Future[tuple[Header, bytes]]", deadline: float | None
    ) -> tuple[Header, bytes]:
        answer.add_done_callback(lambda _: self._offer(worker))
        if deadline is None:
            return await asyncio.shield(answer)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(answer)
        except TimeoutError:
            raise _deadline_exceeded("while the model ran") from None

    async def drain(self, grace: float) -> None:
        """Let calls under way and in the queue finish, for at most `grace` seconds, then close. Closes if cancelled."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    while self._waiting or self.status.running:
                        self._moved.clear()
                        await self._moved.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """End all workers, however long that takes, even if cancelled; calls that still wait or run fail."""
        self._closing = True
        await finish(self._close())

    async def _close(self) -> None:
        self._send_away(_stopped())
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in list(self._workers)))
        self._on_closed()

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
        if self.broken is not None and not self._workers:
            raise _given_up(self.broken)
        if deadline is not None and deadline <= asyncio.get_running_loop().time():
            raise _deadline_exceeded("before it began")

    async def _wait(self, deadline: float | None, *, again: bool = False) -> Worker:
        """Take a place in the queue until a worker is handed over; the first, if it had one before that died.

        The queue ends at the deadline; for a call without one, when it has waited as long as it may run.
        """
        self._check(deadline)
        if len(self._waiting) >= self._queue_size and not again:
            raise Busy(
                ErrorReason.ERROR_REASON_QUEUE_FULL,
                "all {workers} workers are busy and {queued} calls wait already",
                retry_after=1.0,
                workers=self._size,
                queued=len(self._waiting),
            )
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
                raise _deadline_exceeded(self._waited_for(deadline)) from None
            raise

    def _waited_for(self, deadline: float | None) -> str:
        if deadline is not None:
            return "while it waited for a worker"
        return f"after {self._spec.call_timeout:g} s, the deployment's call_timeout, in which no worker became free"

    def _offer(self, worker: Worker) -> None:
        """Hand a free worker to the first that waits."""
        self._moved.set()
        if worker not in self._workers or worker.lost.done():
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self._idle.append(worker)

    async def _add(self) -> Loaded:
        worker = Worker(self._host, self._spec)
        loaded = await worker.start()
        if self._closing:
            await worker.stop()
            return loaded
        self._workers.add(worker)
        started = asyncio.get_running_loop().time()
        worker.lost.add_done_callback(lambda _: self._lose(worker, started))
        self._offer(worker)
        self._on_change()
        return loaded

    def _lose(self, worker: Worker, started: float) -> None:
        self._workers.discard(worker)
        self._moved.set()
        if worker in self._idle:
            self._idle.remove(worker)
        if self._closing:
            return
        self._restarts += 1
        if asyncio.get_running_loop().time() - started > STABLE_SECONDS:
            self._failures = 0
        task = asyncio.ensure_future(self._replace(worker))
        self._replacing.add(task)
        task.add_done_callback(self._replaced)
        self._on_change()

    async def _replace(self, dead: Worker) -> None:
        """Start a worker in place of a dead one; what that one leaves behind is cleared away meanwhile."""
        clearing = asyncio.ensure_future(dead.kill())
        try:
            await asyncio.wait([dead.exited])
            log.warning("worker ended", worker=dead.id, how=dead.exited.result())
            await self._start_another()
        finally:
            await finish(clearing)

    async def _start_another(self) -> None:
        """Start a worker: at once the first time, later and later in a series of deaths, until it is given up."""
        loading_deaths = 0
        while loading_deaths < LOADING_DEATHS:
            await asyncio.sleep(backoff(self._failures) * random.uniform(0.5, 1))  # noqa: S311 - jitter
            self._failures += 1
            try:
                await self._add()
            except StepFailed as failure:
                loading_deaths += 1
                log.warning("worker could not be replaced", error=failure.message, attempt=loading_deaths)
                if loading_deaths == LOADING_DEATHS:
                    self.broken = failure
                    if not self._workers:
                        self._send_away(_given_up(failure))
                    self._on_broken(failure)
            else:
                return

    def _replaced(self, task: "asyncio.Task[None]") -> None:
        self._replacing.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a worker was not replaced", exc_info=error)


def backoff(failures: int) -> float:
    """How many seconds to wait, at most, after so many failures in a row."""
    doublings = min(failures - 1, BACKOFF_DOUBLINGS)  # 2.0**1100 is no float any more
    return min(BACKOFF_FIRST_SECONDS * 2.0**doublings, BACKOFF_CAP_SECONDS) if failures else 0.0


def _deadline_exceeded(when: str) -> DomainError:
    return PredictionFailed(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, "the call's deadline passed {when}", when=when)


def _stopped() -> DomainError:
    return Conflict(ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING, "the deployment is being stopped")


def _given_up(failure: StepFailed) -> DomainError:
    return Conflict(
        ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING,
        "the model cannot be loaded any more: {cause}",
        cause=failure.message,
    )
