"""Who tries wrong signatures is slowed down, by access key and host, and nobody else is."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from modelhost.server.access.accounts import Accounts, StoredAccount
from modelhost.server.access.issuing import Issuer, purpose
from modelhost.server.access.tokens import Tokens
from modelhost.server.errors import Busy, Unauthenticated
from modelhost.server.identities import Credential, CredentialKind, ServiceAccount
from modelhost.server.store.database import Database
from modelhost.server.vault import Vault
from tests.access import AccessAdmin, Account, issue, login, new_nonce, predict, sign, signed
from tests.checks import raw_channel
from tests.raw_http2 import status_of_call
from tests.refusals import as_refusal, refusal_of
from tests.running import RunningServer

ISSUE_TOKEN = "/modelhost.v1.Predict/IssueToken"
TRIES = 10_000
IN_FLIGHT = 50
ANSWERED = 10  # wrong tries, before anybody is slowed
SECONDS_EACH = 6.0


@pytest.fixture
def account(admin: AccessAdmin, model: str, name: str) -> Account:
    return admin.account(name, model)


@contextmanager
def working(server: RunningServer, account: Account, model: str) -> Iterator[list[str]]:
    """Logs in and calls meanwhile, over and over; collects how that ends."""
    ended, over, token = [""], threading.Event(), ""
    ended.clear()

    def work() -> None:
        nonlocal token
        with raw_channel(server.address) as channel:
            for number in itertools.count():
                if over.is_set():
                    return
                try:
                    if number % 50 == 0:
                        token = login(channel, account)
                    predict(channel, model, token)
                    ended.append("OK")
                except grpc.RpcError as error:
                    ended.append(as_refusal(error).reason)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()


def test_ten_thousand_wrong_logins_are_slowed_and_hold_up_nobody_else(
    server: RunningServer, channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, name: str
) -> None:
    guessing = replace(account, secret_key="mhs_guessed")
    bystander = admin.account(f"by-{name}"[:50], model)

    def guess(_: int) -> tuple[str, float | None]:
        refusal = refusal_of(lambda: login(channel, guessing))
        return refusal.reason, refusal.retry_after

    begun = time.monotonic()
    with working(server, bystander, model) as meanwhile, ThreadPoolExecutor(IN_FLIGHT) as threads:
        answers = list(threads.map(guess, range(TRIES)))
    let_through = ANSWERED + (time.monotonic() - begun) / SECONDS_EACH + 1

    reasons = Counter(reason for reason, _ in answers)
    assert set(reasons) == {"UNAUTHENTICATED", "LOGIN_THROTTLED"}
    assert ANSWERED <= reasons["UNAUTHENTICATED"] <= let_through
    waits = [wait for reason, wait in answers if reason == "LOGIN_THROTTLED"]
    assert all(wait is not None and 0 <= wait <= SECONDS_EACH for wait in waits)
    assert meanwhile
    assert set(meanwhile) == {"OK"}
    # From where nobody has guessed, the account itself gets its token.
    message = signed(account).SerializeToString()
    assert status_of_call(server.address, ISSUE_TOKEN, [], message, source="127.0.0.2") == 0
    assert predict(channel, model, login(channel, bystander)) > 1


def test_who_is_slowed_is_told_how_long_and_that_it_is_about_that_key_from_there(
    channel: grpc.Channel, account: Account
) -> None:
    guessing = replace(account, secret_key="mhs_guessed")
    for _ in range(ANSWERED):
        assert refusal_of(lambda: login(channel, guessing)).reason == "UNAUTHENTICATED"

    refusal = refusal_of(lambda: login(channel, account))  # even with the right key

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LOGIN_THROTTLED")
    assert account.access_key in refusal.message
    assert "127.0.0.1" in refusal.message
    assert refusal.retry_after is not None
    assert 0 < refusal.retry_after <= SECONDS_EACH


def test_what_is_used_again_counts_as_a_wrong_try(channel: grpc.Channel, account: Account) -> None:
    request = signed(account)
    assert issue(channel, request)

    reasons = [refusal_of(lambda: issue(channel, request)).reason for _ in range(ANSWERED + 1)]

    assert reasons == ["UNAUTHENTICATED"] * ANSWERED + ["LOGIN_THROTTLED"]


def test_right_logins_are_never_slowed(channel: grpc.Channel, account: Account) -> None:
    assert all(login(channel, account) for _ in range(ANSWERED * 5))


def test_a_gigantic_access_key_is_slowed_like_another(channel: grpc.Channel, account: Account) -> None:
    guessing = replace(account, access_key=account.access_key * 1000)

    reasons = [refusal_of(lambda: login(channel, guessing)).reason for _ in range(ANSWERED + 1)]

    assert reasons == ["UNAUTHENTICATED"] * ANSWERED + ["LOGIN_THROTTLED"]


# -- with a clock of the test's own ------------------------------------------------------------------------------------


class Desk:
    """An issuer with one account, whose time is `now`."""

    def __init__(self, database: Database) -> None:
        self.now = 1_000_000.0
        self.account = Account("shop", "ak_shop", "mhs_secret")
        vault, accounts = Vault(bytes(32)), Accounts()
        key = Credential(
            id="key", account_uid="1", kind=CredentialKind.SECRET_KEY, description="", digest="", created=0,
            sealed=vault.close(self.account.secret_key, purpose("key")), expires=None, last_used=None,
        )  # fmt: skip
        stored = ServiceAccount(
            uid="1", id="shop", description="", access_key="ak_shop", disabled=False, version=1, created=0, updated=0
        )
        accounts.put(StoredAccount(stored, [key], []))
        tokens = Tokens(lambda: b"key" * 20, lifetime=60)
        self._issuer = Issuer(database, accounts, tokens, vault, clock=lambda: self.now)

    async def login(self, secret_key: str, *, host: str = "10.0.0.1") -> str:
        nonce, when = new_nonce(), int(self.now)
        signature = sign(self.account.access_key, secret_key, when, nonce)
        try:
            await self._issuer.issue(self.account.access_key, when, nonce, signature, host=host)
        except Busy as busy:
            return f"wait {busy.retry_after:g}"
        except Unauthenticated:
            return "wrong"
        return "right"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    database = Database(tmp_path / "modelhost.db")
    yield Desk(database)
    database.close()


async def test_after_the_wait_the_right_signature_gets_a_token(desk: Desk) -> None:
    right = desk.account.secret_key
    assert {await desk.login("guess") for _ in range(ANSWERED)} == {"wrong"}
    assert await desk.login(right) == "wait 6"

    desk.now += 4
    assert await desk.login(right) == "wait 2"
    desk.now += 2
    assert await desk.login(right) == "right"
    assert await desk.login("guess") == "wrong"
    assert await desk.login(right) == "wait 6"
    desk.now += 60
    assert [await desk.login("guess") for _ in range(ANSWERED + 1)] == ["wrong"] * ANSWERED + ["wait 6"]


async def test_guesses_from_one_host_do_not_slow_the_account_at_another(desk: Desk) -> None:
    for _ in range(ANSWERED):
        await desk.login("guess", host="10.0.0.66")

    assert await desk.login(desk.account.secret_key, host="10.0.0.66") == "wait 6"
    assert await desk.login(desk.account.secret_key) == "right"


async def test_an_account_gets_a_hundred_tokens_at_once_and_then_one_a_second(desk: Desk) -> None:
    right = desk.account.secret_key
    assert {await desk.login(right) for _ in range(100)} == {"right"}

    assert await desk.login(right, host="10.0.0.2") == "wait 1"
    desk.now += 1
    assert await desk.login(right) == "right"
    assert await desk.login("guess") == "wrong"  # and what is wrong is told as ever
