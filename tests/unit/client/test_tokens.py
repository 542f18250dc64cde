"""The token of a service account: got, kept, renewed, and got anew where the server refuses it."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelhost.client import AccessDenied, AsyncClient, Client, ServiceAccountKey, TimedOut, Unreachable
from modelhost.client.tokens import AsyncTokens, Tokens
from modelhost.v1.data_source_pb2 import ListDataSourcesRequest
from modelhost.v1.log_pb2 import LOG_KIND_BUILD, TailLogRequest
from modelhost.v1.predict_pb2 import DescribeServiceRequest, IssueTokenRequest, IssueTokenResponse
from tests.unit.client.fake_server import Code, FakeServer

KEY = ServiceAccountKey("ak-shop", "secret-of-shop")
PATIENCE = 30


class Clock:
    """A monotonic clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def shop(server: FakeServer) -> FakeServer:
    server.add_account("shop")
    return server


@pytest.fixture
def client(shop: FakeServer) -> Iterator[Client]:
    with Client(shop.address, account=KEY) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(shop: FakeServer, clock: Clock) -> Iterator[Tokens]:
    with Client(shop.address) as client:
        yield Tokens(KEY, client.predict_stub.IssueToken, clock)


def bearer(metadata: object) -> str:
    [(name, value)] = metadata  # type: ignore[misc]
    assert name == "authorization"
    return str(value).removeprefix("Bearer ")


# ---- the client


def test_nothing_is_asked_before_the_first_call(shop, client):
    assert shop.calls == []


def test_one_token_is_for_all_calls(shop, client):
    assert [client.predict("churn", number).result for number in range(5)] == [0, 1, 2, 3, 4]
    assert [name for name, _ in shop.calls] == ["IssueToken", *["Predict"] * 5]


def test_every_kind_of_call_has_the_token(shop, client):
    shop.add_deployment("churn")
    assert client.predict_stub.DescribeService(DescribeServiceRequest(service="churn")).deployment == "churn"
    _, call = client.predict_stub.DescribeService.with_call(DescribeServiceRequest(service="churn"))
    assert call.code() is Code.OK
    assert client.admin.ListDataSources.future(ListDataSourcesRequest()).result().next_page_token == ""
    assert len(list(client.admin.TailLog(TailLogRequest(deployment="churn", kind=LOG_KIND_BUILD)))) == 3
    assert len(shop.requests("IssueToken")) == 1


def test_a_call_whose_token_is_refused_is_made_once_more_with_another(shop, client):
    client.predict("churn", 1)
    shop.tokens.clear()
    assert client.predict("churn", 2).result == 2
    assert [name for name, _ in shop.calls] == ["IssueToken", "Predict", "Predict", "IssueToken", "Predict"]


def test_a_call_that_is_refused_again_is_refused(shop, client):
    shop.refuse("Predict", Code.UNAUTHENTICATED, "credentials are missing or unknown", "UNAUTHENTICATED")
    with pytest.raises(AccessDenied):
        client.predict("churn", 1)
    assert [name for name, _ in shop.calls] == ["IssueToken", "Predict", "IssueToken", "Predict"]


def test_a_call_that_fails_otherwise_is_not_repeated(shop, client):
    shop.refuse("Predict", Code.UNAVAILABLE, "the server is stopping", "SERVER_STOPPING")
    with pytest.raises(Unreachable):
        client.predict("churn", 1)
    assert len(shop.requests("Predict")) == 1


def test_keys_that_the_server_does_not_know_are_access_denied(shop):
    with Client(shop.address, account=ServiceAccountKey("ak-shop", "another")) as client, pytest.raises(AccessDenied):
        client.predict("churn", 1)
    assert [name for name, _ in shop.calls] == ["IssueToken"]


def test_an_account_that_was_disabled_is_access_denied(shop, client):
    client.predict("churn", 1)
    shop.accounts["shop"].disabled = True
    shop.tokens.clear()
    with pytest.raises(AccessDenied):
        client.predict("churn", 1)
    shop.accounts["shop"].disabled = False
    assert client.predict("churn", 3).result == 3


def test_many_threads_share_one_token(shop, client):
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda number: client.predict("churn", number).result, range(64))) == list(range(64))
    assert len(shop.requests("IssueToken")) == 1


def test_many_threads_that_are_refused_get_one_new_token(shop, client):
    client.predict("churn", 1)
    shop.tokens.clear()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda number: client.predict("churn", number).result, range(64))) == list(range(64))
    assert len(shop.requests("IssueToken")) == 2


def test_getting_a_token_is_within_the_calls_own_time(shop, client):
    shop.hold("IssueToken")
    with pytest.raises(TimedOut):
        client.predict("churn", 1, timeout=0.05)
    assert shop.requests("Predict") == []


def test_a_token_and_an_account_exclude_each_other(server):
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="either a token or a service account's keys"):
            kind(server.address, "token", account=KEY)


def test_the_server_that_is_not_there_is_said_as_ever():
    with Client("127.0.0.1:1", account=KEY) as client, pytest.raises(Unreachable, match="connection refused"):
        client.predict("churn", 1)


# ---- when a token is renewed


def test_a_token_is_kept_for_most_of_its_life_and_renewed_before_its_end(shop, clock, tokens):
    shop.life = 1000
    first = tokens.get(PATIENCE)
    clock.now += 790
    assert tokens.get(PATIENCE) is first
    clock.now += 20
    assert bearer(tokens.get(PATIENCE).metadata) == "token-2-of-shop"
    assert len(shop.requests("IssueToken")) == 2


def test_a_token_that_has_ended_is_not_used(shop, clock, tokens):
    shop.life = 1000
    tokens.get(PATIENCE)
    clock.now += 1002
    shop.refuse("IssueToken", Code.UNAVAILABLE, "the server is stopping", "SERVER_STOPPING")
    with pytest.raises(Unreachable):
        tokens.get(PATIENCE)


def test_while_no_other_is_to_be_had_the_old_one_is_used_as_long_as_it_works(shop, clock, tokens):
    shop.life = 1000
    first = tokens.get(PATIENCE)
    clock.now += 810
    shop.refuse("IssueToken", Code.UNAVAILABLE, "the server is stopping", "SERVER_STOPPING")
    assert tokens.get(PATIENCE).is_same(first)
    assert tokens.get(PATIENCE).is_same(first)
    assert len(shop.requests("IssueToken")) == 2
    shop.refusals.clear()
    clock.now += 100
    assert bearer(tokens.get(PATIENCE).metadata) == "token-2-of-shop"


def test_while_one_thread_renews_it_the_others_go_on_with_the_old_one(shop, clock, tokens):
    shop.life = 1000
    first = tokens.get(PATIENCE)
    clock.now += 810
    held = shop.hold("IssueToken")
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(tokens.get, PATIENCE)
        assert held.reached.wait(PATIENCE)
        assert tokens.get(PATIENCE).is_same(first)
        held.go_on.set()
        assert bearer(renewing.result(PATIENCE).metadata) == "token-2-of-shop"


def test_who_waits_for_anothers_token_gives_up_in_time(shop, tokens):
    held = shop.hold("IssueToken")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(tokens.get, PATIENCE)
        assert held.reached.wait(PATIENCE)
        with pytest.raises(TimedOut, match="another call is getting one"):
            tokens.get(0.02)
        held.go_on.set()
        assert bearer(first.result(PATIENCE).metadata) == "token-1-of-shop"


def test_a_clock_that_is_ahead_of_the_servers_leaves_it_to_a_refusal(shop, clock, tokens):
    shop.life = -60  # as our clock sees it
    first = tokens.get(PATIENCE)
    clock.now += 10_000
    assert tokens.get(PATIENCE) is first
    assert bearer(tokens.instead_of(first, PATIENCE).metadata) == "token-2-of-shop"


def test_a_token_that_is_fresh_takes_no_lock(tokens):
    token = tokens.get(PATIENCE)
    with tokens._lock:
        assert tokens.get(PATIENCE) is token


def test_the_token_is_in_no_repr(tokens):
    assert "token-1" not in repr(tokens.get(PATIENCE))


# ---- asyncio


async def test_asyncio_has_one_token_for_all_calls(shop):
    async with AsyncClient(shop.address, account=KEY) as client:
        assert [(await client.predict("churn", number)).result for number in range(3)] == [0, 1, 2]
        shop.add_deployment("churn")
        request = TailLogRequest(deployment="churn", kind=LOG_KIND_BUILD)
        assert len([answer async for answer in client.admin.TailLog(request)]) == 3
    assert len(shop.requests("IssueToken")) == 1


async def test_asyncio_gets_one_token_for_tasks_that_begin_at_once(shop):
    async with AsyncClient(shop.address, account=KEY) as client:
        await asyncio.gather(*(client.predict("churn", number) for number in range(32)))
        shop.tokens.clear()
        answers = await asyncio.gather(*(client.predict("churn", number) for number in range(32)))
    assert [answer.result for answer in answers] == list(range(32))
    assert len(shop.requests("IssueToken")) == 2


async def test_asyncio_is_refused_in_the_end(shop):
    shop.refuse("Predict", Code.UNAUTHENTICATED, "credentials are missing or unknown", "UNAUTHENTICATED")
    async with AsyncClient(shop.address, account=KEY) as client:
        with pytest.raises(AccessDenied):
            await client.predict("churn", 1)
    assert [name for name, _ in shop.calls] == ["IssueToken", "Predict", "IssueToken", "Predict"]


async def test_asyncio_gets_a_token_within_the_calls_own_time(shop):
    shop.hold("IssueToken")
    async with AsyncClient(shop.address, account=KEY) as client:
        with pytest.raises(TimedOut):
            await client.predict("churn", 1, timeout=0.05)


async def test_asyncio_renews_early_and_goes_on_with_the_old_one_meanwhile(shop, clock):
    shop.life = 1000
    async with AsyncClient(shop.address) as client:
        tokens = AsyncTokens(KEY, issue_of(client), clock)
        first = await tokens.get(PATIENCE)
        clock.now += 810
        held = shop.hold("IssueToken")
        renewing = asyncio.create_task(tokens.get(PATIENCE))
        assert await asyncio.to_thread(held.reached.wait, PATIENCE)
        assert (await tokens.get(PATIENCE)).is_same(first)
        held.go_on.set()
        assert bearer((await renewing).metadata) == "token-2-of-shop"


async def test_asyncio_goes_on_after_the_task_that_renewed_was_cancelled(shop, clock):
    async with AsyncClient(shop.address) as client:
        tokens = AsyncTokens(KEY, issue_of(client), clock)
        held = shop.hold("IssueToken")
        first = asyncio.create_task(tokens.get(PATIENCE))
        assert await asyncio.to_thread(held.reached.wait, PATIENCE)
        second = asyncio.create_task(tokens.get(PATIENCE))
        first.cancel()
        held.go_on.set()
        assert bearer((await second).metadata).endswith("-of-shop")


def issue_of(client: AsyncClient) -> Callable:
    async def issue(request: IssueTokenRequest, timeout: float | None) -> IssueTokenResponse:
        return await client.predict_stub.IssueToken(request, timeout=timeout)

    return issue
