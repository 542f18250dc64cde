"""Models that take more memory than they may, and those that only look like it."""

import errno
import os

import pytest
import structlog

from modelhost.server.errors import DomainError, StepFailed
from modelhost.server.serving.memory import HostProcess, MemoryWatch, Watched, host_processes, memory_of
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import Stage, ask, until

LIMIT = 200 << 20


@pytest.mark.parametrize("where", ["itself", "child", "stranger"])
async def test_a_call_that_takes_too_much_fails_with_the_numbers(stage: Stage, where: str) -> None:
    pool = await stage.pool("grows", memory=LIMIT)

    with pytest.raises(DomainError) as caught:
        await ask(pool, {"take": 400, "in": where, "stay": True})

    assert caught.value.reason == ErrorReason.ERROR_REASON_WORKER_DIED
    assert caught.value.message.startswith("the worker died (it used ")
    assert caught.value.message.endswith(" MiB of memory, and its limit is 200 MiB) while it ran this call")
    await until(lambda: any("its limit is 200 MiB) in a call" in line for _, line in stage.lines))
    assert await ask(pool, {"take": 1})


async def test_a_worker_that_grows_while_it_is_idle_is_replaced(stage: Stage) -> None:
    pool = await stage.pool("grows", memory=LIMIT)
    pid = await ask(pool, {"take": 400, "in": "child"})

    await until(lambda: pool.status.restarts == 1 and pool.status.live == 1)

    assert await ask(pool, {"take": 1}) != pid


async def test_memory_that_a_model_shares_with_its_children_counts_once(stage: Stage) -> None:
    pool = await stage.pool("grows", memory=LIMIT)
    pid = await ask(pool, {"take": 120})

    for _ in range(3):
        await ask(pool, {"take": 0, "in": "child"})

    assert memory_of(Watched(pid, None, {1000 << 20: print}), host_processes()) > 4 * 120 << 20
    assert 120 << 20 < memory_of(Watched(pid, None, {LIMIT: print}), host_processes()) < LIMIT


async def test_a_model_that_takes_too_much_while_it_is_loaded_is_refused_with_the_numbers(stage: Stage) -> None:
    pool = stage.new_pool("grows", memory=LIMIT, env={"TAKE_AT_FIRST": 400})

    with pytest.raises(StepFailed) as caught:
        await pool.start()

    assert caught.value.reason == ErrorReason.ERROR_REASON_WORKER_DIED_LOADING
    assert "and its limit is 200 MiB) while loading the model" in caught.value.message


async def test_a_worker_without_a_limit_takes_what_it_wants(stage: Stage) -> None:
    pool = await stage.pool("grows")

    assert await ask(pool, {"take": 400}) == await ask(pool, {"take": 1})


async def test_memory_is_watched_again_once_files_can_be_opened_again() -> None:
    seen: list[int] = []
    rounds: list[int] = []
    refusing = False

    def processes() -> dict[int, HostProcess]:
        if not refusing:
            return host_processes()
        rounds.append(len(seen))
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    watch = MemoryWatch(processes)
    watch.watch(os.getpid(), None, {1: seen.append})
    await until(lambda: seen)
    with structlog.testing.capture_logs() as all_said:
        refusing = True
        await until(lambda: len(rounds) >= 3)
        refusing = False
        await until(lambda: len(seen) > rounds[-1])

    said = [entry for entry in all_said if "memory" in entry["event"]]  # a server of other tests may say more
    assert [entry["event"] for entry in said] == ["what models use of memory cannot be read, limits do not hold"]
    assert "Too many open files" in said[0]["error"]
    watch.forget(os.getpid())
    watch.close()
