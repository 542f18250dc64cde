"""Calls whose items come one by one, with real workers: who waits for whom, and how a stream ends for both sides."""

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from modelhost.server.errors import DomainError
from modelhost.server.serving.pool import Pool
from modelhost.server.serving.stream import ROOM_BYTES, ROOM_ITEMS, Stream
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.integration.serving.stage import LONG, MODELS, Gate, Stage, ask, failure, is_running, python36, until


async def open_stream(pool: Pool, deadline: float | None = None, **parameters: Any) -> Stream:
    return await pool.stream(json.dumps(parameters).encode(), deadline, "the-stream")


async def take(stream: Stream, count: int) -> list[Any]:
    """The next items."""
    items = [await stream.next() for _ in range(count)]
    return [json.loads(item or b"null") for item in items]


async def rest(stream: Stream) -> tuple[list[Any], DomainError | None]:
    """All items that still come, and what ended it."""
    items: list[Any] = []
    try:
        while (item := await stream.next()) is not None:
            items.append(json.loads(item or b"null"))
    except DomainError as error:
        return items, error
    return items, None


def made(stage: Stage) -> int:
    """How many items the model has made."""
    return sum(word.startswith("made:") for word in stage.noted())


async def is_free(pool: Pool) -> None:
    """Wait until no worker has a call, and all are there."""
    await until(lambda: pool.status.running == 0 and pool.status.live == pool.size)


async def test_items_come_in_their_order_and_then_the_worker_is_free(stage: Stage) -> None:
    pool = await stage.pool("streams")
    pid = await ask(pool, "pid")

    stream = await open_stream(pool, stop=100)
    assert pool.status.running == 1
    assert await rest(stream) == (list(range(100)), None)
    assert await stream.next() is None

    assert pool.status.running == 0
    assert await ask(pool, "pid") == pid


async def test_a_function_that_is_no_generator_gives_one_item(stage: Stage) -> None:
    pool = await stage.pool("obliging")
    stream = await open_stream(pool, note="one")
    items, error = await rest(stream)
    assert ([item["note"] for item in items], error) == (["one"], None)


async def test_a_call_of_a_generator_gives_a_list(stage: Stage) -> None:
    pool = await stage.pool("streams", message_limit=10_000)
    assert await ask(pool, {"stop": 3}) == [0, 1, 2]

    too_large = await failure(ask(pool, {"item": "x", "times": 100}))

    assert too_large.reason == ErrorReason.ERROR_REASON_RESULT_TOO_LARGE
    assert made(stage) < 110


async def test_a_stream_has_its_worker_to_itself(stage: Stage) -> None:
    pool = await stage.pool("streams")
    stream = await open_stream(pool)
    await take(stream, 3)
    waiting = asyncio.create_task(ask(pool, "pid"))
    await until(lambda: pool.status.queued == 1)
    await take(stream, 100)
    assert not waiting.done()

    stream.close()

    assert await waiting


# ---- a slow caller


async def test_a_caller_who_takes_nothing_holds_the_model_up(stage: Stage) -> None:
    pool = await stage.pool("streams")
    stream = await open_stream(pool)

    await until(lambda: made(stage) >= ROOM_ITEMS)
    assert await take(stream, ROOM_ITEMS // 2) == list(range(ROOM_ITEMS // 2))
    await until(lambda: made(stage) >= ROOM_ITEMS * 3 // 2)
    stream.close()
    await is_free(pool)

    assert made(stage) == ROOM_ITEMS * 3 // 2


async def test_large_items_hold_it_up_sooner(stage: Stage) -> None:
    pool = await stage.pool("streams")
    size = ROOM_BYTES // 3
    stream = await open_stream(pool, item="x", times=size)

    await until(lambda: made(stage) >= 3)  # the last has two bytes more than there was room
    assert await take(stream, 1) == ["x" * size]
    assert await take(stream, 1) == ["x" * size]
    await until(lambda: made(stage) >= 5)
    stream.close()
    await is_free(pool)

    assert made(stage) == 5


async def test_one_who_takes_nothing_for_too_long_loses_the_stream_but_no_item_and_no_worker(stage: Stage) -> None:
    pool = await stage.pool("streams", call_timeout=0.3)
    pid = await ask(pool, "pid")
    stream = await open_stream(pool)

    await is_free(pool)

    items, error = await rest(stream)
    assert items == list(range(ROOM_ITEMS))
    assert error is not None
    assert error.reason == ErrorReason.ERROR_REASON_CALLER_TOO_SLOW
    assert await ask(pool, "pid") == pid
    assert stage.noted()[-1] == "closed"


# ---- callers who want no more


async def test_a_stream_that_is_closed_ends_the_generator_and_keeps_the_worker(stage: Stage) -> None:
    pool = await stage.pool("streams")
    pid = await ask(pool, "pid")
    for _ in range(20):
        stream = await open_stream(pool)
        await take(stream, 1)
        stream.close()
        stream.close()

    assert await ask(pool, "pid") == pid
    assert stage.noted().count("closed") == 20
    assert pool.status.restarts == 0


async def test_a_model_in_the_midst_of_an_item_ends_after_it(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("streams")
    pid = await ask(pool, "pid")
    stream = await open_stream(pool, until=str(gate.path))
    await take(stream, 1)

    stream.close()
    assert pool.status.running == 1
    gate.open()

    assert await ask(pool, "pid") == pid
    assert stage.noted()[-1] == "closed"


async def test_a_model_that_does_not_end_costs_its_worker(stage: Stage) -> None:
    pool = await stage.pool("streams", call_timeout=0.5)
    pid = await ask(pool, "pid")
    stream = await open_stream(pool, stubborn=True)
    await take(stream, 1)

    stream.close()

    assert await ask(pool, "pid", within=LONG) != pid
    assert not is_running(pid)


async def test_a_caller_who_gives_up_in_the_queue_leaves_it(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("streams")
    first = await open_stream(pool, until=str(gate.path))
    second = asyncio.create_task(open_stream(pool))
    await until(lambda: pool.status.queued == 1)

    second.cancel()
    await asyncio.wait([second])

    assert pool.status.queued == 0
    gate.open()
    first.close()
    await is_free(pool)


async def test_a_deadline_ends_a_stream_even_if_nobody_takes_its_items(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("streams")
    pid = await ask(pool, "pid")
    stream = await open_stream(pool, asyncio.get_running_loop().time() + 0.5)

    await is_free(pool)

    items, error = await rest(stream)
    assert items == list(range(ROOM_ITEMS))
    assert error is not None
    assert error.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    assert await ask(pool, "pid") == pid


# ---- models that fail


async def test_what_the_model_raises_comes_after_its_items(stage: Stage) -> None:
    pool = await stage.pool("streams")
    items, error = await rest(await open_stream(pool, **{"raise": 3}))
    assert items == [0, 1, 2]
    assert error is not None
    assert (error.reason, error.message) == (ErrorReason.ERROR_REASON_MODEL_RAISED, "the model raised ValueError: no 3")


async def test_a_worker_that_dies_in_a_stream_is_told_after_its_items(stage: Stage) -> None:
    pool = await stage.pool("streams")
    pid = await ask(pool, "pid")

    items, error = await rest(await open_stream(pool, die=3))

    assert items == [0, 1, 2]
    assert error is not None
    assert error.reason == ErrorReason.ERROR_REASON_WORKER_DIED
    assert await ask(pool, "pid") != pid


async def test_a_model_that_takes_too_long_for_an_item_costs_its_worker(stage: Stage) -> None:
    pool = await stage.pool("streams", call_timeout=0.5)
    pid = await ask(pool, "pid")

    items, error = await rest(await open_stream(pool, hang=3))

    assert items == [0, 1, 2]
    assert error is not None
    assert error.reason == ErrorReason.ERROR_REASON_MODEL_TIMED_OUT
    assert "the next item took longer than the deployment's call_timeout of 0.5 s" in error.message
    assert await ask(pool, "pid", within=LONG) != pid


async def test_the_time_of_a_call_before_is_none_of_a_streams(stage: Stage) -> None:
    pool = await stage.pool("streams", call_timeout=0.5)
    await ask(pool, "pid")
    stream = await open_stream(pool)

    for number in range(2 * ROOM_ITEMS):  # longer than the call might have taken, but no item and no caller is late
        assert await take(stream, 1) == [number]
        await asyncio.sleep(0.04)

    stream.close()
    await is_free(pool)


async def test_a_worker_that_sends_what_there_is_no_room_for_is_ended(stage: Stage) -> None:
    pool = await stage.pool("streams", argv=(python36(), str(MODELS / "impostor.py"), "flood"))

    stream = await open_stream(pool)
    await asyncio.wait([stream.ended])
    items, error = await rest(stream)

    assert len(items) == ROOM_ITEMS
    assert error is not None
    assert error.reason == ErrorReason.ERROR_REASON_WORKER_DIED


async def test_an_item_over_the_message_limit_ends_the_stream_and_keeps_the_worker(stage: Stage) -> None:
    pool = await stage.pool("streams", message_limit=1000)
    pid = await ask(pool, "pid")
    items, error = await rest(await open_stream(pool, item="x", times=1000))
    assert items == []
    assert error is not None
    assert error.reason == ErrorReason.ERROR_REASON_RESULT_TOO_LARGE
    assert await ask(pool, "pid") == pid


# ---- pools that end


async def test_a_drain_lets_a_stream_come_to_its_end(stage: Stage, gate: Gate) -> None:
    pool = await stage.pool("streams")
    stream = await open_stream(pool, stop=50, until=str(gate.path))
    await take(stream, 1)

    draining = asyncio.create_task(pool.drain(LONG))
    await asyncio.sleep(0)
    gate.open()

    assert await rest(stream) == (list(range(1, 50)), None)
    await draining
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("way", ["close", "drain"])
async def test_a_pool_that_is_closed_ends_its_streams(stage: Stage, way: str) -> None:
    pool = await stage.pool("streams")
    stream = await open_stream(pool)
    await take(stream, 1)

    await (pool.close() if way == "close" else pool.drain(0.2))

    _, error = await rest(stream)
    assert error is not None
    assert error.reason == ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING
    stage.assert_nothing_is_left()


async def test_a_killed_worker_ends_only_its_own_stream(stage: Stage) -> None:
    pool = await stage.pool("streams", size=2)
    first, second = [await open_stream(pool) for _ in range(2)]
    await take(first, 1)
    await take(second, 1)

    os.kill(stage.processes()[0], signal.SIGKILL)
    await until(lambda: first.ended.done() or second.ended.done())

    died, lives = (first, second) if first.ended.done() else (second, first)
    assert ((await rest(died))[1] or pool.failure).reason == ErrorReason.ERROR_REASON_WORKER_DIED  # type: ignore[union-attr]
    assert len(await take(lives, 100)) == 100
    lives.close()
