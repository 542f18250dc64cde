"""A timer that is set on every call and hardly ever rings: to set it later than it was costs a comparison."""

import asyncio
from collections.abc import Callable
from math import inf

NEVER = inf


class Alarm:
    """Calls `ring` at the time that it is set to, in the loop's time. On the event loop.

    The loop has at most one timer of it, which is left alone when the time is moved back, and finds out when it is due.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._due = NEVER
        self._set_for = NEVER  # of the loop's timer
        self._timer: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        """Ring then, and not when it was to ring before; `NEVER` turns it off."""
        self._due = when
        if when < self._set_for:
            self._set(when)

    def no_later_than(self, when: float) -> None:
        """Ring then, if it is not to ring before."""
        if when < self._due:
            self.set(when)

    def close(self) -> None:
        """Ring no more, and leave the loop nothing of it."""
        self._due = self._set_for = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._set_for = when
        self._timer = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        due, self._timer, self._set_for = self._due, None, NEVER
        if due <= self._loop.time():
            self._due = NEVER
            self._ring()
        elif due != NEVER:
            self._set(due)
