"""What a GitLab says of itself, of the token and of the namespace, for `Source.test`.

https://docs.gitlab.com/api/personal_access_tokens/#self-inform and
https://docs.gitlab.com/user/profile/personal_access_tokens/#personal-access-token-scopes
"""

import time
from datetime import UTC, datetime

from modelhost.server.errors import Conflict, Unavailable
from modelhost.server.sources import SourceReport
from modelhost.server.sources.gitlab.client import Client
from modelhost.server.sources.gitlab.expiry import expiry_warning
from modelhost.server.sources.gitlab.projects import Project, find_project, projects_path
from modelhost.server.sources.paths import shown
from modelhost.v1.error_reason_pb2 import ErrorReason

# Each scope with those that include it.
_NEEDED_SCOPES = {"read_api": {"api", "read_api"}, "read_repository": {"api", "read_repository"}}


def test_access(client: Client, project: str) -> SourceReport:
    """Ask whether the place, and a project of it unless that is "", can be used. Raises what is wrong."""
    expires = _token_expires(client)
    version = _version(client)
    user = client.get("/user") or {}
    who = shown(f"{client.text(user, 'username')} ({client.text(user, 'name')})")
    bot = "the bot " if user.get("bot") else ""
    message = f"{client.place.url} is GitLab {version} and knows {bot}{who}"
    path, query = projects_path(client)
    count = client.count(path, **query)
    seen = "very many projects" if count is None else _count(count, "project")
    message += f"; {client.place.namespace} has {seen}" if client.place.namespace else f", who is a member of {seen}"
    branch, refs = "", 0
    if project:
        found = find_project(client, project)
        branches, tags = _ref_counts(client, found)
        branch, refs = found.default_branch, branches + tags
        message += f"; {found.path} can be read: {_count(branches, 'branch')}, {_count(tags, 'tag')}"
        message += f"; the default branch is {shown(branch)}" if branch else ", and no commits yet"
    warning = expiry_warning(expires, time.time())
    return SourceReport(message, branch, refs, (warning,) if warning else (), expires)


def _token_expires(client: Client) -> float | None:
    """Ask for the token itself, which it always may. Raises where it lacks scopes.

    GitLab before 15.5 cannot say, nor any for tokens of other kinds.
    """
    item = client.get("/personal_access_tokens/self", none=(400, 404))
    if item is None:
        return None
    scopes = item.get("scopes")
    has = {str(scope) for scope in scopes} if isinstance(scopes, list) else {"api"}
    if lacking := [scope for scope, enough in _NEEDED_SCOPES.items() if not enough & has]:
        raise Conflict(
            ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED,
            "the token for {place} lacks {scope}",
            hint="Make a token with the scopes read_api and read_repository and give it to the data source.",
            place=client.place.url, scope=" and ".join(lacking),
        )  # fmt: skip
    return _midnight(item.get("expires_at"))


def _version(client: Client) -> str:
    item = client.get("/version")
    if item is None:
        raise Unavailable(
            ErrorReason.ERROR_REASON_SOURCE_UNAVAILABLE,
            "{place} does not answer as a GitLab does: it has no version",
            place=client.place.url,
        )
    return shown(client.text(item, "version"))[:50]


def _ref_counts(client: Client, project: Project) -> tuple[int, int]:
    """Branches and tags. Raises where the token's user may see the project but not its code."""
    repository = f"{project.api}/repository"
    return client.count(f"{repository}/branches") or 0, client.count(f"{repository}/tags") or 0


def _midnight(date: object) -> float | None:
    """A token expires when its day begins, in UTC."""
    try:
        return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() if isinstance(date, str) else None
    except ValueError:
        return None


def _count(number: int, what: str) -> str:
    plural = {"branch": "branches"}.get(what, f"{what}s")
    return f"{number:,} {what if number == 1 else plural}"
