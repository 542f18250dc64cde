"""What becomes of calls that go together where one, or all of them, fail; and whose their lines are. Real workers."""

import asyncio
import contextlib
import sys
from typing import Any

import pytest

from modelhost.server.errors import DomainError
from modelhost.server.serving.batching import Batches
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import (
    BATCH,
    LONG,
    MODELS,
    Gate,
    Stage,
    ask,
    batching,
    begin,
    failure,
    queue,
    until,
)


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
    pool = await stage.pool("batches", argv=[sys.executable, str(MODELS / "impostor.py"), "sizes"], batch_size=BATCH)

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


async def test_a_fault_of_ours_with_an_answer_fails_its_calls_and_keeps_nobody_waiting(
    stage: Stage, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("a fault")

    pool = await batching(stage)
    first = await begin(stage, pool, "first", gate)
    waiting = [await queue(pool, word) for word in "ab"]
    monkeypatch.setattr(Batches, "split", fail)
    gate.open()
    await first

    found = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(each) for each in found] == [LookupError, LookupError]
    assert (await ask(pool, {"note": "after"}))["note"] == "after"
