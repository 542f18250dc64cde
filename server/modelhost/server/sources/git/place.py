"""Where Git repositories may lie: the forms of URL that are accepted, and the repositories below one.

Git takes more than is safe to pass on: an option (`--upload-pack=…`) or a transport that is a command (`ext::…`) in
the place of a URL runs whatever it says. So a URL is taken apart here, and only known forms get to the command.
Credentials are taken out of it at once: what goes into arguments, messages and logs never had them.
"""

import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from modelhost.server.errors import Conflict, InvalidRequest, NotFound
from modelhost.server.sources.outgoing import Outgoing, canonical_host
from modelhost.server.sources.paths import check_relative, refused, shown
from modelhost.v1.error_reason_pb2 import ErrorReason

MAX_URL_CHARACTERS = 2_000
MAX_LISTED_DEPTH = 5
PORTS = {"git": 9418, "http": 80, "https": 443, "ssh": 22}
SCHEMES = ("file", *PORTS)

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_TRANSPORT = re.compile(r"[A-Za-z0-9+.-]*::")
_SCP_LIKE = re.compile(r"(?:(?P<user>[^@:/]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:/\[\]]+):(?P<path>[^:@][^@]*)")


@dataclass(frozen=True)
class Credentials:
    """What opens an `http` or `https` place."""

    scope: str  # the scheme, host and port that they are for, and no other
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Endpoint:
    """Where the command connects to, as a URL says it. `told_port` is 0 where that names none."""

    scheme: str
    host: str
    told_port: int = 0
    user: str = ""

    @property
    def port(self) -> int:
        """The port, that of the scheme where none is told."""
        return self.told_port or PORTS[self.scheme]

    @property
    def netloc(self) -> str:
        """Host and port as URLs have them."""
        return bracketed(self.host) + (f":{self.told_port}" if self.told_port else "")


@dataclass(frozen=True)
class Repository:
    """One repository. `url` is for the command, `name` for people; neither has credentials.

    `git_dir` is the folder that holds it, where it is on this machine.
    """

    url: str
    name: str
    project: str
    git_dir: Path | None = None


@dataclass(frozen=True)
class Place:
    """A repository, or what the paths of several are relative to. `url` is without credentials."""

    url: str
    folder: Path | None = None
    credentials: Credentials | None = None

    def check(self, outgoing: Outgoing) -> None:
        """Raise `Conflict` HOST_NOT_ALLOWED for a place that can be refused without looking its host up."""
        there = endpoint(self.url)
        if there is None:
            outgoing.check_folder(shown(self.url))
        else:
            outgoing.check_host(there.host, there.port)

    def repository(self, project: str) -> Repository:
        """Find the repository at `project`; "" is the place itself.

        Raises `InvalidRequest` for a path that is none; for a place on this machine also `NotFound` PROJECT_NOT_FOUND,
        `Conflict` PATH_REFUSED where the project leads out of the place, SOURCE_ACCESS_DENIED.
        """
        if project.startswith("-"):
            raise InvalidRequest("project", "{field} must not start with a dash")
        plain = check_relative(project, "project") if project else ""
        base = self.url.rstrip("/")
        name = shown(f"{base}/{plain}" if plain else self.url)
        if self.folder is None:
            path = quote(plain) if "://" in base else plain
            return Repository(f"{base}/{path}" if plain else self.url, name, plain)
        try:
            git_dir = _git_dir(self.folder, plain)
        except PermissionError:
            raise Conflict(
                ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED, "{place} may not be read by the server", place=name
            ) from None
        return Repository(str(git_dir), name, plain, git_dir)


def parse_url(url: str, field: str = "url") -> Place:
    """Take a URL or an absolute local path apart. Raises `InvalidRequest`, without the URL: it may hold a password."""
    if not url or len(url) > MAX_URL_CHARACTERS:
        raise InvalidRequest(field, "{field} must have 1 to {most} characters", most=MAX_URL_CHARACTERS)
    if url.startswith("-"):
        raise InvalidRequest(field, "{field} must not start with a dash: Git would take it for an option")
    if not unquote(url).isprintable() or url != url.strip():
        raise InvalidRequest(field, "{field} must not have control characters, nor blanks around it")
    if url.startswith("/"):
        return Place(url, Path(url))
    if _TRANSPORT.match(url):
        raise InvalidRequest(field, "{field} names a transport helper (`…::`), which could run commands")
    if "://" in url:
        return _parse_scheme(url, field)
    scp_like = _SCP_LIKE.fullmatch(url)
    if scp_like is None:
        raise InvalidRequest(
            field,
            "{field} must be an absolute path, `user@host:path`, or a URL that starts with one of {schemes}",
            schemes=", ".join(f"{scheme}://" for scheme in SCHEMES),
        )
    check_host(scp_like["host"].strip("[]"), field)
    _check_user(scp_like["user"], field)
    if scp_like["path"].startswith("-"):
        raise InvalidRequest(field, "{field} has a path that starts with a dash")
    return Place(url)


def endpoint(url: str) -> Endpoint | None:
    """Where a URL that `parse_url` has taken leads to; None where that is a folder of this machine."""
    if url.startswith(("/", "file:")):
        return None
    if "://" not in url:
        parts = _SCP_LIKE.fullmatch(url)
        assert parts is not None  # `parse_url` has seen it
        return Endpoint("ssh", parts["host"].strip("[]"), user=parts["user"] or "")
    split = urlsplit(url)
    return Endpoint(split.scheme, split.hostname or "", split.port or 0, split.username or "")


def bracketed(host: str) -> str:
    """A host or an address as URLs have it."""
    return f"[{host}]" if ":" in host else host


def _parse_scheme(url: str, field: str) -> Place:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRequest(field, "{field} is not a well-formed URL") from None
    if parts.scheme not in SCHEMES or not url.startswith(parts.scheme):
        raise InvalidRequest(
            field, "{field} has the scheme {scheme}; Git is used with {schemes}",
            scheme=shown(parts.scheme), schemes=", ".join(SCHEMES),
        )  # fmt: skip
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise InvalidRequest(field, "{field} must not have a query or a fragment")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise InvalidRequest(field, "{field} must have an absolute path: `file:///…`")
        return Place(url, Path(unquote(parts.path)))
    check_host(parts.hostname or "", field)
    if parts.scheme in ("http", "https"):
        return _without_credentials(parts, port)
    if parts.password is not None or (parts.scheme == "git" and parts.username is not None):
        raise InvalidRequest(
            field, "{field} has a password, or a user, that {scheme}:// has no use for", scheme=parts.scheme
        )
    _check_user(parts.username, field)
    return Place(url)


def _without_credentials(parts: SplitResult, port: int | None) -> Place:
    host = canonical_host(parts.hostname or "")  # as the command and its credentials are told it
    origin = f"{parts.scheme}://" + bracketed(host) + (f":{port}" if port else "")
    credentials = None
    if parts.username is not None:
        credentials = Credentials(origin, unquote(parts.username), unquote(parts.password or ""))
    return Place(origin + parts.path, credentials=credentials)


def check_host(host: str, field: str) -> None:
    """Raise `InvalidRequest`, naming `field`, unless `host` is a name or an address."""
    if _HOST.fullmatch(host):
        return
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise InvalidRequest(field, "{field} has no host, or one that is not a host name") from None


def _check_user(user: str | None, field: str) -> None:
    if user is not None and not _USER.fullmatch(user):
        raise InvalidRequest(field, "{field} has a user that is not a user name")


def repositories_below(folder: Path) -> Iterator[str]:
    """The paths of the repositories in a folder, relative to it, in no order; "" if it is one itself.

    Goes `MAX_LISTED_DEPTH` levels deep, and not through links nor into repositories.
    """
    for current, names, _ in os.walk(folder):
        here = Path(current)
        relative = "" if here == folder else str(here.relative_to(folder))
        if any((each / "HEAD").is_file() and (each / "objects").is_dir() for each in (here / ".git", here)):
            names.clear()
            yield relative
        elif relative.count("/") + 1 >= MAX_LISTED_DEPTH:
            names.clear()


def _git_dir(place: Path, project: str) -> Path:
    """Find a repository where Git would (`enter_repo` in its path.c), but only within `place`, links resolved."""
    base = place.resolve()
    named = base / project
    tries = [named / ".git", named, *([named.with_name(named.name + ".git")] if named != base else [])]
    for each in tries:
        real = each.resolve()
        if not (real / "HEAD").is_file() or not (real / "objects").is_dir():
            continue
        if project and not real.is_relative_to(base):
            raise refused(project, "leads out of the data source")
        return real
    raise NotFound(
        ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND,
        "{place} {problem}",
        place=shown(str(place / project)),
        problem="is not a Git repository" if named.exists() else "is not there",
        hint="" if project else "If it holds several repositories, name one of them as the project.",
    )
