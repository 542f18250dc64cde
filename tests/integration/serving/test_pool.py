"""Calls of a pool: their order, their places in the queue, their deadlines. With real workers."""

import asyncio
from pathlib import Path

import pytest

from modelhost.server.errors import Busy
from modelhost.server.serving.pool import PoolStatus
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import LONG, Gate, Stage, ask, begin, failure, queue, until

# ---- one call at a time, the others in their order


async def test_a_call_is_answered_and_its_worker_is_free_again(stage: Stage) -> None:
    pool = await stage.pool("obliging")

    assert (await ask(pool, {"note": "one"}))["note"] == "one"

    assert pool.status == PoolStatus(live=1, queued=0, running=0, restarts=0)


async def test_calls_that_wait_are_run_in_the_order_in_which_they_came(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word) for word in ("a", "b", "c", "d")]
    assert pool.status == PoolStatus(live=1, queued=4, running=1, restarts=0)

    gate.open()
    answers = await asyncio.gather(first, *waiting)

    assert [answer["note"] for answer in answers] == ["first", "a", "b", "c", "d"]
    assert stage.noted() == ["first", "a", "b", "c", "d"]


async def test_each_of_two_workers_has_one_call_and_the_third_call_waits(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging", size=2)
    one, two = await begin(stage, pool, "one", gate), await begin(stage, pool, "two", gate)
    three = await queue(pool, "three")

    gate.open()
    answers = await asyncio.gather(one, two, three)

    pids = [answer["pid"] for answer in answers]
    assert pids[0] != pids[1]
    assert pids[2] in pids[:2]


async def test_a_full_queue_refuses_and_says_when_to_try_again(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging", queue_size=2)
    running = await begin(stage, pool, "running", gate)
    waiting = [await queue(pool, word) for word in ("a", "b")]

    refused = await failure(ask(pool, {"note": "refused"}))

    assert isinstance(refused, Busy)
    assert refused.reason == ErrorReason.ERROR_REASON_QUEUE_FULL
    assert refused.retry_after > 0
    gate.open()
    await asyncio.gather(running, *waiting)
    assert stage.noted() == ["running", "a", "b"]


async def test_two_pools_do_not_wait_for_each_other(stage: Stage, gate: Gate) -> None:
    busy, free = await stage.pool("obliging"), await stage.pool("obliging")
    running = await begin(stage, busy, "busy", gate)

    assert (await ask(free, {"note": "free"}))["note"] == "free"

    gate.open()
    await running


# ---- deadlines


async def test_a_call_whose_deadline_passes_in_the_queue_is_never_run(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    running = await begin(stage, pool, "running", gate)

    expired = await failure(ask(pool, {"note": "expired"}, within=0.05))

    assert expired.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    assert pool.status.queued == 0
    gate.open()
    await running
    await ask(pool, {"note": "last"})
    assert stage.noted() == ["running", "last"]


@pytest.mark.parametrize("late", [0.0, 5.0])
async def test_a_call_that_comes_after_its_deadline_is_not_run_even_by_an_idle_worker(
    stage: Stage, late: float
) -> None:
    pool = await stage.pool("obliging")

    expired = await failure(ask(pool, {"note": "expired"}, within=-late))

    assert expired.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    await ask(pool, {"note": "last"})
    assert stage.noted() == ["last"]


async def test_a_deadline_that_passes_while_the_model_runs_ends_the_wait_but_not_the_worker(
    stage: Stage, gate: Gate
) -> None:
    pool = await stage.pool("obliging")
    pid = (await ask(pool, {}))["pid"]

    expired = await failure(ask(pool, {"note": "slow", "until": str(gate.path)}, within=0.1))

    assert expired.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    assert pool.status.running == 1
    gate.open()
    assert await ask(pool, {"note": "next"}) == {"note": "next", "pid": pid}
    assert stage.noted() == ["slow", "next"]


async def test_an_idle_worker_outlives_the_time_that_its_last_call_had(stage: Stage) -> None:
    pool = await stage.pool("streams", call_timeout=0.3)
    pid = await ask(pool, "pid")

    await asyncio.sleep(0.6)

    assert pool.status == PoolStatus(live=1)
    assert await ask(pool, "pid") == pid


async def test_a_caller_who_has_longer_waits_longer_than_a_call_may_run(stage: Stage) -> None:
    pool = await stage.pool("obliging", call_timeout=1.0)

    busy = [asyncio.create_task(ask(pool, {"sleep": 0.45})) for _ in range(3)]
    await until(lambda: pool.status.queued == 2)
    answer = await ask(pool, {"note": "patient"}, within=LONG)

    assert answer["note"] == "patient"
    await asyncio.gather(*busy)


async def test_a_caller_without_a_deadline_does_not_wait_for_ever(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "loads").write_text("1")
    pool = await stage.pool("dies_while_loading", call_timeout=0.3, env={"LOADS": tmp_path / "loads"})
    await failure(ask(pool, "die"))

    waited = await failure(ask(pool, "wait for a worker that never comes"))

    assert waited.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    assert "call_timeout" in waited.message


# ---- callers who go away


async def test_a_caller_who_goes_away_gives_up_the_place_in_the_queue(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging", queue_size=1)
    running = await begin(stage, pool, "running", gate)
    gone = await queue(pool, "gone")

    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone

    assert pool.status.queued == 0
    stays = await queue(pool, "stays")
    gate.open()
    await asyncio.gather(running, stays)
    assert stage.noted() == ["running", "stays"]


async def test_the_answer_of_a_caller_who_went_away_is_dropped_and_nobody_else_gets_it(
    stage: Stage, gate: Gate
) -> None:
    pool = await stage.pool("obliging")
    pid = (await ask(pool, {}))["pid"]
    gone = await begin(stage, pool, "gone", gate)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    following = await queue(pool, "following")

    gate.open()

    assert await following == {"pid": pid, "note": "following"}
    assert pool.status == PoolStatus(live=1, queued=0, running=0, restarts=0)


async def test_a_worker_that_has_just_begun_the_call_of_one_who_goes_away_is_not_lost(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    running = await begin(stage, pool, "running", gate)
    unlucky = await queue(pool, "unlucky")

    gate.open()
    while pool.status.queued:  # noqa: ASYNC110 - the very turn counts
        await asyncio.sleep(0)
    assert not unlucky.done()  # it has been sent
    unlucky.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unlucky
    await running

    assert (await ask(pool, {"note": "next"}, within=LONG))["note"] == "next"
    assert stage.noted() == ["running", "unlucky", "next"]
