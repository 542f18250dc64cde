"""Users for workers: each is one worker's at a time, also where several servers of a host have the same range."""

import fcntl
import os
import secrets
import threading
from contextlib import suppress
from itertools import chain
from pathlib import Path

from modelhost.envs.marked import is_owner
from modelhost.server.errors import StepFailed
from modelhost.v1.error_reason_pb2 import ErrorReason

CLAIMS = Path("/run/modelhost/uids")  # a locked file for each uid that is in use


class Uids:
    """Numbers of users out of a range. From any thread.

    A uid is claimed by a lock on a file in `claims`, which the kernel takes back from a server that was killed. Where
    there can be no such folder, servers on one host need ranges of their own.
    """

    def __init__(self, uids: range, claims: Path = CLAIMS) -> None:
        self.range = uids
        self._claims: Path | None = claims
        self._taken: dict[int, int] = {}  # the descriptors of their locks; -1 for none
        self._lock = threading.Lock()
        try:
            claims.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            self._claims = None

    def take(self) -> int:
        """Take one that nobody uses. Raises `StepFailed` WORKER_DIED_LOADING where there is none."""
        first = secrets.randbelow(len(self.range))  # servers that start together spread
        with self._lock:
            for uid in chain(self.range[first:], self.range[:first]):
                if uid not in self._taken and self._claim(uid):
                    return uid
        raise StepFailed(
            ErrorReason.ERROR_REASON_WORKER_DIED_LOADING,
            "a worker could not be started: all {count} uids for workers are in use",
            hint="Stop a deployment, or start the server with a wider --worker-uids FIRST-LAST.",
            count=len(self.range),
        )

    def take_back(self, uid: int) -> bool:
        """Take that of a server that was killed; false where another server has it by now."""
        with self._lock:
            return uid in self.range and uid not in self._taken and self._claim(uid, abandoned=True)

    def give_back(self, uid: int) -> None:
        """Nothing of the user is left."""
        with self._lock:
            descriptor = self._taken.pop(uid)
            if self._claims is not None and descriptor >= 0:
                with suppress(OSError):
                    (self._claims / str(uid)).unlink()
                os.close(descriptor)

    def _claim(self, uid: int, *, abandoned: bool = False) -> bool:
        descriptor = -1
        if self._claims is not None and (descriptor := _locked(self._claims / str(uid))) < 0:
            return False
        if not abandoned and is_owner(uid):  # of a process: a killed server's, which has not cleared it away yet
            if descriptor >= 0:
                os.close(descriptor)
            return False
        self._taken[uid] = descriptor
        return True


def _locked(path: Path) -> int:
    """A descriptor of the file, which is made, with its lock; -1 where somebody else has that."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return -1
        except FileNotFoundError:
            pass  # whoever had it has just given it back
        os.close(descriptor)
