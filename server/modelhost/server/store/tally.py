"""What came of calls, as counters that add up.

Of how long calls took a tally keeps how many there were between bounds that grow geometrically: bucket `i` holds the
calls of 20 µs · 2^(i/4) to 20 µs · 2^((i+1)/4), and a call is taken to have lasted the geometric middle of its bucket.
The middle is off by no more than half a bucket, a factor of 2^(1/8) = 1.0905, whatever the calls are like. A percentile
is the middle of the bucket that has the call of that rank, so it is right to within a tenth of its value; but calls of
less than 20 µs count as such of 20 µs. An hour is in bucket 109, so that buckets are few; those without calls are not
kept. Adding up tallies adds up their buckets: the percentiles of a sum are as right as those of its parts.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

LEAST_SECONDS: Final = 20e-6
PER_OCTAVE: Final = 4  # buckets for a doubling of the time
OK: Final = "OK"

K = TypeVar("K", bound=Hashable)
_log2 = math.log2


@dataclass(slots=True)
class Tally:
    """Counters. `failures` are numbers of calls by code, `latency` by bucket; `received` and `sent` are bytes."""

    failures: dict[str, int] = field(default_factory=dict)
    latency: dict[int, int] = field(default_factory=dict)
    received: int = 0
    sent: int = 0

    @property
    def requests(self) -> int:
        """Number of calls."""
        return sum(self.latency.values())

    def count(self, code: str, seconds: float, received: int, sent: int) -> None:
        """Count a call that ended with `code`, `OK` or another."""
        self.received += received
        self.sent += sent
        bucket = int(_log2(seconds / LEAST_SECONDS) * PER_OCTAVE) if seconds > LEAST_SECONDS else 0
        latency = self.latency
        latency[bucket] = latency.get(bucket, 0) + 1
        if code != OK:
            self.failures[code] = self.failures.get(code, 0) + 1

    def add(self, other: "Tally") -> None:
        """Count the calls of another tally, too."""
        self.received += other.received
        self.sent += other.sent
        _add(self.latency, other.latency)
        _add(self.failures, other.failures)

    def percentile(self, percent: int) -> float:
        """In seconds: so many of a hundred calls took no longer than this; 0 without calls."""
        rank = -(-self.requests * percent // 100)  # rounded up
        seen = 0
        for bucket, number in sorted(self.latency.items()):
            seen += number
            if seen >= rank:
                return LEAST_SECONDS * math.exp2((bucket + 0.5) / PER_OCTAVE)
        return 0.0


def add_all(into: dict[K, dict[str, Tally]], key: K, callers: Mapping[str, Tally]) -> None:
    """Add tallies by caller to those under `key`. What is added is copied, not kept."""
    found = into.setdefault(key, {})
    for caller, tally in callers.items():
        found.setdefault(caller, Tally()).add(tally)


def _add(into: dict[K, int], counts: Mapping[K, int]) -> None:
    if not into:
        into.update(counts)
        return
    for key, number in counts.items():
        into[key] = into.get(key, 0) + number
