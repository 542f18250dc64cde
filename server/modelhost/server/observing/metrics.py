"""What the server counts, and the text in which Prometheus reads it. docs/guides/operations.md lists the names.

Counters and histograms are fed on the event loop; what pools and deployments are like is read when somebody asks, on
the thread that asks. Everything of a deployment goes with it. A server has its own registry: nothing here is global.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelhost.server.errors import NotFound
from modelhost.server.observing.calls import LABELS, CallCounts
from modelhost.server.resources import DeploymentState
from modelhost.server.serving.pool import PoolStatus
from modelhost.server.serving.router import Router, Service

# Upper bounds in seconds.
BUILD_BUCKETS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # calls
LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

MODEL: Final = LABELS


class Metrics:
    """The metrics of a server. But for `exposition`, used on the event loop only."""

    def __init__(self, router: Router, version: str) -> None:
        self._router = router
        self._registry = registry = CollectorRegistry()
        self.calls = CallCounts()
        registry.register(self.calls)
        self._restarts = Counter(
            "modelhost_worker_restarts", "Workers that ended and are replaced.", (*MODEL, "cause"), registry=registry
        )
        self._batch_size = Histogram(
            "modelhost_batch_size",
            "Calls that went to a worker together, of models that have batches.",
            MODEL,
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._step_seconds = Histogram(
            "modelhost_build_step_duration_seconds",
            "Steps of the way of a revision to its workers.",
            ("step", "outcome"),
            buckets=BUILD_BUCKETS,
            registry=registry,
        )
        self._lag_seconds = Histogram(
            "modelhost_event_loop_lag_seconds",
            "By how much a timer of the event loop came late.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        build = Gauge("modelhost_build_info", "1; the version is in the label.", ("version",), registry=registry)
        build.labels(version).set(1)
        registry.register(_Observed(router))
        ProcessCollector(registry=registry)
        self._of_restarts: set[tuple[str, str, str]] = set()
        self._of_batches: dict[tuple[str, str], Histogram] = {}
        router.on_removal(self._forget)

    def worker_lost(self, deployment_id: str, cause: str) -> None:
        """A worker ended that was to live on: "exit", "signal", "memory", "timeout", "link", "recycled" …"""
        try:
            service = self._router.find(deployment_id)
        except NotFound:  # deleted: what is left of it is nobody's
            return
        key = (service.service_id, deployment_id, cause)
        self._of_restarts.add(key)
        self._restarts.labels(*key).inc()

    def batch_sent(self, deployment_id: str, size: int) -> None:
        """So many calls went to a worker together: 1 of a model that has batches counts, too."""
        try:
            service = self._router.find(deployment_id)
        except NotFound:
            return
        key = (service.service_id, deployment_id)
        found = self._of_batches.get(key)
        if found is None:
            found = self._of_batches[key] = self._batch_size.labels(*key)
        found.observe(size)

    def step_ended(self, step: str, outcome: str, seconds: float) -> None:
        """A step of a build is over: "ok", "failed" or "interrupted"."""
        self._step_seconds.labels(step, outcome).observe(seconds)

    def loop_lagged(self, seconds: float) -> None:
        """A timer of the event loop came so late."""
        self._lag_seconds.observe(seconds)

    def exposition(self) -> bytes:
        """All of them in Prometheus's text format, version 0.0.4. From any thread."""
        return generate_latest(_WithoutCreated(self._registry))

    def _forget(self, service: Service) -> None:
        """Drop what was counted of a service that is no more."""
        model = (service.service_id, service.deployment_id)
        self.calls.forget(model)
        for lost in [key for key in self._of_restarts if key[:2] == model]:
            self._of_restarts.discard(lost)
            self._restarts.remove(*lost)
        if self._of_batches.pop(model, None) is not None:
            self._batch_size.remove(*model)


class _Observed(Collector):
    """What pools and deployments are like at the moment in which they are asked for."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def collect(self) -> Iterator[Metric]:
        """prometheus_client: the metrics as of now."""
        workers = GaugeMetricFamily("modelhost_workers", "Workers by what they do.", labels=(*MODEL, "state"))
        wanted = GaugeMetricFamily("modelhost_workers_wanted", "Workers that there are to be.", labels=MODEL)
        queued = GaugeMetricFamily("modelhost_queued_calls", "Calls that wait for a worker.", labels=MODEL)
        running = GaugeMetricFamily("modelhost_running_calls", "Calls that workers run.", labels=MODEL)
        deployments = GaugeMetricFamily("modelhost_deployments", "Deployments by state.", labels=("state",))
        states = dict.fromkeys(DeploymentState, 0)
        for service in set(self._router.services().values()):
            states[service.state] += 1
            pool = service.pool  # read once: the event loop may take it away meanwhile
            if pool is None:
                continue
            model = (service.service_id, service.deployment_id)
            status = pool.status
            for state, number in _by_state(status).items():
                workers.add_metric((*model, state), number)
            wanted.add_metric(model, pool.size)
            queued.add_metric(model, status.queued)
            running.add_metric(model, status.running)
        for name, number in states.items():
            deployments.add_metric((name,), number)
        return iter((workers, wanted, queued, running, deployments))


def _by_state(status: PoolStatus) -> dict[str, int]:
    """A pool's workers, each in one state."""
    idle = max(0, status.live - status.running)  # those that are let go after their calls are not live any more
    return {"idle": idle, "busy": status.running, "loading": status.starting}


class _WithoutCreated(Collector):
    """A registry's metrics without the time at which each was made, which doubles what is sent and nobody asks for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """prometheus_client: the metrics as of now."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            if metric.samples:
                yield metric
