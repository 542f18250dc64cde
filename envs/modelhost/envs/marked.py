"""Ending what a build, a worker or a killed server left running: it is known by a variable in its environment.

A parent that is gone, or a session of its own, keeps a process from being found by its group; what it was started with
stays with it and with its children.
"""

import os
import select
import signal
from pathlib import Path

ROUNDS = 10  # a process can start another one while we look
DYING_SECONDS = 5.0  # how long one that was killed may take to be gone, in a slow system call


def end_marked(variable: str, value: str) -> list[int]:
    """Kill every process that was started with that environment variable and that we may see, and see it end.

    Returns their pids; never the own one. Blocks.
    """
    entry = os.fsencode(f"{variable}={value}")
    ended: list[int] = []
    for _ in range(ROUNDS):
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        found = [pid for pid in pids if pid != os.getpid() and _end(pid, entry)]
        if not found:
            break
        ended += found
    return ended


def _end(pid: int, entry: bytes) -> bool:
    """Kill a process that has the entry; the pidfd makes sure that it is the one that was looked at."""
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
    except OSError:  # it is gone, or not ours to look at
        return False
    finally:
        os.close(pidfd)
    return True
