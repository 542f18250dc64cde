"""From whatever a step raised to the failure that people see, in one place: every cause has a reason and a hint."""

from modelhost.envs import BuildFailed, RequirementsInvalid
from modelhost.server.catalogue import hint_for, named, of_build_failure
from modelhost.server.errors import DiskFull, DomainError, PredictionFailed, StepFailed, reason_name
from modelhost.server.resources import Deployment, Failure
from modelhost.server.text import cut
from modelhost.v1.error_reason_pb2 import ErrorReason

MESSAGE_BYTES = 1024


def as_domain_error(error: BaseException) -> DomainError:
    """The error in the terms of the product; what is not known is INTERNAL, without its text."""
    match error:
        case DomainError():
            return error
        case RequirementsInvalid():
            return StepFailed(
                ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
                "{cause}",
                cause=error,
            )
        case BuildFailed():
            found = of_build_failure(error)
            return StepFailed(found.entry.reason, "{cause}", hint=found.hint, cause=error.message)
        case OSError() if full := DiskFull.told_by(error):
            return full
        case OSError() if error.strerror:
            return StepFailed(
                ErrorReason.ERROR_REASON_ENVIRONMENT_FAILED,
                "the host refused: {cause}",
                cause=f"{error.strerror}{f': {error.filename}' if error.filename else ''}",
            )
        case _:
            return StepFailed(ErrorReason.ERROR_REASON_INTERNAL, "ModelHost itself failed; its log says how")


def failure_of(error: DomainError, deployment: Deployment, *, revision: int, step: str, now: float) -> Failure:
    """What is stored of a failed step of a deployment."""
    hint = named(error.hint or hint_for(error.reason), deployment.id, deployment.source.data_source)
    return Failure(
        reason=reason_name(error.reason),
        message=cut(error.message, MESSAGE_BYTES),
        hint=cut(hint, MESSAGE_BYTES),
        revision=revision,
        step=step,
        time=now,
    )


def details_of(error: BaseException) -> str:
    """What the build log should have besides the message: a traceback of the model, where there is one."""
    match error:
        case StepFailed():
            return error.details
        case PredictionFailed():
            return error.traceback
        case _:
            return ""
