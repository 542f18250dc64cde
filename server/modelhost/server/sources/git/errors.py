"""What a failed git command means, in a sentence: Git tells its failures apart by text only."""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from modelhost.envs.files import has_no_room
from modelhost.envs.process import CommandFailed
from modelhost.server.errors import Conflict, DiskFull, DomainError, NotFound, Unavailable
from modelhost.server.sources.git.place import Repository
from modelhost.server.sources.paths import shown
from modelhost.v1.error_reason_pb2 import ErrorReason

MAX_CAUSE_CHARACTERS = 300


@dataclass(frozen=True)
class _Meaning:
    """Lines that match `says` come with a failure of this `kind` and `reason`, told as `template`."""

    says: re.Pattern[str]
    kind: type[Conflict | NotFound | Unavailable]
    reason: "ErrorReason.ValueType"
    template: str
    hint: str = ""


def _says(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join(texts), re.IGNORECASE)


# The first that matches wins: Git ends many different failures with the same general words.
_MEANINGS = (
    _Meaning(
        _says("host key verification failed"),
        Conflict, ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED,
        "the SSH key of {place} is not among the server's known hosts",
        "Add it to known_hosts of the user that the server runs as.",
    ),
    _Meaning(
        _says("authentication failed", "could not read (username|password)", "permission denied", "error: 40[13]"),
        Conflict, ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED,
        "{place} refused access: {cause}",
        "Check the credentials; some hosts also say this of a project that is not there.",
    ),
    _Meaning(
        _says("dubious ownership"),
        Conflict, ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED,
        "{place} belongs to another user, and Git does not read it: {cause}",
    ),
    _Meaning(
        _says(
            "does not appear to be a git repository", "repository .*not found", "repository not exported",
            "not valid: is this a git repository", "project you were looking for could not be found",
        ),
        NotFound, ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND,
        "{place} is not a Git repository that can be read: {cause}",
    ),
    _Meaning(
        _says("could not resolve", "unable to look up"),
        Unavailable, ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE,
        "the host of {place} has no known address: {cause}",
    ),
    _Meaning(
        _says("certificate (problem|verif)", "server certificate", "ssl (connect|routines|peer)", "gnutls", "tls con"),
        Unavailable, ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE,
        "there is no secure connection to {place}: {cause}",
        "Where the host's certificate is your own, set SSL_CERT_FILE or GIT_SSL_CAINFO for the server.",
    ),
    _Meaning(
        _says(
            "unable to connect", "failed to connect", "connection (refused|timed out|reset|closed)", "no route to host",
            "network is unreachable", "timed out", "hung up", "early eof", "unable to access",
            "could not read from remote", "disconnect", "rpc failed", "transport '.*' not allowed",
        ),
        Unavailable, ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE,
        "{place} cannot be reached: {cause}",
    ),
)  # fmt: skip
_GENERAL = re.compile(
    "could not read from remote|please make sure|the repository exists|hint:|disconnect", re.IGNORECASE
)
_NO_ROOM = _says("no space left on device", "disk quota exceeded")
_ONE_COMMIT_REFUSED = _says(
    "unadvertised object", "not our ref", "want [0-9a-f]+ not valid", "shallow", "dumb http", "remote ref [0-9a-f]+"
)


def no_room(failure: CommandFailed, folder: Path) -> DiskFull | None:
    """What a failed command that writes below `folder` says if the disk is full there."""
    said = any(_NO_ROOM.search(line) for line in failure.output if not line.startswith("remote:"))
    return DiskFull(os.strerror(errno.ENOSPC)) if said or has_no_room(folder) else None


def explain(failure: CommandFailed, repository: Repository, timeout: float) -> DomainError | None:
    """Return the domain error that a failed `fetch` or `ls-remote` stands for; None if it says nothing known."""
    if failure.timed_out:
        return Unavailable(
            ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE,
            "{place} did not answer within {seconds} s", place=repository.name, seconds=f"{timeout:g}",
        )  # fmt: skip
    said = [line.replace(repository.url, "") for line in failure.output]  # no name of a project may match
    for meaning in _MEANINGS:
        for line in said:
            if meaning.says.search(line):
                return meaning.kind(
                    meaning.reason, meaning.template, hint=meaning.hint, place=repository.name, cause=cause(failure)
                )
    return None


def unexplained(failure: CommandFailed, repository: Repository) -> Unavailable:
    """Return the error for a failure that nothing more is known of."""
    return Unavailable(
        ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE, "Git failed with {place}: {cause}",
        place=repository.name, cause=cause(failure),
    )  # fmt: skip


def refuses_one_commit(failure: CommandFailed) -> bool:
    """Whether the other side gives whole branches and tags only, or does not have the commit."""
    return any(_ONE_COMMIT_REFUSED.search(line) for line in failure.output)


def cause(failure: CommandFailed) -> str:
    """Return the line of a failed command that says the most: the last one that is not said of every failure."""
    lines = [line.strip() for line in failure.output if line.strip()]
    telling = [line for line in lines if not _GENERAL.search(line)] or lines or [f"exit code {failure.exit_code}"]
    fatal = [line for line in telling if line.startswith(("fatal:", "error:", "remote:", "ssh:"))] or telling
    text = shown(fatal[-1]).removeprefix("fatal: ").removeprefix("error: ").removeprefix("remote: ")
    return text[:MAX_CAUSE_CHARACTERS]
