"""What builds under way and loaded pools need, so that the collector leaves it alone. From any thread."""

import math
import threading
import time
from collections.abc import Callable


class Hold:
    """The digests that one build, and then its pool, need. Made by `Holds.take`."""

    def __init__(self, holds: "Holds") -> None:
        self._holds = holds
        self.begun = time.time()
        self.digests: set[str] = set()

    def add(self, digest: str) -> None:
        """Need a snapshot or environment; to be said before looking whether it is there."""
        with self._holds.lock:
            self.digests.add(digest)

    def settle(self) -> None:
        """No more will be needed: until this is said, whatever is made meanwhile may be for this build."""
        with self._holds.lock:
            self.begun = math.inf

    def release(self) -> None:
        """Need nothing any more; may be said twice."""
        with self._holds.lock:
            self._holds.holds.discard(self)


class Holds:
    """All holds."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holds: set[Hold] = set()

    def take(self) -> Hold:
        """A hold for a build that begins; it must be released."""
        hold = Hold(self)
        with self.lock:
            self.holds.add(hold)
        return hold

    def unless_held(self, digest: str, created: float, act: Callable[[], None]) -> bool:
        """Act, quickly, unless something needs what has the digest; false if so. Nobody can begin to in between."""
        with self.lock:
            if any(digest in hold.digests or created >= hold.begun for hold in self.holds):
                return False
            act()
        return True
