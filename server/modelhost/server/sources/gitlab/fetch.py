"""The exact bytes of a commit's files: by archive where that pays, one by one otherwise, through Git LFS where they
are kept there."""

import contextlib
import hashlib
from collections.abc import Generator, Sequence
from pathlib import Path

from modelhost.server.errors import NotFound
from modelhost.server.sources import EntryKind, TreeEntry
from modelhost.server.sources.gitlab.archive import archive_directory, take_archive
from modelhost.server.sources.gitlab.client import Client
from modelhost.server.sources.gitlab.commits import hash_of
from modelhost.server.sources.gitlab.content import Measured, Pieces, Spool, Stream, check_size, steady
from modelhost.server.sources.gitlab.lfs import open_lfs
from modelhost.server.sources.gitlab.projects import Project
from modelhost.server.sources.lfs_pointer import MAX_POINTER_BYTES, LfsPointer, parse_lfs_pointer
from modelhost.server.sources.paths import refused, shown
from modelhost.v1.error_reason_pb2 import ErrorReason

LOST = "\N{REPLACEMENT CHARACTER}"
"""What GitLab shows for the bytes of a name that are no UTF-8."""


class Fetch:
    """Reads one commit of a project; what has to wait on the disk lies in `cache`."""

    def __init__(self, client: Client, project: Project, commit: str, cache: Path) -> None:
        self._client = client
        self._project = project
        self._commit = commit
        self._cache = cache

    def blobs(
        self, entries: Sequence[TreeEntry], tree: Sequence[TreeEntry] | None
    ) -> Generator[tuple[TreeEntry, bytes], None, None]:
        """See `Source.blobs`. `tree` is everything that the commit has, where that is known."""
        for entry in entries:
            if entry.kind is EntryKind.SUBMODULE:
                raise refused(entry.path, "is a submodule, which cannot be deployed: choose paths without it")
            if LOST in entry.path:
                raise refused(entry.path, "has a name that is not in UTF-8, which GitLab does not tell")
        with Spool(self._cache) as spool:
            directory = archive_directory(entries, tree)
            if directory is not None:
                take_archive(self._client, self._project, self._commit, directory, entries, spool)
            for entry in entries:
                for piece in self._file(entry, spool):
                    yield entry, piece

    def _file(self, entry: TreeEntry, spool: Spool) -> Pieces:
        """What the file is: of a pointer, what that stands for."""
        with contextlib.closing(spool.pieces(entry.blob) if entry.blob in spool else self._blob(entry)) as pieces:
            first = next(pieces)
            second = next(pieces, None)
            if second is None and len(first) <= MAX_POINTER_BYTES and entry.kind is not EntryKind.LINK:
                pointer = parse_lfs_pointer(first)
                if pointer is not None:
                    yield from self._lfs(entry, pointer)
                    return
            yield first
            if second is not None:
                yield second
                yield from pieces

    def _blob(self, entry: TreeEntry) -> Pieces:
        return steady(
            self._client, entry.path, lambda: self._open_blob(entry), lambda size: hash_of(entry.blob, size), entry.blob
        )

    def _open_blob(self, entry: TreeEntry) -> tuple[int, Stream]:
        """https://docs.gitlab.com/api/repositories/#get-raw-blob-content"""
        response = self._client.download(f"{self._project.api}/repository/blobs/{entry.blob}/raw")
        if response is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_REF_NOT_FOUND, '{place} no longer has the file "{path}" of commit {commit}',
                hint="Was its branch deleted, or pushed anew with another history?",
                place=self._project.name, path=shown(entry.path), commit=self._commit,
            )  # fmt: skip
        told = response.headers.get("Content-Length", "")
        body = self._client.body(response)
        if told.isascii() and told.isdigit() and "Content-Encoding" not in response.headers:
            return int(told), body
        measured = Measured(self._client, entry.path, body, self._cache)
        return measured.size, measured

    def _lfs(self, entry: TreeEntry, pointer: LfsPointer) -> Pieces:
        if pointer.extended:
            raise refused(entry.path, "is kept in Git LFS by an extension of it, which this server does not have")
        check_size(self._client, entry.path, pointer.size)
        return steady(
            self._client,
            entry.path,
            lambda: open_lfs(self._client, self._project, entry.path, pointer),
            lambda _: hashlib.sha256(),
            pointer.oid,
        )
