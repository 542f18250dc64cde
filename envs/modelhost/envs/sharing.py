"""Work that several jobs want at the same time is done once, on a thread of its own, and told to all of them."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from modelhost.envs.process import POLL_SECONDS, Job, Stream

T = TypeVar("T")
_Seat = queue.SimpleQueue[tuple[Stream, str] | None]  # the lines for one waiting job; None: it is over


class _Work(Generic[T]):
    """One piece of work under way. Its fields are guarded by the lock of `SharedWork`."""

    def __init__(self) -> None:
        self.seats: list[_Seat] = []
        self.job = Job()
        self.abandoned = False  # nobody waits any more: it is being cancelled, and cannot be joined
        self.over = threading.Event()
        self.value: T | None = None
        self.error: BaseException | None = None


class SharedWork(Generic[T]):
    """Does work by key. Jobs that ask for a key under way join it; it is cancelled when the last of them is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, _Work[T]] = {}

    def run(self, key: str, work: Callable[[Job], T], job: Job) -> T:
        """Do `work`, or wait for the same work already under way; report its lines to `job` on this thread.

        `work` gets a job of its own, with the marker of the first that asked.

        Raises what `work` raises, and `Cancelled` when `job` is cancelled; the work has then ended if nobody else
        waits for it.
        """
        while True:
            job.check()
            with self._lock:
                current = self._under_way.get(key)
                joined = current is not None
                if current is None:
                    current = self._start(key, work, job)
                seat = None if current.abandoned else _Seat()
                if seat is not None:
                    current.seats.append(seat)
            if seat is None:
                current.over.wait(POLL_SECONDS)
                continue
            try:
                if joined:
                    job.say("joined a build already under way")
                self._relay(seat, job)
            except BaseException:
                self._leave(current, seat)
                raise
            if current.error is not None:
                raise current.error
            return current.value  # type: ignore[return-value]  # there is one where there is no error

    def _start(self, key: str, work: Callable[[Job], T], first: Job) -> _Work[T]:
        current = _Work[T]()

        def emit(stream: Stream, line: str) -> None:
            with self._lock:
                for seat in current.seats:
                    seat.put((stream, line))

        current.job = Job(emit, marker=first.marker)
        self._under_way[key] = current
        threading.Thread(target=self._do, args=(key, work, current), name=f"build {key[:8]}").start()
        return current

    def _do(self, key: str, work: Callable[[Job], T], current: _Work[T]) -> None:
        try:
            current.value = work(current.job)
        except BaseException as error:
            current.error = error
        with self._lock:
            del self._under_way[key]
            for seat in current.seats:
                seat.put(None)
        current.over.set()

    @staticmethod
    def _relay(seat: _Seat, job: Job) -> None:
        """Report lines until the work is over."""
        while True:
            job.check()
            try:
                item = seat.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if item is None:
                return
            job.report(*item)

    def _leave(self, current: _Work[T], seat: _Seat) -> None:
        """Stop waiting; the last one out ends the work and sees it end."""
        with self._lock:
            current.seats.remove(seat)
            current.abandoned = last = not current.seats
        if last:
            current.job.cancel()
            current.over.wait()
