"""Folders in which something is made before it gets its name: gone with their maker, or with the next one."""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED_SECONDS = 24 * 3600.0  # where a file system has no locks
_RANDOM = re.compile(r"[a-z0-9_]{8}")  # what tempfile puts after a prefix


@contextmanager
def draft_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder for its owner alone, and remove it at the end, with those that killed processes have left.

    Raises `OSError`.
    """
    for name in os.listdir(parent) if os.access(parent, os.R_OK) else ():
        if name.startswith(prefix) and _RANDOM.fullmatch(name.removeprefix(prefix)):
            _remove_abandoned(parent / name)
    folder, lock = _make(parent, prefix)
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # where a signal has ended the first
            os.close(lock)


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    """A folder, and the descriptor that holds its lock for as long as its maker lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))  # 0700
        with suppress(FileNotFoundError):  # another one takes it for abandoned until it has its lock
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _remove_abandoned(folder: Path) -> None:
    """Remove a folder of ours that nobody holds; what cannot be removed stays for another time."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid() and _is_abandoned(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _is_abandoned(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return time.time() - os.fstat(descriptor).st_mtime > ABANDONED_SECONDS
    return True
