"""Bytes that are known by their hash: got again where they are cut off, and given out only if they are right."""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol, Self

import requests

from modelhost.server.errors import Conflict, DomainError, Unavailable
from modelhost.server.sources import PIECE_BYTES
from modelhost.server.sources.gitlab.client import Client
from modelhost.server.sources.gitlab.commits import hash_of
from modelhost.server.sources.gitlab.errors import FAILURES
from modelhost.server.sources.paths import shown
from modelhost.server.sources.waiting import TookTooLong, pause
from modelhost.v1.error_reason_pb2 import ErrorReason

Pieces = Generator[bytes, None, None]


class Stream(Protocol):
    """Bytes to be read in pieces, and closed."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """End it, read or not."""


Open = Callable[[], tuple[int, Stream]]
"""Starts to get something from its first byte on; returns its size and its bytes."""


class Damaged(requests.RequestException):
    """What came is not what it should be; another try may be better."""


class Spool:
    """A nameless file on the disk for blobs by their hash, as many as are right. A context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with this
        self._where: dict[str, tuple[int, int]] = {}
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._file.close()

    def __contains__(self, blob: str) -> bool:
        return blob in self._where

    def add(self, blob: str, size: int, pieces: Iterator[bytes]) -> bool:
        """Keep a blob of `size` bytes; False, and nothing is kept, if these are not its bytes."""
        digest = hash_of(blob, size)
        self._file.seek(self.size)
        for piece in pieces:
            digest.update(piece)
            self._file.write(piece)
        if digest.hexdigest() != blob:
            return False
        self._where[blob] = self.size, size
        self.size += size
        return True

    def pieces(self, blob: str) -> Pieces:
        """The bytes of a blob that is here, in at least one piece."""
        start, size = self._where[blob]
        for position in range(start, start + max(size, 1), PIECE_BYTES):
            self._file.seek(position)
            yield self._file.read(min(PIECE_BYTES, start + size - position))


class Measured:
    """A stream that is put on the disk first, because its size has to be known and nobody tells it."""

    def __init__(self, client: Client, path: str, stream: Stream, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with this
        self.size = 0
        try:
            with contextlib.closing(stream):
                for piece in stream:
                    self.size += self._file.write(piece)
                    check_size(client, path, self.size)
        except BaseException:
            self._file.close()
            raise
        self._file.seek(0)

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(PIECE_BYTES), b"")

    def close(self) -> None:
        """Forget the bytes."""
        self._file.close()


def steady(client: Client, path: str, open_: Open, start: Callable[[int], "hashlib._Hash"], expected: str) -> Pieces:
    """The bytes that have the hash `expected`, in at least one piece, the last one only when all were right.

    What breaks off is got again and goes on behind what was given. Raises `Unavailable` SOURCE_UNAVAILABLE after the
    client's number of attempts, `Conflict` SNAPSHOT_TOO_LARGE, and what `open_` and the client raise.
    """
    given, given_hash = 0, hashlib.sha256()
    for attempt in range(1, client.limits.attempts + 1):
        try:
            size, stream = open_()
            with contextlib.closing(stream):
                check_size(client, path, size)
                position, digest, seen = 0, start(size), hashlib.sha256()
                for piece in _whole(stream, size):
                    digest.update(piece)
                    old = max(0, given - position)
                    seen.update(piece[:old])
                    position += len(piece)
                    if position >= given and seen.digest() != given_hash.digest():
                        raise Damaged("other bytes than before")
                    if position == size and digest.hexdigest() != expected:
                        raise Damaged("other bytes than its hash says")
                    if position > given or not size:
                        seen.update(piece[old:])
                        given, given_hash = position, seen.copy()
                        yield piece[old:]
            return
        except FAILURES as error:
            failure = error
        retry_or_raise(client, failure, attempt, f'the file "{shown(path)}"')


def _whole(stream: Stream, size: int) -> Iterator[bytes]:
    """The pieces of a stream of exactly `size` bytes, at least one."""
    position = 0
    for piece in stream:
        position += len(piece)
        if position > size:
            raise Damaged("too many bytes")
        yield piece
    if position < size:
        raise Damaged("too few bytes")
    if not size:
        yield b""


def retry_or_raise(client: Client, failure: Exception, attempt: int, what: str) -> None:
    """Wait a little where another attempt may be better than one that failed; else raise what it means."""
    if isinstance(failure, TookTooLong):
        raise client.explain(failure)
    if attempt >= client.limits.attempts:
        raise _never_whole(client, failure, what)
    client.job.say(f"{what} did not arrive whole; another try")
    pause(client.job, client.limits.backoff * 2 ** (attempt - 1))


def check_size(client: Client, path: str, size: int) -> None:
    """Raise `Conflict` SNAPSHOT_TOO_LARGE if a file of `size` bytes is too large all by itself."""
    if size > client.limits.max_bytes:
        raise Conflict(
            ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE,
            'the file "{path}" has {size} bytes; the limit for all selected files is {limit}',
            path=shown(path), size=size, limit=client.limits.max_bytes,
        )  # fmt: skip


def _never_whole(client: Client, failure: Exception, what: str) -> DomainError:
    if not isinstance(failure, Damaged | requests.exceptions.ChunkedEncodingError):
        return client.explain(failure)
    return Unavailable(
        ErrorReason.ERROR_REASON_SOURCE_UNAVAILABLE, "{what} did not arrive whole from {place}, {attempts} times",
        what=what, place=client.place.url, attempts=client.limits.attempts,
    )  # fmt: skip
