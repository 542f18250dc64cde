"""Slows logins down: wrong ones, by access key and by the host that they come from; and right ones, by account.

By key and host, so that who knows an application's access key, which is public, cannot keep the application itself out
from another host; and nobody else is slowed at all. By account, for each token takes a write to the disk, which all
accounts and operators share, and is good for many calls.
"""

from collections import OrderedDict

MOST_KEPT = 10_000  # names; those that were quiet for longest are forgotten


class Throttle:
    """A bucket of tries for each name: `burst` are answered at once, then one in `seconds_each`. Times of one clock."""

    def __init__(self, burst: int, seconds_each: float) -> None:
        self._burst = burst
        self._seconds_each = seconds_each
        self._full_at: OrderedDict[tuple[str, ...], float] = OrderedDict()  # when a bucket will be as new

    def wait(self, *name: str, now: float) -> float:
        """How long this one has to wait before its next try; 0 if it need not."""
        missing = self._full_at.get(name, now) - now
        return max(0.0, missing - (self._burst - 1) * self._seconds_each)

    def count(self, *name: str, now: float) -> None:
        """It has tried."""
        self._full_at[name] = max(self._full_at.get(name, now), now) + self._seconds_each
        self._full_at.move_to_end(name)
        if len(self._full_at) > MOST_KEPT:
            self._full_at.popitem(last=False)
