"""Calls of a pool: their order, their places in the queue, their deadlines, and how a pool ends. With real workers."""

import asyncio
import os
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from modelhost.server.errors import Busy, Conflict, DomainError, PredictionFailed, StepFailed
from modelhost.server.serving.pool import BACKOFF_CAP_SECONDS, Pool, PoolStatus, backoff
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import Gate, Stage, ask, until

LONG = 60.0  # more than anything here needs; only a hang reaches it


async def begin(stage: Stage, pool: Pool, word: str, gate: Gate) -> "asyncio.Task[Any]":
    """A call that runs in a worker, and does so until the gate opens."""
    task = asyncio.create_task(ask(pool, {"note": word, "until": str(gate.path)}))
    await until(lambda: word in stage.noted())
    return task


async def queue(pool: Pool, word: str, **options: Any) -> "asyncio.Task[Any]":
    """A call that waits in the queue."""
    before = pool.status.queued
    task = asyncio.create_task(ask(pool, {"note": word}, **options))
    await until(lambda: pool.status.queued == before + 1)
    return task


async def failure(call: Awaitable[Any]) -> DomainError:
    """How the call fails."""
    with pytest.raises(DomainError) as caught:
        await call
    return caught.value


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


async def test_a_worker_handed_to_a_caller_who_has_just_gone_away_is_not_lost(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    running = await begin(stage, pool, "running", gate)
    unlucky = await queue(pool, "unlucky")

    gate.open()
    while pool.status.queued:  # noqa: ASYNC110 - the very turn counts
        await asyncio.sleep(0)
    assert not unlucky.done()  # it has been given a worker, and has not noticed
    unlucky.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unlucky
    await running

    assert (await ask(pool, {"note": "next"}, within=LONG))["note"] == "next"
    assert stage.noted() == ["running", "next"]


# ---- workers that die and are replaced


async def test_a_dead_worker_is_replaced_and_whoever_watches_is_told_of_both(stage: Stage) -> None:
    pool = await stage.pool("obliging")
    pid = (await ask(pool, {}))["pid"]
    changes = stage.changes

    os.kill(pid, signal.SIGKILL)
    await until(lambda: pool.status.live == 0)
    assert stage.changes == changes + 1
    await until(lambda: pool.status.live == 1)

    assert stage.changes == changes + 2
    assert pool.status.restarts == 1
    assert (await ask(pool, {}))["pid"] != pid


async def test_calls_that_wait_when_a_worker_dies_are_answered_by_its_successor(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    pid = (await ask(pool, {}))["pid"]
    running = await begin(stage, pool, "running", gate)
    waiting = [await queue(pool, word) for word in ("a", "b")]

    os.kill(pid, signal.SIGKILL)

    died = await failure(running)
    assert isinstance(died, PredictionFailed)
    assert died.reason == ErrorReason.ERROR_REASON_WORKER_DIED
    assert "signal SIGKILL" in died.message
    assert [answer["note"] for answer in await asyncio.gather(*waiting)] == ["a", "b"]
    assert pool.status.restarts == 1


async def test_a_frozen_worker_is_ended_by_the_call_timeout(stage: Stage) -> None:
    pool = await stage.pool("obliging", call_timeout=0.3)
    pid = (await ask(pool, {}))["pid"]
    os.kill(pid, signal.SIGSTOP)

    frozen = await failure(ask(pool, {"note": "frozen"}))

    assert frozen.reason == ErrorReason.ERROR_REASON_MODEL_TIMED_OUT
    assert (await ask(pool, {}, within=LONG))["pid"] != pid


async def test_a_revision_whose_workers_die_five_times_in_a_row_while_loading_is_given_up(
    stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "loads").write_text("1")
    pool = await stage.pool("dies_while_loading", env={"LOADS": tmp_path / "loads"})
    await failure(ask(pool, "die"))

    await until(lambda: stage.broken)

    assert len(stage.broken) == 1
    assert stage.broken[0].reason == ErrorReason.ERROR_REASON_WORKER_DIED_LOADING
    assert "exit code 3" in stage.broken[0].message
    assert "the last words of load 5" in stage.broken[0].message
    assert pool.broken is stage.broken[0]
    assert pool.status.live == 0


async def test_who_waits_for_a_model_that_is_given_up_is_told_why_and_so_is_who_comes_later(
    stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "loads").write_text("1")
    pool = await stage.pool("dies_while_loading", env={"LOADS": tmp_path / "loads"})
    await failure(ask(pool, "die"))

    waited = await failure(ask(pool, "anybody?"))
    later = await failure(ask(pool, "anybody?"))

    for refused in (waited, later):
        assert refused.reason == ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING
        assert "the last words of load 5" in refused.message


async def test_a_worker_that_lives_answers_though_another_cannot_be_replaced(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "loads").write_text("2")
    pool = await stage.pool("dies_while_loading", size=2, env={"LOADS": tmp_path / "loads"})
    await failure(ask(pool, "die"))

    await until(lambda: pool.broken)

    assert await ask(pool, "anybody?") == "anybody?"


async def test_a_worker_that_loads_at_last_ends_a_series_of_deaths(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "loads").write_text("1")
    pool = await stage.pool("dies_while_loading", env={"LOADS": tmp_path / "loads"})
    await failure(ask(pool, "die"))

    await until(lambda: len(stage.lines) >= 2)
    (tmp_path / "loads").write_text("100")
    await until(lambda: pool.status.live == 1)

    assert stage.broken == []
    assert pool.broken is None


def test_the_pause_before_a_restart_grows_to_a_cap_however_often_workers_have_died() -> None:
    pauses = [backoff(failures) for failures in range(20)]

    assert pauses[0] == 0
    assert pauses[1] > 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == backoff(100_000) == BACKOFF_CAP_SECONDS


# ---- starts


async def test_a_start_fails_with_the_last_words_of_the_worker(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "loads").write_text("0")

    failed = await failure(stage.pool("dies_while_loading", env={"LOADS": tmp_path / "loads"}))

    assert isinstance(failed, StepFailed)
    assert failed.reason == ErrorReason.ERROR_REASON_WORKER_DIED_LOADING
    assert failed.message == "the worker ended (exit code 3) while loading the model: the last words of load 0"
    stage.assert_nothing_is_left()


async def test_a_start_of_several_workers_fails_as_a_whole_if_one_fails(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "loads").write_text("1")

    failed = await failure(stage.pool("dies_while_loading", size=3, env={"LOADS": tmp_path / "loads"}))

    assert failed.reason == ErrorReason.ERROR_REASON_WORKER_DIED_LOADING
    stage.assert_nothing_is_left()


async def test_a_model_that_takes_too_long_to_load_is_given_up(stage: Stage, gate: Gate) -> None:
    failed = await failure(stage.pool("loads_when_let", load_timeout=0.3, env={"GATE": gate.path}))

    assert failed.reason == ErrorReason.ERROR_REASON_LOAD_TIMED_OUT
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 5, 10, 20, 40, 80])
async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing(
    stage: Stage, gate: Gate, milliseconds: int
) -> None:
    starting = asyncio.create_task(stage.pool("loads_when_let", size=2, env={"GATE": gate.path}))
    await asyncio.sleep(milliseconds / 1000)

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    stage.assert_nothing_is_left()


async def test_a_start_that_is_cancelled_twice_still_leaves_nothing(stage: Stage, gate: Gate) -> None:
    starting = asyncio.create_task(stage.pool("loads_when_let", env={"GATE": gate.path}))
    await until(stage.processes)

    starting.cancel()
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    stage.assert_nothing_is_left()


# ---- ends


async def test_a_drain_lets_calls_finish_those_that_run_and_those_that_wait(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    running = await begin(stage, pool, "running", gate)
    waiting = [await queue(pool, word) for word in ("a", "b")]

    draining = asyncio.create_task(pool.drain(LONG))
    await asyncio.sleep(0)
    gate.open()
    answers = await asyncio.gather(running, *waiting)
    await draining

    assert [answer["note"] for answer in answers] == ["running", "a", "b"]
    stage.assert_nothing_is_left()


async def test_a_drain_ends_when_the_last_who_waited_has_given_up(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "loads").write_text("1")
    pool = await stage.pool("dies_while_loading", env={"LOADS": tmp_path / "loads"})
    await failure(ask(pool, "die"))
    waiting = await queue(pool, "wait for a worker that never comes", within=0.2)

    async with asyncio.timeout(LONG / 2):
        await pool.drain(LONG)

    assert (await failure(waiting)).reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED


async def test_a_drain_whose_grace_is_over_ends_what_still_runs(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    running = await begin(stage, pool, "running", gate)
    waiting = await queue(pool, "waiting")

    await pool.drain(0.05)

    stage.assert_nothing_is_left()
    assert (await failure(running)).reason == ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING
    assert (await failure(waiting)).reason == ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING
    assert stage.noted() == ["running"]


async def test_a_closed_pool_refuses_calls_those_that_wait_and_those_that_come(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    running = await begin(stage, pool, "running", gate)
    waiting = await queue(pool, "waiting")

    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    coming = await failure(ask(pool, {"note": "coming"}))
    waited = await failure(waiting)
    gate.open()
    await asyncio.gather(running, closing)
    late = await failure(ask(pool, {"note": "late"}))

    for refused in (coming, waited, late):
        assert isinstance(refused, Conflict)
        assert refused.reason == ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING
    assert stage.noted() == ["running"]


async def test_an_idle_worker_of_a_pool_that_is_being_closed_gets_no_call(stage: Stage) -> None:
    pool = await stage.pool("obliging")

    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    refused = await failure(ask(pool, {"note": "refused"}))
    await closing

    assert refused.reason == ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING
    assert stage.noted() == []


async def test_a_worker_that_is_being_replaced_when_its_pool_closes_is_not_left(stage: Stage, gate: Gate) -> None:
    gate.open()
    pool = await stage.pool("loads_when_let", env={"GATE": gate.path})
    pid = await ask(pool, {})
    gate.path.unlink()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pool.status.live == 0 and set(stage.processes()) - {pid})

    await pool.close()

    stage.assert_nothing_is_left()


@pytest.mark.parametrize("turns", range(0, 40, 4))
async def test_a_pool_that_closes_just_after_a_death_leaves_nothing(stage: Stage, turns: int) -> None:
    pool = await stage.pool("obliging")
    os.kill((await ask(pool, {}))["pid"], signal.SIGKILL)
    await until(lambda: pool.status.live == 0)
    for _ in range(turns):
        await asyncio.sleep(0)

    await pool.close()

    stage.assert_nothing_is_left()


async def test_a_close_goes_to_its_end_even_if_whoever_asked_for_it_goes_away(stage: Stage) -> None:
    pool = await stage.pool("obliging", size=2)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)

    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing

    stage.assert_nothing_is_left()


async def test_a_drain_that_is_cancelled_closes_the_pool(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    running = await begin(stage, pool, "running", gate)
    draining = asyncio.create_task(pool.drain(LONG))
    await asyncio.sleep(0)

    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining

    stage.assert_nothing_is_left()
    await failure(running)
