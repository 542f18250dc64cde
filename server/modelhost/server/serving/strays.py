"""What a worker left running outside of its process group: children of the model that made a session of their own."""

import os
import select
import signal
from pathlib import Path

ROUNDS = 10  # one can start another while we look
DYING_SECONDS = 5.0  # how long one that was killed may take to be gone


def end_strays(variable: str, value: str) -> int:
    """Kill every process that was started with that environment variable, and see it end; returns how many. Blocks."""
    entry = os.fsencode(f"{variable}={value}")
    ended = 0
    for _ in range(ROUNDS):
        found = sum(_end(int(name), entry) for name in os.listdir("/proc") if name.isdigit())
        if not found:
            break
        ended += found
    return ended


def _end(pid: int, entry: bytes) -> bool:
    """Kill a process that has the entry; the pidfd makes sure that it is the one that was looked at."""
    if pid == os.getpid():
        return False
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
