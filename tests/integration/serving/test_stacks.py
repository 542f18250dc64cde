"""Tensor calls that go to a model as one, by their rows: which do, and what becomes of each. With real workers."""

import asyncio
import struct
from typing import Any

from modelhost.server.serving.pool import Pool
from modelhost.server.serving.tensors import Tensor, TensorCall
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import BATCH, Gate, Stage, failure, until

WAITS, POISON, LOSES, PRINTS, TAKES_LONG = -1, -2, -3, -4, -5
Answer = tuple[list[float], list[bytes]]


async def pool_of_rows(stage: Stage, gate: Gate, **options: Any) -> Pool:
    more = {"batch_size": BATCH, "batch_dimension": True, "env": {"UNTIL": gate.path}, **options}
    return await stage.pool("rows", **more)


def rows(*numbers: tuple[float, ...], factor: int | None = None, outputs: tuple[str, ...] = ()) -> TensorCall:
    flat = [number for row in numbers for number in row]
    data = struct.pack(f"<{len(flat)}d", *flat)
    parameters = {} if factor is None else {"factor": factor}
    return TensorCall([Tensor("x", "FP64", (len(numbers), len(numbers[0])), data)], parameters, outputs)


async def infer(pool: Pool, call: TensorCall, name: str = "") -> Answer:
    """The sums, and the elements of the texts."""
    outputs = {one.name: one for one in await pool.infer(call, None, name)}
    total, text = outputs["sum"], outputs["text"]
    assert (total.datatype, text.datatype) == ("FP64", "BYTES")
    assert text.shape == (total.shape[0], 2)
    elements, data = [], bytes(text.data)
    while data:
        (size,) = struct.unpack_from("<I", data)
        elements.append(data[4 : 4 + size])
        data = data[4 + size :]
    return list(struct.unpack(f"<{total.shape[0]}d", total.data)), elements


async def first(stage: Stage, pool: Pool) -> "asyncio.Task[Answer]":
    """A call that keeps the worker busy until the gate opens."""
    task = asyncio.create_task(infer(pool, rows((WAITS, 0))))
    await until(lambda: stage.noted() == ["1"])
    return task


async def queue(pool: Pool, call: TensorCall, name: str = "") -> "asyncio.Task[Answer]":
    before = pool.status.queued
    task = asyncio.create_task(infer(pool, call, name))
    await until(lambda: pool.status.queued == before + 1)
    return task


async def test_calls_that_wait_go_as_one_and_each_has_its_own_rows_back(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate)
    running = await first(stage, pool)
    one = await queue(pool, rows((1, 2)))
    three = await queue(pool, rows((3, 4), (5, 6), (7000, 8)))
    two = await queue(pool, rows((9, 10), (11, 12)))

    gate.open()

    assert await running == ([-1.0], [b"row", b"-1.0"])
    assert await one == ([3.0], [b"row", b"1.0"])
    assert await three == ([7.0, 11.0, 7008.0], [b"row", b"3.0", b"row", b"5.0", b"row", b"7000.0"])
    assert await two == ([19.0, 23.0], [b"row", b"9.0", b"row", b"11.0"])
    assert stage.noted() == ["1", "6"]
    assert stage.batches == [1, 3]


async def test_only_like_goes_with_like_and_all_in_their_order(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate)
    running = await first(stage, pool)
    waiting = [
        await queue(pool, call)
        for call in (
            rows((1, 1), factor=2),
            rows((2, 1), factor=2),
            rows((3, 1)),
            rows((4, 1, 1)),
            rows((5, 1), factor=True),  # 1 for Python, and not the same for a model
            rows((6, 1), factor=1),
            rows((7, 1), outputs=("text", "sum")),
        )
    ]

    gate.open()

    assert [(await each)[0] for each in (running, *waiting)] == [[-1], [4], [6], [4], [6], [6], [7], [8]]
    assert stage.noted() == ["1", "2", "1", "1", "1", "1", "1"]


async def test_a_call_without_rows_goes_alone(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate)
    running = await first(stage, pool)
    empty = TensorCall([Tensor("x", "FP64", (0, 2), b"")], {}, ())
    one = await queue(pool, rows((1, 1)))
    nothing = asyncio.create_task(pool.infer(empty, None, ""))
    await until(lambda: pool.status.queued == 2)
    two = await queue(pool, rows((2, 1)))

    gate.open()

    await running
    assert [(await each)[0] for each in (one, two)] == [[2], [3]]
    assert [(output.name, output.shape) for output in await nothing] == [("sum", (0,)), ("text", (0,))]
    assert stage.noted() == ["1", "1", "0", "1"]


async def test_where_the_model_fails_each_call_is_run_by_itself(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate)
    running = await first(stage, pool)
    a, poison, b = [await queue(pool, rows((number, 0)), f"id{number}") for number in (1, POISON, 2)]

    gate.open()

    assert (await failure(poison)).reason == ErrorReason.ERROR_REASON_MODEL_RAISED
    assert [(await each)[0] for each in (running, a, b)] == [[-1], [1], [2]]
    assert stage.noted() == ["1", "3", "1", "1", "1"]
    said = "the batch of 3 calls failed, and each is run by itself: the model raised ValueError: poisoned"
    await until(lambda: (said, "id1 id-2 id2") in stage.owners, seen=lambda: stage.owners)


async def test_where_rows_are_lost_each_call_is_run_by_itself(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate)
    running = await first(stage, pool)
    a, loses = [await queue(pool, call) for call in (rows((1, 0)), rows((LOSES, 0), (2, 0)))]

    gate.open()

    assert [(await each)[0] for each in (running, a)] == [[-1], [1]]
    error = await failure(loses)
    assert error.reason == ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE
    said = "the output sum has not a row for each of the inputs', as batch_dimension has it: its shape is"
    assert error.message == f"{said} [1], and the inputs have 2 rows"
    assert stage.noted() == ["1", "3", "1", "2"]
    line = f"the batch of 2 calls failed, and each is run by itself: {said} [2], and the inputs have 3 rows"
    await until(lambda: line in [line for line, _ in stage.owners], seen=lambda: stage.owners)


async def test_an_answer_with_too_few_rows_is_none_for_a_call_by_itself_either(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate)

    error = await failure(infer(pool, rows((LOSES, 0), (2, 0))))

    assert error.reason == ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE
    assert (await infer(pool, rows((1, 2))))[0] == [3.0]


async def test_a_stack_that_takes_too_long_says_that_it_is_one(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate, call_timeout=2.0)
    running = await first(stage, pool)
    waiting = [await queue(pool, rows((number, 0))) for number in (TAKES_LONG, 1)]

    gate.open()
    await running

    for each in waiting:
        error = await failure(each)
        assert error.reason == ErrorReason.ERROR_REASON_MODEL_TIMED_OUT
        assert error.message.startswith("the batch of 2 calls that this one was in took longer than")
    said = "a batch of 2 calls took longer than 2 s: this worker is ended and replaced"
    await until(lambda: said in [line for line, _ in stage.owners], seen=lambda: stage.owners)


async def test_a_stack_has_no_more_bytes_than_a_message(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate, message_limit=100)
    running = asyncio.create_task(infer(pool, rows((WAITS, 0))))
    await until(lambda: stage.noted() == ["1"])
    waiting = [await queue(pool, rows((1.0,) * 6)) for _ in range(4)]

    gate.open()

    assert [(await each)[0] for each in (running, *waiting)] == [[-1]] + [[6]] * 4
    assert stage.noted() == ["1", "2", "2"]


async def test_what_a_stack_writes_belongs_to_all_of_its_calls(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate)
    running = await first(stage, pool)
    a, b = [await queue(pool, rows((number, 0)), f"id{number}") for number in (1, PRINTS)]

    gate.open()
    await asyncio.gather(running, a, b)

    await until(lambda: ("hello", "id1 id-4") in stage.owners, seen=lambda: stage.owners)


async def test_the_calls_of_a_stack_count_as_so_many(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate, recycle_calls=4)
    running = await first(stage, pool)
    waiting = [await queue(pool, rows((number, 0))) for number in (1, 2, 3)]

    gate.open()
    await asyncio.gather(running, *waiting)

    await until(lambda: stage.ended == ["recycled"])


async def test_json_calls_of_such_a_model_are_not_joined(stage: Stage, gate: Gate) -> None:
    pool = await pool_of_rows(stage, gate)
    running = await first(stage, pool)
    waiting = [asyncio.create_task(pool.call(b'{"x": [[1]]}')) for _ in range(2)]

    gate.open()
    await running

    for each in waiting:  # JSON has no `parameters`
        assert (await failure(each)).reason == ErrorReason.ERROR_REASON_MODEL_RAISED
    assert stage.batches == [1]
