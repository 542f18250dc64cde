"""What one call of a Python model writes to stdout and stderr, kept from the log.

Lies beside python_worker.py and is as that file: nothing but the standard library, the same for CPython 2.7 to 3.13.
"""

import fcntl
import os
import sys

from python_values import attempt

_FOLDER = os.environ.get("TMPDIR") or "/tmp"


def flush():
    """What was written is out of this process's hands."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except:  # noqa: E722 - it may be anything that the model has put there
            pass


class Capture(object):
    """stdout and stderr of one call, kept from the log in files of no name."""

    _LIMIT = 1 << 16

    def __init__(self):
        flush()
        self._moved = [(1, attempt(self._move, 1)), (2, attempt(self._move, 2))]

    def end(self):
        """Gives both back to the log; the first 64 KiB of what each was, as text, and how many bytes are left out."""
        flush()
        found = {}
        for name, moved in zip(("stdout", "stderr"), self._moved):  # noqa: B905 - 2.7 knows no strict
            found[name], found[name + "_left_out"] = self._back(*moved)
        return found

    def _move(self, number):
        path = os.path.join(_FOLDER, ".call-%d-%d" % (os.getpid(), number))
        kept, file = os.dup(number), os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
        fcntl.fcntl(kept, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        fcntl.fcntl(file, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        os.dup2(file, number)
        return kept, file

    def _back(self, number, moved):
        if moved is None:
            return "", 0
        kept, file = moved
        os.dup2(kept, number)
        os.close(kept)
        size = os.fstat(file).st_size
        os.lseek(file, 0, os.SEEK_SET)
        text = os.read(file, self._LIMIT).decode("utf-8", "replace")
        os.close(file)
        return text, max(size - self._LIMIT, 0)
