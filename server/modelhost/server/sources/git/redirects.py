"""Where a Git host says that a repository is: its redirects, each held against what the server may go to.

Many a GitLab sends `…/project` on to `…/project.git`, and the command would follow it anywhere.
"""

import contextlib
import ssl
from collections.abc import Mapping
from functools import partial
from urllib.parse import urljoin

import requests
from requests.auth import HTTPBasicAuth
from requests.utils import requote_uri

from modelhost.envs.process import Job
from modelhost.server.errors import InvalidRequest, Unavailable
from modelhost.server.sources.connecting import GuardedAdapter, NoCredentials
from modelhost.server.sources.git.place import Credentials, endpoint, parse_url
from modelhost.server.sources.git.proxies import proxy_for
from modelhost.server.sources.outgoing import Outgoing
from modelhost.server.sources.paths import shown
from modelhost.server.sources.waiting import interruptible
from modelhost.v1.error_reason_pb2 import ErrorReason

MAX_REDIRECTS = 5
MAX_SHOWN = 300  # characters of a URL that the other side has made
TIMEOUTS = (10.0, 30.0)  # seconds to connect, and without a byte
ASKED_FOR = "/info/refs?service=git-upload-pack"
HEADERS = {"User-Agent": "git/2 (ModelHost)", "Accept": "*/*"}


class Redirects:
    """Follows those of one place; `name` is that place for people, `variables` are the command's environment."""

    def __init__(
        self, name: str, credentials: Credentials | None, outgoing: Outgoing, variables: Mapping[str, str]
    ) -> None:
        self._name = name
        self._credentials = credentials
        self._outgoing = outgoing
        self._variables = variables

    def follow(self, url: str, job: Job, timeout: float) -> str:
        """The URL that the repository at `url` is at in the end: `url` itself if it is not redirected.

        Credentials go to the place that they are for. Raises `Conflict` HOST_NOT_ALLOWED, `Cancelled`, and
        `Unavailable` SOURCE_UNREACHABLE where a redirect leads to no repository, or from https to http.
        """
        try:
            with contextlib.closing(GuardedAdapter(self._outgoing, self._context())) as adapter:
                for _ in range(MAX_REDIRECTS):
                    location = interruptible(job, timeout, partial(self._ask, adapter, url), lambda _: None)
                    if location is None:
                        return url
                    url = self._onward(url, location)
        except (requests.RequestException, OSError):
            raise self._failed("{place} is redirected, and where to cannot be reached") from None
        raise self._failed("{place} is redirected too often")

    def _ask(self, adapter: GuardedAdapter, url: str) -> str | None:
        """Where a host sends those who ask for the repository at `url`; None where it lets them in."""
        there = endpoint(url)
        assert there is not None  # it is one of http or https
        proxy = proxy_for(there, self._variables)
        check = self._outgoing.check_behind_proxy if proxy else self._outgoing.check_host
        check(there.host, there.port)
        own = self._credentials
        auth: requests.auth.AuthBase = NoCredentials()
        if own is not None and own.scope == f"{there.scheme}://{there.netloc}":
            auth = HTTPBasicAuth(own.username.encode(), own.password.encode())
        request = requests.Request("GET", url.rstrip("/") + ASKED_FOR, headers=HEADERS, auth=auth).prepare()
        proxies = {there.scheme: proxy} if proxy else {}
        with adapter.send(request, stream=True, timeout=TIMEOUTS, verify=True, proxies=proxies) as response:
            location = response.headers.get("Location", "") if response.is_redirect else ""
        return location.encode("latin-1").decode("utf-8", "replace") if location else None

    def _onward(self, url: str, location: str) -> str:
        onward = requote_uri(urljoin(url.rstrip("/") + ASKED_FOR, location))
        place = onward.partition("?")[0]
        if not onward.endswith(ASKED_FOR) or not onward.startswith(("https://", "http://")):
            raise self._failed("{place} redirects to {to}, where no repository is", to=place)
        if url.startswith("https:") and not onward.startswith("https:"):
            raise self._failed("{place} redirects to {to}, where nothing is encrypted", to=place)
        try:
            return parse_url(onward.removesuffix(ASKED_FOR)).url  # without credentials, should it bring some
        except InvalidRequest:
            raise self._failed("{place} redirects to {to}, where no repository is", to=place) from None

    def _context(self) -> ssl.SSLContext:
        """The authorities that the command trusts: the host's, and those that are set for Git."""
        context = ssl.create_default_context()
        file, folder = (self._variables.get(name) for name in ("GIT_SSL_CAINFO", "GIT_SSL_CAPATH"))
        if file or folder:
            context.load_verify_locations(file, folder)
        return context

    def _failed(self, template: str, *, to: str = "") -> Unavailable:
        values = {"to": shown(to)[:MAX_SHOWN]} if to else {}
        return Unavailable(ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE, template, place=self._name, **values)
