"""Workers of a pool: how they start, die and are replaced. Real ones."""

import asyncio
import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from modelhost.server.errors import PredictionFailed, StepFailed
from modelhost.server.serving.crew import BACKOFF_CAP_SECONDS, LOADING_DEATHS, backoff
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import LONG, Gate, Stage, ask, begin, failure, queue, until

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
    assert stage.broken[0]
    assert stage.broken[0].reason == ErrorReason.ERROR_REASON_WORKER_DIED_LOADING
    assert "exit code 3" in stage.broken[0].message
    assert "the last words of load 5" in stage.broken[0].message
    assert pool.failure is stage.broken[0]
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

    await until(lambda: len(stage.lines) > LOADING_DEATHS)

    assert await ask(pool, "anybody?") == "anybody?"
    assert stage.broken == []
    await failure(ask(pool, "die"))
    await until(lambda: stage.broken)


async def test_a_worker_that_loads_at_last_ends_a_series_of_deaths(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "loads").write_text("1")
    pool = await stage.pool("dies_while_loading", env={"LOADS": tmp_path / "loads"})
    await failure(ask(pool, "die"))

    await until(lambda: len(stage.lines) >= 2)
    (tmp_path / "loads").write_text("100")
    await until(lambda: pool.status.live == 1)

    assert stage.broken == []
    assert pool.failure is None


async def test_a_full_disk_is_waited_for_however_long_it_is(stage: Stage) -> None:
    attempts: list[Path] = []

    def copy(source: Path, target: Path) -> None:
        attempts.append(target)
        if 1 < len(attempts) <= 1 + LOADING_DEATHS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        shutil.copy(source, target)

    pool = await stage.pool("obliging", copy=copy)
    os.kill((await ask(pool, {}))["pid"], signal.SIGKILL)
    await until(lambda: pool.status.restarts == 1)

    assert await ask(pool, {}, within=LONG)

    assert stage.broken == []
    assert stage.ended.count("load_failed") == LOADING_DEATHS


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
