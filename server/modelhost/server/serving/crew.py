"""Keeps a number of workers of one revision alive: dead ones are replaced, worn ones exchanged, the number changed.

Each worker has a task for its life, from the attempt to load it to the last of what it leaves. Whenever something has
happened, `_settle` compares the workers that there are with those that there should be, and hires or lets go.
"""

import asyncio
import contextvars
import random
from enum import Enum, auto
from typing import Protocol

import structlog

from modelhost.server.errors import StepFailed
from modelhost.server.serving.answers import start_failure
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


class _Is(Enum):
    """Where a worker is in its life."""

    STARTING = auto()  # waits for its attempt or its turn, or loads
    LIVE = auto()  # may be called
    LOST = auto()  # cannot be called any more; its process ends
    LEAVING = auto()  # was let go: it finishes its call, and ends
    OVER = auto()  # has ended; what it left is cleared away


_STAYING = (_Is.STARTING, _Is.LIVE, _Is.LOST)


class _Member:
    """A worker of the crew. `urgent` ones take a dead one's place, and wait for no turn to load."""

    def __init__(self, worker: Worker, *, urgent: bool) -> None:
        self.worker = worker
        self.urgent = urgent
        self.state = _Is.STARTING
        self.since = 0.0  # LIVE
        self.worn = False
        self.recycled = False  # it was let go because it is worn
        self.dismissed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None

    def dismiss(self) -> None:
        """Have it end: it has no call now."""
        if not self.dismissed.done():
            self.dismissed.set_result(None)


class Crew:
    """`size` workers of one spec, for one desk. On the event loop."""

    def __init__(self, host: WorkerHost, spec: WorkerSpec, size: int, room: Room, desk: Desk) -> None:
        self.size = size
        self.restarts = 0
        self._host = host
        self._spec = spec
        self._room = room
        self._desk = desk
        self._context = contextvars.copy_context()  # what is logged of it belongs to its deployment, whoever caused it
        self._members: dict[Worker, _Member] = {}
        self._fresh: _Member | None = None  # it is to come for one that is worn
        self._owed = 0  # places of dead workers
        self._failures = 0
        self._loading_deaths = 0
        self._first: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()  # all are loaded once
        self._loaded = 0
        self._given_up = False
        self._running = False
        self._closing = False

    @property
    def live(self) -> int:
        """How many have loaded the model and may be called."""
        return self._count(_Is.LIVE)

    @property
    def starting(self) -> int:
        """How many are on their way, or wait for their next attempt."""
        return self._count(_Is.STARTING)

    async def start(self) -> Loaded:
        """Start all; returns when all have loaded the model. Raises `StepFailed`; it must be closed then."""
        self._room.hold(self.size)
        for _ in range(self.size):
            self._hire()
        loaded = await self._first
        self._running = True
        self._settle()
        return loaded

    def resize(self, size: int) -> None:
        """Have so many workers from now on; of those that are too many, each finishes its call first.

        Raises `StepFailed` where more are wanted and there is no room for them; nothing is changed then.
        """
        if size > self.size:
            self._room.hold(max(size, self._occupied()))
        self.size = size
        self._settle()

    def finished(self, worker: Worker) -> bool:
        """A call has ended in a worker; whether it may be given another."""
        member = self._members.get(worker)
        if self._closing or member is None or worker.lost.done():
            return False
        if self._spec.recycle_calls and worker.calls >= self._spec.recycle_calls:
            self._wear(member)
        if member.state is _Is.LEAVING:
            member.dismiss()
        return member.state is _Is.LIVE

    async def close(self) -> None:
        """End all, however long that takes."""
        self._closing = True
        tasks = [each.task for each in self._members.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._room.hold(0)

    # -- what there should be

    def _settle(self) -> None:
        """Do what is missing."""
        if self._closing or self._given_up or not self._running:
            return
        while self._excess() > 0:
            member = self._dispensable()
            if member.worn and self._fresh is not None and self._fresh.state is _Is.LIVE:
                member.recycled, self._fresh = True, None
            self._let_go(member)
        while self._excess() < 0 and self._has_room_for_one_more():
            self._hire()
        self._exchange_one()
        self._room.hold(max(self.size, self._occupied()))

    def _excess(self) -> int:
        exchanging = self._fresh is not None and self._fresh.state is _Is.STARTING and self._worn() is not None
        return sum(map(self._count, _STAYING)) - self.size - exchanging

    def _dispensable(self) -> _Member:
        """Who goes first: those that load, the last one first, then the worn, the idle, the busy."""
        starting = [each for each in self._members.values() if each.state is _Is.STARTING]
        live = [each for each in self._members.values() if each.state is _Is.LIVE]
        live.sort(key=lambda each: (not each.worn, each.worker.is_busy))
        lost = [each for each in self._members.values() if each.state is _Is.LOST]
        return (starting[::-1] + live + lost)[0]

    def _has_room_for_one_more(self) -> bool:
        """False where one that leaves must have left first."""
        try:
            self._room.hold(max(self.size, self._occupied() + 1))
        except StepFailed:
            return False
        return True

    def _exchange_one(self) -> None:
        """Have one that is worn exchanged, if all are there: it goes when a fresh one has come, or before, for room."""
        worn = self._worn()
        if worn is None or self._occupied() != self.size or self.live != self.size:
            return
        if self._has_room_for_one_more():
            self._fresh = self._hire(self._pause())
        else:
            log.info("a worker ends before its successor starts: there is no memory for both", worker=worn.worker.id)
            self._owed += 1
            worn.recycled = True
            self._let_go(worn)

    def _worn(self) -> _Member | None:
        return next((each for each in self._members.values() if each.worn and each.state is _Is.LIVE), None)

    def _wear(self, member: _Member, *, heavy: bool = False) -> None:
        """Have a worker exchanged for a fresh one, when its turn has come."""
        if member.worn or member.state is not _Is.LIVE:
            return
        member.worn = True
        if heavy and self._age(member) < STABLE_SECONDS:
            self._failures += 1  # its successor may be as heavy: it has time
            log.warning("worker uses more than recycle_memory soon after it was loaded", worker=member.worker.id)
        self._settle()

    def _count(self, state: _Is) -> int:
        return sum(each.state is state for each in self._members.values())

    def _occupied(self) -> int:
        """How many have a process, or soon will."""
        return sum(each.state is not _Is.OVER for each in self._members.values())

    # -- the life of a worker

    def _hire(self, pause: float = 0.0) -> _Member:
        """Have one more; at once, but in a dead one's place later and later in a series of deaths."""
        urgent = self._owed > 0
        self._owed -= urgent
        pause = self._pause() if urgent else pause
        worker = Worker(self._host, self._spec, self.size, self._heavy)
        member = self._members[worker] = _Member(worker, urgent=urgent)
        task = asyncio.get_running_loop().create_task(self._live(member, pause), context=self._context.copy())
        member.task = task
        task.add_done_callback(lambda _: self._over(member, task))
        return member

    def _let_go(self, member: _Member) -> None:
        was_starting = member.state is _Is.STARTING
        member.state = _Is.LEAVING
        if was_starting and member.task is not None:
            member.task.cancel()
        elif self._desk.withdraw(member.worker):
            member.dismiss()

    def _over(self, member: _Member, task: "asyncio.Task[None]") -> None:
        """Nothing of it is left."""
        member.state = _Is.OVER
        del self._members[member.worker]
        if not task.cancelled() and (error := task.exception()):
            log.error("a worker was not cleared away", worker=member.worker.id, exc_info=error)
        self._settle()

    async def _live(self, member: _Member, pause: float) -> None:
        if await self._load(member, pause):
            await self._serve(member)

    async def _load(self, member: _Member, pause: float) -> bool:
        """Start it in `pause` seconds. Whether that went well."""
        try:
            await asyncio.sleep(pause)
            if member.urgent:
                loaded = await member.worker.start()
            else:
                async with self._host.turns.turn(self):
                    loaded = await member.worker.start()
        except Exception as error:
            failure = error if isinstance(error, StepFailed) else start_failure(error, self._spec.load_timeout)
            member.state = _Is.OVER
            self._load_failed(member, failure)
            return False
        self._loading_deaths = 0
        self._loaded += 1
        if self._loaded == self.size and not self._first.done():
            self._first.set_result(loaded)
        return True

    def _load_failed(self, member: _Member, failure: StepFailed) -> None:
        if not self._running:
            if not self._first.done():
                self._first.set_exception(failure)
            return
        self._owed += member is not self._fresh
        self._failures += 1
        if failure.reason != ErrorReason.ERROR_REASON_DISK_FULL:  # which is nothing that the model could help
            self._loading_deaths += 1
        log.warning("worker could not be started", error=failure.message, attempt=self._loading_deaths)
        self._desk.ended("load_failed")
        lives = self._count(_Is.LIVE) + self._count(_Is.LEAVING)
        if self._loading_deaths >= LOADING_DEATHS and not lives and not self._given_up:
            self._given_up = True
            for other in list(self._members.values()):
                if other.state is _Is.STARTING:
                    self._let_go(other)
            self._desk.broken(failure)

    async def _serve(self, member: _Member) -> None:
        """From its first call until nothing of it is left."""
        worker = member.worker
        member.state, member.since = _Is.LIVE, asyncio.get_running_loop().time()
        worker.lost.add_done_callback(lambda _: self._lose(member))
        self._desk.ready(worker)
        self._settle()
        try:
            await asyncio.wait([worker.lost, member.dismissed], return_when=asyncio.FIRST_COMPLETED)
            if worker.lost.done():
                await asyncio.wait([worker.exited])
                log.warning("worker ended", worker=worker.id, how=worker.exited.result(), cause=worker.cause)
                self._died(member)
        finally:
            await finish(worker.kill() if worker.lost.done() else worker.stop())
            if member.recycled and member.dismissed.done():
                self._desk.ended("recycled")

    def _lose(self, member: _Member) -> None:
        """It can be called no more."""
        if member.state is _Is.LIVE:
            member.state = _Is.LOST
        self._desk.gone(member.worker)

    def _died(self, member: _Member) -> None:
        """Its process has ended, and not because it was let go."""
        if self._age(member) > STABLE_SECONDS:
            self._failures = 0
        if member.state is _Is.LOST:
            self._failures += 1
            self._owed += 1
            self.restarts += 1
        member.state = _Is.OVER
        self._desk.ended(member.worker.cause)
        self._settle()

    def _heavy(self, worker: Worker) -> None:
        """It uses more memory than it should before it is exchanged."""
        if member := self._members.get(worker):
            self._wear(member, heavy=True)

    def _age(self, member: _Member) -> float:
        return asyncio.get_running_loop().time() - member.since

    def _pause(self) -> float:
        """Seconds until the next attempt; the deaths of all workers of a crew, once each, are one of a series."""
        return backoff((self._failures - 1) // self.size) * random.SystemRandom().uniform(0.5, 1)


def backoff(failures: int) -> float:
    """How many seconds to wait, at most, after so many failures in a row."""
    doublings = min(failures - 1, BACKOFF_DOUBLINGS)  # 2.0**1100 is no float any more
    return min(BACKOFF_FIRST_SECONDS * 2.0**doublings, BACKOFF_CAP_SECONDS) if failures > 0 else 0.0
