"""Predictions that come item by item, with either client: how a stream is read, left, and ended by the server."""

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from modelhost.client import AccessDenied, AsyncClient, Client, ModelHostError, Prediction, ServiceAccountKey, TimedOut
from tests.unit.client.fake_server import TOKEN, Code, FakeServer

KEY = ServiceAccountKey("ak-shop", "secret-of-shop")
PATIENCE = 30


@pytest.fixture
def numbers(server: FakeServer) -> FakeServer:
    """A server whose model yields as many numbers as it is asked for, or all."""
    server.add_account("shop")
    server.items = lambda parameters: map(str, itertools.count() if parameters == "null" else range(int(parameters)))
    return server


@pytest.fixture
async def asynchronous(server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address, TOKEN) as client:
        yield client


@pytest.fixture
def shop(numbers: FakeServer) -> Iterator[Client]:
    with Client(numbers.address, account=KEY) as client:
        yield client


def test_items_are_predictions_in_their_order(numbers, client):
    stream = client.predict_stream("churn", 3, request_id="order-4711")
    assert list(stream) == [Prediction(number, 3, "order-4711") for number in range(3)]
    assert list(stream) == []
    assert numbers.requests("PredictStream")[0].parameters_json == "3"


def test_what_cannot_be_sent_is_said_before_anything_is(numbers, client):
    with pytest.raises(TypeError):
        client.predict_stream("churn", object())
    with pytest.raises(ValueError, match="is no request id"):
        client.predict_stream("churn", 1, request_id="two words")
    assert numbers.calls == []


def test_a_loop_that_is_left_ends_the_call(numbers, client):
    for item in client.predict_stream("churn", None):
        if item.result == 3:
            break
    assert numbers.stream_ended.wait(PATIENCE)


def test_a_stream_that_is_closed_ends_the_call_and_just_ends(numbers, client):
    with client.predict_stream("churn", None) as stream:
        assert next(stream).result == 0
    assert numbers.stream_ended.wait(PATIENCE)
    assert len(list(stream)) <= 1  # one may have been read before
    stream.close()


def test_the_clients_timeout_is_not_for_streams_and_their_own_is_for_all_of_them(numbers):
    with Client(numbers.address, TOKEN, timeout=1000) as client:
        assert len(list(client.predict_stream("churn", 1))) == 1
        assert numbers.deadline > 1e9  # gRPC's way of saying never
        with pytest.raises(TimedOut):
            for _ in client.predict_stream("churn", None, timeout=0.3):
                pass
    assert numbers.stream_ended.wait(PATIENCE)


def test_what_ends_a_stream_is_raised_after_its_items(server, client):
    def items(_: str) -> Iterator[str]:
        yield "1"
        raise ValueError

    server.items = items
    stream = client.predict_stream("churn", None)
    assert next(stream).result == 1
    with pytest.raises(ModelHostError):
        next(stream)


def test_an_account_gets_its_token_for_a_stream(numbers, shop):
    assert [item.result for item in shop.predict_stream("churn", 2)] == [0, 1]
    assert [name for name, _ in numbers.calls] == ["IssueToken", "PredictStream"]


def test_a_stream_that_is_refused_is_begun_once_more_with_another_token(numbers, shop):
    shop.predict("churn", 1)
    numbers.tokens.clear()
    assert [item.result for item in shop.predict_stream("churn", 2)] == [0, 1]
    names = [name for name, _ in numbers.calls]
    assert names == ["IssueToken", "Predict", "PredictStream", "IssueToken", "PredictStream"]


def test_a_stream_is_refused_in_the_end(numbers, shop):
    numbers.refuse("PredictStream", Code.UNAUTHENTICATED, "credentials are missing or unknown", "UNAUTHENTICATED")
    with pytest.raises(AccessDenied):
        next(shop.predict_stream("churn", 2))
    assert [name for name, _ in numbers.calls] == ["IssueToken", "PredictStream"] * 2


# ---- asyncio


async def test_asyncio_has_items_in_their_order(numbers, asynchronous):
    stream = asynchronous.predict_stream("churn", 3, request_id="order-4711")
    assert [item async for item in stream] == [Prediction(number, 3, "order-4711") for number in range(3)]
    assert [item async for item in stream] == []


async def test_asyncio_says_at_once_what_cannot_be_sent(numbers, asynchronous):
    with pytest.raises(TypeError):
        asynchronous.predict_stream("churn", object())


async def test_asyncio_ends_the_call_of_a_loop_that_is_left(numbers, asynchronous):
    async for item in asynchronous.predict_stream("churn", None):
        if item.result == 3:
            break
    await asynchronous.predict("churn", 1)  # the loop goes on
    assert numbers.stream_ended.wait(PATIENCE)


async def test_asyncio_ends_the_call_of_a_stream_that_is_closed(numbers, asynchronous):
    async with asynchronous.predict_stream("churn", None) as stream:
        assert (await anext(stream)).result == 0
    assert [item async for item in stream] == []
    assert numbers.stream_ended.wait(PATIENCE)
    await stream.aclose()


async def test_asyncio_gives_a_stream_its_own_time(numbers, asynchronous):
    with pytest.raises(TimedOut):
        async for _ in asynchronous.predict_stream("churn", None, timeout=0.3):
            pass


async def test_asyncio_begins_a_refused_stream_once_more(numbers):
    async with AsyncClient(numbers.address, account=KEY) as client:
        await client.predict("churn", 1)
        numbers.tokens.clear()
        assert [item.result async for item in client.predict_stream("churn", 2)] == [0, 1]
        numbers.refuse("PredictStream", Code.UNAUTHENTICATED, "credentials are missing", "UNAUTHENTICATED")
        with pytest.raises(AccessDenied):
            await anext(client.predict_stream("churn", 2))
    names = [name for name, _ in numbers.calls if name != "Predict"]
    assert names == ["IssueToken", *["PredictStream", "IssueToken", "PredictStream"] * 2]
