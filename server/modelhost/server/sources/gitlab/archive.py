"""Many files of a commit at once, from an archive: as far as they are what the commit's tree says.

Git leaves out of archives what has the attribute export-ignore and changes what has export-subst, and GitLab can put
Git LFS files in the place of their pointers. So an archive is only a way to get many bytes with one request: each file
is held against its hash, and what is missing or different is left for others to get.
https://docs.gitlab.com/api/repositories/#get-file-archive, https://git-scm.com/docs/git-archive#ATTRIBUTES
"""

import contextlib
import itertools
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Self, cast

from modelhost.server.sources import PIECE_BYTES, TreeEntry
from modelhost.server.sources.gitlab.client import Client
from modelhost.server.sources.gitlab.content import Damaged, Spool, check_size, retry_or_raise
from modelhost.server.sources.gitlab.errors import FAILURES
from modelhost.server.sources.gitlab.projects import Project

FROM_FILES = 5
"""An archive for fewer files is more work than the files: GitLab makes it first, and lets nobody have many."""
MOST_OF = 4  # an archive is worth it if a fourth of its files are wanted,
MANY_FILES = 500  # or if so many are that one request each would take minutes
OVERHEAD_BYTES = 64 * 1024**2  # that an archive may have more than twice the limit of bytes
MAX_HEADER_BYTES = 64 * 1024  # of a long name or target
GZIP = 16 + zlib.MAX_WBITS

_NO_ARCHIVE = (400, 403, 404, 406, 422)


def archive_directory(entries: Sequence[TreeEntry], tree: Sequence[TreeEntry] | None) -> str | None:
    """The directory of which an archive is worth getting for `entries`, "" for all; None if it is not worth it.

    `tree` is everything that the commit has, where that is known.
    """
    if len(entries) < FROM_FILES:
        return None
    first, last = (bound(entries, key=lambda entry: entry.path).path.split("/")[:-1] for bound in (min, max))
    common = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    directory = "/".join(part for part, _ in common)
    if not directory.isprintable():  # it could not be asked for, or not surely
        return None
    prefix = f"{directory}/" if directory else ""
    total = sum(entry.path.startswith(prefix) for entry in tree) if tree is not None else len(entries)
    return directory if len(entries) >= MANY_FILES or len(entries) * MOST_OF >= total else None


def take_archive(
    client: Client, project: Project, commit: str, directory: str, entries: Sequence[TreeEntry], spool: Spool
) -> None:
    """Put into `spool` what an archive of `directory` truly has of `entries`.

    Raises `Unavailable` SOURCE_UNAVAILABLE if it never arrives whole, `Conflict` SNAPSHOT_TOO_LARGE.
    """
    wanted = {entry.path: entry for entry in entries}
    query: dict[str, str | int] = {"sha": commit, "include_lfs_blobs": "false"}
    if directory:
        query["path"] = directory
    for attempt in range(1, client.limits.attempts + 1):
        try:
            response = client.download(f"{project.api}/repository/archive.tar.gz", none=_NO_ARCHIVE, **query)
            if response is None:
                return
            with contextlib.closing(client.body(response)) as body:
                _unpack(client, body, wanted, spool)
            return
        except _TooLong:
            return  # much that nobody wants is in it
        except FAILURES as error:
            failure = error
        retry_or_raise(client, failure, attempt, f"the archive of {project.name}")


class _TooLong(Exception):
    """An archive has more bytes than all that may be wanted of it."""


class _Header(tarfile.TarInfo):
    """A header that stands for no more than it may: names and extended headers are read into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        return header


class _Unzipped:
    """What is in a gzip stream, as a file that `tarfile` can read, a little at a time."""

    def __init__(self, pieces: Iterator[bytes], most: int) -> None:
        self._pieces = pieces
        self._left = most
        self._unzip = zlib.decompressobj(GZIP)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end. Raises `Damaged` where that comes too early, `_TooLong`."""
        data = bytearray()
        while len(data) < size and not self._unzip.eof:
            packed = self._rest or next(self._pieces, b"")
            try:
                data += self._unzip.decompress(packed, size - len(data))
            except zlib.error:
                raise Damaged("not a good gzip stream") from None
            if not packed and not self._unzip.eof:
                raise Damaged("the gzip stream is cut off")
            self._rest = self._unzip.unconsumed_tail
        self._left -= len(data)
        if self._left < 0:
            raise _TooLong
        return bytes(data)


def _unpack(client: Client, pieces: Iterator[bytes], wanted: Mapping[str, TreeEntry], spool: Spool) -> None:
    unzipped = _Unzipped(pieces, 2 * client.limits.max_bytes + OVERHEAD_BYTES)
    try:
        with tarfile.open(
            fileobj=cast(IO[bytes], unzipped), mode="r|", tarinfo=_Header, encoding="utf-8", errors="surrogateescape"
        ) as archive:
            while (member := archive.next()) is not None:
                client.job.check()
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                entry = wanted.get(member.name.partition("/")[2])  # behind the folder that GitLab names after the ref
                if entry is not None and entry.blob not in spool:
                    _keep(client, archive, member, entry, spool)
    except (tarfile.TarError, EOFError, OverflowError, ValueError):
        raise Damaged("not a good tar archive") from None
    while unzipped.read(PIECE_BYTES):
        pass  # a stream that is cut off behind the last file is cut off


def _keep(client: Client, archive: tarfile.TarFile, member: tarfile.TarInfo, entry: TreeEntry, spool: Spool) -> None:
    if member.issym():
        target = os.fsencode(member.linkname)
        spool.add(entry.blob, len(target), iter([target]))
    elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and (content := archive.extractfile(member)) is not None:
        check_size(client, entry.path, spool.size + member.size)
        spool.add(entry.blob, member.size, iter(lambda: content.read(PIECE_BYTES), b""))
