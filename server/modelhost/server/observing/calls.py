"""Counts calls of models for Prometheus. Every call ends here, so counting is a few dictionaries, and no locks.

What is shown is made of the counts when somebody asks. prometheus_client's own counters cost ten times as much a call.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from modelhost.server.serving.router import Service

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BOUNDS = (*map(floatToGoString, BUCKETS), "+Inf")
LABELS: Final = ("service", "deployment")

Model = tuple[str, str]  # service id, deployment id; empty both for calls that named none, or were not let in


class _Durations:
    """How many calls were in each bucket, and how many seconds all took."""

    __slots__ = ("numbers", "seconds")

    def __init__(self) -> None:
        self.numbers = [0] * len(_BOUNDS)
        self.seconds = 0.0


class _Entry:
    """Calls of one model that ended in the same way, and the durations that theirs are among."""

    __slots__ = ("durations", "number")

    def __init__(self, durations: _Durations) -> None:
        self.number = 0
        self.durations = durations


class CallCounts(Collector):
    """Calls by model, code and reason, and their durations by outcome. Fed on the event loop, read on any thread."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str, str], _Entry] = {}
        self._durations: dict[tuple[str, str, str], _Durations] = {}

    def ended(self, of: Service | None, code: str, reason: str, seconds: float) -> None:
        """A call has its answer, or its caller went away. `of` is None where the caller named no service that is.

        A call that outlives its service is counted like that, too: what was counted of the service is forgotten.
        """
        service, deployment = ("", "") if of is None or of.gone else (of.service_id, of.deployment_id)
        entry = self._entries.get((service, deployment, code, reason))
        if entry is None:
            outcome = "error" if reason or code != "OK" else "ok"
            durations = self._durations.setdefault((service, deployment, outcome), _Durations())
            entry = self._entries[service, deployment, code, reason] = _Entry(durations)
        entry.number += 1
        entry.durations.seconds += seconds
        entry.durations.numbers[bisect_left(BUCKETS, seconds)] += 1

    def forget(self, model: Model) -> None:
        """Drop what was counted of a model."""
        self._entries = {key: entry for key, entry in self._entries.items() if key[:2] != model}
        self._durations = {key: durations for key, durations in self._durations.items() if key[:2] != model}

    def collect(self) -> Iterator[Metric]:
        """prometheus_client: the metrics as of now."""
        calls = CounterMetricFamily(
            "modelhost_calls", "Calls of models, by how they ended.", labels=(*LABELS, "code", "reason")
        )
        for key, entry in self._entries.copy().items():
            calls.add_metric(key, entry.number)
        seconds = HistogramMetricFamily(
            "modelhost_call_duration_seconds",
            "From a request's arrival to its answer, time in the queue included.",
            labels=(*LABELS, "outcome"),
        )
        for name, durations in self._durations.copy().items():
            seconds.add_metric(name, _buckets(durations.numbers.copy()), durations.seconds)
        return iter((calls, seconds))


def _buckets(numbers: Sequence[int]) -> list[tuple[str, float]]:
    """As Prometheus has them: each with all that are below it."""
    return list(zip(_BOUNDS, map(float, accumulate(numbers)), strict=True))
