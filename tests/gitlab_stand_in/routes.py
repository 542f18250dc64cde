"""Which endpoint answers which path, and what a token must be allowed for it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from tests.gitlab_stand_in import lfs
from tests.gitlab_stand_in.access import ANY_SCOPE, API_SCOPES, FILE_SCOPES, USER_SCOPES, Scopes
from tests.gitlab_stand_in.answers import Answer
from tests.gitlab_stand_in.api import archive, files, people, projects, refs
from tests.gitlab_stand_in.call import Call

Endpoint = Callable[[Call], Answer]


@dataclass(frozen=True)
class Route:
    """A method, a pattern of the path as sent (percent-encoded: `%2F` parts no segments), the endpoint."""

    methods: str
    pattern: re.Pattern[str]
    endpoint: Endpoint
    scopes: Scopes | None
    """One of these is needed; None where the endpoint looks after authentication itself."""

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The variable parts of a path, decoded; None if it is not this route's."""
        match = self.pattern.fullmatch(path) if method in self.methods.split() else None
        if match is None:
            return None
        return {name: unquote(value) for name, value in match.groupdict().items() if value is not None}


def _api(path: str, endpoint: Endpoint, scopes: Scopes = API_SCOPES) -> Route:
    pattern = re.sub(r":(\w+)", r"(?P<\1>[^/]+)", path)
    return Route("GET HEAD", re.compile(f"/api/v4{pattern}"), endpoint, scopes)


GITLAB = (
    _api("/version", people.version, USER_SCOPES),
    _api("/metadata", people.metadata, USER_SCOPES),
    _api("/user", people.current_user, USER_SCOPES),
    _api("/users", people.users, USER_SCOPES),
    _api("/users/:user_id/projects", people.user_projects, USER_SCOPES),
    _api("/personal_access_tokens/self", people.token_itself, ANY_SCOPE),
    _api("/projects", projects.projects),
    _api("/projects/:id", projects.project),
    _api("/groups/:id", projects.group),
    _api("/groups/:id/projects", projects.group_projects),
    _api("/namespaces/:id", projects.namespace),
    _api("/projects/:id/repository/branches", refs.branches),
    _api("/projects/:id/repository/branches/:branch", refs.branch),
    _api("/projects/:id/repository/tags", refs.tags),
    _api("/projects/:id/repository/tags/:tag", refs.tag),
    _api("/projects/:id/repository/commits", refs.commits),
    _api("/projects/:id/repository/commits/:sha", refs.commit),
    _api("/projects/:id/repository/tree", files.tree),
    _api("/projects/:id/repository/files/:file_path", files.file, FILE_SCOPES),
    _api("/projects/:id/repository/files/:file_path/raw", files.raw_file, FILE_SCOPES),
    _api("/projects/:id/repository/blobs/:sha", files.blob),
    _api("/projects/:id/repository/blobs/:sha/raw", files.raw_blob),
    _api(r"/projects/:id/repository/archive(?:\.(?P<format>[a-z.0-9]+))?", archive.archive),
    Route("POST", re.compile(r"/(?P<path>.+)\.git/info/lfs/objects/batch"), lfs.batch, None),
    Route("GET HEAD", re.compile(r"/(?P<path>.+)\.git/gitlab-lfs/objects/(?P<oid>[0-9a-f]{64})"), lfs.download, None),
)

STORAGE = (Route("GET HEAD", re.compile(r"/lfs/(?P<id>\d+)/(?P<oid>[0-9a-f]{64})"), lfs.storage, None),)
