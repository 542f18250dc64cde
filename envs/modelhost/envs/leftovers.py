"""End what a killed or failed build left running: commands whose parent is gone, children that left their group."""

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

MARK = "MODELHOST_BUILD"  # in the environment of every command of a build: the folder it builds
ROUNDS = 10  # a process can start another one while we look
DYING_SECONDS = 5.0  # how long one that was killed may take to be gone, in a slow system call


def end_leftovers(folder: Path) -> int:
    """Kill every process that belongs to the build of a folder and that we may see; return how many there were."""
    ended = 0
    for _ in range(ROUNDS):
        found = [pid for pid in _processes() if _kill(pid, f"{MARK}={folder}".encode())]
        if not found:
            break
        ended += len(found)
    return ended


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())


def _kill(pid: int, entry: bytes) -> bool:
    """Kill a process that has the entry in its environment, and see it end.

    The pidfd makes sure that it is the one that was looked at.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if entry not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        ended = select.poll()  # not select(): it takes no descriptor above 1023
        ended.register(pidfd, select.POLLIN)
        ended.poll(DYING_SECONDS * 1000)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True
