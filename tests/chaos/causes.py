"""What was being done to a deployment when a call of it failed, and how calls may fail because of that.

The codes and reasons are those of `api/status.py`; an empty reason is an error of gRPC's own core, at the caller's.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

AFTERMATH_SECONDS = 1.0  # after the first good answer, in which others may still hear of it

Outcome = tuple[str, str]  # code and reason

WAITED_TOO_LONG: set[Outcome] = {("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"), ("DEADLINE_EXCEEDED", "")}
UNREACHABLE: Outcome = ("UNAVAILABLE", "")
STOPPING: Outcome = ("UNAVAILABLE", "SERVER_STOPPING")
CANCELLED: Outcome = ("CANCELLED", "")
RAISED: Outcome = ("UNKNOWN", "MODEL_RAISED")
DIED: Outcome = ("INTERNAL", "WORKER_DIED")
NOT_RUNNING: Outcome = ("FAILED_PRECONDITION", "SERVICE_NOT_RUNNING")
OVERRAN: Outcome = ("DEADLINE_EXCEEDED", "MODEL_TIMED_OUT")
TOO_SLOW: Outcome = ("DEADLINE_EXCEEDED", "CALLER_TOO_SLOW")


class Kind(Enum):
    """What was done, and the outcomes that it allows besides an answer.

    Updates, rollbacks, and a change of the number of workers allow none, so they are not here.
    """

    KILLED = frozenset({DIED, *WAITED_TOO_LONG})
    FROZEN = frozenset({DIED, OVERRAN, *WAITED_TOO_LONG})
    POISONED = frozenset(WAITED_TOO_LONG)  # for the other calls
    STOPPED = frozenset({NOT_RUNNING, *WAITED_TOO_LONG})
    SERVER_KILLED = frozenset({UNREACHABLE, NOT_RUNNING, *WAITED_TOO_LONG})
    # CANCELLED is what gRPC's core makes of a call that arrives in the moment in which it is told to shut down.
    SERVER_ENDED = frozenset({UNREACHABLE, CANCELLED, STOPPING, NOT_RUNNING, *WAITED_TOO_LONG})


# What the call itself may end with that carries a poison; an empty outcome is an answer.
ANSWER: Outcome = ("", "")
OF_POISONS: dict[str, set[Outcome]] = {
    "exit": {DIED},
    "quit": {RAISED},  # the worker sees to that
    "segfault": {DIED},
    "fall": {DIED},  # in R an error: see below
    "loop": {OVERRAN},
    "stubborn": {OVERRAN},
    "grow": {DIED},
    "raise": {RAISED},
    "leave": {ANSWER},
    "fall in R": {RAISED},
    "idle": {TOO_SLOW},
}


@dataclass(eq=False)
class Cause:
    """Something that was done to a deployment at `begun`. Once `is_over`, a good answer means that it has recovered.

    `victim` is the worker that it was done to, if that is known. `on_recovery` gets the seconds that it took.
    """

    kind: Kind
    deployment: str
    is_over: Callable[[], bool]
    victim: int = 0
    on_recovery: Callable[[float], None] = lambda _: None
    begun: float = field(default_factory=time.monotonic)
    ended: float = float("inf")


class Causes:
    """All that was done. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._causes: list[Cause] = []

    def open(self, *causes: Cause) -> None:
        """Something is about to be done."""
        with self._lock:
            self._causes += causes

    def answered(self, deployment: str, begun: float, pid: int) -> None:
        """A right answer has come from worker `pid` to a call that began then: what has recovered is in the past."""
        now = time.monotonic()
        recovered = []
        with self._lock:
            for cause in self._causes:
                if (
                    cause.deployment == deployment
                    and cause.ended == float("inf")
                    and (begun >= cause.begun or cause.victim)
                    and pid != cause.victim
                    and cause.is_over()
                ):
                    cause.ended = now + AFTERMATH_SECONDS
                    recovered.append(cause)
        for cause in recovered:
            cause.on_recovery(now - cause.begun)

    def in_play(self, deployment: str, begun: float, ended: float) -> list[Cause]:
        """What was being done to a deployment between two moments."""
        with self._lock:
            return [
                cause
                for cause in self._causes
                if cause.deployment == deployment and cause.begun <= ended and cause.ended >= begun
            ]

    def count(self, deployment: str, *kinds: Kind, since: float = 0.0) -> int:
        """How often something of that kind was done to a deployment that was not over at that time."""
        with self._lock:
            done = [cause for cause in self._causes if cause.deployment == deployment and cause.kind in kinds]
        return sum(cause.ended >= since for cause in done)

    def unfinished(self) -> list[Cause]:
        """What no good answer has come after."""
        with self._lock:
            return [cause for cause in self._causes if cause.ended == float("inf")]


def allowed(outcome: Outcome, causes: Iterable[Cause]) -> bool:
    """Whether one of the causes allows that outcome."""
    return any(outcome in cause.kind.value for cause in causes)
