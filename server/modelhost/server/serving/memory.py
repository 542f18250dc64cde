"""How much memory workers use, read a few times a second on a thread of its own, and said where it is too much.

A worker is its process with all that it has started: its session, its descendants, and every process of its own user.
Limits of the address space would be kept by the kernel, but TensorFlow reserves far more than it uses.
"""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

WATCH_SECONDS = 0.25
_PAGE = os.sysconf("SC_PAGE_SIZE")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class Watched:
    """A worker's process, the user that is its own, and by numbers of bytes who is told when it uses more."""

    pid: int
    uid: int | None
    levels: Mapping[int, Callable[[int], None]]


@dataclass(frozen=True)
class HostProcess:
    """One of the host's processes; `resident` in bytes."""

    pid: int
    parent: int
    session: int
    uid: int
    resident: int


class MemoryWatch:
    """Watches worker processes. From any thread; `close` once all are forgotten."""

    def __init__(self, processes: Callable[[], dict[int, HostProcess]]) -> None:
        self._processes = processes
        self._watched: dict[int, Watched] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._wanted = threading.Event()

    def watch(self, pid: int, uid: int | None, levels: Mapping[int, Callable[[int], None]]) -> None:
        """Call what is at a level with the bytes in use, on the thread, each time that more than the level are."""
        with self._lock:
            self._watched[pid] = Watched(pid, uid, levels)
            self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
                self._thread.start()

    def forget(self, pid: int) -> None:
        """Watch it no more."""
        with self._lock:
            self._watched.pop(pid, None)
            if not self._watched:
                self._wanted.clear()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        failing = False
        while not self._closed.wait(WATCH_SECONDS):
            self._wanted.wait()
            try:
                self._look()
            except Exception as error:  # no file can be opened, mostly; limits hold again as soon as one can
                if not failing:
                    problem = f"{type(error).__name__}: {error}"
                    log.warning("what models use of memory cannot be read, limits do not hold", error=problem)
                failing = True
            else:
                failing = False

    def _look(self) -> None:
        with self._lock:
            watched = list(self._watched.values())
        processes = self._processes() if watched else {}
        for each in watched:
            used = memory_of(each, processes)
            for level, on_passed in each.levels.items():
                if used > level:
                    on_passed(used)


def memory_of(worker: Watched, processes: dict[int, HostProcess]) -> int:
    """Bytes that a worker uses. What its processes share is counted once where it would be too much otherwise."""
    members = [each for each in processes.values() if _is_of(each, worker, processes)]
    resident = sum(each.resident for each in members)
    if resident <= min(worker.levels) or len(members) == 1:
        return resident
    return sum(_proportional(each) for each in members)


def _is_of(process: HostProcess, worker: Watched, processes: dict[int, HostProcess]) -> bool:
    if process.session == worker.pid or process.uid == worker.uid:
        return True
    seen = set()
    while process.pid not in seen and process.parent in processes:
        if process.pid == worker.pid:
            return True
        seen.add(process.pid)
        process = processes[process.parent]
    return process.pid == worker.pid


def host_processes() -> dict[int, HostProcess]:
    """All that run now, by pid."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError):  # it is gone
                found[int(name)] = _read(name)
    return found


def _read(name: str) -> HostProcess:
    """proc_pid_stat(5): the fields after the command's name, which may hold anything."""
    with open(f"/proc/{name}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
        uid = os.fstat(file.fileno()).st_uid
    return HostProcess(int(name), int(fields[1]), int(fields[3]), uid, int(fields[21]) * _PAGE)


def _proportional(process: HostProcess) -> int:
    """Its share of what it shares, and all else; all of it where that cannot be read."""
    with suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return process.resident
