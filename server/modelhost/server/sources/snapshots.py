"""Snapshots: a commit's selected files on disk, named by the digest of what they hold.

    <root>/<digest>/manifest.json   every file and link, with the SHA-256 of its bytes
    <root>/<digest>/files/…         folders 0755, files 0644 or 0755, links as links
    <root>/.tmp-…                   a snapshot being made, or one being removed

A snapshot is made beside its place, written through to the disk, and renamed in: what has its name is whole. It is
never changed and never run from; workers get copies.
"""

import contextlib
import errno
import hashlib
import itertools
import operator
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelhost.envs.files import Guard, at_once
from modelhost.envs.process import Job
from modelhost.server.errors import Conflict
from modelhost.server.sources import EntryKind, Selection, Source, TreeEntry
from modelhost.server.sources.copying import copy_file
from modelhost.server.sources.manifest import SnapshotFile, digest_of, dump_manifest, load_manifest, sha256_of_target
from modelhost.server.sources.paths import MAX_LINK_BYTES, Chosen, check_link, choose, folders, refused, shown
from modelhost.v1.error_reason_pb2 import ErrorReason

__all__ = ["Snapshot", "SnapshotFile", "SnapshotLimits", "SnapshotStore"]

TEMPORARY = ".tmp-"

Blobs = Generator[tuple[TreeEntry, bytes], None, None]
ReadBlobs = Callable[[Sequence[TreeEntry]], Blobs]


@dataclass(frozen=True)
class SnapshotLimits:
    """What one snapshot may hold: `max_bytes` in all its files, `max_files` files, links and folders."""

    max_bytes: int = 1024**3
    max_files: int = 100_000


@dataclass(frozen=True)
class Snapshot:
    """Files as they were at a commit. `digest` has 64 hex digits; `root` is the folder that holds the files."""

    digest: str
    files: tuple[SnapshotFile, ...]
    root: Path

    @property
    def total_bytes(self) -> int:
        """Bytes of all files, and of the targets of links."""
        return sum(file.size for file in self.files)


class SnapshotStore:
    """The snapshots under `root`, which is made when needed. Safe to use from many threads."""

    def __init__(self, root: Path, limits: SnapshotLimits | None = None) -> None:
        self._root = root
        self._limits = limits or SnapshotLimits()

    def take(self, source: Source, project: str, commit: str, selection: Selection, job: Job) -> Snapshot:
        """Make the snapshot of a commit's selected files, or find that it is there. A failure leaves nothing.

        Sizes are checked against the tree before anything is written, and again as bytes come.

        Raises what `Source` and `choose` raise, and `Conflict` SNAPSHOT_TOO_LARGE.
        """
        chosen = choose(source.tree(project, commit, job), selection)
        self._check_size(chosen)

        def read(entries: Sequence[TreeEntry]) -> Blobs:
            return source.blobs(project, commit, entries, job)

        links = _read_links(chosen, read, job)
        with self._temporary() as temporary:
            taken = self._write(temporary / "files", chosen, links, read, job)
            (temporary / "manifest.json").write_bytes(dump_manifest(taken))
            _sync(temporary, taken, job)
            digest = digest_of(taken)
            self._install(temporary, digest)
        return Snapshot(digest, tuple(taken), self._home(digest) / "files")

    def find(self, digest: str) -> Snapshot | None:
        """Return the snapshot of that digest; None if it is not there or its manifest is damaged: take it again."""
        try:
            return Snapshot(digest, self.read_manifest(digest), self._home(digest) / "files")
        except (FileNotFoundError, ValueError):
            return None

    def stored(self) -> Sequence[tuple[str, int, float]]:
        """Digest, bytes and time of making of every snapshot."""
        found = []
        for home in self._root.glob("[0-9a-f]" * 64):
            with contextlib.suppress(OSError):
                try:
                    size = sum(file.size for file in self.read_manifest(home.name))
                except ValueError:  # damaged
                    size = 0
                found.append((home.name, size, home.stat().st_mtime))
        return found

    def read_manifest(self, digest: str) -> tuple[SnapshotFile, ...]:
        """Return what the manifest lists, by path.

        Raises `FileNotFoundError` if there is none, `ValueError` if it does not have the digest.
        """
        files = load_manifest((self._home(digest) / "manifest.json").read_bytes())
        if digest_of(files) != digest:
            raise ValueError(f"the manifest of snapshot {digest} is damaged")
        return files

    def verify(self, digest: str) -> list[str]:
        """Read every byte again and say what is wrong, a sentence each; a snapshot without any is whole."""
        try:
            files = self.read_manifest(digest)
        except (FileNotFoundError, ValueError):
            return [f"the manifest of snapshot {digest} is missing or damaged"]
        root = self._home(digest) / "files"
        problems = [f'"{shown(file.path)}" {problem}' for file in files if (problem := _difference(root, file))]
        expected = {file.path for file in files} | set(folders(file.path for file in files))
        present = {str(path.relative_to(root)) for path in root.rglob("*")}
        return problems + [f'"{shown(path)}" does not belong to it' for path in sorted(present - expected)]

    def copy_to(self, digest: str, destination: Path) -> None:
        """Make a private, writable copy of the files at `destination`, which must not exist; its parent must.

        Shares blocks where the file system can (reflink), never the files themselves. A failure leaves nothing.

        Raises `FileExistsError`, `FileNotFoundError`, `ValueError` where the snapshot is damaged, `OSError`.
        """
        files = self.read_manifest(digest)
        root = self._home(digest) / "files"
        destination.mkdir(mode=0o700)
        try:
            for folder in folders(file.path for file in files):
                os.mkdir(f"{destination}/{folder}")
            for file in files:
                if file.kind is EntryKind.LINK:
                    os.symlink(file.link_target, f"{destination}/{file.path}")
                else:
                    mode = 0o755 if file.executable else 0o644
                    copy_file(f"{root}/{file.path}", f"{destination}/{file.path}", size=file.size, mode=mode)
        except BaseException:
            shutil.rmtree(destination, ignore_errors=True)
            raise

    def remove(self, digest: str, guard: Guard = at_once) -> bool:
        """Delete a snapshot, at once for everybody else; false if it is not there, or if `guard` says so."""
        aside = self._root / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            if not guard(lambda: os.rename(self._home(digest), aside)):
                return False
        except FileNotFoundError:
            return False
        shutil.rmtree(aside)
        return True

    def sweep(self) -> None:
        """Delete what was left by a server that was killed. To be called at start, before anything is taken."""
        for path in self._root.glob(f"{TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _home(self, digest: str) -> Path:
        if len(digest) != 64 or digest.strip("0123456789abcdef"):
            raise ValueError("a digest has 64 hex digits")
        return self._root / digest

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._root / f"{TEMPORARY}{uuid.uuid4().hex}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)  # it is not there where all went well

    def _check_size(self, chosen: Sequence[Chosen]) -> None:
        count = len(chosen) + len(folders(each.path for each in chosen))
        if count > self._limits.max_files:
            raise Conflict(
                ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE,
                "{count} files and folders are selected; the limit is {limit}",
                count=count, limit=self._limits.max_files,
            )  # fmt: skip
        self._check_bytes(sum(each.entry.size for each in chosen), chosen)

    def _check_bytes(self, total: int, chosen: Sequence[Chosen]) -> None:
        if total <= self._limits.max_bytes:
            return
        largest = max(chosen, key=lambda each: each.entry.size)
        raise Conflict(
            ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE,
            'the selected files have {total} bytes or more; the limit is {limit}, the largest is "{path}" with {size}',
            total=total, limit=self._limits.max_bytes, path=shown(largest.path), size=largest.entry.size,
        )  # fmt: skip

    def _write(
        self, root: Path, chosen: Sequence[Chosen], links: Mapping[str, str], read: ReadBlobs, job: Job
    ) -> list[SnapshotFile]:
        """Write the chosen files, then the links: no file is ever written through a link."""
        for folder in (root, *(root / folder for folder in folders(each.path for each in chosen))):
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask
        files = [each for each in chosen if each.path not in links]
        taken = []
        total = 0
        with contextlib.closing(read([each.entry for each in files])) as blobs:
            by_file = itertools.groupby(blobs, key=operator.itemgetter(0))
            for each, (_, pieces) in zip(files, by_file, strict=True):
                digest = hashlib.sha256()
                size = 0
                with (root / each.path).open("xb") as file:
                    for _, piece in pieces:
                        job.check()
                        size += len(piece)
                        self._check_bytes(total + size, chosen)
                        digest.update(piece)
                        file.write(piece)
                    os.fchmod(file.fileno(), 0o755 if each.entry.kind is EntryKind.EXECUTABLE else 0o644)
                total += size
                taken.append(SnapshotFile(each.path, each.entry.kind, size, digest.hexdigest()))
        for path, target in links.items():
            (root / path).symlink_to(target)
            size = len(os.fsencode(target))
            taken.append(SnapshotFile(path, EntryKind.LINK, size, sha256_of_target(target), target))
        return sorted(taken, key=lambda file: file.path)

    def _install(self, temporary: Path, digest: str) -> None:
        """Rename a snapshot to where it belongs, unless a good one is there: then somebody else was faster."""
        home = self._home(digest)
        while True:
            try:
                os.rename(temporary, home)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if self.find(digest) is not None:
                    return
                self.remove(digest)
            else:
                _sync_path(self._root)
                return


def _read_links(chosen: Sequence[Chosen], read: ReadBlobs, job: Job) -> dict[str, str]:
    """Return the target of every link by its path, and refuse those that lead out."""
    paths = {each.entry: each.path for each in chosen if each.entry.kind is EntryKind.LINK}
    links: dict[str, str] = {}
    if not paths:
        return links
    with contextlib.closing(read(list(paths))) as pieces:
        for entry, target in pieces:
            path = paths[entry]
            if path in links or len(target) > MAX_LINK_BYTES:
                raise refused(path, f"is a link with a target longer than {MAX_LINK_BYTES} bytes")
            links[path] = os.fsdecode(target)
    for path in links:
        job.check()
        check_link(path, links)
    return links


def _difference(root: Path, file: SnapshotFile) -> str:
    """Say in what a file on disk differs from the manifest, or nothing."""
    path = root / file.path
    try:
        found = path.lstat()
        if file.kind is EntryKind.LINK:
            return "" if stat.S_ISLNK(found.st_mode) and os.readlink(path) == file.link_target else "is not that link"
        if not stat.S_ISREG(found.st_mode):
            return "is not a file"
        if bool(found.st_mode & stat.S_IXUSR) is not file.executable:
            return "has the wrong mode"
        if found.st_size != file.size:
            return f"has {found.st_size} bytes, not {file.size}"
        with path.open("rb") as content:
            same = hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
        return "" if same else "has other bytes"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _sync(temporary: Path, files: Sequence[SnapshotFile], job: Job) -> None:
    """Have the disk hold all of a snapshot, before its name says that it does."""
    root = temporary / "files"
    for file in files:
        job.check()
        if file.kind is not EntryKind.LINK:  # a link is in its folder
            _sync_path(root / file.path)
    for folder in folders(file.path for file in files):
        _sync_path(root / folder)
    for path in (root, temporary / "manifest.json", temporary):
        _sync_path(path)


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
