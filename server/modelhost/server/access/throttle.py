"""Slows those down who try wrong signatures: by access key and by the host that they come from.

By both, so that who knows an application's access key, which is public, cannot keep the application itself out from
another host; and nobody else is slowed at all.
"""

from collections import OrderedDict

BURST = 10  # wrong tries that are answered at once
SECONDS_EACH = 6.0  # after those, how long until the next one is
MOST_KEPT = 10_000  # pairs of key and host; those that were quiet for longest are forgotten


class Throttle:
    """A bucket of wrong tries for each key and host. Times in seconds, of one clock."""

    def __init__(self) -> None:
        self._full_at: OrderedDict[tuple[str, str], float] = OrderedDict()  # when a bucket will be as new

    def wait(self, key: str, host: str, now: float) -> float:
        """How long this pair has to wait before its next try; 0 if it need not."""
        missing = self._full_at.get((key, host), now) - now
        return max(0.0, missing - (BURST - 1) * SECONDS_EACH)

    def failed(self, key: str, host: str, now: float) -> None:
        """A try was wrong."""
        pair = (key, host)
        self._full_at[pair] = max(self._full_at.get(pair, now), now) + SECONDS_EACH
        self._full_at.move_to_end(pair)
        if len(self._full_at) > MOST_KEPT:
            self._full_at.popitem(last=False)
