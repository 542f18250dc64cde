"""GitLab's API, through python-gitlab: questions with answers of the right form, or a domain error.

https://docs.gitlab.com/api/rest/
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar
from urllib.parse import quote

import gitlab
import requests
from gitlab.client import GitlabList
from gitlab.exceptions import GitlabHttpError

from modelhost.envs.process import Job
from modelhost.server.errors import DomainError
from modelhost.server.sources.connecting import NoCredentials
from modelhost.server.sources.gitlab.errors import FAILURES, Circumstances, NotGitLab, explain, explain_status
from modelhost.server.sources.gitlab.transport import Body, Elsewhere, Transport, close
from modelhost.server.sources.outgoing import Outgoing

_MOVED_PROJECT = re.compile(r"/api/v4/projects/(\d+)(?:\?|$)")
_NUMBERED_PROJECT = re.compile(r"/projects/\d+")
USER_AGENT = "ModelHost"
PAGE = 100  # GitLab gives no more at once
GIT_USER = "modelhost"  # with a token as the password, any will do
Item = dict[str, Any]
T = TypeVar("T")


class Client:
    """One conversation, for one job; a context manager. Its methods raise domain errors and `Cancelled`."""

    def __init__(self, circumstances: Circumstances, outgoing: Outgoing, job: Job) -> None:
        self.circumstances = circumstances
        self.place = circumstances.place
        self.limits = circumstances.limits
        self.job = job
        self._transport = Transport(self.place, circumstances.token, self.limits, outgoing, job)
        self._gitlab = gitlab.Gitlab(
            self.place.url,
            private_token=circumstances.token,
            session=self._transport,
            user_agent=USER_AGENT,
            keep_base_url=True,  # a GitLab behind a proxy may be wrong about its own address
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._transport.close()

    def get(self, path: str, /, *, none: tuple[int, ...] = (404,), **query: str | int) -> Item | None:
        """The object at a path of the API; None if GitLab says with a status of `none` that it is not to be had."""
        return self._ask(lambda: self._get(path, query, none))

    def list(self, path: str, /, **query: str | int) -> Iterator[Item] | None:
        """All objects of a list, page after page as they are asked for; None where there is no such list."""
        found = self._ask(lambda: self._first_page(path, query))
        return None if found is None else self._follow(found)

    def count(self, path: str, /, **query: str | int) -> int | None:
        """How many objects a list has; None where GitLab does not say: there is no such list, or it is very long."""
        found = self._ask(lambda: self._first_page(path, {**query, "per_page": 1}))
        return None if found is None else found.total

    def download(self, path: str, /, *, none: tuple[int, ...] = (404,), **query: str | int) -> requests.Response | None:
        """The answer at a path, its body still to be read with `body`; None as with `get`."""

        def ask() -> requests.Response:
            return self._gitlab.http_request("get", path, query_data=dict(query), streamed=True, **_ONCE)

        return self._ask(lambda: _unless_missing(ask, none))

    def body(self, response: requests.Response) -> Body:
        """The body of a streamed answer; to be closed.

        It raises what the transport raises: those who read it know what of it has come, and may ask again.
        """
        return self._transport.body(response)

    def post_to_git(self, path: str, body: Item, accept: str) -> requests.Response:
        """Send JSON to a path of Git's own addresses below the place, with the token as Git sends it; any status is
        returned."""
        headers = {"Accept": accept, "Content-Type": accept}
        auth = (GIT_USER, self.circumstances.token)
        url = f"{self.place.url}/{path}"
        return self._ask(lambda: self._transport.post(url, json=body, headers=headers, auth=auth))

    def fetch(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Start to get a URL of any host, with these headers and no credentials of ours; any status is returned."""
        return self._ask(lambda: self._transport.get(url, headers=headers, auth=NoCredentials(), stream=True))

    def text(self, item: Item, name: str) -> str:
        """A field that must be text."""
        value = item.get(name)
        if not isinstance(value, str):
            raise self.explain(NotGitLab(f"its answers have no {name}"))
        return value

    def number(self, item: Item, name: str) -> int:
        """A field that must be a number."""
        value = item.get(name)
        if not isinstance(value, int):
            raise self.explain(NotGitLab(f"its answers have no {name}"))
        return value

    def explain(self, failure: Exception) -> DomainError:
        """The domain error for what the transport raises."""
        return explain(failure, self.circumstances)

    def explain_answer(self, response: requests.Response) -> DomainError:
        """The domain error for an answer with an error's status."""
        return explain_status(response.status_code, response.content, self.circumstances)

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except FAILURES as error:
            failure = error
        raise self.explain(failure)

    def _get(self, path: str, query: dict[str, str | int], none: tuple[int, ...]) -> Item | None:
        try:
            response = _unless_missing(lambda: self._gitlab.http_request("get", path, query_data=query, **_ONCE), none)
        except Elsewhere as moved:  # a GitLab that is wrong about its own address gives that of a renamed project
            project = _MOVED_PROJECT.search(moved.location)
            if project is None or _NUMBERED_PROJECT.fullmatch(path):
                raise
            return self._get(f"/projects/{project[1]}", query, none)
        if response is None:
            return None
        try:
            item = response.json()
        except ValueError:
            item = None
        if not isinstance(item, dict):
            raise NotGitLab(_form(response))
        return item

    def _first_page(self, path: str, query: dict[str, str | int]) -> GitlabList | None:
        def ask() -> GitlabList:
            found = self._gitlab.http_list(path, query_data={"per_page": PAGE, **query}, iterator=True, **_ONCE)
            assert isinstance(found, GitlabList)
            return found

        return _unless_missing(ask)

    def _follow(self, found: GitlabList) -> Iterator[Item]:
        while True:
            item = self._ask(lambda: _next(found))
            if item is None:
                return
            yield item


# Limits and retries are the transport's.
_ONCE: dict[str, Any] = {"obey_rate_limit": False, "retry_transient_errors": False, "max_retries": 0}


def encoded(name: str) -> str:
    """A name or path as one segment of the API's paths."""
    return quote(name, safe="")


def _unless_missing(ask: Callable[[], T], none: tuple[int, ...] = (404,)) -> T | None:
    try:
        return ask()
    except GitlabHttpError as error:
        if error.response_code not in none or not _is_gitlabs(error):
            raise
        return None


def _is_gitlabs(error: GitlabHttpError) -> bool:
    """Whether a 404 is GitLab's own, which is JSON, and not that of a proxy or of another server."""
    return (error.response_body or b"").lstrip().startswith(b"{")


def _next(found: GitlabList) -> Item | None:
    try:
        item = next(found, None)
    except (KeyError, TypeError, RecursionError):  # an object in the place of a list; empty pages without end
        raise NotGitLab("its lists are none") from None
    if item is not None and not isinstance(item, dict):
        raise NotGitLab("its lists hold no objects")
    return item


def _form(response: requests.Response) -> str:
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    close(response)
    return f"the answer is {kind or 'nothing'} and not an object in JSON"
