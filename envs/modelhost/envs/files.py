"""Files on disk: digests and copies of what installing reads, the size of what was built, and its removal."""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

REMOVE_ATTEMPTS = 5
REMOVING = ".removing"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # of an `OSError`
NO_ROOM_BYTES = 1024 * 1024
LITTLE_ROOM_BYTES = 32 * 1024 * 1024  # an empty environment, and what its tools unpack meanwhile

# Decides whether something may be removed: calls the act that makes it invisible, and returns whether it did.
Guard = Callable[[Callable[[], None]], bool]


def at_once(act: Callable[[], None]) -> bool:
    """A guard that lets everything be removed."""
    act()
    return True


class OutsideRoot(ValueError):
    """A path that leads out of the model's files, by `..`, as an absolute path or through a link."""


def inside(root: Path, relative: str) -> Path:
    """Return the path of something below `root`, links followed. Raises `OutsideRoot`."""
    path = Path(os.path.abspath(root / relative))
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise OutsideRoot(relative)
    return path


def digest_files(root: Path, paths: Iterable[str]) -> str:
    """Return the SHA-256 (hex) over names, executable bits and contents of files and folders below `root`.

    "" for no paths. Raises `OutsideRoot` for a link that leads out of `root`.
    """
    paths = sorted(set(paths))
    total = hashlib.sha256()
    for relative in paths:
        for file in _files(root, relative):
            with open(root / file, "rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            name = os.fsencode(file)
            total.update(b"%d %s %d %s\n" % (len(name), name, _is_executable(root / file), digest.encode()))
        total.update(b"\n")
    return total.hexdigest() if paths else ""


def copy_files(root: Path, paths: Iterable[str], target: Path) -> None:
    """Copy files and folders below `root` to the same places below `target`; links become what they lead to."""
    for relative in sorted(set(paths)):
        for file in _files(root, relative):
            copy = target / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, copy)
            copy.chmod(0o755 if _is_executable(root / file) else 0o644)


def _files(root: Path, relative: str, above: frozenset[Path] = frozenset()) -> Iterator[str]:
    """All regular files at or below a path, relative to `root`, in a fixed order. Links are followed, but not round."""
    path = inside(root, relative)
    if path.is_file():
        yield os.path.relpath(path, root)
    elif path.is_dir() and (real := Path(os.path.realpath(path))) not in above:
        for name in sorted(os.listdir(path)):
            if name != ".git":
                yield from _files(root, os.path.join(relative, name), above | {real})


def _is_executable(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXUSR)


def open_and_measure(path: Path) -> int:
    """Make a tree readable for every user, whatever the umask was; return its disk use in bytes, links not followed."""
    status = path.lstat()
    _open(path, status.st_mode)
    total = status.st_blocks * 512
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += open_and_measure(Path(entry.path))
                continue
            status = entry.stat(follow_symlinks=False)
            total += status.st_blocks * 512
            if stat.S_ISREG(status.st_mode):
                _open(entry.path, status.st_mode)
    return total


def _open(path: str | Path, mode: int) -> None:
    wanted = mode | (0o755 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o644)
    if wanted != mode:
        os.chmod(path, stat.S_IMODE(wanted))


def has_no_room(path: Path, needed: int = NO_ROOM_BYTES) -> bool:
    """Whether the disk is so full that what failed on it just now failed for that, whatever it said."""
    try:
        status = os.statvfs(path)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < needed or (status.f_files > 0 and status.f_favail == 0)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, also what is write-protected; nothing where there is none.

    It is renamed first: it goes at once, and who still writes to it by name finds it gone.

    Raises `OSError` where that does not work; what is left is then called `<name>.removing`.
    """
    going = path.with_name(path.name + REMOVING)
    if os.path.lexists(going):
        _remove(going)
    with contextlib.suppress(FileNotFoundError):
        path.rename(going)
        _remove(going)


def _remove(path: Path) -> None:
    for attempt in range(REMOVE_ATTEMPTS):
        try:
            return shutil.rmtree(path)
        except FileNotFoundError:
            if not os.path.lexists(path):
                return None
        except PermissionError:
            for folder, _, _ in os.walk(path):
                os.chmod(folder, 0o700)
        except OSError:  # a dying process has its working folder here
            time.sleep(0.05 * (attempt + 1))
    return shutil.rmtree(path)


def sync_file(path: Path) -> None:
    """Have a file's content, or a folder's entries, on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
