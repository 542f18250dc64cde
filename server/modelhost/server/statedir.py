"""The state directory: its layout, the lock that keeps a second server out, and what a killed server left behind."""

import fcntl
import os
import signal
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

MARKER = "MODELHOST_STATE"  # environment variable of every process that a server starts


class StateDirBusy(Exception):
    """Another server uses the state directory."""


class StateDir:
    """Paths below `root`, which is made if it is not there, for its owner alone."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        """Kill what an earlier server of this directory left running; returns the pids. Needs the lock."""
        mark = "=".join(next(iter(self.marker.items()))).encode()
        ended = []
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):  # it is gone, or not ours to look at
                if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
                    ended.append(int(entry.name))
        return ended
