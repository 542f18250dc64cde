"""What the server counts: names as Prometheus wants them, series that stay bounded and go with their deployment."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from modelhost.server.observing.lag import INTERVAL_SECONDS, watch_lag
from modelhost.server.observing.metrics import Metrics
from modelhost.server.resources import DeploymentState
from modelhost.server.serving.router import Router
from tests.scraping import Scrape

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "operations.md"
STEPS = ("fetch", "provision", "load")


@pytest.fixture
def router() -> Router:
    router = Router()
    for number in (1, 2):
        router.add(f"svc-{number}", f"model-{number}", f"uid-{number}")
    return router


@pytest.fixture
def metrics(router: Router) -> Metrics:
    return Metrics(router, "1.2.3")


def read(metrics: Metrics) -> Scrape:
    return Scrape(metrics.exposition().decode())


def fill(metrics: Metrics, router: Router) -> None:
    """Count one of each."""
    for name in ("svc-1", "svc-2"):
        metrics.calls.ended(router.find(name), "OK", "", 0.003)
        metrics.calls.ended(router.find(name), "RESOURCE_EXHAUSTED", "QUEUE_FULL", 0.0001)
        metrics.worker_lost(router.find(name).deployment_id, "signal")
        metrics.batch_sent(router.find(name).deployment_id, 5)
    metrics.calls.ended(None, "NOT_FOUND", "SERVICE_NOT_FOUND", 0.0001)
    for step in STEPS:
        metrics.step_ended(step, "ok", 2.0)
    metrics.loop_lagged(0.002)


def test_names_and_units_are_as_prometheus_wants_them(metrics: Metrics, router: Router) -> None:
    fill(metrics, router)

    for family in read(metrics).families.values():
        assert re.fullmatch(r"(modelhost|process)_[a-z_]+", family.name)
        assert family.documentation
        for sample in family.samples:
            assert not sample.name.endswith("_created")
            if family.type == "counter":
                assert sample.name.endswith("_total")
            if family.type == "histogram":
                assert family.name.endswith(("_seconds", "_size"))


def test_a_call_counts_by_service_code_and_reason(metrics: Metrics, router: Router) -> None:
    for _ in range(3):
        metrics.calls.ended(router.find("model-1"), "OK", "", 0.003)
    metrics.calls.ended(router.find("model-1"), "UNKNOWN", "MODEL_RAISED", 0.7)

    seen = read(metrics)
    model = {"service": "svc-1", "deployment": "model-1"}
    assert seen.value("modelhost_calls_total", **model, code="OK", reason="") == 3
    assert seen.value("modelhost_calls_total", **model, code="UNKNOWN", reason="MODEL_RAISED") == 1
    assert seen.value("modelhost_calls_total") == 4
    seconds = "modelhost_call_duration_seconds"
    assert seen.value(f"{seconds}_count", **model, outcome="ok") == 3
    assert seen.value(f"{seconds}_sum", **model, outcome="ok") == pytest.approx(0.009)
    assert seen.value(f"{seconds}_bucket", **model, outcome="ok", le="0.0025") == 0
    assert seen.value(f"{seconds}_bucket", **model, outcome="ok", le="0.005") == 3
    assert seen.value(f"{seconds}_bucket", **model, outcome="error", le="0.5") == 0
    assert seen.value(f"{seconds}_bucket", **model, outcome="error", le="60.0") == 1


def test_more_calls_make_no_more_series(metrics: Metrics, router: Router) -> None:
    fill(metrics, router)
    before = len(read(metrics).samples)

    for _ in range(100):
        fill(metrics, router)

    assert len(read(metrics).samples) == before


def test_all_of_a_deployment_goes_with_it_and_nothing_of_another(metrics: Metrics, router: Router) -> None:
    fill(metrics, router)
    of_both = {
        *("modelhost_calls_total", "modelhost_call_duration_seconds_sum", "modelhost_worker_restarts_total"),
        "modelhost_batch_size_count",
    }
    assert read(metrics).with_label("deployment", "model-1") >= of_both
    other = [sample for sample in read(metrics).samples if sample.labels.get("deployment") == "model-2"]

    router.remove("svc-1")

    seen = read(metrics)
    assert seen.with_label("deployment", "model-1") == seen.with_label("service", "svc-1") == set()
    assert [sample for sample in seen.samples if sample.labels.get("deployment") == "model-2"] == other
    assert seen.value("modelhost_calls_total", service="", deployment="") == 1


def test_one_of_the_same_name_begins_at_nothing(metrics: Metrics, router: Router) -> None:
    fill(metrics, router)
    router.remove("svc-1")
    router.add("svc-3", "model-1", "uid-3")

    metrics.calls.ended(router.find("model-1"), "OK", "", 0.1)

    assert read(metrics).by("service", "modelhost_calls_total", deployment="model-1") == {"svc-3": 1}


def test_a_worker_that_outlives_its_deployment_makes_no_series(metrics: Metrics, router: Router) -> None:
    router.remove("svc-1")

    metrics.worker_lost("model-1", "exit")
    metrics.batch_sent("model-1", 2)

    assert read(metrics).with_label("deployment", "model-1") == set()


def test_restarts_are_told_apart_by_cause(metrics: Metrics) -> None:
    for cause in ("memory", "recycled", "memory"):
        metrics.worker_lost("model-1", cause)

    found = read(metrics).by("cause", "modelhost_worker_restarts_total", service="svc-1", deployment="model-1")
    assert found == {"memory": 2, "recycled": 1}


def test_batches_are_counted_by_how_many_calls_are_in_them(metrics: Metrics) -> None:
    for size in (1, 1, 7, 32):
        metrics.batch_sent("model-1", size)

    seen, model = read(metrics), {"service": "svc-1", "deployment": "model-1"}
    assert seen.value("modelhost_batch_size_count", **model) == 4
    assert seen.value("modelhost_batch_size_sum", **model) == 41
    assert seen.value("modelhost_batch_size_bucket", **model, le="1.0") == 2
    assert seen.value("modelhost_batch_size_bucket", **model, le="8.0") == 3


def test_deployments_are_counted_in_every_state_also_where_there_is_none(metrics: Metrics, router: Router) -> None:
    router.find("svc-1").state = DeploymentState.RUNNING
    router.find("svc-2").state = DeploymentState.FAILED

    found = read(metrics).by("state", "modelhost_deployments")
    assert found == {"stopped": 0, "starting": 0, "running": 1, "failed": 1, "stopping": 0, "deleting": 0}


def test_steps_of_builds_are_told_apart_by_outcome(metrics: Metrics) -> None:
    metrics.step_ended("provision", "ok", 62.0)
    metrics.step_ended("provision", "failed", 3.0)

    seen = read(metrics)
    seconds = "modelhost_build_step_duration_seconds"
    assert seen.by("outcome", f"{seconds}_sum", step="provision") == {"ok": 62, "failed": 3}
    assert seen.value(f"{seconds}_bucket", step="provision", outcome="ok", le="60.0") == 0
    assert seen.value(f"{seconds}_bucket", step="provision", outcome="ok", le="120.0") == 1


def test_version_and_process_are_told(metrics: Metrics) -> None:
    seen = read(metrics)

    assert seen.value("modelhost_build_info", version="1.2.3") == 1
    assert seen.value("process_resident_memory_bytes") > 1_000_000
    assert seen.value("process_open_fds") > 0


def test_two_servers_in_a_process_count_for_themselves(metrics: Metrics) -> None:
    other_router = Router()
    other = Metrics(other_router, "1")

    metrics.calls.ended(None, "NOT_FOUND", "SERVICE_NOT_FOUND", 0)

    assert read(metrics).value("modelhost_calls_total") == 1
    assert read(other).value("modelhost_calls_total") == 0


async def test_what_holds_up_the_event_loop_is_seen() -> None:
    seen: asyncio.Queue[float] = asyncio.Queue()
    watching = asyncio.ensure_future(watch_lag(seen.put_nowait))
    await asyncio.sleep(0)

    time.sleep(INTERVAL_SECONDS + 0.2)  # noqa: ASYNC251 - which is what it is to find

    assert await seen.get() >= 0.2
    watching.cancel()


def test_the_guide_lists_every_name_with_its_labels(metrics: Metrics, router: Router) -> None:
    fill(metrics, router)
    rows = re.findall(r"^\| `(modelhost_\w+)` \| (.*?) \|", GUIDE.read_text(), re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}

    told = {
        f"{family.name}_total" if family.type == "counter" else family.name: {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        for family in read(metrics).families.values()
        if family.name.startswith("modelhost_")
    }

    of_pools = {"modelhost_workers", "modelhost_workers_wanted", "modelhost_queued_calls", "modelhost_running_calls"}
    assert listed.keys() == told.keys() | of_pools
    assert {name: labels for name, labels in listed.items() if name in told} == told


def test_a_call_that_outlives_its_service_makes_no_new_series(router: Router, metrics: Metrics) -> None:
    service = router.find("model-1")
    router.remove("svc-1")

    metrics.calls.ended(service, "OK", "", 0.1)

    seen = read(metrics)
    assert seen.value("modelhost_calls_total") == 1
    assert seen.value("modelhost_calls_total", service="", deployment="") == 1
