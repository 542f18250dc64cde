"""Ending what a build, a worker or a killed server left running: it is known by a variable in its environment, or by
its user.

A parent that is gone, or a session of its own, keeps a process from being found by its group; what it was started with
stays with it and with its children.
"""

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROUNDS = 10  # a process can start another one while we look
DYING_SECONDS = 5.0  # how long one that was killed may take to be gone, in a slow system call


def end_marked(variable: str, value: str) -> list[int]:
    """Kill every process that was started with that environment variable and that we may see, and see it end.

    Returns their pids; never the own one. Blocks.
    """
    entry = os.fsencode(f"{variable}={value}")
    return _end_all(lambda process: entry in (process / "environ").read_bytes().split(b"\0"))


def end_owned(uid: int) -> list[int]:
    """Kill every process of a user, and see it end: those, too, that have another environment by now. As above."""
    return _end_all(lambda process: str(uid).encode() in _uids(process))


def is_owner(uid: int) -> bool:
    """Whether any process is a user's."""
    wanted = str(uid).encode()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it is gone
                if wanted in _uids(Path("/proc", name)):
                    return True
    return False


def _end_all(is_meant: Callable[[Path], bool]) -> list[int]:
    ended: list[int] = []
    for _ in range(ROUNDS):
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        found = [pid for pid in pids if pid != os.getpid() and _end(pid, is_meant)]
        if not found:
            break
        ended += found
    return ended


def _uids(process: Path) -> list[bytes]:
    """Real, effective, saved and file system uid; whose its files in /proc are is not to be relied on."""
    status = (process / "status").read_bytes()
    return status.partition(b"\nUid:")[2].partition(b"\n")[0].split()


def _end(pid: int, is_meant: Callable[[Path], bool]) -> bool:
    """Kill a process that is meant; the pidfd makes sure that it is the one that was looked at, the second time."""
    try:
        if not is_meant(Path(f"/proc/{pid}")):
            return False
        pidfd = os.pidfd_open(pid)
    except OSError:  # it is gone, or not ours to look at
        return False
    try:
        ended = select.poll()  # not select(): it takes no descriptor above 1023
        ended.register(pidfd, select.POLLIN)
        if ended.poll(0) or not is_meant(Path(f"/proc/{pid}")):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        ended.poll(DYING_SECONDS * 1000)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True
