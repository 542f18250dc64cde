"""What a `Source` does, for Git repositories."""

import collections
import hashlib
import re
from collections.abc import Callable, Generator, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from modelhost.envs.process import CommandFailed, Job
from modelhost.server.errors import Conflict, DomainError, NotFound, Unavailable
from modelhost.server.sources import FileContent, ProjectPage, SourceProject, SourceRef, SourceReport, TreeEntry
from modelhost.server.sources.git.command import NO_REPOSITORY, SHA256_DIGITS, Git
from modelhost.server.sources.git.errors import cause, explain, unexplained
from modelhost.server.sources.git.mirror import LOCAL_TIMEOUT_SECONDS, Mirror
from modelhost.server.sources.git.output import MAX_RECORD_BYTES, parse_entry, parse_refs, read_blob
from modelhost.server.sources.git.place import Repository, parse_url, repositories_below
from modelhost.server.sources.git.remote import Remote
from modelhost.server.sources.outgoing import Outgoing
from modelhost.server.sources.paths import check_relative, near, shown
from modelhost.v1.error_reason_pb2 import ErrorReason

MAX_TREE_ENTRIES = 1_000_000
"""Listed of one commit. A few hundred bytes of crafted trees can stand for billions of entries."""
SHA1_DIGITS = 40

_HASH = re.compile(r"[0-9a-f]{4,64}")
T = TypeVar("T")


class GitSource:
    """A repository, or a place with several, that the git command reaches. Safe to use from many threads.

    `cache` is a folder for local copies, made when needed, one for each project under this very `url`: sources may
    share the folder, but one with other credentials never reads what these have fetched. Where `outgoing` does not
    allow the place, nothing is read of it, from the copies neither. Timeouts are in seconds, for one command each.
    Raises `InvalidRequest`.
    """

    def __init__(
        self, url: str, cache: Path, outgoing: Outgoing, *, fetch_timeout: float = 600, list_timeout: float = 60
    ) -> None:
        self._url = url
        self._place = parse_url(url)
        self._cache = cache
        self._outgoing = outgoing
        self._fetch_timeout = fetch_timeout
        self._list_timeout = list_timeout
        self._git = Git(self._place.credentials)
        self._remotes: dict[Repository, Remote] = {}

    def test(self, project: str, job: Job) -> SourceReport:
        """See `Source`."""
        repository = self._repository(project)
        refs, _ = self._list(repository, job)
        if not refs:
            return SourceReport(f"{repository.name} can be read, but has no commits yet", "", 0)
        default = next((ref.name for ref in refs if ref.is_default), "")
        tags = sum(ref.is_tag for ref in refs)
        message = f"{repository.name} can be read: {_count(len(refs) - tags, 'branch')}, {_count(tags, 'tag')}"
        return SourceReport(
            f"{message}; the default branch is {shown(default)}" if default else message, default, len(refs)
        )

    def projects(self, search: str, after: str, limit: int, job: Job) -> ProjectPage:
        """See `Source`. Of a folder on this machine the repositories in it, by path; else the one project ""."""
        self._place.check(self._outgoing)
        paths = [""] if self._place.folder is None else sorted(repositories_below(self._place.folder))
        found: list[SourceProject] = []
        for path in paths:
            title = PurePosixPath(path or self._place.url).name.removesuffix(".git")
            if (after and path <= after) or search.casefold() not in (path or title).casefold():
                continue
            if len(found) == limit:
                return ProjectPage(tuple(found), found[-1].path)
            found.append(SourceProject("", path, shown(title), self._default_branch(path, job)))
        return ProjectPage(tuple(found), "")

    def refs(self, project: str, job: Job) -> list[SourceRef]:
        """See `Source`."""
        return self._list(self._repository(project), job)[0]

    def resolve(self, project: str, ref: str, job: Job) -> str:
        """See `Source`. A branch goes before a tag of the same name, and both before a short hash.

        `refs/heads/…` and `refs/tags/…` say which is meant. A full hash always means the commit, and is not looked for
        elsewhere than in the local copy if that has it. A short one needs the whole history, which is fetched.
        """
        repository = self._repository(project)
        lower = ref.lower()
        is_hash = bool(_HASH.fullmatch(lower))
        if is_hash and len(lower) in (SHA1_DIGITS, SHA256_DIGITS):
            return self._commit_of(repository, lower, job)
        refs, head = self._list(repository, job)
        if not ref:
            if not head:
                raise _no_ref(repository, "{place} has no default branch, or no commits yet")
            return head
        for kind, is_tag in (("refs/heads/", False), ("refs/tags/", True)):
            for each in refs:
                if each.is_tag is is_tag and ref in (each.name, kind + each.name):
                    return each.commit
        if is_hash and refs:
            return self._lengthened(repository, lower, refs[0].commit, job)
        meant = near(ref, (each.name for each in refs))
        raise _no_ref(repository, '{place} has no branch, tag or commit "{ref}"{near}', ref=shown(ref), near=meant)

    def tree(self, project: str, commit: str, job: Job) -> list[TreeEntry]:
        """See `Source`. Raises `Conflict` SNAPSHOT_TOO_LARGE beyond `MAX_TREE_ENTRIES`."""
        return self._read(self._repository(project), commit, job, lambda git_dir: self._tree(git_dir, commit, job))

    def read_file(self, project: str, commit: str, path: str, limit: int, job: Job) -> FileContent:
        """See `Source`."""
        plain = check_relative(path, "path")
        return self._read(
            self._repository(project), commit, job, lambda git_dir: self._file(git_dir, commit, plain, limit, job)
        )

    def blobs(
        self, project: str, commit: str, entries: Sequence[TreeEntry], job: Job
    ) -> Generator[tuple[TreeEntry, bytes], None, None]:
        """See `Source`. Git LFS pointers are refused: what they stand for is not in Git.

        A damaged local copy is made anew. Where that shows after a part of a file was given, this raises `Unavailable`
        SOURCE_UNREACHABLE, and the next call succeeds.
        """
        repository = self._repository(project)
        mirror = self._mirror(repository)
        rest = collections.deque(entries)
        for last_try in (False, True):
            part_given = False
            try:
                with (
                    mirror.holding(commit, job),
                    self._git.stream(mirror.path, "cat-file", "--batch", job=job, timeout=LOCAL_TIMEOUT_SECONDS) as git,
                ):
                    while rest:
                        for piece in read_blob(git, rest[0]):
                            part_given = True
                            yield rest[0], piece
                        part_given = False
                        rest.popleft()
                return
            except CommandFailed as failure:
                if last_try:
                    raise _unreadable(repository, commit, failure) from failure
            mirror.discard(job)
            if part_given:
                raise Unavailable(
                    ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE,
                    "the local copy of {place} was damaged; another try will fetch it anew", place=repository.name,
                )  # fmt: skip

    def _list(self, repository: Repository, job: Job) -> tuple[list[SourceRef], str]:
        """Return branches and tags, and the commit that HEAD leads to, "" if it leads to none."""
        try:
            output = self._remote(repository).run(
                NO_REPOSITORY, "ls-remote", "--symref", job=job, timeout=self._list_timeout
            )
        except CommandFailed as failure:
            raise (explain(failure, repository, self._list_timeout) or unexplained(failure, repository)) from failure
        return parse_refs(output.decode("utf-8", "replace"))

    def _default_branch(self, project: str, job: Job) -> str:
        """The default branch; "" where there is none, or where one of several repositories cannot be read."""
        try:
            refs, _ = self._list(self._repository(project), job)
        except DomainError:
            if not project:
                raise
            return ""
        return next((ref.name for ref in refs if ref.is_default), "")

    def _repository(self, project: str) -> Repository:
        self._place.check(self._outgoing)
        return self._place.repository(project)

    def _remote(self, repository: Repository) -> Remote:
        """One for each repository, which remembers where that has moved to."""
        new = Remote(self._git, repository, self._outgoing, self._place.credentials)
        return self._remotes.setdefault(repository, new)

    def _mirror(self, repository: Repository) -> Mirror:
        digest = hashlib.sha256(f"{self._url}\0{repository.project}".encode()).hexdigest()
        return Mirror(self._cache / digest[:32], self._git, self._remote(repository), fetch_timeout=self._fetch_timeout)

    def _read(self, repository: Repository, commit: str, job: Job, read: Callable[[Path], T]) -> T:
        """Return what `read` finds in the local copy; a copy that cannot be read is made anew, once."""
        mirror = self._mirror(repository)
        try:
            with mirror.holding(commit, job):
                return read(mirror.path)
        except CommandFailed:
            mirror.discard(job)
        try:
            with mirror.holding(commit, job):
                return read(mirror.path)
        except CommandFailed as failure:
            raise _unreadable(repository, commit, failure) from failure

    def _commit_of(self, repository: Repository, name: str, job: Job) -> str:
        """Return the commit that an object's full hash leads to: itself, or what an annotated tag is for."""

        def peel(git_dir: Path) -> str:
            kind = self._git.run(git_dir, "cat-file", "-t", name, job=job, timeout=LOCAL_TIMEOUT_SECONDS)
            if kind.strip() == b"commit":
                return name
            commits = self._commits(git_dir, [f"{name}^{{commit}}"], job)
            if not commits:
                raise _no_ref(repository, "{ref} of {place} is not a commit", ref=name)
            return commits[0]

        return self._read(repository, name, job, peel)

    def _lengthened(self, repository: Repository, short: str, tip: str, job: Job) -> str:
        """Return the one commit whose hash starts with `short`."""
        mirror = self._mirror(repository)
        with mirror.holding_everything(tip, job):
            found = self._git.run(
                mirror.path, "rev-parse", f"--disambiguate={short}", job=job, timeout=LOCAL_TIMEOUT_SECONDS
            )
            commits = self._commits(mirror.path, found.decode().split(), job)
        if not commits:
            raise _no_ref(repository, '{place} has no branch, tag or commit "{ref}"', ref=short)
        if len(commits) > 1:
            raise _no_ref(
                repository, "{ref} is short for several commits of {place}: {commits}",
                ref=short, commits=", ".join(commits[:3]),
            )  # fmt: skip
        return commits[0]

    def _commits(self, git_dir: Path, names: Sequence[str], job: Job) -> list[str]:
        """Return those of `names` that are commits, as full hashes."""
        asked = "".join(f"{name}\n" for name in names).encode()
        answers = self._git.run(
            git_dir, "cat-file", "--batch-check", stdin=asked, job=job, timeout=LOCAL_TIMEOUT_SECONDS
        )
        described = [line.split() for line in answers.decode().splitlines()]
        return [parts[0] for parts in described if parts[1:2] == ["commit"]]

    def _tree(self, git_dir: Path, commit: str, job: Job) -> list[TreeEntry]:
        listing = ("ls-tree", "-r", "-z", "-l", "--full-tree", "--end-of-options", commit)
        entries: list[TreeEntry] = []
        with self._git.stream(git_dir, *listing, job=job, timeout=LOCAL_TIMEOUT_SECONDS) as git:
            while (record := git.until(b"\0", MAX_RECORD_BYTES)) is not None:
                if len(entries) == MAX_TREE_ENTRIES:
                    raise Conflict(
                        ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE,
                        "commit {commit} has more than {most} files", commit=commit, most=MAX_TREE_ENTRIES,
                    )  # fmt: skip
                entries.append(parse_entry(record))
        return sorted(entries, key=lambda entry: entry.path)

    def _file(self, git_dir: Path, commit: str, path: str, limit: int, job: Job) -> FileContent:
        listing = ("--literal-pathspecs", "ls-tree", "-z", "-l", "--full-tree", "--end-of-options", commit, "--", path)
        record, _, _ = self._git.run(git_dir, *listing, job=job, timeout=LOCAL_TIMEOUT_SECONDS).partition(b"\0")
        if b" blob " not in record.partition(b"\t")[0]:
            raise NotFound(ErrorReason.ERROR_REASON_PATH_NOT_FOUND, 'the commit has no file "{path}"', path=shown(path))
        data, size = bytearray(), 0
        with self._git.stream(git_dir, "cat-file", "--batch", job=job, timeout=LOCAL_TIMEOUT_SECONDS) as git:
            for piece in read_blob(git, parse_entry(record), as_it_is=True):
                data += piece[: limit - len(data)]
                size += len(piece)
        return FileContent(bytes(data), size)


def _no_ref(repository: Repository, template: str, **values: str) -> NotFound:
    return NotFound(ErrorReason.ERROR_REASON_REF_NOT_FOUND, template, place=repository.name, **values)


def _unreadable(repository: Repository, commit: str, failure: CommandFailed) -> DomainError:
    """Return the error for a commit that cannot be read even from a fresh copy."""
    values = {"place": repository.name, "commit": commit, "cause": cause(failure)}
    if failure.timed_out:
        return Unavailable(
            ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE, "reading commit {commit} of {place} took too long", **values
        )
    return Conflict(
        ErrorReason.ERROR_REASON_PATH_REFUSED, "Git cannot read commit {commit} of {place}: {cause}", **values
    )


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number} {noun if number == 1 else plural}"
