"""What can be wrong with an answer, on demand.

    gitlab.faults.once("*/repository/tree", Status(429, retry_after=1))
    gitlab.faults.times(2, "*/repository/archive*", Status(502))
    gitlab.faults.always("*/user", LoginPage())
    gitlab.faults.once("*/repository/blobs/*", Meanwhile(token.expire), skip=1)   # the second such request

A pattern is a shell's, on the path as sent without the query (`*` also matches `/`), or a function of the request.
Faults are used up in the order in which they were added; a request meets at most one.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from tests.gitlab_stand_in.answers import Answer
from tests.gitlab_stand_in.requests import Request

Pattern = str | Callable[[Request], bool]


@dataclass(frozen=True)
class Context:
    """What a fault has to work with."""

    request: Request
    answer: Callable[[], Answer]
    """What would be answered."""
    wait: Callable[[float], object]
    """Sleeps so many seconds, but not longer than the stand-in lives."""


class Fault(Protocol):
    """Something that is done to an answer."""

    def apply(self, context: Context) -> Answer:
        """What is answered instead."""


@dataclass
class _Rule:
    pattern: Pattern
    fault: Fault
    skip: int
    left: float

    def matches(self, request: Request) -> bool:
        if callable(self.pattern):
            return self.pattern(request)
        return fnmatchcase(request.path, self.pattern)


class Faults:
    """The faults that are still to come."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()

    def once(self, pattern: Pattern, fault: Fault, *, skip: int = 0) -> None:
        """Let the next request that matches meet the fault; `skip` so many first."""
        self.times(1, pattern, fault, skip=skip)

    def times(self, count: int, pattern: Pattern, fault: Fault, *, skip: int = 0) -> None:
        """Let the next so many meet it."""
        self._add(_Rule(pattern, fault, skip, count))

    def always(self, pattern: Pattern, fault: Fault, *, skip: int = 0) -> None:
        """Let all meet it, until `clear()`."""
        self._add(_Rule(pattern, fault, skip, float("inf")))

    def clear(self) -> None:
        """No more faults."""
        with self._lock:
            self._rules.clear()

    def next(self, request: Request) -> Fault | None:
        """The fault that a request meets, which is thereby used up."""
        with self._lock:
            for rule in self._rules:
                if rule.left < 1 or not rule.matches(request):
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.left -= 1
                return rule.fault
        return None

    def _add(self, rule: _Rule) -> None:
        with self._lock:
            self._rules.append(rule)
