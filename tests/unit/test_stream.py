"""Whose time it is in a stream: the model's until its next item, the caller's while it holds the model up."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from modelhost.server.errors import PredictionFailed
from modelhost.server.serving.stream import ROOM_BYTES, ROOM_ITEMS, Stream
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.clock import Clock

TIMEOUT = 10.0


class Worker:
    """What a stream has of its worker."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.told: list[str] = []
        self.overran = 0
        self.answer: asyncio.Future[tuple[dict[str, Any], bytes]] = clock.create_future()
        self.stream = Stream(TIMEOUT, 1 << 30, lambda header: self.told.append(header["type"]), self.end)
        self.stream.begin(self.answer)

    def end(self) -> None:
        self.overran += 1

    def make(self, count: int, item: bytes = b"1") -> None:
        for _ in range(count):
            assert self.stream.put(item, None)

    async def reason(self) -> "ErrorReason.ValueType | None":
        """Why it has ended, once all items are taken; None if it has not."""
        try:
            async with asyncio.timeout(0):
                while await self.stream.next() is not None:
                    pass
        except PredictionFailed as error:
            return error.reason
        except TimeoutError:
            pass
        return None


def on_a_clock(test: Callable[[Worker], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on a clock of its own, with a stream that has just begun."""

    async def run(clock: Clock) -> None:
        await test(Worker(clock))

    def sync() -> None:
        clock = Clock()
        with asyncio.Runner(loop_factory=lambda: clock) as runner:
            runner.run(run(clock))

    return sync


@on_a_clock
async def test_a_model_has_its_time_for_each_item(worker: Worker) -> None:
    for _ in range(5):
        await worker.clock.wait(TIMEOUT * 0.9)
        worker.make(1)
    assert worker.overran == 0

    await worker.clock.wait(TIMEOUT * 1.1)
    assert worker.overran == 1


@on_a_clock
async def test_what_a_caller_takes_gives_a_model_no_more_time(worker: Worker) -> None:
    worker.make(ROOM_ITEMS - 1)
    await worker.clock.wait(TIMEOUT * 0.9)
    await worker.stream.next()
    await worker.clock.wait(TIMEOUT * 0.2)
    assert worker.overran == 1


@on_a_clock
async def test_a_caller_has_its_time_for_each_item_that_holds_the_model_up(worker: Worker) -> None:
    worker.make(ROOM_ITEMS)
    for _ in range(ROOM_ITEMS // 2):
        await worker.clock.wait(TIMEOUT * 0.9)
        assert worker.told == []
        await worker.stream.next()
    assert worker.told == ["more"]  # from here on it is for the model again
    await worker.clock.wait(TIMEOUT * 1.1)
    assert worker.overran == 1


@on_a_clock
async def test_a_caller_that_takes_nothing_ends_the_stream_and_not_the_worker(worker: Worker) -> None:
    worker.make(1, b"x" * ROOM_BYTES)
    await worker.clock.wait(TIMEOUT * 1.1)
    assert (worker.told, worker.overran) == (["cancel"], 0)

    await worker.clock.wait(TIMEOUT * 0.9)
    assert worker.overran == 0
    assert await worker.reason() == ErrorReason.ERROR_REASON_CALLER_TOO_SLOW


@on_a_clock
async def test_a_model_has_its_time_to_end_too(worker: Worker) -> None:
    worker.make(ROOM_ITEMS)
    await worker.clock.wait(TIMEOUT * 0.9)
    worker.stream.close()
    await worker.clock.wait(TIMEOUT * 0.9)
    assert (worker.told, worker.overran) == (["cancel"], 0)

    await worker.clock.wait(TIMEOUT * 0.2)
    assert worker.overran == 1


@on_a_clock
async def test_no_time_counts_once_it_is_over(worker: Worker) -> None:
    worker.stream.end_at(worker.clock.time() + TIMEOUT / 2, PredictionFailed(ErrorReason.ERROR_REASON_INTERNAL, "late"))
    worker.make(3)
    worker.answer.set_result(({"type": "result"}, b""))
    await worker.clock.wait(TIMEOUT * 2)
    assert (worker.told, worker.overran, await worker.reason()) == ([], 0, None)
    assert await worker.stream.next() is None


@on_a_clock
async def test_room_is_made_for_what_was_taken_not_for_what_was_made(worker: Worker) -> None:
    worker.make(ROOM_ITEMS)
    assert not worker.stream.put(b"1", None)
    for _ in range(ROOM_ITEMS // 2):
        await worker.stream.next()
    worker.make(ROOM_ITEMS // 2)
    assert not worker.stream.put(b"1", None)


@on_a_clock
async def test_time_that_is_over_as_the_last_answer_comes_is_nobodys_fault(worker: Worker) -> None:
    """The worker may have its next call by then."""
    worker.clock.passed += TIMEOUT
    worker.answer.set_result(({}, b""))
    worker.stream._late()  # as it rings before the loop has told anybody of the answer
    assert worker.overran == 0
    assert await worker.stream.next() is None
