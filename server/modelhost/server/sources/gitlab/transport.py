"""HTTP with a GitLab: what python-gitlab sends goes through a `requests` session that keeps our limits.

python-gitlab would wait for a `Retry-After` of any length without a way out, hold answers of any size, and take its
token along to wherever an answer redirects. So it is told to do none of this, and it happens here:

- every request ends in time, when the job is cancelled, and with a bounded answer;
- 429, 5xx and lost connections are tried again;
- credentials go to one origin only. A file may be redirected to another one, without them; an answer may not;
- nothing goes to a host that the server is not to go to.
"""

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import unquote, urljoin

import requests
import urllib3
from requests.utils import requote_uri, resolve_proxies, select_proxy

from modelhost.envs.process import Job
from modelhost.server.sources import PIECE_BYTES
from modelhost.server.sources.connecting import GuardedAdapter
from modelhost.server.sources.gitlab.place import GitLabLimits, GitLabPlace, origin, tls_context
from modelhost.server.sources.outgoing import Outgoing
from modelhost.server.sources.waiting import interruptible, pause

MAX_REDIRECTS = 5
MAX_ERROR_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
RETRIED = (429, 500, 502, 503, 504)
# Other hosts get of a request that was redirected to them no more than this: a batch of Git LFS may name any headers.
_KEPT_ELSEWHERE = ("Accept", "Accept-Encoding", "User-Agent")
_LOST = (ConnectionResetError, BrokenPipeError, urllib3.exceptions.ProtocolError)  # RemoteDisconnected is the first


class Elsewhere(requests.RequestException):
    """The answer is a redirect that is not followed. `location` is where to."""

    def __init__(self, location: str) -> None:
        super().__init__("redirected to another place")
        self.location = location


class TooMuch(requests.RequestException):
    """An answer has more bytes than any good one."""


class AskedToWait(requests.RequestException):
    """The other side wants to be asked again only in `seconds`, which is too long."""

    def __init__(self, status: int, seconds: float) -> None:
        super().__init__(f"status {status}; to be asked again in {seconds:.0f} s")
        self.status = status
        self.seconds = seconds


class Transport(requests.Session):
    """A session for one place and one job, that goes where `outgoing` allows it. Close it when done."""

    def __init__(self, place: GitLabPlace, token: str, limits: GitLabLimits, outgoing: Outgoing, job: Job) -> None:
        super().__init__()
        self._token = token
        self._origin = origin(place.url)
        self._limits = limits
        self._outgoing = outgoing
        self._job = job
        self._secure = not place.insecure_skip_verify
        if not self._secure:  # who registered the place has said so; urllib3 need not warn of it each time
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        adapter = GuardedAdapter(outgoing, tls_context(place))
        for scheme in ("https://", "http://"):
            self.mount(scheme, adapter)
        self.headers["Accept-Encoding"] = "identity"  # a small answer stays a small answer

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request to the end: retried, redirected where that is safe, and read whole unless `stream` is set.

        Raises `requests.RequestException`, `Conflict` HOST_NOT_ALLOWED and `Cancelled`. An answer with an error's
        status is returned as it is, with at most `MAX_ERROR_BYTES` of its body.
        """
        stream = bool(kwargs.get("stream"))
        for _ in range(MAX_REDIRECTS):
            self._check_credentials(request)
            response = self._answer(request, stream)
            location = self.get_redirect_target(response)
            if location is None:
                return response
            response.close()
            request = self._redirected(request, urljoin(str(request.url), location), stream)
        raise Elsewhere(str(request.url))

    def body(self, response: requests.Response) -> "Body":
        """The body of a streamed answer, still to be read."""
        return Body(response, self._job, self._limits.download_timeout)

    def _check_credentials(self, request: requests.PreparedRequest) -> None:
        """The last line of defence: links in answers lead to other hosts too, or repeat the token for logs to see."""
        url = str(request.url)
        if ("PRIVATE-TOKEN" in request.headers and origin(url) != self._origin) or self._token in unquote(url):
            raise Elsewhere(url)

    def _check_target(self, url: str, proxies: dict[str, str]) -> None:
        """Redirects and links of answers lead to other hosts. What a connection is made to is checked once more."""
        _, host, port = origin(url)
        behind_proxy = select_proxy(url, proxies) is not None
        check = self._outgoing.check_behind_proxy if behind_proxy else self._outgoing.check_host
        check(host, port)

    def _redirected(self, request: requests.PreparedRequest, url: str, stream: bool) -> requests.PreparedRequest:
        try:
            same = origin(url) == origin(str(request.url))
            downgrade = origin(url)[0] != "https" and origin(str(request.url))[0] == "https"
        except ValueError:
            raise Elsewhere(url) from None
        if request.method not in ("GET", "HEAD") or downgrade or not (same or stream):
            raise Elsewhere(url)
        onward = request.copy()
        onward.url = requote_uri(url)
        if not same:
            for name in list(onward.headers):
                if name.title() not in _KEPT_ELSEWHERE:
                    del onward.headers[name]
        return onward

    def _answer(self, request: requests.PreparedRequest, stream: bool) -> requests.Response:
        """Send a request until it is answered with what another try would not better."""
        wait = self._limits.backoff
        for attempt in itertools.count(1):
            last = attempt >= self._limits.attempts
            try:
                response = self._once(request, stream)
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                if last or not _is_lost(error):
                    raise
                asked = None
            else:
                if response.status_code not in RETRIED or last:
                    return response
                asked = retry_after(response.headers, time.time())
                if asked is not None and asked > self._limits.longest_wait:
                    raise AskedToWait(response.status_code, asked)
                self._job.say(f"GitLab answers {response.status_code}; the next try is in {asked or wait:.1f} s")
            pause(self._job, wait if asked is None else asked)
            wait *= 2
        raise AssertionError  # `attempts` is a number

    def _once(self, request: requests.PreparedRequest, stream: bool) -> requests.Response:
        adapter = self.get_adapter(str(request.url))
        proxies = resolve_proxies(request, {}, self.trust_env)
        timeout = (self._limits.connect_timeout, self._limits.read_timeout)

        def work() -> requests.Response:
            self._check_target(str(request.url), proxies)
            response = adapter.send(request, stream=True, timeout=timeout, verify=self._secure, proxies=proxies)
            if response.status_code >= 300:
                _read_all(response, MAX_ERROR_BYTES, cut=True)
            elif not stream:
                _read_all(response, self._limits.max_answer_bytes, cut=False)
            return response

        return interruptible(self._job, self._limits.answer_timeout, work, close)


class Body:
    """The body of an answer in pieces of at most `PIECE_BYTES`, read within `seconds`. Close it in any case.

    Raises `requests.RequestException` and `Cancelled`.
    """

    def __init__(self, response: requests.Response, job: Job, seconds: float) -> None:
        self._response = response
        self._job = job
        self._deadline = time.monotonic() + seconds
        self._chunks = response.iter_content(PIECE_BYTES)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        left = self._deadline - time.monotonic()
        piece = interruptible(self._job, left, lambda: next(self._chunks, b""), lambda _: None)
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Give the connection back if all was read, else end it."""
        close(self._response)


def close(response: requests.Response) -> None:
    """End an answer, also one that another thread is reading."""
    with contextlib.suppress(ValueError, RuntimeError, OSError):  # it may be at its end, and its connection given back
        response.raw.shutdown()
    response.close()


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a `Retry-After` asks for: a number or a date (RFC 9110, 10.2.3); None without a good one."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what led to it, however `requests` and urllib3 have wrapped it; each once."""
    seen: set[int] = set()
    ahead: list[object] = [error]
    while ahead:
        each = ahead.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        ahead += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]


def _is_lost(error: requests.RequestException) -> bool:
    """Whether a connection was made and then lost, as one that was kept open too long is."""
    return not isinstance(error, requests.Timeout | requests.exceptions.SSLError) and any(
        isinstance(each, _LOST) for each in causes(error)
    )


def _read_all(response: requests.Response, most: int, *, cut: bool) -> None:
    """Read an answer's body to where `response.content` finds it. Raises `TooMuch` beyond `most` bytes, or cuts it."""
    body = bytearray()
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            body += chunk
            if len(body) > most:
                if not cut:
                    raise TooMuch
                break
    finally:
        close(response)
    response._content = bytes(body[:most])  # there is no other way to hand it in
