"""Ending what a build, a worker or a killed server left running: it is known by a variable in its environment, by a
tag, or by its user.

A parent that is gone, or a session of its own, keeps a process from being found by its group; what it was started with
stays with it and with its children. A program may start others with an empty environment. The tag stays with these,
too: it is the limit of file locks, without effect since Linux 2.4.25, which is inherited over fork and exec and cannot
be raised again.
"""

import hashlib
import os
import resource
import select
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

ROUNDS = 10  # a process can start another one while we look
DYING_SECONDS = 5.0  # how long one that was killed may take to be gone, in a slow system call

RLIMIT_LOCKS = 10  # of every architecture; Python has no name for it
_TAGS_FROM = 1 << 61  # nobody sets a limit like that
_SERVER_BITS, _OWN_BITS = 27, 34
NO_TAGS = range(0)


def tags_of(marker: Mapping[str, str]) -> range:
    """All tags of the processes of a server, which is known by its marker."""
    first = _TAGS_FROM + (_digest(*marker, *marker.values(), bits=_SERVER_BITS) << _OWN_BITS)
    return range(first, first + (1 << _OWN_BITS))


def tag_of(marker: Mapping[str, str], name: str) -> int:
    """The tag of something of that server's, a worker or a build, which is known by its name."""
    return tags_of(marker)[_digest(name, bits=_OWN_BITS)]


def give_tag(pid: int, tag: int) -> None:
    """Give a process that was just started a tag, if it has none that is lower; where it cannot be, it goes without."""
    with suppress(OSError, ValueError):
        _, most = resource.prlimit(pid, RLIMIT_LOCKS)
        if most == resource.RLIM_INFINITY or most > tag:
            resource.prlimit(pid, RLIMIT_LOCKS, (tag, tag))


def end_marked(variable: str, value: str, tags: range = NO_TAGS) -> list[int]:
    """Kill every process that was started with that environment variable or has one of these tags, and see it end.

    Those that we may see. Returns their pids; never the own one. Blocks.
    """
    entry = os.fsencode(f"{variable}={value}")

    def is_meant(process: Path) -> bool:
        return _tag(process) in tags or entry in (process / "environ").read_bytes().split(b"\0")

    return _end_all(is_meant)


def end_owned(uid: int) -> list[int]:
    """Kill every process of a user, and see it end: those, too, that have another environment by now. As above."""
    return _end_all(lambda process: str(uid).encode() in _uids(process))


def is_owner(uid: int) -> bool:
    """Whether any process is a user's.

    The kernel is asked first, of all processes at once. It looks for the real uid, which a process without privileges
    cannot part with. Only its no is relied on: some sandboxes say that every user has a process.
    """
    try:
        os.getpriority(os.PRIO_USER, uid)
    except ProcessLookupError:
        return False
    except OSError:
        pass
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


def _digest(*words: str, bits: int) -> int:
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, words))).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)


def _tag(process: Path) -> int:
    """The hard limit of file locks, as proc_pid_limits(5) shows it; 0 for none."""
    line = (process / "limits").read_bytes().partition(b"\nMax file locks ")[2].partition(b"\n")[0]
    _, hard, *_ = line.split() or (b"", b"")
    return int(hard) if hard.isdigit() else 0


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
