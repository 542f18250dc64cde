"""What can go wrong, in the terms of this product. Nothing here knows of gRPC; `api/status.py` maps it.

DomainError            has a stable reason, a message, and every value of the message by name
├── InvalidRequest     the caller's request breaks a rule; says which field
├── NotFound           a named thing is not there
├── AlreadyExists      a name is taken
├── Conflict           the thing is there, but in no state that allows the call
├── Unauthenticated    no credentials, or none that are known
├── Forbidden          known, and not allowed to do that
├── Unavailable        something needed does not answer; another try may succeed
├── DiskFull           there is no room for what was to be stored; nothing of it has happened
├── Busy               a limit is reached; says when to try again
├── PredictionFailed   a call reached, or would have reached, a model and has no result
└── StepFailed         a step of building or loading a revision failed; says what to do next
"""

import errno

from modelhost.v1.error_reason_pb2 import ErrorReason

PREFIX = "ERROR_REASON_"


def reason_name(reason: "ErrorReason.ValueType") -> str:
    """Return the reason's public name: `DEPLOYMENT_NOT_FOUND`."""
    return ErrorReason.Name(reason).removeprefix(PREFIX)


class DomainError(Exception):
    """Base of everything that is told to a caller.

    `template` is formatted with `values`; both the message and the machine-readable metadata come from them, so that
    no value is in one and not in the other. `hint` says what to do next, where that is not in the message.
    """

    def __init__(self, reason: "ErrorReason.ValueType", template: str, /, *, hint: str = "", **values: object) -> None:
        self.reason = reason
        self.values = {name: str(value) for name, value in values.items()}
        self.message = template.format(**self.values)
        self.hint = hint
        super().__init__(self.message)


class InvalidRequest(DomainError):
    """The request breaks a documented rule. `field` is the offending field's path, as in `deployment.source.ref`."""

    def __init__(
        self,
        field: str,
        template: str,
        /,
        *,
        reason: "ErrorReason.ValueType" = ErrorReason.ERROR_REASON_FIELD_INVALID,
        hint: str = "",
        **values: object,
    ) -> None:
        super().__init__(reason, template, hint=hint, field=field, **values)
        self.field = field


class NotFound(DomainError):
    """A named thing is not there."""


class AlreadyExists(DomainError):
    """A name is taken."""


class Conflict(DomainError):
    """The thing is there, but its state (or its etag) does not allow the call."""


class NotTaken(Conflict):
    """No worker has had the call, and none of this pool will: another pool may take it."""


class Unauthenticated(DomainError):
    """No credentials, or none that are known."""


class Forbidden(DomainError):
    """The caller is known, and is not allowed to do that."""


class Unavailable(DomainError):
    """Something that is needed does not answer."""


class DiskFull(DomainError):
    """The disk of the state directory is full."""

    def __init__(self, cause: object) -> None:
        super().__init__(ErrorReason.ERROR_REASON_DISK_FULL, "the disk of the server is full: {cause}", cause=cause)

    @classmethod
    def told_by(cls, error: BaseException) -> "DiskFull | None":
        """What the system's error says, if it is this."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return cls(error.strerror)
        return None


class Busy(DomainError):
    """A limit is reached. `retry_after` is in seconds; None where waiting does not help."""

    def __init__(
        self,
        reason: "ErrorReason.ValueType",
        template: str,
        /,
        *,
        retry_after: float | None,
        hint: str = "",
        **values: object,
    ) -> None:
        super().__init__(reason, template, hint=hint, **values)
        self.retry_after = retry_after


class PredictionFailed(DomainError):
    """A call has no result. `traceback` is for Debug and the run log; it never travels in a status."""

    def __init__(
        self,
        reason: "ErrorReason.ValueType",
        template: str,
        /,
        *,
        traceback: str = "",
        hint: str = "",
        **values: object,
    ) -> None:
        super().__init__(reason, template, hint=hint, **values)
        self.traceback = traceback


class StepFailed(DomainError):
    """A step of a revision's way to READY failed. `details` are lines for the build log, as a traceback."""

    def __init__(
        self, reason: "ErrorReason.ValueType", template: str, /, *, hint: str = "", details: str = "", **values: object
    ) -> None:
        super().__init__(reason, template, hint=hint, **values)
        self.details = details
