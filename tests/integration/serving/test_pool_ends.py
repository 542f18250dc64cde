"""How a pool ends: drained or closed, with calls that run and calls that wait. With real workers."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from modelhost.server.errors import Conflict
from modelhost.server.serving.batching import Batches
from modelhost.server.serving.calls import QueuedCall
from modelhost.server.serving.worker import CALL
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import LONG, Gate, Stage, ask, batching, begin, failure, queue, until


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


async def test_a_closed_pool_fails_calls_those_that_run_those_that_wait_and_those_that_come(
    stage: Stage, gate: Gate
) -> None:
    pool = await stage.pool("obliging")
    running = await begin(stage, pool, "running", gate)
    waiting = await queue(pool, "waiting")

    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    coming = await failure(ask(pool, {"note": "coming"}))
    waited = await failure(waiting)
    ran = await failure(running)
    await closing
    late = await failure(ask(pool, {"note": "late"}))

    for refused in (coming, waited, ran, late):
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


async def test_the_deadline_of_a_call_counts_though_its_worker_has_hung_up(stage: Stage) -> None:
    pool = await stage.pool("meddles_with_the_link")
    call = asyncio.create_task(pool.call(b'["close", 2]', asyncio.get_running_loop().time() + 0.3))

    error = await failure(call)

    assert error.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    assert pool.status.running == 1  # it is deaf, and ends later
    await until(lambda: pool.status.running == 0)
    await until(lambda: stage.ended != [])


async def test_a_drain_is_over_as_soon_as_the_last_caller_has_left(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where he leaves in the very turn in which his call, which was kept back for others, is to go."""
    pool = await batching(stage)
    keeps_back = True
    monkeypatch.setattr(Batches, "keep_back", lambda self, idle: keeps_back)
    waiting = await queue(pool, "waiting")
    drained = asyncio.create_task(pool.drain(LONG * 10))
    await asyncio.sleep(0)

    keeps_back = False
    waiting.cancel()
    pool._serve()
    async with asyncio.timeout(LONG):
        await drained

    await asyncio.wait([waiting])


async def test_a_call_that_is_put_back_has_its_time_whatever_the_first_of_them_has(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await batching(stage, call_timeout=0.5)
    worker = pool._idle.pop()  # nobody is free
    patient = QueuedCall(CALL, (b"1",), "", asyncio.get_running_loop().time() + LONG, 0.5)
    other = QueuedCall(CALL, (b"2",), "", None, 0.5)
    assert pool._batches is not None

    pool._batches.put_back([patient, other])
    monkeypatch.setattr(pool._crew, "finished", lambda _: False)
    pool._freed(worker, 0.1)

    await until(other.answer.done)
    assert (await failure(other.answer)).reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    assert patient.answer.cancel()  # for it was not done
