"""Keeps a number of workers of one revision alive: dead ones are replaced, worn ones exchanged, the number changed."""

import asyncio
import random
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

import structlog

from modelhost.server.errors import StepFailed
from modelhost.server.serving.finish import finish
from modelhost.server.serving.host import WorkerHost, WorkerSpec
from modelhost.server.serving.worker import Loaded, Worker
from modelhost.v1.error_reason_pb2 import ErrorReason

BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_CAP_SECONDS = 30.0
BACKOFF_DOUBLINGS = 10
STABLE_SECONDS = 30.0  # a worker that lived so long was not part of a series of deaths
LOADING_DEATHS = 5  # in a row, after which the revision is given up, if none of its workers lives

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Room(Protocol):
    """Where a crew's memory is declared."""

    def hold(self, workers: int) -> None:
        """Have room for so many workers, no more and no fewer. Raises `StepFailed`, and holds what it held."""


class Desk(Protocol):
    """Who gives the workers their calls, and tells the crew of each end of one (`Crew.finished`)."""

    def ready(self, worker: Worker) -> None:
        """A worker can be called from now on."""

    def withdraw(self, worker: Worker) -> bool:
        """Give no more calls to a worker that has none now; false, and nothing is done, if it has one."""

    def gone(self, worker: Worker) -> None:
        """A worker cannot be called any more."""

    def ended(self, cause: str) -> None:
        """A worker was lost, as `Worker.cause` says, `recycled`: let go for a fresh one, or `load_failed`."""

    def broken(self, failure: StepFailed) -> None:
        """No worker lives, and none can be loaded: the crew has given up."""


class Crew:
    """`size` workers of one spec, for one desk. On the event loop."""

    def __init__(self, host: WorkerHost, spec: WorkerSpec, size: int, room: Room, desk: Desk) -> None:
        self.size = size
        self.restarts = 0
        self._host = host
        self._spec = spec
        self._room = room
        self._desk = desk
        self._live: dict[Worker, float] = {}  # since when
        self._leaving: set[Worker] = set()  # of those that live
        self._places: dict[object, asyncio.Task[None] | None] = {}  # for workers that start, and who starts them
        self._worn: deque[Worker] = deque()
        self._exchanging = False
        self._failures = 0
        self._loading_deaths = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._given_up = False
        self._closing = False

    @property
    def live(self) -> int:
        """How many have loaded the model and may be called."""
        return len(self._live) - len(self._leaving)

    @property
    def starting(self) -> int:
        """How many are on their way, or wait for their next attempt."""
        return len(self._places)

    async def start(self) -> Loaded:
        """Start all; returns when all have loaded the model. Raises `StepFailed`; it must be closed then."""
        self._room.hold(self.size)
        starts = [asyncio.ensure_future(self._start_in_turn(self._take_place())) for _ in range(self.size)]
        try:
            return (await asyncio.gather(*starts))[0]
        except BaseException:
            for start in starts:
                start.cancel()
            await finish(asyncio.gather(*starts, return_exceptions=True))
            raise

    def resize(self, size: int) -> None:
        """Have so many workers from now on; of those that are too many, each finishes its call first.

        Raises `StepFailed` where more are wanted and there is no room for them; nothing is changed then.
        """
        if size > self.size:
            self._room.hold(size + self._exchanging)
        self.size = size
        for place, task in list(self._places.items()):
            if task is not None and self.live + self.starting > size:
                del self._places[place]
                task.cancel()
        self._trim()
        self._refill()

    def finished(self, worker: Worker) -> bool:
        """A call has ended in a worker; whether it may be given another."""
        if self._closing or worker not in self._live or worker.lost.done():
            return False
        if worker in self._leaving:
            self._run(worker.stop())
            return False
        if self._spec.recycle_calls and worker.calls >= self._spec.recycle_calls:
            self._wear(worker)
        return True

    async def close(self) -> None:
        """End all, however long that takes."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in list(self._live)))
        self._room.hold(0)

    # -- starts

    def _take_place(self) -> object:
        place = object()
        self._places[place] = None
        return place

    async def _start_in_turn(self, place: object) -> Loaded:
        async with self._host.loads:
            return await self._start_one(place)

    async def _start_one(self, place: object) -> Loaded:
        """Start a worker, which gives up its place among those that start. Raises `StepFailed`; it keeps it then."""
        worker = Worker(self._host, self._spec, self.size, self._wear)
        loaded = await worker.start()
        if self._closing:
            await worker.stop()
            return loaded
        self._loading_deaths = 0
        self._places.pop(place, None)
        self._live[worker] = asyncio.get_running_loop().time()
        worker.lost.add_done_callback(lambda _: self._lose(worker))
        self._desk.ready(worker)
        return loaded

    def _refill(self, dead: Worker | None = None) -> None:
        """Have workers started for all places that are empty; what a dead one left behind is cleared away meanwhile."""
        while self.live + self.starting < self.size:
            place = self._take_place()
            self._places[place] = self._run(self._start_another(place, dead))
            dead = None
        if dead is not None:
            self._run(self._bury(dead))

    async def _start_another(self, place: object, dead: Worker | None) -> None:
        """Start a worker: at once the first time, later and later in a series of deaths, until it is given up."""
        clearing = asyncio.ensure_future(self._bury(dead)) if dead else None
        try:
            if dead is not None:
                await asyncio.wait([dead.exited])
            while place in self._places and not self._given_up:
                await asyncio.sleep(self._pause())
                await self._attempt(place)
        finally:
            self._places.pop(place, None)
            if clearing is not None:
                await finish(clearing)

    async def _attempt(self, place: object) -> None:
        """Start a worker, if that can be done."""
        try:
            await self._start_one(place)
        except StepFailed as failure:
            self._failures += 1
            if failure.reason != ErrorReason.ERROR_REASON_DISK_FULL:  # which is nothing that the model could help
                self._loading_deaths += 1
            log.warning("worker could not be started", error=failure.message, attempt=self._loading_deaths)
            self._desk.ended("load_failed")
            if self._loading_deaths >= LOADING_DEATHS and not self._live and not self._given_up:
                self._given_up = True
                self._desk.broken(failure)

    def _pause(self) -> float:
        """Seconds until the next attempt; the deaths of all workers of a crew, once each, are one of a series."""
        return backoff((self._failures - 1) // self.size) * random.uniform(0.5, 1)  # noqa: S311 - jitter

    # -- ends

    def _lose(self, worker: Worker) -> None:
        since = self._live.pop(worker)
        was_let_go = worker in self._leaving
        self._leaving.discard(worker)
        self._desk.gone(worker)
        if self._closing:
            return
        if was_let_go:
            if not self._leaving and not self._exchanging:
                self._room.hold(self.size)
            self._refill()
            return
        self.restarts += 1
        if asyncio.get_running_loop().time() - since > STABLE_SECONDS:
            self._failures = 0
        self._failures += 1
        self._refill(worker)

    async def _bury(self, worker: Worker) -> None:
        """Clear away what a dead worker has left."""
        clearing = asyncio.ensure_future(worker.kill())
        try:
            await asyncio.wait([worker.exited])
            log.warning("worker ended", worker=worker.id, how=worker.exited.result(), cause=worker.cause)
            self._desk.ended(worker.cause)
        finally:
            await finish(clearing)

    def _retire(self, worker: Worker) -> None:
        """Let a worker go, after its call if it has one."""
        self._leaving.add(worker)
        if self._desk.withdraw(worker):
            self._run(worker.stop())

    # -- exchanges

    def _wear(self, worker: Worker) -> None:
        """Have a worker exchanged for a fresh one, when its turn has come."""
        if worker in self._live and worker not in self._leaving and worker not in self._worn:
            self._worn.append(worker)
            if not self._exchanging and not self._closing:
                self._exchanging = True
                self._run(self._exchange_all())

    async def _exchange_all(self) -> None:
        """Exchange those that are worn, one at a time."""
        try:
            while self._worn:
                try:
                    await self._exchange(self._worn[0])
                finally:
                    self._worn.popleft()
        finally:
            self._exchanging = False

    async def _exchange(self, worn: Worker) -> None:
        """Start a fresh worker, then let the worn one go; the other way round where there is no room for both."""
        try:
            self._room.hold(self.size + 1)
        except StepFailed as refusal:
            log.info("a worker ends before another is started in its place", worker=worn.id, error=refusal.message)
        else:
            await self._start_beside(worn)
        if self._is_staying(worn):
            self._retire(worn)
            await asyncio.wait([worn.exited])
            self._desk.ended("recycled")
        self._trim()
        self._room.hold(self.size)

    async def _start_beside(self, worn: Worker) -> None:
        """Start one more worker than there should be, for as long as the worn one is there."""
        while self._is_staying(worn) and self.live <= self.size:
            place = self._take_place()
            try:
                await self._attempt(place)
                if place in self._places:  # that failed
                    await asyncio.sleep(self._pause())
            finally:
                self._places.pop(place, None)

    def _is_staying(self, worker: Worker) -> bool:
        return worker in self._live and worker not in self._leaving

    def _trim(self) -> None:
        """Let go of the workers that are too many, idle ones first."""
        staying = sorted(self._live.keys() - self._leaving, key=lambda worker: worker.is_busy)
        for worker in staying[: max(0, len(staying) - self.size)]:
            self._retire(worker)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)
        return task

    def _ran(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a worker was not replaced", exc_info=error)


def backoff(failures: int) -> float:
    """How many seconds to wait, at most, after so many failures in a row."""
    doublings = min(failures - 1, BACKOFF_DOUBLINGS)  # 2.0**1100 is no float any more
    return min(BACKOFF_FIRST_SECONDS * 2.0**doublings, BACKOFF_CAP_SECONDS) if failures > 0 else 0.0
