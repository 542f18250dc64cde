"""Models that do all they should not, in real workers: the call that did it fails, and nothing else does."""

import asyncio
import os
import sys
from typing import Any

import pytest

from modelhost.server.errors import DomainError, StepFailed
from modelhost.server.serving.pool import PoolStatus
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import MODELS, Stage, ask, is_running, until

DIED = ErrorReason.ERROR_REASON_WORKER_DIED


async def failure(call: Any) -> DomainError:
    """How the call fails."""
    with pytest.raises(DomainError) as caught:
        await call
    return caught.value


# ---- models that die


async def test_the_call_that_kills_its_worker_fails_alone(stage: Stage) -> None:
    pool = await stage.pool("dies_on_the_third_call")
    assert [await ask(pool, 0), await ask(pool, 0)] == [1, 2]

    died = await failure(ask(pool, 0))

    assert died.reason == DIED
    assert died.message == "the worker died (signal SIGKILL) while it ran this call"
    assert await ask(pool, 0) == 1
    assert pool.status == PoolStatus(live=1, queued=0, running=0, restarts=1)


@pytest.mark.parametrize(("model", "how"), [("exits_quietly", "exit code 0"), ("segfaults", "signal SIGSEGV")])
async def test_the_end_of_a_worker_is_told_as_it_was(stage: Stage, model: str, how: str) -> None:
    pool = await stage.pool(model)

    died = await failure(ask(pool, None))

    assert died.reason == DIED
    assert how in died.message


async def test_a_worker_that_ends_while_it_is_idle_fails_nobody(stage: Stage) -> None:
    pool = await stage.pool("exits_quietly")
    pid = await ask(pool, "later")

    await until(lambda: pool.status.restarts == 1 and pool.status.live == 1)

    assert await ask(pool, "later") != pid
    assert not is_running(pid)


# ---- models that do not end


@pytest.mark.parametrize("how", ["loop", "stubborn"])
async def test_a_call_that_never_returns_costs_its_worker_and_is_told_so(stage: Stage, how: str) -> None:
    pool = await stage.pool("never_returns", call_timeout=0.3)
    pid = await ask(pool, "pid")

    overran = await failure(ask(pool, how))

    assert overran.reason == ErrorReason.ERROR_REASON_MODEL_TIMED_OUT
    assert "call_timeout of 0.3 s" in overran.message
    assert await ask(pool, "pid", within=60) != pid
    assert not is_running(pid)


async def test_a_worker_that_was_told_to_end_and_finishes_late_gets_no_further_call(stage: Stage) -> None:
    pool = await stage.pool("late", call_timeout=0.3)
    pid = await ask(pool, "pid")
    late = asyncio.create_task(ask(pool, "late"))
    await until(lambda: pool.status.running == 1)
    waiting = asyncio.create_task(ask(pool, "pid", within=60))

    assert (await failure(late)).reason == ErrorReason.ERROR_REASON_MODEL_TIMED_OUT
    assert await waiting != pid


# ---- models that leave something behind


@pytest.mark.parametrize("kind", ["group", "session", "program", "bare", "stranger", "twice"])
async def test_children_of_a_model_go_with_its_worker(stage: Stage, kind: str) -> None:
    pool = await stage.pool("leaves_children")
    child = await ask(pool, kind)
    assert is_running(child)

    died = await failure(ask(pool, "die"))

    assert died.message == "the worker died (exit code 1) while it ran this call"
    await until(lambda: not is_running(child))
    await until(lambda: pool.status.live == 1)


@pytest.mark.parametrize("kind", ["group", "session"])
async def test_children_of_a_model_go_when_its_pool_is_closed(stage: Stage, kind: str) -> None:
    pool = await stage.pool("leaves_children")
    child = await ask(pool, kind)

    await pool.close()

    stage.assert_nothing_is_left()
    await until(lambda: not is_running(child))


async def test_each_worker_has_a_home_of_its_own_that_goes_with_it(stage: Stage) -> None:
    pool = await stage.pool("dies_on_the_third_call", size=2)
    before = set(stage.directories())
    assert len(before) == 2

    for _ in range(5):
        await asyncio.gather(ask(pool, 0), ask(pool, 0), return_exceptions=True)
    await until(lambda: len(before & set(stage.directories())) < 2 and pool.status.live == 2)
    await until(lambda: len(stage.directories()) == 2)


# ---- models that print, and models that close and write what is not theirs


@pytest.mark.parametrize("lines", [True, False])
async def test_a_flood_of_output_is_drained_to_its_last_byte_while_a_neighbour_answers(
    stage: Stage, lines: bool
) -> None:
    pool, neighbour = await stage.pool("floods"), await stage.pool("obliging")

    flood = asyncio.create_task(ask(pool, {"megabytes": 4, "lines": lines}))
    answers = 0
    while not flood.done():
        await ask(neighbour, {}, within=20)
        answers += 1

    printed = await flood
    assert answers > 0
    end = 1 if lines else 0
    await until(lambda: sum(len(line) + end for stream, line in stage.lines if stream == "stdout") == printed)


async def test_a_model_that_closes_stdout_is_called_again(stage: Stage) -> None:
    pool = await stage.pool("closes_stdout")

    assert await ask(pool, "close") == 1
    assert await ask(pool, "again") == "again"

    assert pool.status.restarts == 0


async def test_a_model_that_writes_to_and_closes_every_low_descriptor_does_not_reach_the_link(stage: Stage) -> None:
    pool = await stage.pool("writes_everywhere")

    assert await ask(pool, "once") == "once"
    assert await ask(pool, "twice") == "twice"

    assert pool.status.restarts == 0


# ---- models that return too much


async def test_a_result_over_the_limit_is_refused_and_its_worker_goes_on(stage: Stage) -> None:
    pool = await stage.pool("returns_much", message_limit=2 << 20)

    refused = await failure(ask(pool, 200))

    assert refused.reason == ErrorReason.ERROR_REASON_RESULT_TOO_LARGE
    assert str((200 << 20) + 2) in refused.message
    assert await ask(pool, 0) == ""
    assert len(await ask(pool, 1)) == 1 << 20
    assert pool.status.restarts == 0


# ---- models that meddle with the link


@pytest.mark.parametrize("kind", ["close", "noise", "huge", "nonsense", "list", "half"])
async def test_a_model_that_breaks_the_link_loses_its_worker_and_the_next_call_gets_another(
    stage: Stage, kind: str
) -> None:
    pool = await stage.pool("meddles_with_the_link")

    broke = await failure(ask(pool, [kind, 2]))

    assert broke.reason == DIED
    assert isinstance(await ask(pool, ["pid", 3]), int)
    assert pool.status.restarts == 1


async def test_an_answer_to_a_call_that_was_not_made_yet_is_nobodys(stage: Stage) -> None:
    pool = await stage.pool("meddles_with_the_link")

    assert await ask(pool, ["early", 2]) == "in time"

    assert isinstance(await ask(pool, ["pid", 3]), int)


async def test_an_idle_worker_that_hangs_up_and_lives_on_gets_no_call(stage: Stage) -> None:
    pool = await stage.pool("meddles_with_the_link")
    pid = await ask(pool, ["hush", 2])

    await until(lambda: pool.status.live == 0)
    assert is_running(pid), "ended too early to show anything"
    answer = await ask(pool, ["pid", 3], within=60)

    assert answer != pid
    assert not is_running(pid)


# ---- programs that are no workers


async def refusal(stage: Stage, *argv: str, **options: Any) -> DomainError:
    """How a pool with that program for a worker fails to start; nothing of it is left."""
    failed = await failure(stage.pool("obliging", argv=argv, **options))
    stage.assert_nothing_is_left()
    return failed


IMPOSTOR = str(MODELS / "impostor.py")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("token", "has a wrong token"),
        ("odd-token", "has a wrong token"),
        ("protocol", "speaks protocol 2"),
        ("half", "exit code 5"),
        ("hangs-up", "it wrote nothing to stderr"),
        ("result", "it wrote nothing to stderr"),
        ("warnings", "could not be started"),
    ],
)
async def test_a_worker_that_greets_wrongly_is_ended(stage: Stage, kind: str, words: str) -> None:
    failed = await refusal(stage, sys.executable, IMPOSTOR, kind)

    assert isinstance(failed, StepFailed)
    assert failed.reason == ErrorReason.ERROR_REASON_WORKER_DIED_LOADING
    assert words in failed.message


async def test_a_worker_that_says_nothing_is_ended_when_its_time_is_up(stage: Stage) -> None:
    failed = await refusal(stage, sys.executable, IMPOSTOR, "nothing", load_timeout=0.3)

    assert failed.reason == ErrorReason.ERROR_REASON_LOAD_TIMED_OUT


@pytest.mark.parametrize("program", ["/nowhere/python", os.devnull])
async def test_a_program_that_cannot_be_run_is_named(stage: Stage, program: str) -> None:
    failed = await refusal(stage, program)

    assert failed.reason == ErrorReason.ERROR_REASON_WORKER_DIED_LOADING
    assert "modelhost launcher: execute" in failed.message


async def test_a_model_whose_files_cannot_be_copied_is_not_started(stage: Stage) -> None:
    failed = await failure(stage.pool("no_such_model"))

    assert failed.reason == ErrorReason.ERROR_REASON_WORKER_DIED_LOADING
    assert "No such file" in failed.message
    stage.assert_nothing_is_left()
