"""What a worker answered, where that is no result, as errors of the product."""

from typing import Protocol

from modelhost.server.catalogue import of_load_failure
from modelhost.server.errors import DiskFull, PredictionFailed, StepFailed
from modelhost.server.serving.link import Header
from modelhost.v1.error_reason_pb2 import ErrorReason

MESSAGE_CHARACTERS = 1_000  # to which the worker cuts messages and names; see PROTOCOL.md
TRACEBACK_CHARACTERS = 16_000


class Mask(Protocol):
    """Takes the model's secrets out of a text, and what is left of them where it was cut."""

    def __call__(self, text: str, *, cut_before: bool = False, cut_after: bool = False) -> str:
        """Return the text without them."""


def message_of(header: Header, field: str, mask: Mask, default: str = "") -> str:
    """A message or a name that a worker sent, without secrets."""
    text = str(header.get(field, default))
    return mask(text, cut_after=len(text) >= MESSAGE_CHARACTERS)


def traceback_of(header: Header, mask: Mask) -> str:
    """The traceback that a worker sent, without secrets."""
    text = str(header.get("traceback", ""))
    return mask(text, cut_before=len(text) >= TRACEBACK_CHARACTERS)


_LOAD_REASONS = {
    "main_file_not_found": ErrorReason.ERROR_REASON_MAIN_FILE_NOT_FOUND,
    "syntax_error": ErrorReason.ERROR_REASON_SYNTAX_ERROR,
    "import_failed": ErrorReason.ERROR_REASON_IMPORT_FAILED,
    "function_not_found": ErrorReason.ERROR_REASON_FUNCTION_NOT_FOUND,
    "setup_failed": ErrorReason.ERROR_REASON_SETUP_FAILED,
    "function_masks_base": ErrorReason.ERROR_REASON_FUNCTION_MASKS_BASE,
}
_GENERAL = {ErrorReason.ERROR_REASON_IMPORT_FAILED, ErrorReason.ERROR_REASON_SETUP_FAILED}


def start_failure(error: Exception, load_timeout: float) -> StepFailed:
    """A worker was not started, or did not answer in time."""
    if full := DiskFull.told_by(error):
        return StepFailed(
            full.reason, "there is no room for a worker's copy of the files: {cause}", cause=full.values["cause"]
        )
    if isinstance(error, TimeoutError):
        return StepFailed(
            ErrorReason.ERROR_REASON_LOAD_TIMED_OUT,
            "the model was not loaded within {seconds} s",
            seconds=f"{load_timeout:g}",
        )
    return StepFailed(
        ErrorReason.ERROR_REASON_WORKER_DIED_LOADING, "a worker could not be started: {error}", error=error
    )


def load_failure(header: Header, mask: Mask) -> StepFailed:
    """LOAD was answered with `load_failed`: the reason is the worker's, or a finer one that its text tells of."""
    reason = _LOAD_REASONS.get(str(header.get("reason")), ErrorReason.ERROR_REASON_IMPORT_FAILED)
    message = message_of(header, "message", mask, "the worker could not load the model")
    traceback = traceback_of(header, mask)
    found = of_load_failure(message, traceback) if reason in _GENERAL else None
    if found:
        return StepFailed(found.entry.reason, "{cause}", hint=found.hint, details=traceback, cause=message)
    return StepFailed(reason, "{cause}", details=traceback, cause=message)


def call_failure(header: Header, mask: Mask) -> PredictionFailed:
    """A call was answered with `failed`."""
    values = {"exception": message_of(header, "exception", mask), "text": message_of(header, "message", mask)}
    traceback = traceback_of(header, mask)
    match header.get("reason"):
        case "parameters_invalid":
            reason, template = ErrorReason.ERROR_REASON_PARAMETERS_INVALID, "{text}"
        case "result_not_serialisable":
            reason, template = ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE, "{text}"
        case "result_too_large":
            reason, template = ErrorReason.ERROR_REASON_RESULT_TOO_LARGE, "{text}"
        case "output_not_found":
            reason, template = ErrorReason.ERROR_REASON_TENSOR_INVALID, "{text}"
        case _:
            template = "the model raised {exception}: {text}" if values["exception"] else "{text}"
            reason = ErrorReason.ERROR_REASON_MODEL_RAISED
    return PredictionFailed(reason, template, traceback=traceback, **values)


def deadline_exceeded(when: str) -> PredictionFailed:
    """A caller's deadline has passed."""
    return PredictionFailed(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, "the call's deadline passed {when}", when=when)


def never_free(call_timeout: float) -> PredictionFailed:
    """A call without a deadline has waited for a worker as long as it might have run."""
    return deadline_exceeded(f"after {call_timeout:g} s, the deployment's call_timeout, in which no worker became free")


def timed_out(seconds: float, calls: int) -> PredictionFailed:
    """A call took too long, or so many calls that were one for their worker."""
    if calls > 1:
        return PredictionFailed(
            ErrorReason.ERROR_REASON_MODEL_TIMED_OUT,
            "the batch of {calls} calls that this one was in took longer than the deployment's call_timeout of"
            " {seconds} s, which is for all of it; its worker is replaced",
            hint="Set `call_timeout` for as much as a batch takes, or a smaller `[batching] max_size`.",
            seconds=f"{seconds:g}",
            calls=calls,
        )
    return PredictionFailed(
        ErrorReason.ERROR_REASON_MODEL_TIMED_OUT,
        "the call took longer than the deployment's call_timeout of {seconds} s; its worker is replaced",
        seconds=f"{seconds:g}",
    )


def item_timed_out(seconds: float) -> PredictionFailed:
    """The model took too long for the next item of a stream, or to end it."""
    return PredictionFailed(
        ErrorReason.ERROR_REASON_MODEL_TIMED_OUT,
        "the next item took longer than the deployment's call_timeout of {seconds} s; its worker is replaced",
        seconds=f"{seconds:g}",
    )


def caller_too_slow(seconds: float) -> PredictionFailed:
    """A caller has taken no item of a stream, and kept a worker waiting."""
    return PredictionFailed(
        ErrorReason.ERROR_REASON_CALLER_TOO_SLOW,
        "the caller took no item for {seconds} s, the deployment's call_timeout; the stream is ended",
        seconds=f"{seconds:g}",
    )


def too_large(size: int, limit: int) -> PredictionFailed:
    """A result has too many bytes."""
    return PredictionFailed(
        ErrorReason.ERROR_REASON_RESULT_TOO_LARGE,
        "the model's result has {size} bytes; the server's message limit is {limit}",
        size=size,
        limit=limit,
    )
