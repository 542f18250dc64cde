"""Secrets on their way out. The server tells each once: it is printed, or written to a new file of the caller's own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from modelhost.cli.connection import Session
from modelhost.cli.errors import usage

if TYPE_CHECKING:
    from google.protobuf.message import Message


class SecretPlace:
    """Where a secret goes: a file, or the screen where there is none."""

    def __init__(self, session: Session, path: Path | None, fd: int | None) -> None:
        self._session = session
        self._path = path
        self._fd = fd
        self.used = False

    def tell(self, what: str, message: "Message", field: str) -> None:
        """Print the secret, or write it to the file; with --json, leave it in the message or take it out of it.

        To be called before the message itself is printed as JSON.
        """
        secret: str = getattr(message, field)
        out = self._session.out
        if self._fd is not None and self._written(secret):
            setattr(message, field, "")
            if not out.as_json:
                out.line(f"{what} written to {self._path}")
        elif not out.as_json:
            out.line(f"{what}  {secret}")
            out.beside(f"The {what} is shown this once and never again: keep it now.", style="bold yellow")

    def _written(self, secret: str) -> bool:
        """Write it; say so if that does not work, for then it has to be shown."""
        assert self._fd is not None
        try:
            with open(self._fd, "w", encoding="utf-8", closefd=False) as file:
                file.write(secret + "\n")
        except OSError as error:
            self._session.out.warn(f"{self._path} cannot be written: {error.strerror}")
            return False
        self.used = True
        return True


@contextmanager
def place_for_secret(session: Session, path: Path | None) -> Iterator[SecretPlace]:
    """Make the file before the server is asked, for what it tells is told once; take it away if nothing came of it.

    Raises a usage error where there is a file already, or none can be made.
    """
    fd = None
    if path is not None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise usage(f"{path} is there already, and is not overwritten", "name another file") from None
        except OSError as error:
            raise usage(f"cannot write {path}: {error.strerror}") from error
    place = SecretPlace(session, path, fd)
    try:
        yield place
    finally:
        if fd is not None and path is not None:
            os.close(fd)
            if not place.used:
                with suppress(OSError):
                    path.unlink()
