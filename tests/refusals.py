"""All that a caller sees of a call that was refused, to be compared."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.checks import check_status


@dataclass(frozen=True)
class Refusal:
    """All that a caller sees of a refused call. `retry_after` in seconds, None where nothing is said of it."""

    code: grpc.StatusCode
    reason: str
    message: str
    details: bytes
    trailers: tuple[str, ...]
    retry_after: float | None

    def of(self, name: str) -> "Refusal":
        """As it would be for another name of the same length as `name`."""
        mask = "?" * len(name)
        details = self.details.replace(name.encode(), mask.encode())
        return Refusal(
            self.code, self.reason, self.message.replace(name, mask), details, self.trailers, self.retry_after
        )


def refusal_of(call: Callable[[], object]) -> Refusal:
    """How a call is refused; it must be, and properly."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return as_refusal(caught.value)


def as_refusal(error: BaseException) -> Refusal:
    """What a caller sees of it."""
    status = check_status(error)
    assert isinstance(error, grpc.Call)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after = None
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
    return Refusal(
        code=error.code(),
        reason=info.reason,
        message=error.details() or "",
        details=status.SerializeToString(deterministic=True),
        trailers=tuple(sorted(key for key, _ in error.trailing_metadata() or ())),
        retry_after=retry_after,
    )


def ended(call: Callable[[], object]) -> str:
    """`OK`, or the reason for which a call is refused."""
    try:
        call()
    except grpc.RpcError as error:
        return as_refusal(error).reason
    return "OK"
