"""Calls that go to a model's batch function together: which do, and what becomes of each. With real workers."""

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from modelhost.server.errors import Busy, NotTaken
from modelhost.server.serving.pool import Pool, PoolStatus
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import (
    BATCH,
    LONG,
    Gate,
    Stage,
    ask,
    batching,
    begin,
    failure,
    queue,
    until,
)

# ---- which calls go together


async def test_calls_that_wait_go_together_as_soon_as_a_worker_is_free(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word) for word in ("a", "b", "c")]
    assert pool.status == PoolStatus(live=1, queued=3, running=1, restarts=0)

    gate.open()
    answers = await asyncio.gather(first, *waiting)

    assert [answer["note"] for answer in answers] == ["first", "a", "b", "c"]
    assert stage.noted() == ["first", "a+b+c"]
    assert stage.batches == [1, 3]
    assert pool.status == PoolStatus(live=1, queued=0, running=0, restarts=0)


async def test_a_call_that_finds_an_idle_worker_goes_at_once_and_to_the_plain_function(stage: Stage) -> None:
    pool = await batching(stage, batch_delay=1.0)

    one, other, *more = await asyncio.gather(*(ask(pool, {"note": word}) for word in "abc"))

    assert [one["note"], other["note"], more[0]["note"]] == ["a", "b", "c"]
    assert stage.noted() == ["a", "b+c"]


async def test_one_call_after_the_other_is_never_kept_back(stage: Stage) -> None:
    pool = await batching(stage, batch_delay=1.0)

    for _ in range(20):
        await ask(pool, {"note": "x"})

    assert stage.batches == [1] * 20


async def test_a_batch_has_no_more_calls_than_it_may(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, batch_size=2)
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word) for word in "abcde"]

    gate.open()
    await asyncio.gather(first, *waiting)

    assert stage.noted() == ["first", "a+b", "c+d", "e"]


async def test_a_batch_has_no_more_bytes_than_a_message_may_have(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, message_limit=1000)
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word, {"padding": "x" * 400}) for word in "abcde"]

    gate.open()
    await asyncio.gather(first, *waiting)

    assert stage.noted() == ["first", "a+b", "c+d", "e"]


async def test_an_idle_worker_is_not_passed_over_for_the_sake_of_a_larger_batch(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, size=2)
    running = await begin(stage, pool, "running", gate)

    assert (await ask(pool, {"note": "other"}))["note"] == "other"

    gate.open()
    await running


async def test_two_workers_have_a_batch_each(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, size=2, batch_size=2)
    running = [await begin(stage, pool, word, gate) for word in ("one", "two")]
    waiting = [await queue(pool, word) for word in "abcd"]

    gate.open()
    await asyncio.gather(*running, *waiting)

    assert sorted(stage.noted()) == ["a+b", "c+d", "one", "two"]


async def test_a_model_without_a_batch_function_has_no_batches(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("obliging", batch_size=BATCH)
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word) for word in "ab"]

    gate.open()
    await asyncio.gather(first, *waiting)

    assert stage.noted() == ["first", "a", "b"]
    assert stage.batches == []


async def test_without_the_setting_there_are_no_batches(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("batches")
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word) for word in "ab"]

    gate.open()
    await asyncio.gather(first, *waiting)

    assert stage.noted() == ["first", "a", "b"]


async def test_debug_has_a_worker_for_itself_in_its_turn(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    before = await queue(pool, "a")
    debug = asyncio.create_task(pool.debug(json.dumps({"note": "debug", "print": "hello"}).encode(), None, "id"))
    await until(lambda: pool.status.queued == 2)
    after = [await queue(pool, word) for word in "bc"]

    gate.open()
    await asyncio.gather(first, before, *after)

    assert (await debug).stdout == "hello\n"
    assert stage.noted() == ["first", "a", "debug", "b+c"]


# ---- keeping calls back for others


async def answered_together(stage: Stage, pool: Pool) -> None:
    """Two callers that come back as soon as they are answered have just been answered together; it took 0.3 s each."""

    async def call() -> None:
        while 2 not in stage.batches:
            await ask(pool, {"sleep": 0.3})

    async with asyncio.timeout(LONG / 2):
        await asyncio.gather(call(), call())


async def test_callers_who_come_back_at_once_are_together_soon(stage: Stage) -> None:
    """Without that one would run whenever the other one waits."""
    pool = await batching(stage, batch_delay=1.0)

    await answered_together(stage, pool)
    await asyncio.gather(*(ask(pool, {"note": word}) for word in "ab"))

    assert stage.noted()[-1] == "a+b"


async def test_a_call_that_is_kept_back_goes_by_itself_if_nobody_comes(stage: Stage) -> None:
    pool = await batching(stage, batch_delay=1.0)
    await answered_together(stage, pool)

    alone = asyncio.create_task(ask(pool, {"note": "alone"}))
    await asyncio.sleep(0)
    assert pool.status == PoolStatus(live=1, queued=1, running=0, restarts=0)

    assert (await alone)["note"] == "alone"


async def test_with_no_delay_nobody_is_kept_back(stage: Stage) -> None:
    pool = await batching(stage)

    for _ in range(3):
        await asyncio.gather(*(ask(pool, {"sleep": 0.1}) for _ in "ab"))

    assert stage.batches == [1] * 6


async def test_a_call_is_not_kept_back_to_its_deadline(stage: Stage) -> None:
    pool = await batching(stage, batch_delay=1.0)
    await answered_together(stage, pool)

    hurried = asyncio.create_task(ask(pool, {"note": "hurried"}, within=0.05))
    await asyncio.sleep(0)

    assert pool.status.running == 1
    await asyncio.wait([hurried])


async def test_a_caller_who_is_kept_back_may_go_away(stage: Stage) -> None:
    pool = await batching(stage, batch_delay=1.0)
    await answered_together(stage, pool)
    gone = asyncio.create_task(ask(pool, {"note": "gone"}))
    await asyncio.sleep(0)

    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone

    assert (await ask(pool, {"note": "next"}))["note"] == "next"
    assert "gone" not in "".join(stage.noted())


async def test_debug_does_not_overtake_calls_that_are_kept_back(stage: Stage) -> None:
    pool = await batching(stage, batch_delay=1.0)
    await answered_together(stage, pool)

    alone = asyncio.create_task(ask(pool, {"note": "alone"}))
    await asyncio.sleep(0)
    await pool.debug(b'{"note": "debug"}', None, "id")

    await alone
    assert stage.noted()[-2:] == ["alone", "debug"]


async def test_a_worker_that_is_lost_while_a_call_is_kept_back_has_not_had_it(stage: Stage) -> None:
    pool = await batching(stage, batch_delay=1.0)
    await answered_together(stage, pool)
    kept = asyncio.create_task(ask(pool, {"note": "kept"}))
    await asyncio.sleep(0)

    for pid in stage.processes():
        os.kill(pid, signal.SIGKILL)

    assert (await kept)["note"] == "kept"


async def test_a_pool_that_is_closed_keeps_nobody_back(stage: Stage) -> None:
    pool = await batching(stage, batch_delay=1.0)
    await answered_together(stage, pool)
    waiting = asyncio.create_task(ask(pool, {"note": "late"}))
    await asyncio.sleep(0)

    await pool.close()

    assert isinstance(await failure(waiting), NotTaken)
    assert "late" not in "".join(stage.noted())


# ---- deadlines, and callers who go away


async def test_a_call_whose_deadline_passes_in_the_queue_is_not_in_the_batch(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    a, expired, b = await queue(pool, "a"), await queue(pool, "x", within=0.05), await queue(pool, "b", within=LONG)

    assert (await failure(expired)).reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    assert pool.status.queued == 2

    gate.open()
    await asyncio.gather(first, a, b)
    assert stage.noted() == ["first", "a+b"]


async def test_a_deadline_that_passes_in_the_batch_is_one_calls_own(stage: Stage, gate: Gate, tmp_path: Any) -> None:
    pool, second = await batching(stage), Gate(tmp_path / "second")
    first = await begin(stage, pool, "first", gate)
    a = await queue(pool, "a", {"until": str(second.path)})
    hurried = await queue(pool, "x", within=2.0)
    gate.open()
    await until(lambda: "a+x" in stage.noted())

    expired = await failure(hurried)

    assert expired.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    assert "while the model ran" in expired.message
    second.open()
    assert (await a)["note"] == "a"
    await first


async def test_a_caller_without_a_deadline_does_not_wait_for_ever(stage: Stage) -> None:
    pool = await batching(stage, call_timeout=0.3)
    pool.resize(0)  # a worker that never comes

    waited = await failure(ask(pool, {"note": "never"}))

    assert waited.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    assert "call_timeout" in waited.message


async def test_a_caller_who_goes_away_before_the_batch_is_sent_is_not_in_it(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    a, gone, b = [await queue(pool, word) for word in ("a", "gone", "b")]

    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert pool.status.queued == 2

    gate.open()
    await asyncio.gather(first, a, b)
    assert stage.noted() == ["first", "a+b"]


async def test_the_answer_of_a_caller_who_went_away_from_a_batch_is_dropped(
    stage: Stage, gate: Gate, tmp_path: Any
) -> None:
    pool, second = await batching(stage), Gate(tmp_path / "second")
    first = await begin(stage, pool, "first", gate)
    a = await queue(pool, "a", {"until": str(second.path)})
    gone, b = await queue(pool, "gone"), await queue(pool, "b")
    gate.open()
    await until(lambda: "a+gone+b" in stage.noted())

    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    second.open()

    assert [(await each)["note"] for each in (first, a, b)] == ["first", "a", "b"]
    assert (await ask(pool, {"note": "next"}))["note"] == "next"


async def test_a_caller_who_goes_away_in_the_moment_of_a_failure_leaves_nothing_behind(
    stage: Stage, gate: Gate
) -> None:
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    lost = [await queue(pool, "a", {"do": "die"}), await queue(pool, "b")]

    def leave(_: object) -> None:
        for each in lost:
            each.cancel()

    gate.open()
    await first
    lost[0].add_done_callback(leave)  # b's failure is there, and b has not noticed

    await asyncio.wait(lost)
    assert (await ask(pool, {"note": "next"}))["note"] == "next"


# ---- the queue


async def test_a_full_queue_refuses_and_says_when_to_try_again(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, queue_size=2)
    running = await begin(stage, pool, "running", gate)
    waiting = [await queue(pool, word) for word in "ab"]

    refused = await failure(ask(pool, {"note": "refused"}))

    assert isinstance(refused, Busy)
    assert refused.reason == ErrorReason.ERROR_REASON_QUEUE_FULL
    gate.open()
    await asyncio.gather(running, *waiting)
    assert stage.noted() == ["running", "a+b"]


async def test_a_drain_waits_for_batches_and_for_those_that_wait_for_one(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, batch_size=2)
    running = await begin(stage, pool, "running", gate)
    waiting = [await queue(pool, "poisoned", {"do": "poison"}), *[await queue(pool, word) for word in "abc"]]

    draining = asyncio.create_task(pool.drain(LONG))
    await asyncio.sleep(0)
    gate.open()
    await running
    assert (await failure(waiting[0])).reason == ErrorReason.ERROR_REASON_MODEL_RAISED
    answers = await asyncio.gather(*waiting[1:])
    await draining

    assert [answer["note"] for answer in answers] == ["a", "b", "c"]
    stage.assert_nothing_is_left()


async def test_the_calls_of_a_batch_count_for_the_life_of_a_worker(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, recycle_calls=4)
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word) for word in "abc"]

    gate.open()
    await asyncio.gather(first, *waiting)

    await until(lambda: stage.ended == ["recycled"])
