"""Copying one file, as cheaply as the file system can: by sharing its blocks, else within the kernel."""

import errno
import fcntl
import os

FICLONE = 0x40049409  # linux/fs.h
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


def copy_file(source: str, destination: str, *, size: int, mode: int) -> None:
    """Copy a regular file of `size` bytes to a new one. What is written to one is never seen in the other.

    `mode` is subject to the umask. Raises `FileExistsError`, `ValueError` where the source has another size, `OSError`.
    """
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(reading).st_size != size:
            raise ValueError(f"{source} has not the {size} bytes that its snapshot says")
        writing = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            if size and not _clone(reading, writing):
                _send(reading, writing, size)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _clone(reading: int, writing: int) -> bool:
    """Let both share their blocks until one is written to; False where the file system has no such thing."""
    try:
        fcntl.ioctl(writing, FICLONE, reading)
    except OSError as error:
        if error.errno not in _CANNOT_CLONE:
            raise
        return False
    return True


def _send(reading: int, writing: int, size: int) -> None:
    sent = 0
    while sent < size:
        count = os.sendfile(writing, reading, sent, size - sent)
        if not count:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        sent += count
