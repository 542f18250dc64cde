"""Where models come from: a place with projects, refs and files, from which a commit's files become a snapshot.

`Source` is the seam. All of its methods block (they run commands or speak HTTP) and are called on worker threads. They
raise the domain errors of `modelhost.server.errors`: `Unavailable` SOURCE_UNREACHABLE / SOURCE_UNAVAILABLE, `Conflict`
SOURCE_ACCESS_DENIED / SOURCE_TOKEN_EXPIRED / SOURCE_CERTIFICATE_INVALID / HOST_NOT_ALLOWED / PATH_REFUSED /
SNAPSHOT_TOO_LARGE, `NotFound` NAMESPACE_NOT_FOUND / PROJECT_NOT_FOUND / REF_NOT_FOUND / PATH_NOT_FOUND,
`InvalidRequest` for a `project` that is no path, and `modelhost.envs.process.Cancelled`.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from modelhost.envs.process import Job

PIECE_BYTES = 1024 * 1024


class EntryKind(StrEnum):
    """What an entry of a commit's tree is."""

    FILE = "file"
    EXECUTABLE = "executable"
    LINK = "link"
    SUBMODULE = "submodule"


@dataclass(frozen=True)
class SourceRef:
    """A branch or tag and the full hash of the commit it leads to."""

    name: str
    is_tag: bool
    commit: str
    is_default: bool = False


@dataclass(frozen=True)
class TreeEntry:
    """One entry of a commit's tree. `path` is from the repository's root; `size` in bytes, 0 for links and submodules.

    Where a place does not tell sizes (GitLab's trees have none), `size` is 0 for files too.

    Git's names are bytes: those of `path` that are not UTF-8 are surrogates, as `os.fsdecode` makes them.
    """

    path: str
    kind: EntryKind
    size: int
    blob: str


@dataclass(frozen=True)
class Selection:
    """Which files of a commit make the model: what lies under `directory`, and of that only `paths` (all if empty).

    Both are relative with `/`; `paths`, relative to `directory`, name files or directories.
    """

    directory: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceReport:
    """What a data source said when asked: usable, with a sentence for people.

    `default_branch` and `ref_count` are "" and 0 where no single project was asked for. `warnings` are sentences about
    what works today but will not for long. `token_expires` is in seconds since 1970, None if it does not or if nobody
    knows.
    """

    message: str
    default_branch: str
    ref_count: int
    warnings: tuple[str, ...] = ()
    token_expires: float | None = None


@dataclass(frozen=True)
class SourceProject:
    """A project of a place. `id` outlives a rename, and is "" where the place knows no such thing.

    `path` is what the methods of `Source` take for it, "" where the place is a single repository. `active` is when
    something last happened in it, in seconds since 1970, None where that is not known.
    """

    id: str
    path: str
    title: str
    default_branch: str
    active: float | None = None


@dataclass(frozen=True)
class ProjectPage:
    """Some projects, in an order that new ones do not disturb; `next` is the `after` of the page behind, "" if none."""

    projects: tuple[SourceProject, ...]
    next: str


@dataclass(frozen=True)
class FileContent:
    """The first bytes of a file, and the size in bytes of all of it."""

    data: bytes
    size: int


class Source(Protocol):
    """A registered place. Built for one data source; cheap to build; may keep a cache on disk.

    `project` is a path within the place, "" where it is a single repository.
    """

    def test(self, project: str, job: Job) -> SourceReport:
        """Ask whether the place can be used. Raises if not, with a sentence that says why."""

    def projects(self, search: str, after: str, limit: int, job: Job) -> ProjectPage:
        """At most `limit` projects whose name or path contains `search`, from behind the page that said `after`.

        `after` is "" for the first page. Raises `InvalidRequest` for one that no page said.
        """

    def refs(self, project: str, job: Job) -> list[SourceRef]:
        """All branches and tags, by name."""

    def resolve(self, project: str, ref: str, job: Job) -> str:
        """The full commit hash that a branch, tag or (possibly short) hash stands for; "" is the default branch."""

    def tree(self, project: str, commit: str, job: Job) -> list[TreeEntry]:
        """Every entry of a commit's tree, recursively, by path."""

    def read_file(self, project: str, commit: str, path: str, limit: int, job: Job) -> FileContent:
        """The first `limit` bytes of a file as it is in Git: of a link its target, of a Git LFS file its pointer.

        Raises `NotFound` PATH_NOT_FOUND where the commit has no such file.
        """

    def blobs(
        self, project: str, commit: str, entries: Sequence[TreeEntry], job: Job
    ) -> Generator[tuple[TreeEntry, bytes], None, None]:
        """The exact bytes of each of `entries`, in their order, never filtered through Git attributes.

        In pieces of at most `PIECE_BYTES`, each with the entry it belongs to, for a file need not fit in memory; an
        empty file is one empty piece. A file that is a Git LFS pointer is either followed to what it stands for, or
        refused. Close what this returns where it is not read to its end: it may hold a process and a lock.
        """
