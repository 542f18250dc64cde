"""Calls that go to a model's batch function together: which do, and what becomes of each. With real workers."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Any

import pytest

from modelhost.server.errors import Busy, DomainError, NotTaken
from modelhost.server.serving.pool import Pool, PoolStatus
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import LONG, MODELS, Gate, Stage, ask, begin, failure, queue, until

SIZE = 8


async def batching(stage: Stage, **options: Any) -> Pool:
    """A pool that makes batches of up to 8 calls, and keeps none back."""
    return await stage.pool("batches", **{"batch_size": SIZE, **options})


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
    pool = await stage.pool("obliging", batch_size=SIZE)
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


# ---- failures


async def test_a_call_that_fails_fails_by_itself(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    a = await queue(pool, "a", name="id-a")
    bad = await queue(pool, "bad", {"do": "fail"}, name="id-bad")
    b = await queue(pool, "b", name="id-b")

    gate.open()

    failed = await failure(bad)
    assert failed.reason == ErrorReason.ERROR_REASON_PARAMETERS_INVALID
    assert failed.message == "not this one"
    assert [(await each)["note"] for each in (first, a, b)] == ["first", "a", "b"]
    assert stage.noted() == ["first", "a+bad+b"]
    await until(lambda: ("main.InvalidParameters: not this one", "id-bad") in stage.owners, seen=lambda: stage.owners)


async def test_parameters_that_are_not_json_fail_by_themselves(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    a = await queue(pool, "a")
    bad = asyncio.create_task(pool.call(b'{"note": NaN}'))
    await until(lambda: pool.status.queued == 2)
    b = await queue(pool, "b")

    gate.open()

    assert (await failure(bad)).reason == ErrorReason.ERROR_REASON_PARAMETERS_INVALID
    assert [(await each)["note"] for each in (first, a, b)] == ["first", "a", "b"]
    assert stage.noted() == ["first", "a+b"]


async def test_where_the_batch_function_fails_each_call_is_run_by_itself_in_its_order(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    a, poison, b = [
        await queue(pool, "a", name="id-a"),
        await queue(pool, "x", {"do": "poison"}, name="id-x"),
        await queue(pool, "b", name="id-b"),
    ]
    later = await queue(pool, "later", name="id-later")

    gate.open()

    poisoned = await failure(poison)
    assert poisoned.reason == ErrorReason.ERROR_REASON_MODEL_RAISED
    assert poisoned.message == "the model raised ValueError: poisoned"
    assert [(await each)["note"] for each in (first, a, b, later)] == ["first", "a", "b", "later"]
    assert stage.noted() == ["first", "a+x+b+later", "a", "x", "b", "later"]
    assert stage.batches == [1, 4, 1, 1, 1, 1]
    said = "the batch of 4 calls failed, and each is run by itself: the model raised ValueError: poisoned"
    await until(lambda: (said, "id-a id-x id-b id-later") in stage.owners, seen=lambda: stage.owners)


async def test_a_caller_who_is_gone_when_the_batch_fails_is_not_run_again(
    stage: Stage, gate: Gate, tmp_path: Any
) -> None:
    pool, second = await batching(stage), Gate(tmp_path / "second")
    first = await begin(stage, pool, "first", gate)
    poison = await queue(pool, "x", {"do": "poison", "until": str(second.path)})
    gone, b = await queue(pool, "gone"), await queue(pool, "b")
    gate.open()
    await until(lambda: "x+gone+b" in stage.noted())
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone

    second.open()

    await asyncio.gather(first, b)
    await failure(poison)
    assert stage.noted() == ["first", "x+gone+b", "x", "b"]


async def test_results_that_are_too_large_together_are_had_one_by_one(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, message_limit=10_000)
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word, {"size": 6_000}) for word in "ab"]
    too_large = await queue(pool, "c", {"size": 12_000})

    gate.open()

    assert [len((await each)["much"]) for each in waiting] == [6_000, 6_000]
    assert (await failure(too_large)).reason == ErrorReason.ERROR_REASON_RESULT_TOO_LARGE
    await first
    assert stage.noted() == ["first", "a+b+c", "a", "b", "c"]


async def test_a_worker_that_dies_takes_its_batch_with_it_and_nothing_of_the_queue(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, batch_size=2)
    first = await begin(stage, pool, "first", gate)
    lost = [await queue(pool, "a"), await queue(pool, "b", {"do": "die"})]
    kept = [await queue(pool, word) for word in "cd"]

    gate.open()
    await first

    errors = [await failure(each) for each in lost]
    assert {error.reason for error in errors} == {ErrorReason.ERROR_REASON_WORKER_DIED}
    assert [(await each)["note"] for each in kept] == ["c", "d"]
    assert stage.noted() == ["first", "a+b", "c+d"]
    await until(lambda: stage.ended == ["exit"])


async def test_those_who_fail_together_have_an_error_each(stage: Stage, gate: Gate) -> None:
    """What adds to one, as the id of the call, does not add to another's."""
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    lost = [await queue(pool, "a", {"do": "die"}), await queue(pool, "b")]
    gate.open()
    await first

    one, other = [await failure(each) for each in lost]
    one.values["request_id"] = "one's"

    assert (other.message, other.reason, type(other)) == (one.message, one.reason, type(one))
    assert "request_id" not in other.values


async def test_a_batch_may_take_as_long_as_a_call(stage: Stage, gate: Gate, tmp_path: Any) -> None:
    pool = await batching(stage, call_timeout=1.0)
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word, {"until": str(tmp_path / "never")}, within=LONG) for word in "ab"]

    gate.open()
    await first

    errors = [await failure(each) for each in waiting]
    assert {error.reason for error in errors} == {ErrorReason.ERROR_REASON_MODEL_TIMED_OUT}
    await until(lambda: stage.ended == ["timeout"])


async def test_a_worker_whose_answer_does_not_tell_calls_apart_is_replaced(stage: Stage) -> None:
    pool = await stage.pool("batches", argv=[sys.executable, str(MODELS / "impostor.py"), "sizes"], batch_size=SIZE)

    answers = await asyncio.gather(*(pool.call(b"1") for _ in range(3)), return_exceptions=True)

    assert answers[0] == b""
    for error in answers[1:]:
        assert isinstance(error, DomainError)
        assert error.reason == ErrorReason.ERROR_REASON_WORKER_DIED
    await until(lambda: stage.ended == ["link"])


# ---- the run log


async def test_what_a_batch_writes_belongs_to_all_of_its_calls(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    a = await queue(pool, "a", {"print": "hello"}, name="id-a")
    b = await queue(pool, "b", name="id-b")

    gate.open()
    await asyncio.gather(first, a, b)
    await ask(pool, {"note": "c", "print": "alone"}, name="id-c")

    await until(lambda: {("hello", "id-a id-b"), ("alone", "id-c")} <= set(stage.owners), seen=lambda: stage.owners)


async def test_the_ids_on_a_line_are_cut_where_they_are_many(stage: Stage, gate: Gate) -> None:
    pool = await batching(stage, batch_size=30, queue_size=30)
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, "x", {"print": "hello"} if not n else None, name=f"{n:064}") for n in range(30)]

    gate.open()
    await asyncio.gather(first, *waiting)

    await until(lambda: "hello" in dict(stage.owners))
    names = dict(stage.owners)["hello"].split(" ")
    assert names == [f"{n:064}" for n in range(15)]
