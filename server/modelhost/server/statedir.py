"""The state directory: its layout, the lock that keeps a second server out, and what a killed server left behind."""

import fcntl
import os
from hashlib import sha256
from pathlib import Path

from modelhost.envs.marked import end_marked, tags_of

MARKER = "MODELHOST_STATE"  # environment variable of every process that a server starts


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
        self.secret_key = self.root / "secret.key"
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
        """Keep other servers out until `unlock` or the end of the process. Raises `StateDirBusy`, `OSError`."""
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
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError:  # a full disk
            os.close(descriptor)
            raise
        self._lock = descriptor

    def unlock(self) -> None:
        """Let other servers in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def let_users_pass(self) -> None:
        """Let workers of other users reach their directories and environments, and nothing else. Raises `OSError`."""
        for folder in (self.snapshots, self.logs, self.cache):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)
        for entry in self.root.iterdir():
            if entry.is_file():
                entry.chmod(0o600)  # SQLite gives its other files the mode of the first
        for folder in (self.workers, self.root):
            folder.chmod(0o711)

    def end_orphans(self) -> list[int]:
        """Kill what an earlier server of this directory left running, and see it end; returns the pids.

        Needs the lock.
        """
        ((variable, value),) = self.marker.items()
        return end_marked(variable, value, tags_of(self.marker))
