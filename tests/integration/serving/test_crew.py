"""Workers of a pool: more or fewer of them, and fresh ones for those that are worn, without a failed call."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from modelhost.server.control.memory import MemoryBudget
from modelhost.server.errors import StepFailed
from modelhost.server.serving.body import Body
from modelhost.server.serving.crew import BACKOFF_FIRST_SECONDS
from modelhost.server.serving.pool import Pool, PoolStatus
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import Gate, Stage, ask, begin, failure, queue, until

MIB = 2**20


@asynccontextmanager
async def callers(pool: Pool, count: int = 2) -> AsyncIterator[list[dict[str, Any]]]:
    """Calls without a pause meanwhile, none of which may fail; what they were answered."""
    answers: list[dict[str, Any]] = []
    done = asyncio.Event()

    async def call() -> None:
        while not done.is_set():
            answers.append(await ask(pool, {}))

    tasks = [asyncio.create_task(call()) for _ in range(count)]
    try:
        yield answers
    finally:
        done.set()
        await asyncio.gather(*tasks)


async def pids(pool: Pool, stage: Stage, gate: Gate) -> set[int]:
    """The workers that there are: each has a call at the same time."""
    tasks = [await begin(stage, pool, f"all-{number}-{gate.path.name}", gate) for number in range(pool.status.live)]
    gate.open()
    return {answer["pid"] for answer in await asyncio.gather(*tasks)}


# ---- more or fewer


async def test_more_workers_are_started_while_the_others_serve(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")
    first = (await ask(pool, {}))["pid"]

    async with callers(pool) as answers:
        pool.resize(3)
        assert (pool.size, pool.status.starting) == (3, 2)
        await until(lambda: pool.status.live == 3)

    assert pool.status == PoolStatus(live=3)
    assert answers
    workers = await pids(pool, stage, gate)
    assert len(workers) == 3
    assert first in workers


async def test_workers_that_are_too_many_finish_their_calls_and_the_idle_ones_go_first(
    stage: Stage, gate: Gate
) -> None:
    pool = await stage.pool("obliging", size=3)
    running = await begin(stage, pool, "running", gate)

    pool.resize(1)

    assert pool.status.live == 1
    assert pool.status.running == 1
    await until(lambda: len(stage.processes()) == 1)
    gate.open()
    assert (await running)["pid"] == (await ask(pool, {}))["pid"]
    assert stage.ended == []
    assert pool.status.restarts == 0


async def test_busy_workers_that_are_too_many_are_ended_after_their_calls(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging", size=3)
    running = [await begin(stage, pool, word, gate) for word in ("a", "b", "c")]
    waiting = await queue(pool, "waiting")

    pool.resize(1)
    assert pool.status.running == 3
    gate.open()
    answers = await asyncio.gather(*running, waiting)

    assert [answer["note"] for answer in answers] == ["a", "b", "c", "waiting"]
    await until(lambda: len(stage.processes()) == 1)
    assert pool.status == PoolStatus(live=1)


async def test_workers_that_are_still_loading_when_fewer_are_wanted_are_not_kept(stage: Stage) -> None:
    pool = await stage.pool("obliging")

    pool.resize(4)
    pool.resize(1)

    await until(lambda: pool.status == PoolStatus(live=1))
    await until(lambda: len(stage.processes()) == 1)


async def test_workers_that_serve_stay_when_fewer_are_wanted_than_are_loading(stage: Stage) -> None:
    pool = await stage.pool("obliging")
    pid = (await ask(pool, {}))["pid"]

    pool.resize(4)
    await until(lambda: len(stage.processes()) == 4)
    pool.resize(1)

    assert pool.status == PoolStatus(live=1)
    assert (await ask(pool, {}))["pid"] == pid


async def test_a_number_that_is_changed_back_and_forth_is_the_last_one_in_the_end(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging")

    async with callers(pool, 4) as answers:
        for size in (4, 1, 3, 2, 5, 1, 3):
            pool.resize(size)
            await asyncio.sleep(0.05)
        await until(lambda: (pool.status.live, pool.status.starting) == (3, 0))
        await until(lambda: len(stage.processes()) == 3)

    assert answers
    assert len(await pids(pool, stage, gate)) == 3


async def test_more_workers_than_memory_was_declared_for_are_refused_and_nothing_changes(stage: Stage) -> None:
    pool = await stage.pool("obliging", size=2, room=MemoryBudget(300 * MIB).share(100 * MIB))

    with pytest.raises(StepFailed, match="may use 400 MiB") as refused:
        pool.resize(4)

    assert refused.value.reason == ErrorReason.ERROR_REASON_MEMORY_NOT_AVAILABLE
    assert pool.size == 2
    pool.resize(3)
    await until(lambda: pool.status.live == 3)


async def test_the_memory_of_a_pool_is_free_when_it_is_closed(stage: Stage) -> None:
    budget = MemoryBudget(200 * MIB)
    pool = await stage.pool("obliging", size=2, room=budget.share(100 * MIB))
    refused = await failure(stage.pool("obliging", room=budget.share(100 * MIB)))
    assert refused.reason == ErrorReason.ERROR_REASON_MEMORY_NOT_AVAILABLE

    await pool.close()

    assert (await stage.pool("obliging", room=budget.share(100 * MIB))).status.live == 1


async def test_threads_are_shared_out_among_the_workers_that_are_wanted(stage: Stage) -> None:
    one = stage.new_pool("obliging", size=3, shared_env=lambda size: {"OMP_NUM_THREADS": str(12 // size)})
    await one.start()

    assert (await ask(one, {"env": "OMP_NUM_THREADS"}))["env"] == "4"


async def test_all_workers_of_a_pool_that_are_killed_are_replaced_at_once(stage: Stage, gate: Gate) -> None:
    """Their deaths are one of a series, not three: nobody waits for the longer pauses that a series has."""
    pool = await stage.pool("obliging", size=3)
    for pid in await pids(pool, stage, gate):
        os.kill(pid, signal.SIGKILL)

    await until(lambda: pool.status.restarts == 3)
    await until(lambda: pool.status.live == 3)

    assert stage.ended == ["signal"] * 3


# ---- fresh ones for worn ones


async def test_a_worker_is_exchanged_after_its_calls_and_no_call_fails(stage: Stage) -> None:
    pool = await stage.pool("obliging", recycle_calls=20)

    async with callers(pool) as answers:
        await until(lambda: len(stage.ended) >= 3)

    assert set(stage.ended) == {"recycled"}
    assert pool.status.restarts == 0
    await until(lambda: len(stage.processes()) == 1)
    workers = [answer["pid"] for answer in answers]
    assert len(set(workers)) >= 3
    assert all(workers.count(pid) >= 20 for pid in list(dict.fromkeys(workers))[:3])


async def test_workers_are_exchanged_one_at_a_time(stage: Stage) -> None:
    pool = await stage.pool("obliging", size=3, recycle_calls=10)
    most = 0

    async with callers(pool, 4):
        while len(stage.ended) < 4:
            status = pool.status
            assert status.live >= 2
            most = max(most, status.live + status.starting)
            await asyncio.sleep(0.001)

    assert most == 4
    assert set(stage.ended) == {"recycled"}


async def test_a_worker_is_exchanged_when_it_uses_much_memory(stage: Stage) -> None:
    pool = await stage.pool("grows", recycle_memory=100 * MIB, memory=1000 * MIB)
    first = await ask(pool, {"take": 200})

    await until(lambda: stage.ended == ["recycled"])

    assert await ask(pool, {"take": 0}) != first
    assert pool.status == PoolStatus(live=1)


async def test_a_worker_ends_before_its_successor_starts_where_there_is_no_memory_for_both(stage: Stage) -> None:
    pool = await stage.pool("obliging", recycle_calls=10, room=MemoryBudget(100 * MIB).share(100 * MIB))
    most = 0

    async with callers(pool) as answers:
        while len(stage.ended) < 3:
            most = max(most, pool.status.live + pool.status.starting)
            await asyncio.sleep(0.001)

    assert most == 1
    assert len({answer["pid"] for answer in answers}) >= 3
    assert pool.status.restarts == 0


async def test_workers_for_which_there_is_no_room_beside_the_others_are_exchanged_one_at_a_time(stage: Stage) -> None:
    pool = await stage.pool("obliging", size=3, recycle_calls=10, room=MemoryBudget(300 * MIB).share(100 * MIB))

    async with callers(pool, 4):
        while len(stage.ended) < 5:
            status = pool.status
            assert status.live >= 2
            assert status.live + status.starting <= 3
            await asyncio.sleep(0.001)

    assert set(stage.ended) == {"recycled"}


async def test_a_worn_worker_that_dies_while_no_other_can_be_loaded_is_replaced_at_last(
    stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "loads").write_text("1")
    pool = await stage.pool("dies_while_loading", recycle_calls=1, env={"LOADS": tmp_path / "loads"})
    await ask(pool, "worn")
    await until(lambda: "load_failed" in stage.ended)

    await failure(ask(pool, "die"))

    (tmp_path / "loads").write_text("100")
    assert await ask(pool, "replaced") == "replaced"
    await until(lambda: pool.status.live == 1)


async def test_a_worker_that_dies_in_its_last_call_is_cleared_away_too(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging", size=2)
    running = [await begin(stage, pool, word, gate) for word in ("a", "b")]
    pool.resize(1)
    leaving = pool.status
    assert (leaving.live, leaving.running) == (1, 2)

    for pid in stage.processes():
        os.kill(pid, signal.SIGKILL)
    for call in running:
        assert (await failure(call)).reason == ErrorReason.ERROR_REASON_WORKER_DIED

    await until(lambda: pool.status == PoolStatus(live=1, restarts=1))
    await until(lambda: len(stage.directories()) == 1)
    assert stage.ended == ["signal", "signal"]


async def test_workers_that_are_loading_have_their_memory_until_they_are_gone(stage: Stage) -> None:
    budget = MemoryBudget(300 * MIB)
    pool = await stage.pool("obliging", room=budget.share(100 * MIB))
    pool.resize(3)
    await until(lambda: len(stage.processes()) == 3)

    pool.resize(1)

    other = budget.share(100 * MIB)

    def holds(workers: int) -> bool:
        try:
            other.hold(workers)
        except StepFailed:
            return False
        return True

    assert not holds(1)
    await until(lambda: holds(2))
    assert len(stage.directories()) == 1


async def test_a_worn_worker_that_is_let_go_for_fewer_is_not_counted_as_recycled(stage: Stage) -> None:
    pool = await stage.pool("obliging", size=2, recycle_calls=1)
    await ask(pool, {})  # so one of them is worn, and its successor has begun to load

    pool.resize(1)
    await until(lambda: pool.status == PoolStatus(live=1))
    await until(lambda: len(stage.directories()) == 1)

    assert stage.ended.count("recycled") == 0


async def test_a_start_whose_clearing_away_fails_ends_all_the_same(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loads").write_text("0")
    kill = Body.kill
    failed: list[Body] = []

    async def fail_once(self: Body) -> None:
        await kill(self)
        if not failed:
            failed.append(self)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Body, "kill", fail_once)

    refused = await failure(stage.pool("dies_while_loading", env={"LOADS": tmp_path / "loads"}))

    assert isinstance(refused, StepFailed)
    stage.assert_nothing_is_left()


async def test_a_worker_that_dies_while_its_pool_closes_leaves_nothing(stage: Stage) -> None:
    pool = await stage.pool("never_returns", size=2)  # ignores SIGTERM
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)

    os.kill(stage.processes()[0], signal.SIGKILL)
    await closing

    stage.assert_nothing_is_left()


async def test_a_worker_whose_mark_is_below_what_the_model_needs_is_exchanged_ever_more_slowly(stage: Stage) -> None:
    pool = await stage.pool("grows", recycle_memory=16 * MIB, env={"KEEP_AT_FIRST": 100})

    await until(lambda: len(stage.ended) >= 3)

    assert set(stage.ended) == {"recycled"}
    crew = pool._crew
    assert crew._pause() >= BACKOFF_FIRST_SECONDS * 2 / 2
    assert await ask(pool, {"take": 0})


async def test_what_is_logged_of_a_worker_is_not_the_matter_of_the_caller_who_happened_to_be_there(
    stage: Stage,
) -> None:
    structlog.contextvars.bind_contextvars(deployment="its own")
    pool = await stage.pool("obliging", recycle_calls=1)
    structlog.contextvars.bind_contextvars(deployment="another", request_id="a caller's")
    await ask(pool, {})
    await until(lambda: stage.ended == ["recycled"])
    pid = (await ask(pool, {}))["pid"]

    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged:
        os.kill(pid, signal.SIGKILL)
        await until(lambda: "signal" in stage.ended)

    [line] = [line for line in logged if line["event"] == "worker ended"]
    assert line["deployment"] == "its own"
    assert "request_id" not in line


async def test_a_worker_whose_successor_cannot_be_loaded_goes_on(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "loads").write_text("1")
    pool = await stage.pool("dies_while_loading", recycle_calls=1, env={"LOADS": tmp_path / "loads"})
    await ask(pool, "worn")

    await until(lambda: len(stage.lines) >= 6)

    assert await ask(pool, "still here") == "still here"
    assert stage.broken == []
    (tmp_path / "loads").write_text("100")
    await until(lambda: "recycled" in stage.ended)


async def test_a_pool_that_closes_while_a_worker_is_exchanged_leaves_nothing(stage: Stage) -> None:
    pool = await stage.pool("obliging", recycle_calls=1)
    await ask(pool, {})
    await asyncio.sleep(0)

    await pool.close()

    stage.assert_nothing_is_left()


async def test_a_pool_that_closes_while_it_grows_leaves_nothing(stage: Stage) -> None:
    pool = await stage.pool("obliging")
    pool.resize(4)
    await until(lambda: len(stage.processes()) > 1)

    await pool.close()

    stage.assert_nothing_is_left()
