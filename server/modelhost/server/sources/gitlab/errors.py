"""What a failure to speak with a GitLab means, in a sentence.

    unreachable             SOURCE_UNREACHABLE          no address, refused, silent
    a bad certificate       SOURCE_CERTIFICATE_INVALID
    401, a token that ended SOURCE_TOKEN_EXPIRED        expired or revoked
    401, 403                SOURCE_ACCESS_DENIED        unknown, or not allowed this
    anything else           SOURCE_UNAVAILABLE          429, 5xx, redirects, what is no answer of a GitLab

GitLab's refusals are told apart as its `lib/api/api_guard.rb` makes them (RFC 6750, 3.1):
https://docs.gitlab.com/api/rest/troubleshooting/
"""

import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import requests
from gitlab.exceptions import GitlabError

from modelhost.server.errors import Conflict, DomainError, Unavailable
from modelhost.server.sources.gitlab.expiry import date_of
from modelhost.server.sources.gitlab.place import GitLabLimits, GitLabPlace
from modelhost.server.sources.gitlab.transport import AskedToWait, Elsewhere, TooMuch, causes
from modelhost.server.sources.paths import shown
from modelhost.v1.error_reason_pb2 import ErrorReason

MAX_CAUSE_CHARACTERS = 300
FAILURES = (GitlabError, requests.RequestException)
"""What python-gitlab and the transport raise."""

_DENIED = ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED
_ENDED = ErrorReason.ERROR_REASON_SOURCE_TOKEN_EXPIRED
_CERTIFICATE = ErrorReason.ERROR_REASON_SOURCE_CERTIFICATE_INVALID
_UNREACHABLE = ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE
_UNAVAILABLE = ErrorReason.ERROR_REASON_SOURCE_UNAVAILABLE
_RENEW = "Make a new token in GitLab and give it to the data source."
# https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_CERTIFICATE_PROBLEMS = {
    9: "is not valid yet",
    10: "has expired",
    **dict.fromkeys((2, 18, 19, 20, 21), "is from no authority that is trusted here"),
    **dict.fromkeys((62, 64), "is for another host"),
}


class NotGitLab(requests.RequestException):
    """An answer that is not of the form that GitLab's have. `args[0]` says in what."""


@dataclass(frozen=True)
class Circumstances:
    """What a sentence may need: where, within which limits, and when the token was last said to expire."""

    place: GitLabPlace
    limits: GitLabLimits
    token: str
    token_expires: float | None = None

    def cause(self, text: object) -> str:
        """Text from the other side, fit for a message: one line, short, and without the token if it echoes that."""
        return shown(" ".join(str(text).replace(self.token, "…").split()))[:MAX_CAUSE_CHARACTERS]

    def __repr__(self) -> str:
        return f"Circumstances({self.place!r})"


def explain(failure: Exception, circumstances: Circumstances) -> DomainError:
    """Return the domain error that one of `FAILURES` stands for. Raise it outside of `except`: its cause has headers
    with the token."""
    place = circumstances.place.url
    if isinstance(failure, GitlabError) and failure.response_code:
        return explain_status(failure.response_code, failure.response_body or b"", circumstances)
    if isinstance(failure, Elsewhere):
        return _elsewhere(failure, circumstances)
    if isinstance(failure, AskedToWait):
        return Unavailable(
            _UNAVAILABLE, "{place} answers {status} and wants to be asked again only in {seconds} s",
            place=place, status=failure.status, seconds=f"{failure.seconds:.0f}",
        )  # fmt: skip
    if isinstance(failure, TooMuch):
        return Unavailable(_UNAVAILABLE, "{place} answers with more bytes than any good answer has", place=place)
    if isinstance(failure, NotGitLab | GitlabError):
        return _no_gitlab(str(failure.args[0] if failure.args else ""), circumstances)
    return _explain_connection(failure, circumstances)


def explain_status(status: int, body: bytes, circumstances: Circumstances) -> DomainError:
    """Return the domain error for an answer with an error's status."""
    place = circumstances.place.url
    answer = _answer_of(body)
    said = circumstances.cause(answer.get("error_description") or answer.get("message") or answer.get("error") or "")
    if status == 401 and answer.get("error") == "invalid_token":
        return _ended(said, circumstances)
    if status == 401 and answer:
        return Conflict(_DENIED, "{place} does not know the token", hint=_RENEW, place=place)
    if status == 403 and answer.get("error") == "insufficient_scope":
        return Conflict(
            _DENIED, "the token lacks a scope at {place}: it needs {scope}", hint=_RENEW,
            place=place, scope=" or ".join(circumstances.cause(answer.get("scope", "read_api")).split()),
        )  # fmt: skip
    if status in (401, 403):
        return Conflict(
            _DENIED, "{place} refuses access: {cause}",
            hint="Reading code takes at least the role Reporter in the project.",
            place=place, cause=said or f"status {status}",
        )  # fmt: skip
    if status == 429:
        return Unavailable(_UNAVAILABLE, "{place} has had too many requests, also after waiting", place=place)
    if status == 404 and not answer:
        return _no_gitlab("it has nothing where GitLab has its API", circumstances)
    return Unavailable(
        _UNAVAILABLE, "{place} answers with status {status}{cause}",
        place=place, status=status, cause=f": {said}" if said else "",
    )  # fmt: skip


def _ended(said: str, circumstances: Circumstances) -> Conflict:
    expires = circumstances.token_expires
    if "revoked" in said.lower():
        how = "was revoked"
    else:
        how = "has expired" if expires is None else f"has expired on {date_of(expires)}"
    return Conflict(_ENDED, "the token for {place} {how}", hint=_RENEW, place=circumstances.place.url, how=how)


def _elsewhere(failure: Elsewhere, circumstances: Circumstances) -> Unavailable:
    to = circumstances.cause(failure.location.partition("?")[0])
    if to.endswith("/users/sign_in"):
        return _no_gitlab("it asks to sign in where GitLab has its API", circumstances)
    return Unavailable(
        _UNAVAILABLE, "{place} redirects to {to}, where the token does not go",
        hint="If that is the GitLab, register its address.", place=circumstances.place.url, to=to,
    )  # fmt: skip


def _no_gitlab(cause: str, circumstances: Circumstances) -> Unavailable:
    return Unavailable(
        _UNAVAILABLE, "{place} does not answer as a GitLab does: {cause}",
        hint="The address is that of the server; a group is given as the namespace.",
        place=circumstances.place.url, cause=circumstances.cause(cause),
    )  # fmt: skip


def _explain_connection(failure: Exception, circumstances: Circumstances) -> DomainError:
    place = circumstances.place.url
    chain = list(causes(failure))
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            problem = _CERTIFICATE_PROBLEMS.get(each.verify_code, f"is refused: {each.verify_message}")
            return Conflict(
                _CERTIFICATE, "the certificate of {place} {problem}",
                hint="Where its authority is your own, give that one's certificate to the data source."
                if "authority" in problem else "",
                place=place, problem=problem,
            )  # fmt: skip
        if isinstance(each, socket.gaierror):
            return Unavailable(_UNREACHABLE, "the host of {place} has no known address", place=place)
        if isinstance(each, ConnectionRefusedError):
            return Unavailable(_UNREACHABLE, "{place} refuses the connection: nothing listens there", place=place)
    if any(isinstance(each, requests.Timeout | TimeoutError) for each in chain):
        return Unavailable(
            _UNREACHABLE, "{place} did not answer in time ({seconds} s)",
            place=place, seconds=f"{_patience(failure, circumstances.limits):g}",
        )  # fmt: skip
    if any(isinstance(each, ssl.SSLError) for each in chain):
        return Unavailable(_UNREACHABLE, "there is no TLS at {place}", hint="Is it http://?", place=place)
    if any(isinstance(each, requests.exceptions.ChunkedEncodingError) for each in chain):
        return Unavailable(_UNAVAILABLE, "{place} ends its answers before they are whole", place=place)
    reason = next((each.strerror for each in chain if isinstance(each, OSError) and each.strerror), "")
    return Unavailable(
        _UNREACHABLE, "{place} cannot be reached: {cause}",
        place=place, cause=circumstances.cause(reason or "the connection ended without an answer"),
    )  # fmt: skip


def _patience(failure: Exception, limits: GitLabLimits) -> float:
    if isinstance(failure, requests.ConnectTimeout):
        return limits.connect_timeout
    return limits.read_timeout if isinstance(failure, requests.ReadTimeout) else limits.answer_timeout


def _answer_of(body: bytes) -> dict[str, Any]:
    """The fields of an error's answer; none where it is not GitLab's."""
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
