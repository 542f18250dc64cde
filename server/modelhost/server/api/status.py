"""Domain errors as gRPC statuses: the one table, and the details of https://google.aip.dev/193.

gRPC cuts what is too large in unfriendly ways (details over 16 KiB turn any error into RESOURCE_EXHAUSTED), so messages
are kept to 1 KiB and details to 4 KiB.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status as StatusMessage

from modelhost.server.catalogue import hint_for
from modelhost.server.errors import Busy, Conflict, DomainError, InvalidRequest, reason_name
from modelhost.server.text import cut
from modelhost.v1.error_reason_pb2 import ErrorReason

DOMAIN: Final = "modelhost"
MESSAGE_BYTES = 1024
VALUE_BYTES = 256
VALUES_BYTES = 1536  # of all values of an error together: every detail that is promised must have room
DESCRIPTION_BYTES = 512
HINT_BYTES = 400
DETAILS_BYTES = 4096


class Code(IntEnum):
    """The canonical codes that are used here."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_R = ErrorReason

# Every reason that a call can end with. The others describe deployments.
CODES: Final = {
    _R.ERROR_REASON_MALFORMED_REQUEST: Code.INVALID_ARGUMENT,
    _R.ERROR_REASON_FIELD_INVALID: Code.INVALID_ARGUMENT,
    _R.ERROR_REASON_PAGE_TOKEN_INVALID: Code.INVALID_ARGUMENT,
    _R.ERROR_REASON_REQUEST_ID_REUSED: Code.INVALID_ARGUMENT,
    _R.ERROR_REASON_ETAG_MISMATCH: Code.ABORTED,
    _R.ERROR_REASON_UNAUTHENTICATED: Code.UNAUTHENTICATED,
    _R.ERROR_REASON_INTERNAL: Code.INTERNAL,
    _R.ERROR_REASON_SERVER_STOPPING: Code.UNAVAILABLE,
    _R.ERROR_REASON_SECRET_UNREADABLE: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_DISK_FULL: Code.RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_ROLE_REQUIRED: Code.PERMISSION_DENIED,
    _R.ERROR_REASON_LOGIN_THROTTLED: Code.RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_TOKEN_EXPIRED: Code.UNAUTHENTICATED,
    _R.ERROR_REASON_TOO_MANY_TOKENS: Code.RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_DATA_SOURCE_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_DATA_SOURCE_EXISTS: Code.ALREADY_EXISTS,
    _R.ERROR_REASON_DATA_SOURCE_IN_USE: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_SOURCE_UNREACHABLE: Code.UNAVAILABLE,
    _R.ERROR_REASON_SOURCE_ACCESS_DENIED: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_PROJECT_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_REF_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_PATH_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_PATH_REFUSED: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_SNAPSHOT_TOO_LARGE: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_SOURCE_TOKEN_EXPIRED: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_SOURCE_CERTIFICATE_INVALID: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_SOURCE_UNAVAILABLE: Code.UNAVAILABLE,
    _R.ERROR_REASON_NAMESPACE_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_HOST_NOT_ALLOWED: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_RUNTIME_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_RUNTIME_UNUSABLE: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_ENVIRONMENT_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_DEPLOYMENT_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_DEPLOYMENT_EXISTS: Code.ALREADY_EXISTS,
    _R.ERROR_REASON_STATE_CONFLICT: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_REVISION_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_SERVICE_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_SERVICE_NOT_RUNNING: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_PARAMETERS_INVALID: Code.INVALID_ARGUMENT,
    _R.ERROR_REASON_MODEL_RAISED: Code.UNKNOWN,
    _R.ERROR_REASON_RESULT_NOT_SERIALISABLE: Code.UNKNOWN,
    _R.ERROR_REASON_WORKER_DIED: Code.INTERNAL,
    _R.ERROR_REASON_MODEL_TIMED_OUT: Code.DEADLINE_EXCEEDED,
    _R.ERROR_REASON_DEADLINE_EXCEEDED: Code.DEADLINE_EXCEEDED,
    _R.ERROR_REASON_QUEUE_FULL: Code.RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_RESULT_TOO_LARGE: Code.RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_CALLER_TOO_SLOW: Code.DEADLINE_EXCEEDED,
    _R.ERROR_REASON_TENSOR_INVALID: Code.INVALID_ARGUMENT,
    _R.ERROR_REASON_SERVICE_ACCOUNT_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_SERVICE_ACCOUNT_EXISTS: Code.ALREADY_EXISTS,
    _R.ERROR_REASON_API_KEY_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_TOO_MANY_KEYS: Code.FAILED_PRECONDITION,
    _R.ERROR_REASON_GRANT_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_OPERATOR_NOT_FOUND: Code.NOT_FOUND,
    _R.ERROR_REASON_OPERATOR_EXISTS: Code.ALREADY_EXISTS,
    _R.ERROR_REASON_RATE_LIMIT_EXCEEDED: Code.RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_DAILY_QUOTA_EXCEEDED: Code.RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_CONCURRENCY_LIMIT_EXCEEDED: Code.RESOURCE_EXHAUSTED,
    _R.ERROR_REASON_REQUEST_TOO_LARGE: Code.RESOURCE_EXHAUSTED,
}


@dataclass(frozen=True)
class Status:
    """How a call failed, ready for a door: `details` are a serialised google.rpc.Status."""

    code: Code
    reason: str
    message: str
    details: bytes


class CallFailed(Exception):
    """Ends a call with a status."""

    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(status.message)


def status_of(error: DomainError) -> Status:
    """Map a domain error."""
    code = CODES.get(error.reason, Code.FAILED_PRECONDITION)
    message = cut(f"{error.message}. {error.hint}" if error.hint else error.message, MESSAGE_BYTES)
    value_bytes = min(VALUE_BYTES, VALUES_BYTES // max(len(error.values), 1))
    metadata = {name: cut(value, value_bytes) for name, value in error.values.items()}
    if not error.hint and (hint := hint_for(error.reason)):  # what people should do is no part of what happened
        metadata["hint"] = cut(hint, HINT_BYTES)
    reason = reason_name(error.reason)
    info = ErrorInfo(domain=DOMAIN, reason=reason, metadata=metadata)
    status = StatusMessage(code=code, message=message)
    _add(status, info)
    match error:
        case InvalidRequest():
            violation = BadRequest.FieldViolation(field=error.field, description=cut(error.message, DESCRIPTION_BYTES))
            _add(status, BadRequest(field_violations=[violation]))
        case Conflict():
            failed = PreconditionFailure.Violation(
                type=reason,
                subject=cut(next(iter(error.values.values()), ""), VALUE_BYTES),
                description=cut(error.message, DESCRIPTION_BYTES),
            )
            _add(status, PreconditionFailure(violations=[failed]))
        case Busy() if error.retry_after is not None:
            delay = Duration(nanos=0)
            delay.FromMilliseconds(int(error.retry_after * 1000))
            _add(status, RetryInfo(retry_delay=delay))
    return Status(code, reason, message, status.SerializeToString())


def internal_error() -> DomainError:
    """What a caller is told of a fault of the server: nothing but that it is one."""
    return DomainError(ErrorReason.ERROR_REASON_INTERNAL, "the server failed; its log has the details")


def _add(status: StatusMessage, detail: ErrorInfo | BadRequest | PreconditionFailure | RetryInfo) -> None:
    """Add a detail unless the whole would become too large."""
    packed = Any()
    packed.Pack(detail)
    if status.ByteSize() + packed.ByteSize() <= DETAILS_BYTES:
        status.details.append(packed)
