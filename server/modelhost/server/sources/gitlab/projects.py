"""The projects of a GitLab: finding one by path or number, and listing those that the token's user belongs to.

https://docs.gitlab.com/api/projects/ and https://docs.gitlab.com/api/groups/#list-projects
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from modelhost.server.errors import InvalidRequest, NotFound
from modelhost.server.sources import ProjectPage, SourceProject
from modelhost.server.sources.gitlab.client import PAGE, Client, Item, encoded
from modelhost.server.sources.paths import check_relative, near, shown
from modelhost.v1.error_reason_pb2 import ErrorReason

NEAR_PROJECTS_FROM = PAGE

_AFTER = re.compile(r"(?P<id>[0-9]{1,18})(?:@(?P<page>[1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class Project:
    """A project. `path` is the full one; `name` is it for people."""

    id: int
    path: str
    title: str
    default_branch: str
    active: float | None
    name: str

    @property
    def api(self) -> str:
        """The path of the project in the API: by number, which survives a rename."""
        return f"/projects/{self.id}"


def find_project(client: Client, project: str) -> Project:
    """Find a project: by its path below the place's namespace, old ones included, or by its number.

    What has only digits is a number. Raises `InvalidRequest`, `NotFound` PROJECT_NOT_FOUND.
    """
    place = client.place
    if not project:
        raise NotFound(
            ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND,
            "{place} holds many projects: a deployment has to name one", place=place.name,
        )  # fmt: skip
    plain = check_relative(project, "project")
    by_number = plain.isascii() and plain.isdigit()
    path = f"{place.namespace}/{plain}" if place.namespace and not by_number else plain
    item = client.get(f"/projects/{encoded(path)}")
    if item is None:
        raise NotFound(
            ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND,
            "{place} has no project {project} that the token may see{near}",
            place=place.name, project=shown(plain), near="" if by_number else _near(client, plain),
        )  # fmt: skip
    found = _project(client, item)
    if _below(place.namespace, found.path) is None:
        raise NotFound(
            ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND,
            "the project {project} is {path} today, which is not in {namespace}",
            project=shown(plain), path=shown(found.path), namespace=place.namespace,
        )  # fmt: skip
    return found


def list_projects(client: Client, search: str, after: str, limit: int) -> ProjectPage:
    """See `Source.projects`. By number: projects made meanwhile come last.

    Without a namespace, those that the token's user is a member of: a server may have thousands of public ones, which
    can be used all the same.
    """
    if after and not _AFTER.fullmatch(after):
        raise InvalidRequest("after", "{field} is not what a page of projects said")
    found: list[SourceProject] = []
    cursor = ""
    for project, here in _numbered(client, search, after):
        path = _below(client.place.namespace, project.path)
        if path is None or not _matches(search, path, project.title):
            continue
        if len(found) == limit:
            return ProjectPage(tuple(found), cursor)
        found.append(SourceProject(str(project.id), path, project.title, project.default_branch, project.active))
        cursor = here
    return ProjectPage(tuple(found), "")


def projects_path(client: Client) -> tuple[str, dict[str, str | int]]:
    """The API's path of the list of the place's projects, with its query. Raises `NotFound` NAMESPACE_NOT_FOUND."""
    namespace = client.place.namespace
    if not namespace:
        return "/projects", {"membership": "true"}
    if client.get(f"/groups/{encoded(namespace)}", with_projects="false") is not None:
        return f"/groups/{encoded(namespace)}/projects", {"include_subgroups": "true"}
    if "/" not in namespace:
        for user in client.list("/users", username=namespace) or ():
            return f"/users/{client.number(user, 'id')}/projects", {}
    is_project = client.get(f"/projects/{encoded(namespace)}") is not None
    raise NotFound(
        ErrorReason.ERROR_REASON_NAMESPACE_NOT_FOUND,
        "{place} has no group or user {namespace} that the token may see",
        hint=f"It is a project: register {namespace.rpartition('/')[0]} as the namespace." if is_project else "",
        place=client.place.url, namespace=namespace,
    )  # fmt: skip


def _numbered(client: Client, search: str, after: str) -> Iterator[tuple[Project, str]]:
    """Every project behind `after`, and the `after` that it is itself.

    All of a server's projects can be had from behind a number on. Those of groups and users only come in pages: so the
    page is remembered too, and where projects were deleted since, the pages before it are looked at until one starts
    at or before the number.
    """
    path, query = projects_path(client)
    query |= {"order_by": "id", "sort": "asc", "simple": "true", "archived": "false"}
    if search:
        query["search"] = search
    match = _AFTER.fullmatch(after)
    last, page = (int(match["id"]), int(match["page"] or 1)) if match else (0, 1)
    if path == "/projects":
        for item in client.list(path, **query, pagination="keyset", id_after=last) or ():
            project = _project(client, item)
            yield project, str(project.id)
        return
    first = list(itertools.islice(client.list(path, **query, page=page) or (), 1))
    while page > 1 and (not first or client.number(first[0], "id") > last):
        page -= 1
        first = list(itertools.islice(client.list(path, **query, page=page) or (), 1))
    for place, item in enumerate(client.list(path, **query, page=page) or ()):
        project = _project(client, item)
        if project.id > last:
            yield project, f"{project.id}@{page + place // PAGE}"


def _project(client: Client, item: Item) -> Project:
    path = client.text(item, "path_with_namespace")
    branch = item.get("default_branch")
    return Project(
        id=client.number(item, "id"),
        path=path,
        title=client.text(item, "name"),
        default_branch=branch if isinstance(branch, str) else "",
        active=_seconds(item.get("last_activity_at")),
        name=shown(f"{client.place.url}/{path}"),
    )


def _below(namespace: str, path: str) -> str | None:
    """A project's path relative to a namespace, None if it is not in it. GitLab's paths have no case."""
    if not namespace:
        return path
    return path[len(namespace) + 1 :] if path.lower().startswith(f"{namespace.lower()}/") else None


def _matches(search: str, path: str, title: str) -> bool:
    """GitLab also finds what is only in descriptions."""
    text = f"{path}\n{title}".casefold()
    return all(word in text for word in search.casefold().split())


def _near(client: Client, plain: str) -> str:
    some = list_projects(client, "", "", NEAR_PROJECTS_FROM)
    return near(plain, (project.path for project in some.projects))


def _seconds(text: object) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except ValueError:
        return None
