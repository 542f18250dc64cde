"""How the command fails: its exit codes, and the error that people or scripts read.

EXIT_CODES is the one table of exit codes; the root's `--help` prints it.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import typer

from modelhost.cli import api


class ExitCode(IntEnum):
    """What a script can branch on."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    NOT_AUTHENTICATED = 6
    MODEL_FAILED = 7
    NOT_ALLOWED = 8
    INTERRUPTED = 130


EXIT_CODES: Mapping[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "it failed: a deployment that does not start, a source that does not work",
    ExitCode.USAGE: "the command line, or what it sent, is wrong",
    ExitCode.NOT_FOUND: "what was named is not there",
    ExitCode.REFUSED: "refused as things stand: name taken, in use, not running, too busy",
    ExitCode.UNREACHABLE: "no server answers",
    ExitCode.NOT_AUTHENTICATED: "no token, or one that the server does not take",
    ExitCode.MODEL_FAILED: "the model failed the call: it raised, died, took too long",
    ExitCode.NOT_ALLOWED: "the token is not allowed to do that",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
}


@dataclass
class CommandError(Exception):
    """What the command itself has to say about a failure."""

    message: str
    code: ExitCode
    hint: str = ""
    reason: str = ""
    details: Sequence[str] = ()
    grpc_code: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Mapping[str, str]] = ()
    retry_after: float | None = None

    def as_document(self) -> dict[str, object]:
        """Return what `--json` writes to stderr."""
        return {
            "error": {
                "message": self.message,
                "hint": self.hint,
                "reason": self.reason,
                "code": self.grpc_code,
                "metadata": dict(self.metadata),
                "violations": list(self.violations),
                "retry_after": self.retry_after,
                "exit_code": int(self.code),
            }
        }


def usage(message: str, hint: str = "") -> CommandError:
    """Return the error of a command line that cannot be carried out."""
    return CommandError(message, ExitCode.USAGE, hint)


def of_exception(error: Exception) -> CommandError | None:
    """Return what to tell of an exception; None of one that is a fault of this program."""
    if isinstance(error, CommandError):
        return error
    if hasattr(error, "format_message"):  # typer's usage errors; where their class lives depends on typer's version
        return _of_typer(error)
    if isinstance(error, typer.Abort):
        return CommandError("aborted", ExitCode.FAILED)
    if isinstance(error, api.ModelHostError):
        return _of_server(error)
    return None


def _of_typer(error: Exception) -> CommandError:
    message: str = error.format_message()  # type: ignore[attr-defined]  # asked for by the caller
    context: typer.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context else "modelhost"
    return usage(message[:1].lower() + message[1:].rstrip("."), f"`{path} --help` shows how it is used")


def _of_server(error: "api.ModelHostError") -> CommandError:
    return CommandError(
        error.message,
        _exit_code(error),
        hint=_hint(error),
        reason=error.reason,
        details=[f"{v.subject}: {v.description}" for v in error.violations if v.description not in error.message],
        grpc_code=error.code.name,
        metadata=error.metadata,
        violations=[{"subject": v.subject, "description": v.description} for v in error.violations],
        retry_after=error.retry_after,
    )


def _exit_code(error: "api.ModelHostError") -> ExitCode:
    by_kind = {
        api.InvalidRequest: ExitCode.USAGE,
        api.NotFound: ExitCode.NOT_FOUND,
        api.Conflict: ExitCode.REFUSED,
        api.Busy: ExitCode.REFUSED,
        api.Unreachable: ExitCode.UNREACHABLE,
        api.AccessDenied: ExitCode.NOT_AUTHENTICATED,
        api.Forbidden: ExitCode.NOT_ALLOWED,
        api.ModelFailed: ExitCode.MODEL_FAILED,
    }
    return by_kind.get(type(error), ExitCode.FAILED)


def _hint(error: "api.ModelHostError") -> str:
    if error.retry_after is not None:
        return f"try again in {error.retry_after:g} s"
    if isinstance(error, api.Unreachable) and not error.reason and not error.hint:
        return "is it running there? `modelhost serve` starts one here; --address or MODELHOST_ADDRESS says where it is"
    if isinstance(error, api.Forbidden) and error.metadata.get("needed"):
        return _whose_role(error.metadata)
    return _named(error.hint, error.metadata)


def _whose_role(metadata: Mapping[str, str]) -> str:
    """Say what it takes to be let in: another role, or another token."""
    needed, role = (metadata.get(key, "").removeprefix("ROLE_").lower() for key in ("needed", "role"))
    kind, _, name = metadata.get("caller", "").rpartition("/")
    if kind != "operators" or not role:
        return f"that takes the token of an operator with the role {needed}: --token-file FILE, or MODELHOST_TOKEN"
    return (
        f"that takes the role {needed}, and {name} has the role {role}; who is admin may change that:"
        f" `modelhost operator update {name} --role {needed}`"
    )


def _named(hint: str, metadata: Mapping[str, str]) -> str:
    """Return the server's hint, with the names of this call where its own are NAME and SOURCE."""
    deployment, request_id = metadata.get("deployment", "NAME"), metadata.get("request_id", "")
    if request_id:
        hint = hint.replace("logs NAME --run", f"logs NAME --run --request {shlex.quote(request_id)}")
    hint = re.sub(r"\bNAME\b", lambda _: deployment, hint)
    return re.sub(r"\bSOURCE\b", lambda _: metadata.get("data_source", "SOURCE"), hint)
