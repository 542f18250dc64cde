"""Following a deployment until its target revision runs, or cannot.

Two streams are read as one: the deployment's changes and the revision's build log.
"""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelhost.cli import api
from modelhost.cli.errors import CommandError, ExitCode
from modelhost.cli.render import reason_name, short
from modelhost.cli.streams import End, Streams

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from modelhost.client.client import Admin

_LAST_LINES_GRACE = 2.0
"""Seconds that the log's stream gets to end after the deployment is where it should be."""


@dataclass(frozen=True)
class Sighting:
    """The deployment as it was at a moment, with its target revision."""

    deployment: "api.Deployment"
    revision: "api.Revision"


@dataclass(frozen=True)
class Line:
    """A line of the build log."""

    entry: "api.LogEntry"


def follow(admin: "Admin", name: str, revision: int, since: "Timestamp | None" = None) -> "Iterator[Sighting | Line]":
    """Yield sightings and lines; the last one is a sighting for which `is_settled`.

    Log lines before `since` are left out: they are of an earlier start of the same revision. Raises ModelHostError if
    the deployment can no longer be watched, CommandError if somebody sends it another way.
    """
    log = api.TailLogRequest(deployment=name, kind=api.LOG_KIND_BUILD, revision=revision)
    with Streams() as streams:
        streams.open("watch", admin.WatchDeployment, api.WatchDeploymentRequest(name=name))
        streams.open("log", admin.TailLog, log)
        yield from _events(streams, name, revision, since.ToNanoseconds() if since else 0)


def _events(streams: Streams, name: str, revision: int, since: int) -> "Iterator[Sighting | Line]":
    settled: Sighting | None = None
    deadline: float | None = None
    log_ended = False
    while not (settled and log_ended):
        try:
            key, answer = streams.next(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if key == "log":
            if isinstance(answer, End):
                log_ended = True  # even with an error: what counts is what the other stream says
            else:
                yield from (Line(entry) for entry in answer.entries if entry.time.ToNanoseconds() >= since)
        elif settled:
            continue
        elif isinstance(answer, End):
            raise answer.error or _gone(name)
        else:
            sighting = Sighting(answer.deployment, answer.revision)
            check_course(sighting, revision)
            if is_settled(sighting, revision):
                settled, deadline = sighting, time.monotonic() + _LAST_LINES_GRACE
            else:
                yield sighting
    if settled:
        yield settled


def has_failed(sighting: Sighting, revision: int) -> bool:
    """Say whether the revision could not be brought up."""
    deployment = sighting.deployment
    return deployment.state == api.Deployment.STATE_FAILED or (
        deployment.update_state == api.Deployment.UPDATE_STATE_FAILED and deployment.failure.revision == revision
    )


def is_settled(sighting: Sighting, revision: int) -> bool:
    """Say whether the revision is up, or has failed."""
    deployment = sighting.deployment
    is_up = deployment.state == api.Deployment.STATE_RUNNING and deployment.active_revision == revision
    return has_failed(sighting, revision) or is_up


def check_course(sighting: Sighting, revision: int) -> None:
    """Raise CommandError if somebody else has sent the deployment another way."""
    deployment = sighting.deployment
    name = short(deployment.name)
    if deployment.target_revision != revision:
        raise CommandError(
            f"{name} was changed meanwhile: it goes for revision {deployment.target_revision}, not {revision}",
            ExitCode.REFUSED,
            following_on(name),
        )
    if deployment.state in {api.Deployment.STATE_STOPPING, api.Deployment.STATE_STOPPED}:
        raise CommandError(f"{name} was stopped meanwhile", ExitCode.REFUSED, f"`modelhost start {name}`")
    if deployment.state == api.Deployment.STATE_DELETING:
        raise _gone(name)


def _gone(name: str) -> CommandError:
    return CommandError(f"{short(name)} was deleted meanwhile", ExitCode.NOT_FOUND)


def failure_of(deployment: "api.Deployment") -> CommandError:
    """Return the error that tells why a deployment, or its update, failed."""
    failure = deployment.failure
    name, reason = short(deployment.name), reason_name(failure)
    where = f" in {failure.step}" if failure.step else ""
    serving = f"; revision {deployment.active_revision} goes on serving" if deployment.active_revision else ""
    return CommandError(
        f"revision {failure.revision} of {name} failed{where}{serving}: {failure.message} ({reason})",
        ExitCode.FAILED,
        failure.hint,
        reason=reason,
    )


def following_on(name: str) -> str:
    """Return how to look after a deployment that is no longer followed."""
    return f"`modelhost show {name} --watch`, `modelhost logs {name} --build -f`"


@contextmanager
def interruptible(name: str) -> Iterator[None]:
    """Have Ctrl-C end the waiting, not the work, and say so."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandError(
            f"{name} is no longer watched and goes on by itself", ExitCode.INTERRUPTED, following_on(name)
        ) from None
