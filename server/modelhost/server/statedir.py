"""The state directory: its layout, the lock that keeps a second server out, and what a killed server left behind."""

import fcntl
import os
import select
import signal
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

MARKER = "MODELHOST_STATE"  # environment variable of every process that a server starts
ROUNDS = 10  # a process can start another one while we look
DYING_SECONDS = 5.0  # how long one that was killed may take to be gone, in a slow system call


class StateDirBusy(Exception):
    """Another server uses the state directory."""


class StateDir:
    """Paths below `root`, which is made if it is not there, for its owner alone. Raises `OSError`."""

    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(f"--state-dir: there is a file where {root} needs a directory") from None
        self.root = root.resolve()
        self.database = self.root / "modelhost.db"
        self.admin_token = self.root / "admin.token"
        self.snapshots = self.root / "snapshots"
        self.environments = self.root / "environments"
        self.workers = self.root / "workers"
        self.logs = self.root / "logs"
        self.cache = self.root / "cache"
        self._lock: int | None = None

    @property
    def marker(self) -> dict[str, str]:
        """What tells this directory's processes from all others."""
        return {MARKER: sha256(os.fsencode(self.root)).hexdigest()[:32]}

    def lock(self) -> None:
        """Keep other servers out until `unlock` or the end of the process. Raises `StateDirBusy`."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StateDirBusy(
                f"another modelhost server (pid {owner or 'unknown'}) uses {self.root}; "
                "stop it, or give this one another --state-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._lock = descriptor

    def unlock(self) -> None:
        """Let other servers in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def end_orphans(self) -> list[int]:
        """Kill what an earlier server of this directory left running, and see it end; returns the pids.

        Needs the lock.
        """
        mark = "=".join(next(iter(self.marker.items()))).encode()
        ended: list[int] = []
        for _ in range(ROUNDS):
            pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
            found = [pid for pid in pids if _end(pid, mark)]
            if not found:
                break
            ended += found
        return ended


def _end(pid: int, mark: bytes) -> bool:
    """Kill a process that has the mark in its environment. The pidfd makes sure that it is the one looked at."""
    with suppress(OSError):  # it is gone, or not ours to look at
        pidfd = os.pidfd_open(pid)
        try:
            if mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return False
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            end = select.poll()
            end.register(pidfd, select.POLLIN)
            end.poll(DYING_SECONDS * 1000)
        finally:
            os.close(pidfd)
        return True
    return False
