"""The git command with a repository elsewhere: it is told which addresses to go to, and those were checked.

    http, https   names are bound to addresses (`http.curloptResolve`), redirects are not followed
    ssh           `HostName` is an address; keys are looked up under the name, as without
    git           the URL has an address, the greeting the name

What Git would look up again could lead elsewhere by then; where a redirect leads is checked as the URL was.
"""

import re
import shlex
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from modelhost.envs.process import CommandFailed, Job
from modelhost.server.errors import DomainError, Unavailable
from modelhost.server.sources.git.command import SSH, Git, Way, reach
from modelhost.server.sources.git.place import Credentials, Endpoint, Repository, bracketed, endpoint
from modelhost.server.sources.git.proxies import proxy_for
from modelhost.server.sources.outgoing import Outgoing, literal
from modelhost.v1.error_reason_pb2 import ErrorReason

BINDS_NAMES = (2, 37)  # the version of Git from which on it has `http.curloptResolve`
SSH_SETTINGS_SECONDS = 20.0
PROBE_SECONDS = 5.0  # for one of several addresses

_REDIRECTED = re.compile(r"returned error: 30[12378]\b")
T = TypeVar("T")


class Remote:
    """One repository, reached as `outgoing` allows. `credentials` are those of the place that it is in."""

    def __init__(
        self, git: Git, repository: Repository, outgoing: Outgoing, credentials: Credentials | None = None
    ) -> None:
        self.repository = repository
        self._git = git
        self._outgoing = outgoing
        self._credentials = credentials
        self._url = repository.url  # where it is; another one once the host has said so

    def run(
        self, git_dir: Path, *arguments: str, what: tuple[str, ...] = (), job: Job, timeout: float
    ) -> bytes:  # fmt: skip
        """Run `fetch` or `ls-remote` with its arguments, the repository, and `what` is wanted of that.

        Raises as `Git.run` does, `Conflict` HOST_NOT_ALLOWED, and `Unavailable` for a host that has no address.
        """
        try:
            return self._run(git_dir, arguments, what, job, timeout)
        except CommandFailed as failure:
            if not any(_REDIRECTED.search(line) for line in failure.output):
                raise
            moved = self._moved(job, timeout)
            if moved == self._url:
                raise
        self._url = moved
        return self._run(git_dir, arguments, what, job, timeout)

    def _run(
        self, git_dir: Path, arguments: tuple[str, ...], what: tuple[str, ...], job: Job, timeout: float
    ) -> bytes:  # fmt: skip
        way = self._way(job, timeout)
        there = reach(replace(self.repository, url=way.url))
        try:
            return self._git.going(way).run(git_dir, *arguments, *there, *what, job=job, timeout=timeout)
        except CommandFailed as failure:
            said = [line.replace(way.url, self.repository.url) for line in failure.output]
            raise CommandFailed(failure.argv, failure.exit_code, said, timed_out=failure.timed_out) from None

    def _moved(self, job: Job, timeout: float) -> str:
        """Where the redirects of a host lead to, each of them checked."""
        from modelhost.server.sources.git.redirects import Redirects  # brings `requests`

        redirects = Redirects(self.repository.name, self._credentials, self._outgoing, self._git.variables)
        return redirects.follow(self._url, job, timeout)

    def _way(self, job: Job, timeout: float) -> Way:
        there = endpoint(self._url)
        if there is None:
            self._outgoing.check_folder(self.repository.name)
            return Way(self._url)
        match there.scheme:
            case "ssh":
                return self._way_by_ssh(there, job, timeout)
            case "git":
                return self._way_by_git(there, job, timeout)
            case _:
                return self._way_by_http(there, job, timeout)

    def _way_by_http(self, there: Endpoint, job: Job, timeout: float) -> Way:
        settings = {"http.followRedirects": "false"}
        if proxy := proxy_for(there, self._git.variables):
            self._look(lambda: self._outgoing.check_behind_proxy(there.host, there.port), job, timeout)
            return Way(self._url, {**settings, "http.proxy": proxy}, {"no_proxy": "", "NO_PROXY": ""})
        addresses = self._addresses(there, there.host, job, timeout)
        settings["http.proxy"] = ""  # none, whatever curl would make of the environment
        if literal(there.host) is None:
            version = self._git.version(job)
            if version < BINDS_NAMES:
                raise Unavailable(
                    ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE,
                    "{place} is not fetched with Git {version}, which looks hosts up again after they were checked",
                    hint=f"Install Git {_dotted(BINDS_NAMES)} or newer on the server's host.",
                    place=self.repository.name, version=_dotted(version),
                )  # fmt: skip
            bound = ",".join(map(bracketed, addresses))
            settings["http.curloptResolve"] = f"{there.host}:{there.port}:{bound}"
        return Way(self._url, settings)

    def _way_by_git(self, there: Endpoint, job: Job, timeout: float) -> Way:
        address = self._one_address(there, there.host, job, timeout)
        url = f"git://{bracketed(address)}:{there.port}{urlsplit(self._url).path}"
        return Way(url, variables={"GIT_OVERRIDE_VIRTUAL_HOST": there.netloc})

    def _way_by_ssh(self, there: Endpoint, job: Job, timeout: float) -> Way:
        """SSH's own settings are the administrator's: they may say that a host is another one, or behind others."""
        settings = self._ssh_settings(there, job)
        name = settings.get("hostname", there.host)
        if any(settings.get(way, "none") != "none" for way in ("proxyjump", "proxycommand")):
            self._look(
                lambda: self._outgoing.check_behind_proxy(there.host, there.port, lookup=name), job, timeout
            )  # fmt: skip
            return Way(self._url)
        address = self._one_address(there, name, job, timeout)
        port = settings.get("port", str(there.port))
        known_as = settings.get("hostkeyalias") or (name if port == "22" else f"[{name}]:{port}")
        bound = ("-o", f"HostName={address}", "-o", f"HostKeyAlias={known_as}")
        return Way(self._url, variables={"GIT_SSH_COMMAND": shlex.join((*SSH, *bound))})

    def _ssh_settings(self, there: Endpoint, job: Job) -> dict[str, str]:
        """What ssh makes of its configuration for a host; nothing where it cannot say: then it will fail, too."""
        port = ("-p", str(there.told_port)) if there.told_port else ()
        whom = f"{there.user}@{there.host}" if there.user else there.host
        try:
            said = job.run(
                [*SSH, "-T", "-G", *port, whom], env=self._git.variables, timeout=SSH_SETTINGS_SECONDS, quiet=True
            ).stdout.decode("utf-8", "replace")
        except (CommandFailed, FileNotFoundError):
            return {}
        return {name: value for name, _, value in (line.partition(" ") for line in said.splitlines())}

    def _one_address(self, there: Endpoint, name: str, job: Job, timeout: float) -> str:
        """One that answers, for what takes no more than one."""
        addresses = self._addresses(there, name, job, timeout)
        if len(addresses) == 1:
            return addresses[0]
        return self._look(lambda: _answering(addresses, there.port), job, timeout)

    def _addresses(self, there: Endpoint, name: str, job: Job, timeout: float) -> list[str]:
        return self._look(lambda: self._outgoing.addresses(there.host, there.port, lookup=name), job, timeout)

    def _look(self, look: Callable[[], T], job: Job, timeout: float) -> T:
        """What `look` finds on the network, so that it can be cancelled."""
        from modelhost.server.sources.waiting import TookTooLong, interruptible  # brings `requests`

        try:
            return interruptible(job, timeout, look, lambda _: None)
        except TookTooLong:
            failure = self._unreachable("the host of {place} was not found within {seconds} s", seconds=f"{timeout:g}")
        except socket.gaierror as error:
            failure = self._unreachable("the host of {place} has no known address: {cause}", cause=str(error.strerror))
        raise failure

    def _unreachable(self, template: str, **values: str) -> DomainError:
        reason = ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE
        return Unavailable(reason, template, place=self.repository.name, **values)


def _answering(addresses: list[str], port: int) -> str:
    """The first of some addresses that takes a connection, or else the first."""
    for address in addresses:
        try:
            socket.create_connection((address, port), PROBE_SECONDS).close()
        except OSError:
            continue
        return address
    return addresses[0]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
