"""The kinds of faults."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from email.utils import formatdate

from tests.gitlab_stand_in.answers import LOGIN_PAGE, Answer, json_answer, message, text_answer
from tests.gitlab_stand_in.archives import huge_tar_gz
from tests.gitlab_stand_in.faults import Context
from tests.gitlab_stand_in.lfs import zeros

BAD_GATEWAY = """<html>
<head><title>{status} {reason}</title></head>
<body><center><h1>{status} {reason}</h1></center><hr><center>nginx</center></body>
</html>
"""
REASONS = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Time-out"}


@dataclass(frozen=True)
class Status:
    """An error with the body that GitLab, or the proxy before it, has for that status."""

    status: int
    retry_after: int | str | None = None
    """Seconds, or a date as HTTP also allows. With a 429 the `RateLimit-*` headers come along, as when a user or an
    address made too many requests; one without is what GitLab answers where a single endpoint was called too often."""

    def apply(self, context: Context) -> Answer:
        answer = self._body()
        if self.retry_after is None:
            return answer
        answer = answer.plus(("Retry-After", str(self.retry_after)))
        if self.status != 429:
            return answer
        reset = int(time.time()) + (self.retry_after if isinstance(self.retry_after, int) else 0)
        return answer.plus(
            ("RateLimit-Name", "throttle_authenticated_api"),
            ("RateLimit-Limit", "60"),
            ("RateLimit-Observed", "61"),
            ("RateLimit-Remaining", "0"),
            ("RateLimit-Reset", str(reset)),
            ("RateLimit-ResetTime", formatdate(reset, usegmt=True)),
        )

    def _body(self) -> Answer:
        match self.status:
            case 429 if self.retry_after is None:
                text = "This endpoint has been requested too many times. Try again later."
                return json_answer({"message": {"error": text}}, 429)
            case 429:
                return text_answer("Retry later\n", 429)
            case 500:
                return message(500, "500 Internal Server Error")
            case 502 | 503 | 504:
                text = BAD_GATEWAY.format(status=self.status, reason=REASONS[self.status])
                return text_answer(text, self.status, "text/html")
            case 403:
                return message(403, "403 Forbidden")
            case 404:
                return message(404, "404 Not Found")
            case 401:
                return message(401, "401 Unauthorized")
        return message(self.status, f"{self.status} error")


@dataclass(frozen=True)
class Slow:
    """The right answer, that many seconds late."""

    seconds: float

    def apply(self, context: Context) -> Answer:
        context.wait(self.seconds)
        return context.answer()


@dataclass(frozen=True)
class Trickle:
    """The right answer in pieces of so many bytes with so many seconds between them."""

    piece: int = 1
    pause: float = 0.05

    def apply(self, context: Context) -> Answer:
        answer = context.answer()
        body = answer.whole()

        def pieces() -> Iterator[bytes]:
            for start in range(0, len(body), self.piece):
                context.wait(self.pause if start else 0)
                yield body[start : start + self.piece]

        return replace(answer, body=pieces(), length=len(body))


@dataclass(frozen=True)
class CutOff:
    """The first bytes of the right answer, then the end of the connection, although more was announced."""

    after: int | None = None
    """Bytes; half of them if None."""
    announced: bool = False
    """Say the length of archives too, as GitLab does when it has them in its cache, instead of sending chunks."""

    def apply(self, context: Context) -> Answer:
        answer = context.answer()
        body = answer.whole()
        kept = len(body) // 2 if self.after is None else self.after
        if isinstance(answer.body, bytes) or self.announced:
            return replace(answer, body=body[:kept], length=max(len(body), kept + 1))
        return replace(answer, body=iter([body[:kept]]), broken=True)


@dataclass(frozen=True)
class Truncated:
    """Only the first bytes of the right answer, in an answer that is whole.

    So do archives end when Gitaly fails in the middle: the status has been sent (workhorse's internal/git/archive.go).
    """

    after: int | None = None
    """Bytes; half of them if None."""

    def apply(self, context: Context) -> Answer:
        answer = context.answer()
        body = answer.whole()
        return replace(answer, body=body[: len(body) // 2 if self.after is None else self.after])


@dataclass(frozen=True)
class Malformed:
    """Something that calls itself JSON."""

    text: str = '{"id": 1, "name": '

    def apply(self, context: Context) -> Answer:
        return text_answer(self.text, 200, "application/json")


@dataclass(frozen=True)
class LoginPage:
    """A page for people, with which a proxy or GitLab's web pages answer those that they do not know."""

    status: int = 200

    def apply(self, context: Context) -> Answer:
        return replace(LOGIN_PAGE, status=self.status)


@dataclass(frozen=True)
class Redirect:
    """Somewhere else; the request's path and query go there too unless the URL has a path of its own.

    Where it leads, `elsewhere`, answers for itself, even if the path is one of those to be redirected.
    """

    to: str
    status: int = 302

    def apply(self, context: Context) -> Answer:
        if context.request.host == "elsewhere":
            return context.answer()
        url = self.to
        if url.count("/") == 2:
            url += context.request.target
        return Answer(self.status, b"", (("Location", url),), content_type="text/html")


@dataclass(frozen=True)
class HangUp:
    """The connection ends without an answer."""

    def apply(self, context: Context) -> Answer:
        return Answer(0, broken=True)


@dataclass(frozen=True)
class Meanwhile:
    """The right answer, and before the client has it something happens: a push, a deletion, a token that expires."""

    action: Callable[[], object]

    def apply(self, context: Context) -> Answer:
        answer = context.answer()
        answer = replace(answer, body=answer.whole())
        self.action()
        return answer


@dataclass(frozen=True)
class Huge:
    """So many zero bytes with their Content-Length, none of them stored."""

    size: int

    def apply(self, context: Context) -> Answer:
        return Answer(200, zeros(self.size), content_type="application/octet-stream", length=self.size)


@dataclass(frozen=True)
class HugeArchive:
    """A sound .tar.gz that is a thousandth of what is in it: one file of so many zero bytes."""

    size: int
    name: str = "model-main/weights.bin"

    def apply(self, context: Context) -> Answer:
        return Answer(200, huge_tar_gz(self.name, self.size), content_type="application/octet-stream")


@dataclass(frozen=True)
class Instead:
    """Any other answer."""

    answer: Answer

    def apply(self, context: Context) -> Answer:
        return self.answer
