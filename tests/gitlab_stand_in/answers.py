"""What goes back to a client, and GitLab's ways to say no."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self


@dataclass(frozen=True)
class Answer:
    """An answer. A body of bytes is sent with its length, an iterator of pieces in chunks, as GitLab sends archives."""

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    headers: tuple[tuple[str, str], ...] = field(default=())
    content_type: str = "application/json"
    length: int | None = None
    """What Content-Length says; that of the body if None, and chunks if the body is an iterator."""
    broken: bool = False
    """The connection ends without what would complete the answer; with status 0, without any answer."""

    def plus(self, *headers: tuple[str, str]) -> Self:
        """The same with more headers."""
        return replace(self, headers=(*self.headers, *headers))

    def whole(self) -> bytes:
        """All of the body, read if it is an iterator."""
        return self.body if isinstance(self.body, bytes) else b"".join(self.body)


class Refused(Exception):
    """The answer is this one, whatever the endpoint was about to say."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.body!r}")
        self.answer = answer


def json_answer(value: Any, status: int = 200, *, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """JSON as GitLab writes it: compact, UTF-8, not escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Answer(status, text.encode(errors="replace"), headers)


def text_answer(text: str, status: int, content_type: str = "text/plain") -> Answer:
    return Answer(status, text.encode(), content_type=content_type)


def message(status: int, text: str) -> Answer:
    """`render_api_error!` of GitLab's API."""
    return json_answer({"message": text}, status)


def not_found(what: str = "") -> Refused:
    """`not_found!`: "404 Project Not Found"."""
    return Refused(message(404, " ".join(filter(None, ["404", what, "Not Found"]))))


def forbidden(reason: str = "") -> Refused:
    return Refused(message(403, f"403 Forbidden - {reason}" if reason else "403 Forbidden"))


def not_allowed(text: str) -> Refused:
    return Refused(message(405, text))


def bad_request(text: str) -> Refused:
    """What Grape says of a parameter that does not fit."""
    return Refused(json_answer({"error": text}, 400))


def unauthorized() -> Refused:
    """No token, or one that GitLab does not know."""
    return Refused(message(401, "401 Unauthorized"))


def oauth_error(status: int, error: str, description: str, **more: str) -> Refused:
    """What rack-oauth2 answers for a token that is known and will not do. Only a 401 names the scheme in a header."""
    answer = json_answer({"error": error, "error_description": description, **more}, status)
    if status == 401:
        challenge = f'Bearer realm="Protected by OAuth 2.0", error="{error}", error_description="{description}"'
        answer = answer.plus(("WWW-Authenticate", challenge))
    return Refused(answer)


LOGIN_PAGE = text_answer(
    "<!DOCTYPE html>\n<html><head><title>Sign in · GitLab</title></head><body>"
    '<form action="/users/sign_in" method="post"><input name="user[login]"></form></body></html>\n',
    200,
    "text/html; charset=utf-8",
)
"""The page for people, with which GitLab's web pages, or a proxy, answer those that they do not know."""
