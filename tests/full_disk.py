"""A small disk that can be filled, and emptied again."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MIB = 1024 * 1024
BLOCK = b"\0" * 4096


class Disk:
    """A file system of its own at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Fill it but for so many bytes."""
        self.clear()
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):  # somebody else had the rest
            if (length := self.free - leave - MIB) > 0:
                os.posix_fallocate(file.fileno(), 0, length)
                file.seek(length)
            while self.free > leave:
                file.write(BLOCK)
        assert self.free <= leave, (self.free, leave)

    def clear(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    @contextmanager
    def filled(self, leave: int = 0) -> Iterator[None]:
        """Full within the block."""
        self.fill(leave)
        try:
            yield
        finally:
            self.clear()


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Disk]:
    """A tmpfs of `size` bytes at `path`. Skips the test where this user may not mount one."""
    path.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"only a user with CAP_SYS_ADMIN can mount a small disk to fill: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
