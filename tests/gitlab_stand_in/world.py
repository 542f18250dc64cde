"""What there is on the stand-in: users, groups, projects, tokens."""

import hashlib
import hmac
import itertools
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tests.git_repos import Repo

PASS_SECONDS = 7200
FIRST_PROJECT = datetime(2023, 5, 1, 8, 0, tzinfo=UTC)


def timestamp(moment: datetime) -> str:
    """`2023-05-01T08:00:00.000Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass
class User:
    """A person, or the bot that a project or group access token acts as."""

    id: int
    username: str
    name: str
    bot: bool = False


@dataclass
class Group:
    """A group; its parent's path is the front of its own."""

    id: int
    path: str


class Token(str):
    """A token as clients send it; its attributes are what GitLab knows of it."""

    id: int
    name: str
    user: User
    scopes: tuple[str, ...]
    expires: date | None
    revoked: bool
    namespace: str | None
    """The only place that it reaches: its project's or group's path. None for a personal one: everything."""
    guest: bool
    """It sees projects, but may not read their code."""
    created: datetime

    @property
    def expired(self) -> bool:
        """Tokens expire at midnight UTC, when the day begins."""
        return self.expires is not None and self.expires <= datetime.now(UTC).date()

    @property
    def active(self) -> bool:
        return not (self.revoked or self.expired)

    def expire(self) -> None:
        """Let it have expired yesterday."""
        self.expires = datetime.now(UTC).date() - timedelta(days=1)

    def revoke(self) -> None:
        self.revoked = True

    def sees(self, path: str) -> bool:
        """Whether a project or group is within its reach."""
        return self.namespace is None or path == self.namespace or path.startswith(f"{self.namespace}/")


@dataclass
class Passes:
    """The short-lived credentials that an LFS batch hands out for its downloads."""

    key: bytes
    given: dict[str, float] = field(default_factory=dict)
    """Until when each is good, seconds since 1970."""

    def give(self) -> str:
        token = secrets.token_urlsafe(32)
        self.given[token] = time.time() + PASS_SECONDS
        return token

    def good(self, token: str) -> bool:
        return self.given.get(token, 0.0) > time.time()

    def expire(self) -> None:
        """End all that were given."""
        self.given.clear()

    def signature(self, path: str, expires: int) -> str:
        """What makes the URL of an object in storage good until then."""
        return hmac.new(self.key, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()


@dataclass
class Project:
    """A project and its repository."""

    id: int
    path: str
    repo: Repo
    lfs_store: Path
    owner: User | None
    """The user whose personal namespace it lies in."""
    description: str = ""
    archived: bool = False
    public: bool = False
    """Everybody sees it, also without a token."""
    former_paths: list[str] = field(default_factory=list)
    lfs_sizes: dict[str, int] = field(default_factory=dict)
    """Of each LFS object that belongs to it, by oid."""

    @property
    def namespace(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def slug(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def visible(self, token: Token | None) -> bool:
        return self.public or (token is not None and token.sees(self.path))

    @property
    def created(self) -> datetime:
        return FIRST_PROJECT + timedelta(hours=self.id)

    def rename(self, path: str) -> None:
        """Give it another path; the old one redirects until something else takes it."""
        self.former_paths.append(self.path)
        self.path = path

    def lfs_object(self, content: bytes) -> bytes:
        """Keep some bytes in LFS and return the pointer that a commit holds instead of them."""
        oid = hashlib.sha256(content).hexdigest()
        (self.lfs_store / oid).write_bytes(content)
        return self.lfs_pointer(oid, len(content))

    def lfs_pretend(self, size: int) -> bytes:
        """The pointer of an object of this size that is all zeros and not stored anywhere. Its oid is not its hash."""
        return self.lfs_pointer(hashlib.sha256(f"{self.id} {size}".encode()).hexdigest(), size)

    def lfs_pointer(self, oid: str, size: int) -> bytes:
        self.lfs_sizes[oid] = size
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()


class World:
    """Everything, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.users: list[User] = []
        self.groups: list[Group] = []
        self.projects: list[Project] = []
        self.tokens: dict[str, Token] = {}
        self._namespace_ids = itertools.count(101)
        self.owner = self.user("ada", "Ada Lovelace")
        self.passes = Passes(secrets.token_bytes(32))

    def user(self, username: str, name: str = "", *, bot: bool = False) -> User:
        """Add a user, whose name is also a namespace."""
        user = User(len(self.users) + 1, username, name or username.capitalize(), bot)
        self.users.append(user)
        return user

    def group(self, path: str) -> Group:
        """The group at a path, made with its parents if need be."""
        for group in self.groups:
            if group.path == path:
                return group
        if parent := path.rpartition("/")[0]:
            self.group(parent)
        self.groups.append(Group(next(self._namespace_ids), path))
        return self.groups[-1]

    def project(self, path: str, *, public: bool) -> Project:
        """Add a project with an empty repository, and the groups that it lies in."""
        namespace = path.partition("/")[0]
        owner = next((user for user in self.users if user.username == namespace), None)
        if owner is None:
            self.group(path.rpartition("/")[0])
        number = len(self.projects) + 1
        store = self.root / "lfs" / str(number)
        store.mkdir(parents=True)
        project = Project(number, path, Repo(self.root / "repositories" / f"{number}.git"), store, owner, public=public)
        self.projects.append(project)
        return project

    def token(
        self, scopes: tuple[str, ...], expires: date | None, namespace: str | None, *, revoked: bool, guest: bool
    ) -> Token:
        """Add a token: a personal one, or that of a project or group."""
        token = Token(f"glpat-{secrets.token_urlsafe(15)}")
        token.id = len(self.tokens) + 1
        token.name = f"token {token.id}"
        token.scopes, token.expires, token.namespace = scopes, expires, namespace
        token.revoked, token.guest, token.created = revoked, guest, datetime.now(UTC)
        token.user = self.owner if namespace is None else self._bot(namespace, token.name)
        self.tokens[token] = token
        return token

    def find_project(self, id_or_path: str) -> Project | None:
        """By number or by path, as GitLab compares paths: without regard to case."""
        if id_or_path.isdecimal():
            return next((project for project in self.projects if project.id == int(id_or_path)), None)
        wanted = id_or_path.lower()
        return next((project for project in self.projects if project.path.lower() == wanted), None)

    def find_moved(self, path: str) -> Project | None:
        """The project that was last called so."""
        wanted = path.lower()
        for project in self.projects:
            if wanted in (former.lower() for former in project.former_paths):
                return project
        return None

    def find_group(self, id_or_path: str) -> Group | None:
        if id_or_path.isdecimal():
            return next((group for group in self.groups if group.id == int(id_or_path)), None)
        return next((group for group in self.groups if group.path.lower() == id_or_path.lower()), None)

    def visible(self, token: Token | None) -> Iterator[Project]:
        """The projects that a token sees, oldest first."""
        return (project for project in self.projects if project.visible(token))

    def _bot(self, namespace: str, name: str) -> User:
        """`project_<id>_bot_<hash>`, `group_<id>_bot_<hash>`."""
        project = self.find_project(namespace)
        kind, number = ("project", project.id) if project else ("group", self.group(namespace).id)
        return self.user(f"{kind}_{number}_bot_{secrets.token_hex(16)}", name, bot=True)
