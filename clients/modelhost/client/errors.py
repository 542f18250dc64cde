"""What a call can raise.

    ModelHostError        a call did not succeed; all of them have code, reason, message and what else the server said
    ├── Unreachable       no server answered at the address, or it is stopping: try again, or elsewhere
    ├── AccessDenied      no token, or one that this server does not take
    ├── Forbidden         the token is known, but does not allow the call; `metadata` says what `role` it `needed`
    ├── InvalidRequest    the request breaks a rule; `violations` names the fields
    ├── NotFound          what the request names is not there
    ├── Conflict          it is there, but not in a state that allows the call; or the name is taken
    ├── Busy              a limit is reached; `retry_after` says when to try again
    ├── TimedOut          the caller's own time was up
    └── ModelFailed       the model, not the server, failed the call: it raised, died, took too long, or returned
                          what JSON cannot hold

An error that fits none of these is a plain ModelHostError. `reason` tells them apart more finely: it is the name of an
`ErrorReason` of the API without its prefix, `DEPLOYMENT_NOT_FOUND`, and empty where the answer is not ModelHost's.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "modelhost"
_DETAILS_KEY = "grpc-status-details-bin"

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong: a field of the request, or a resource whose state does not fit."""

    subject: str
    description: str


class ModelHostError(Exception):
    """A call did not succeed."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        hint: str = "",
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        """Every value of the message, by name; of a call that reached a model also its `request_id`."""
        self.hint = hint
        """What people can do next, where the server said so besides the message; NAME in it is the deployment."""
        self.violations = violations
        self.retry_after = retry_after
        """Seconds after which another try makes sense; None where the server did not say."""

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})" if self.reason else self.message


class Unreachable(ModelHostError):
    """No server answered at the address, or it is stopping."""


class AccessDenied(ModelHostError):
    """No token, or one that this server does not take."""


class Forbidden(ModelHostError):
    """The token is known, but does not allow the call; `metadata` has `caller`, its `role` and the one `needed`."""


class InvalidRequest(ModelHostError):
    """The request breaks a rule; `violations` names the fields."""


class NotFound(ModelHostError):
    """What the request names is not there."""


class Conflict(ModelHostError):
    """The thing is there, but not in a state that allows the call; or the name is taken."""


class Busy(ModelHostError):
    """A limit is reached; `retry_after` says when to try again."""


class TimedOut(ModelHostError):
    """The caller's own time was up."""


class ModelFailed(ModelHostError):
    """The model, not the server, failed the call."""


MODEL_FAILURES = frozenset(
    {"MODEL_RAISED", "RESULT_NOT_SERIALISABLE", "RESULT_TOO_LARGE", "WORKER_DIED", "MODEL_TIMED_OUT"}
)
"""Reasons for which the model, not the server, failed a call."""

_BY_REASON: Mapping[str, type[ModelHostError]] = {
    **dict.fromkeys(MODEL_FAILURES, ModelFailed),
    "SOURCE_UNREACHABLE": ModelHostError,  # UNAVAILABLE, but it is the server that says so
}
_BY_CODE: Mapping[grpc.StatusCode, type[ModelHostError]] = {
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.CANCELLED: Unreachable,  # not by us: a call that comes in the moment of a server's end (grpc#41785)
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Busy,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
}


class FailedCall(Protocol):
    """What grpc's errors, blocking and asyncio ones, have in common."""

    def code(self) -> grpc.StatusCode:
        """Return the status code."""

    def details(self) -> str | None:
        """Return the status message."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return what the server sent after the answer."""


def from_call(call: FailedCall, address: str, *, tls: bool = False) -> ModelHostError:
    """Return the error that a failed call to `address` stands for; `tls` is whether the client speaks TLS."""
    code = call.code()
    details = _details(call.trailing_metadata() or ())
    reason, metadata = "", {}
    violations: list[Violation] = []
    retry_after = None
    for detail in details:
        if (info := _unpack(detail, error_details_pb2.ErrorInfo())) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif bad := _unpack(detail, error_details_pb2.BadRequest()):
            violations += [Violation(v.field, v.description) for v in bad.field_violations]
        elif failed := _unpack(detail, error_details_pb2.PreconditionFailure()):
            violations += [Violation(v.subject, v.description) for v in failed.violations]
        elif retry := _unpack(detail, error_details_pb2.RetryInfo()):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, ModelHostError)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not reason:
        kind = ModelHostError  # grpc's own: a message over the limit, which no waiting helps
    said = call.details() or ""
    message, hint = said or code.name, metadata.pop("hint", "")
    if not reason:
        message, hint = _in_plain_words(code, said, address, tls=tls)
    return kind(
        message,
        code=code,
        reason=reason,
        metadata=metadata,
        hint=hint,
        violations=tuple(violations),
        retry_after=retry_after,
    )


def _details(trailing: Iterable[tuple[str, str | bytes]]) -> Iterable[AnyMessage]:
    for key, value in trailing:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                break
    return ()


def _unpack(detail: AnyMessage, message: _M) -> _M | None:
    try:
        return message if detail.Unpack(message) else None
    except DecodeError:
        return None


def _in_plain_words(code: grpc.StatusCode, details: str, address: str, *, tls: bool) -> tuple[str, str]:
    """Say what grpc itself, or a server that is not ModelHost, means, and what to do if it is about TLS."""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            if about_tls := _about_tls(details, address, tls=tls):
                return about_tls
            # "failed to connect to all addresses; last error: … Failed to connect to remote host: Connection refused"
            if cause := re.search(r"remote host: (?:connect: )?([\w ]+)", details):
                return f"no server answers at {address}: {cause[1].strip().lower()}", ""
            return f"no server answers at {address}: {details}", ""
        case grpc.StatusCode.CANCELLED:
            return f"the server at {address} ended before it took the call; try again", ""
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer from {address} in time", ""
        case grpc.StatusCode.UNIMPLEMENTED:
            return (
                f"what answers at {address} has no such method: it is no ModelHost server, an older one, or one whose "
                f"operators have an address of their own (--admin-listen): {details}"
            ), ""
        case _:
            return details or code.name, ""


def _about_tls(details: str, address: str, *, tls: bool) -> tuple[str, str] | None:
    """What is wrong with TLS and what to do, if that is what kept the client from connecting."""
    if "failed to connect" not in details:
        return None
    ended = re.search(r"Socket closed|[Cc]onnection reset|Broken pipe", details)
    if not tls:
        if not ended:
            return None
        return (
            f"the server at {address} closed the connection at once, as one does that speaks TLS",
            "for TLS begin the address with https://, and name the server's authority: --ca-file, or root_certificates",
        )
    # "… Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed."
    if "Hostname Verification" in details:
        return (
            f"the certificate of the server at {address} is made out to other names",
            "use a name that it has, or have one made that has this one",
        )
    # "… Tls handshake failed (TSI_PROTOCOL_FAILURE): … OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get …: OK"
    if cause := re.search(r"CERTIFICATE_VERIFY_FAILED(?:: ([\w -]+))?", details):
        return (
            f"the certificate of the server at {address} cannot be trusted: {cause[1] or 'it cannot be verified'}",
            "name the authority that signed it: --ca-file, or root_certificates",
        )
    if "WRONG_VERSION_NUMBER" in details:
        return f"the server at {address} speaks no TLS", "leave out https:// and the certificates"
    if cause := re.search(r"handshake failed.*?OPENSSL_internal:(\w+)", details):
        return f"no TLS with {address}: {cause[1].replace('_', ' ').lower()}", ""
    if "security handshaker" in details:
        return (
            f"no TLS with {address}: the certificates given for it, or the key, cannot be used",
            "they must be PEM, and the key that of the client's certificate",
        )
    if ended:
        return (
            f"the server at {address} ended the TLS handshake, as one does that wants a client certificate, or another",
            "give one of its authority: --client-cert and --client-key, or client_certificate",
        )
    return None
