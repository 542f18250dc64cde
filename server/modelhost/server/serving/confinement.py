"""How a worker is kept from the server and from other workers: what the launcher is told, and a user to run as.

Three ways, from the best:

`OwnUsers`      a uid for each worker, where the server is root; Landlock (Linux 5.13) besides, where the kernel has it
`LandlockOnly`  the server's user, within Landlock; signals stay within it since Linux 6.12 (ABI 6)
`Unconfined`    the server's user

A worker reads the host's programs and libraries, its environment and interpreter; it writes to its own directory.
Folders that all models share with the host are as their permissions say; /dev/shm is one, for multiprocessing's
semaphores live there, so that with `LandlockOnly` models of one server read each other's files in it.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelhost.envs.marked import end_owned
from modelhost.runtimes import PYTHON_WORKER
from modelhost.server.serving.uids import Uids

MOST_PROCESSES = 4096  # of a worker's user, its threads counted as well

_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/proc", "/sys",
    "/run/systemd/resolve", "/run/resolvconf", "/var/cache/fontconfig",
)  # fmt: skip
_SOURCES = ("/dev/random", "/dev/urandom")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/shm")  # noqa: S108 - where semaphores live
_SHARED = ("/dev/shm", "/tmp", "/var/tmp")  # noqa: S108 - where a user's files may be left
# The server's own Python drives R; beside the Python worker lies the R one.
_OURS = (Path(sys.prefix), Path(sys.base_prefix), PYTHON_WORKER.parent)


@dataclass(frozen=True)
class Confined:
    """One worker's: the launcher's words, and its user where that is its own."""

    words: tuple[str, ...] = ()
    uid: int | None = None


class Confinement(Protocol):
    """A way to confine workers."""

    def enter(self, directory: Path, needs: Sequence[Path]) -> Confined:
        """Confine a worker to its own `directory`, which is there and filled; it reads `needs`. Blocks."""

    def leave(self, confined: Confined) -> None:
        """End what is left of it, and take back its user. Blocks."""

    def describe(self) -> str:
        """What it is, for people."""


class Unconfined:
    """Nothing but a session of its own and no privileges."""

    def enter(self, directory: Path, needs: Sequence[Path]) -> Confined:
        """As the server."""
        return Confined()

    def leave(self, confined: Confined) -> None:
        """Nothing is left."""

    def describe(self) -> str:
        """What it is."""
        return "the server's own user"


class LandlockOnly:
    """The server's user within Landlock, without `closed`."""

    def __init__(self, closed: Path, shared: Sequence[Path], abi: int) -> None:
        self._closed = closed
        self._shared = shared
        self._abi = abi

    def enter(self, directory: Path, needs: Sequence[Path]) -> Confined:
        """Within the system's files, what it needs, and its directory."""
        paths = [*map(Path, _system()), *needs, *_OURS]
        reads = [each for path in paths for each in _around(path, self._closed)]
        return Confined(tuple(_landlock(reads, (directory, *self._shared))))

    def leave(self, confined: Confined) -> None:
        """Nothing is left but what carries its marker."""

    def describe(self) -> str:
        """What it is."""
        return f"Landlock (ABI {self._abi}), but for /dev/shm, which models share"


class OwnUsers:
    """A uid for each worker; its group has the same number. From any thread."""

    def __init__(self, uids: Uids, shared: Sequence[Path], abi: int) -> None:
        self._uids = uids
        self._shared = shared
        self._abi = abi

    def enter(self, directory: Path, needs: Sequence[Path]) -> Confined:
        """Give the directory to a user that is free.

        Raises `StepFailed` WORKER_DIED_LOADING where none is, `OSError`.
        """
        uid = self._uids.take()
        try:
            _give(directory, uid)
            words = [f"uid={uid}", f"processes={MOST_PROCESSES}"]
            words += _cover([directory, *needs, *_OURS, *self._shared])
            words += _landlock(["/"], (directory, *self._shared)) if self._abi else []
            return Confined(tuple(words), uid)
        except BaseException:
            self._uids.give_back(uid)
            raise

    def leave(self, confined: Confined) -> None:
        """End every process of the user, remove what it left in shared folders, and take the uid back."""
        if confined.uid is not None:
            end_owned(confined.uid)
            _remove_files_of(confined.uid)
            self._uids.give_back(confined.uid)

    def describe(self) -> str:
        """What it is."""
        landlock = f", and Landlock (ABI {self._abi})" if self._abi else ""
        return f"a uid each, of {self._uids.range[0]} to {self._uids.range[-1]}{landlock}"


def end_users_of(workers: Path, uids: Uids) -> list[int]:
    """End the processes of those users whose directories a killed server has left; returns the pids."""
    ended: list[int] = []
    for uid in {entry.stat(follow_symlinks=False).st_uid for entry in _entries(workers)}:
        if uids.take_back(uid):
            ended += end_owned(uid)
            uids.give_back(uid)
    return ended


def _give(directory: Path, uid: int) -> None:
    """Make a user the owner of a directory and of all below it, links not followed."""
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            os.lchown(os.path.join(folder, name), uid, uid)
    os.lchown(directory, uid, uid)


def _system() -> Iterator[str]:
    """The system's files; of /etc, where the server is root, what everybody may read."""
    yield from _SOURCES
    for path in _SYSTEM:
        if path == "/etc" and os.geteuid() == 0:
            yield from (entry.path for entry in _entries(Path(path)) if _mode(entry.path) & 0o004)
        else:
            yield path


def _around(path: Path, closed: Path) -> Iterator[Path]:
    """`path`, or where `closed` is in it, all of it but that."""
    if not closed.is_relative_to(path):
        yield path
    elif path != closed:
        for entry in _entries(path):
            yield from _around(Path(entry.path), closed)


def _landlock(reads: Iterable[str | Path], writes: Iterable[Path]) -> list[str]:
    devices = (*_DEVICES, *Path("/dev").glob("nvidia*"))
    return [*(f"read={path}" for path in reads), *(f"write={path}" for path in (*writes, *devices))]


def _cover(needs: Iterable[Path]) -> list[str]:
    """Cover what a stranger cannot enter on the way to `needs`, with holes for these."""
    covered: list[Path] = []
    kept: list[Path] = []
    for path in sorted({*needs, *map(Path, map(os.path.realpath, needs))}):
        closed = next((each for each in reversed(path.parents) if not _mode(each) & 0o001), None)
        if closed is not None and not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
            covered += [closed] if closed not in covered else []
    return [*(f"cover={each}" for each in covered), *(f"keep={path}" for path in kept)]


def _remove_files_of(uid: int) -> None:
    """Remove what the user left where everybody may write; what goes by itself meanwhile is gone."""
    for folder in _SHARED:
        for entry in _entries(Path(folder)):
            with suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == uid:
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def _mode(path: Path | str) -> int:
    """The permissions of what is there; none where nothing is."""
    with suppress(OSError):
        return os.stat(path).st_mode
    return 0


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    with suppress(FileNotFoundError):
        return list(os.scandir(folder))
    return []
