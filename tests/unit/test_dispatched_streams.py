"""A stream is told of once, when it has ended, and what feeds it ends with it, whoever ended it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from modelhost.server.api.call import Call
from modelhost.server.api.methods import Access, ServerStream
from modelhost.server.api.status import CallFailed, Code
from modelhost.server.control.changes import ACCESS, Changes
from modelhost.server.errors import NotFound
from modelhost.server.identities import Role
from modelhost.v1 import predict_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.dispatching import ADMIN_TOKEN, dispatcher_of

PATH = "/modelhost.v1.Predict/PredictStream"
REQUEST = pb.PredictRequest(service="model", parameters_json="1")


class Numbers:
    """A method that streams the numbers that are `put`; None ends it."""

    def __init__(self, access: Access = Access.CALLER) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.ended = asyncio.Event()
        self.granted = True
        self.changes = Changes()
        self.stopping = asyncio.Event()
        self._numbers: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        method = ServerStream(PATH, access, Role.VIEWER, pb.PredictRequest, self._stream)
        dispatcher = dispatcher_of(method, {PATH: self._observe}, changes=self.changes, stopping=self.stopping)
        self.call = Call(PATH, {"authorization": f"Bearer {ADMIN_TOKEN}"}, lambda: "peer", None)
        self.stream = dispatcher.server_stream(method, self.call, REQUEST.SerializeToString())

    def put(self, *numbers: int | Exception | None) -> None:
        for number in numbers:
            self._numbers.put_nowait(number)

    def revoke(self) -> None:
        self.granted = False
        self.changes.notify(ACCESS)

    async def _stream(self, call: Call, request: pb.PredictRequest) -> AsyncGenerator[pb.PredictStreamResponse]:
        call.check_still_admitted = self._check
        try:
            while (number := await self._numbers.get()) is not None:
                if isinstance(number, Exception):
                    raise number
                yield pb.PredictStreamResponse(index=number)
        finally:
            self.ended.set()

    def _check(self) -> None:
        if not self.granted:
            raise NotFound(ErrorReason.ERROR_REASON_SERVICE_NOT_FOUND, "no longer")

    def _observe(self, call: Call, code: Code, reason: str, seconds: float, sent: int) -> None:
        assert seconds >= 0
        self.told.append((call.size, code.name, reason, sent))


def size(*numbers: int) -> int:
    return sum(pb.PredictStreamResponse(index=number).ByteSize() for number in numbers)


async def test_a_stream_is_told_of_when_it_has_ended_with_all_that_was_sent() -> None:
    numbers = Numbers()
    numbers.put(1, 300, None)

    sent = [pb.PredictStreamResponse.FromString(data).index async for data in numbers.stream]

    assert sent == [1, 300]
    assert numbers.told == [(REQUEST.ByteSize(), "OK", "", size(1, 300))]


async def test_a_stream_that_fails_is_told_of_with_what_was_sent_before() -> None:
    numbers = Numbers()
    numbers.put(7, NotFound(ErrorReason.ERROR_REASON_SERVICE_NOT_FOUND, "gone"))
    await anext(numbers.stream)
    assert numbers.told == []

    with pytest.raises(CallFailed):
        await anext(numbers.stream)

    assert numbers.told == [(REQUEST.ByteSize(), "NOT_FOUND", "SERVICE_NOT_FOUND", size(7))]


async def test_a_stream_whose_caller_goes_away_ends_at_once() -> None:
    numbers = Numbers()
    numbers.put(1, 2)
    await anext(numbers.stream)

    await numbers.stream.aclose()

    assert numbers.ended.is_set()
    assert numbers.told == [(REQUEST.ByteSize(), "CANCELLED", "", size(1))]


async def test_a_stream_whose_caller_goes_away_while_it_waits_ends_at_once() -> None:
    numbers = Numbers()
    waiting = asyncio.ensure_future(anext(numbers.stream))
    await asyncio.sleep(0.01)

    waiting.cancel()
    await asyncio.wait([waiting])

    assert numbers.ended.is_set()
    assert numbers.told == [(REQUEST.ByteSize(), "CANCELLED", "", 0)]


@pytest.mark.parametrize("waits", [True, False])
async def test_a_stream_ends_when_its_caller_is_let_in_no_more_whether_anybody_waits_for_it_or_not(waits: bool) -> None:
    numbers = Numbers()
    numbers.put(1)
    await anext(numbers.stream)
    following = asyncio.ensure_future(anext(numbers.stream)) if waits else None
    await asyncio.sleep(0)

    numbers.changes.notify(ACCESS)  # of somebody else
    await asyncio.sleep(0.01)
    assert not numbers.ended.is_set()
    numbers.revoke()

    async with asyncio.timeout(10):
        await numbers.ended.wait()
    with pytest.raises(CallFailed) as caught:
        await (following or anext(numbers.stream))
    assert caught.value.status.reason == "SERVICE_NOT_FOUND"
    assert numbers.told == [(REQUEST.ByteSize(), "NOT_FOUND", "SERVICE_NOT_FOUND", size(1))]


async def test_nothing_passes_that_was_ready_when_the_caller_was_let_in_no_more() -> None:
    numbers = Numbers()
    numbers.put(1, 2)
    await anext(numbers.stream)

    numbers.revoke()

    with pytest.raises(CallFailed):
        await anext(numbers.stream)


async def test_a_stream_of_callers_comes_to_its_end_while_the_server_is_stopping() -> None:
    numbers = Numbers()
    numbers.put(1)
    await anext(numbers.stream)
    numbers.stopping.set()

    following = asyncio.ensure_future(anext(numbers.stream))
    await asyncio.sleep(0.3)
    assert not following.done()
    numbers.put(2, None)

    assert pb.PredictStreamResponse.FromString(await following).index == 2
    assert [data async for data in numbers.stream] == []


async def test_other_streams_do_not_keep_a_server_from_stopping() -> None:
    numbers = Numbers(Access.OPERATOR)
    numbers.put(1)
    await anext(numbers.stream)
    numbers.stopping.set()

    with pytest.raises(CallFailed) as caught:
        await anext(numbers.stream)

    assert caught.value.status.reason == "SERVER_STOPPING"
    assert numbers.ended.is_set()
