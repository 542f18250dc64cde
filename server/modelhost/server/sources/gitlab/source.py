"""What a `Source` does, for a GitLab."""

from collections.abc import Generator, Sequence
from pathlib import Path

from modelhost.envs.process import Job
from modelhost.server.sources import FileContent, ProjectPage, SourceRef, SourceReport, TreeEntry
from modelhost.server.sources.gitlab.access import test_access
from modelhost.server.sources.gitlab.client import Client
from modelhost.server.sources.gitlab.commits import list_refs, read_file, read_tree, resolve_ref
from modelhost.server.sources.gitlab.errors import Circumstances
from modelhost.server.sources.gitlab.fetch import Fetch
from modelhost.server.sources.gitlab.place import GitLabLimits, GitLabPlace, check_token
from modelhost.server.sources.gitlab.projects import Project, find_project, list_projects
from modelhost.server.sources.outgoing import Outgoing
from modelhost.server.sources.paths import check_relative


class GitLabSource:
    """The projects of a GitLab, or of a namespace of it, that a token may read. Safe to use from many threads.

    A project is named by its path below the namespace, or by its number, which outlives a rename. `cache` is a folder
    for what has to wait on the disk while it is checked; nothing stays there. `outgoing` says which hosts may be spoken
    to, those of redirects and of Git LFS included. `token_expires` is what an earlier `test` said, in seconds since
    1970: GitLab no longer says it of a token that has expired. Raises `InvalidRequest`, without the token, for one that
    cannot be a token.
    """

    def __init__(
        self,
        place: GitLabPlace,
        token: str,
        cache: Path,
        outgoing: Outgoing,
        *,
        limits: GitLabLimits | None = None,
        token_expires: float | None = None,
    ) -> None:
        check_token(token)
        self._circumstances = Circumstances(place, limits or GitLabLimits(), token, token_expires)
        self._cache = cache
        self._outgoing = outgoing
        self._projects: dict[str, Project] = {}
        self._last_tree: tuple[int, str, Sequence[TreeEntry]] | None = None

    def test(self, project: str, job: Job) -> SourceReport:
        """See `Source`. "" asks for the place itself."""
        with self._client(job) as client:
            return test_access(client, project)

    def projects(self, search: str, after: str, limit: int, job: Job) -> ProjectPage:
        """See `Source`. Sub-groups' projects included, in the order of their numbers; archived ones are left out."""
        with self._client(job) as client:
            return list_projects(client, search, after, limit)

    def refs(self, project: str, job: Job) -> list[SourceRef]:
        """See `Source`."""
        with self._client(job) as client:
            found = list(list_refs(client, find_project(client, project)))
        return sorted(found, key=lambda ref: (ref.name, ref.is_tag))

    def resolve(self, project: str, ref: str, job: Job) -> str:
        """See `Source`. A full hash always means the commit; then a branch goes before a tag, both before a short hash.

        `refs/heads/…` and `refs/tags/…` say which is meant.
        """
        with self._client(job) as client:
            return resolve_ref(client, find_project(client, project), ref)

    def tree(self, project: str, commit: str, job: Job) -> list[TreeEntry]:
        """See `Source`. GitLab tells no sizes."""
        with self._client(job) as client:
            found = self._project(client, project)
            entries = read_tree(client, found, commit)
        self._last_tree = found.id, commit, entries
        return entries

    def read_file(self, project: str, commit: str, path: str, limit: int, job: Job) -> FileContent:
        """See `Source`."""
        plain = check_relative(path, "path")
        with self._client(job) as client:
            return read_file(client, self._project(client, project), commit, plain, limit)

    def blobs(
        self, project: str, commit: str, entries: Sequence[TreeEntry], job: Job
    ) -> Generator[tuple[TreeEntry, bytes], None, None]:
        """See `Source`. Git LFS pointers are followed.

        Also raises `Unavailable` SOURCE_UNAVAILABLE for what never arrives whole, and `Conflict` SNAPSHOT_TOO_LARGE for
        what passes the limit of bytes before all of it is read.
        """
        with self._client(job) as client:
            found = self._project(client, project)
            last = self._last_tree
            tree = last[2] if last is not None and last[:2] == (found.id, commit) else None
            yield from Fetch(client, found, commit, self._cache).blobs(entries, tree)

    def _client(self, job: Job) -> Client:
        return Client(self._circumstances, self._outgoing, job)

    def _project(self, client: Client, project: str) -> Project:
        """The project, asked for once: what is read of one commit is read of one project, whatever its path by then."""
        found = self._projects.get(project)
        if found is None:
            found = self._projects[project] = find_project(client, project)
        return found
