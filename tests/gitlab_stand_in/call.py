"""One call of an endpoint: the request, what its path named, and who is asking. As in GitLab's lib/api/helpers.rb."""

from dataclasses import dataclass
from typing import Literal, Protocol

from tests.gitlab_stand_in import git_data
from tests.gitlab_stand_in.answers import Answer, Refused, forbidden, not_allowed, not_found, unauthorized
from tests.gitlab_stand_in.requests import Request
from tests.gitlab_stand_in.world import Group, Project, Token, World

LfsStorage = Literal["proxied", "redirect", "direct"]


class Place(Protocol):
    """Where the stand-in is to be found."""

    world: World

    @property
    def external_url(self) -> str:
        """What GitLab thinks its own address is: the base of every link that it gives."""

    @property
    def storage_url(self) -> str:
        """The base of what lies in object storage."""

    lfs_storage: LfsStorage


@dataclass(frozen=True)
class Call:
    """What an endpoint gets."""

    place: Place
    request: Request
    parts: dict[str, str]
    """The parts of the path that are variable, decoded."""
    token: Token | None
    origin: str
    """Scheme, host and port that the client used."""

    @property
    def world(self) -> World:
        return self.place.world

    @property
    def query(self) -> dict[str, str]:
        return self.request.query

    @property
    def url(self) -> str:
        """The request's URL without its query, as links repeat it."""
        base = self.place.external_url
        path = self.request.path
        return base + path[path.index("/api/v4/") :] if "/api/v4/" in path else base + path

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A parameter that is a boolean in Grape's spellings; python-gitlab sends `True`."""
        text = self.query.get(name)
        return default if text is None else text.lower() in ("true", "t", "1", "on", "yes", "y")

    def require_user(self) -> Token:
        """`authenticate!`."""
        if self.token is None:
            raise unauthorized()
        return self.token

    def project(self) -> Project:
        """The project that `:id` names. One that was renamed is moved permanently, to its number."""
        wanted = self.parts["id"]
        project = self.world.find_project(wanted)
        if project is not None and project.visible(self.token):
            return project
        moved = self.world.find_moved(wanted) if project is None else None
        if moved is None or not moved.visible(self.token):
            raise not_found("Project")
        if self.request.method != "GET":
            raise not_allowed("Non GET methods are not allowed for moved projects")
        raise Refused(self._moved_to(moved))

    def code(self) -> Project:
        """The project, if its code may be read."""
        project = self.project()
        if self.token is not None and self.token.guest:
            raise forbidden()
        return project

    def commit(self, project: Project, revision: str | None) -> str | None:
        """The hash of the commit that a branch, tag or hash names; the default branch's if None."""
        branch = revision or git_data.default_branch(project.repo)
        return git_data.resolve(project.repo, branch) if branch else None

    def group(self) -> Group:
        """The group that `:id` names."""
        group = self.world.find_group(self.parts["id"])
        if group is None or not self._sees_group(group):
            raise not_found("Group")
        return group

    def _sees_group(self, group: Group) -> bool:
        """Members of something see the groups above it too."""
        if self.token is None:
            return False
        reach = self.token.namespace
        return self.token.sees(group.path) or (reach is not None and reach.startswith(f"{group.path}/"))

    def _moved_to(self, project: Project) -> Answer:
        front, _, rest = self.request.path.partition("/projects/")
        _, slash, rest = rest.partition("/")
        query = f"?{self.request.raw_query}" if self.request.raw_query else ""
        url = f"{self.origin}{front}/projects/{project.id}{slash}{rest}{query}"
        text = f"This resource has been moved permanently to {url}"
        return Answer(301, text.encode(), (("Location", url),), content_type="text/plain")
