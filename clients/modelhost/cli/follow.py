"""Following a deployment until its target revision runs, or cannot.

Two streams are read at once, the deployment's changes and the revision's build log, each by a thread of its own that
puts what it gets into one queue. Whoever follows reads the queue in the main thread, where Ctrl-C arrives.
"""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelhost.cli import api
from modelhost.cli.errors import CommandError, ExitCode
from modelhost.cli.render import reason_name, short

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from modelhost.client.client import Admin

_LAST_LINES_GRACE = 2.0
"""Seconds that the log's stream gets to end after the deployment is there where it should be."""


@dataclass(frozen=True)
class Sighting:
    """The deployment as it was at a moment, with its target revision."""

    deployment: "api.Deployment"
    revision: "api.Revision"


@dataclass(frozen=True)
class Line:
    """A line of the build log."""

    entry: "api.LogEntry"


@dataclass(frozen=True)
class _End:
    """A stream has ended, maybe with an error."""

    of_log: bool
    error: Exception | None = None


class Follower:
    """What happens to a deployment until `revision` is up or has failed.

    Log lines before `since` are left out: they are of an earlier start of the same revision.
    """

    def __init__(self, admin: "Admin", name: str, revision: int, since: "Timestamp | None" = None) -> None:
        self._admin = admin
        self._name = name
        self._revision = revision
        self._since = since.ToNanoseconds() if since else 0
        self._queue: queue.SimpleQueue[Sighting | Line | _End] = queue.SimpleQueue()
        self.last: Sighting | None = None
        """The newest sighting."""

    def __iter__(self) -> "Iterator[Sighting | Line]":
        """Yield sightings and lines; the end is a sighting for which `is_settled`.

        Raises ModelHostError if the deployment can no longer be watched, CommandError if it goes another way.
        """
        watch = self._admin.WatchDeployment(api.WatchDeploymentRequest(name=self._name))
        log = self._admin.TailLog(
            api.TailLogRequest(deployment=self._name, kind=api.LOG_KIND_BUILD, revision=self._revision)
        )
        for stream, of_log in ((watch, False), (log, True)):
            threading.Thread(target=self._pump, args=(stream, of_log), daemon=True).start()
        try:
            yield from self._events()
        finally:
            watch.cancel()
            log.cancel()

    def _pump(self, stream: Any, of_log: bool) -> None:
        try:
            for message in stream:
                if not of_log:
                    self._queue.put(Sighting(message.deployment, message.revision))
                    continue
                for entry in message.entries:
                    if entry.time.ToNanoseconds() >= self._since:
                        self._queue.put(Line(entry))
        except Exception as error:  # every one: it belongs to the main thread
            self._queue.put(_End(of_log, error))
        else:
            self._queue.put(_End(of_log))

    def _events(self) -> "Iterator[Sighting | Line]":
        settled: Sighting | None = None
        log_ended = False
        deadline: float | None = None
        while not (settled and log_ended):
            try:
                event = self._queue.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            match event:
                case Line():
                    yield event
                case Sighting():
                    if settled:
                        continue
                    self.last = event
                    check_course(event, self._revision)
                    if is_settled(event, self._revision):
                        settled, deadline = event, time.monotonic() + _LAST_LINES_GRACE
                    else:
                        yield event
                case _End(of_log=True):
                    log_ended = True  # even with an error: what counts is what the other stream says
                case _End(error=error) if not settled:
                    raise error or _gone(self._name)
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
    return CommandError(
        f"revision {failure.revision} of {name} failed{where}: {failure.message} ({reason})",
        ExitCode.FAILED,
        failure.hint,
        reason=reason,
    )


def following_on(name: str) -> str:
    """Return how to look after a deployment that is no longer followed."""
    return f"`modelhost show {name} --watch`, `modelhost logs {name} --build -f`"


@contextmanager
def interruptible(name: str, what: str) -> Iterator[None]:
    """Have Ctrl-C end the waiting, not the work, and say so."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandError(
            f"stopped watching; {name} goes on {what} by itself", ExitCode.INTERRUPTED, following_on(name)
        ) from None
