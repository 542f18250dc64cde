"""Tokens are for those who sign for them, now and once: whatever else is tried gets the same answer, and no token."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from modelhost.v1 import predict_pb2, predict_pb2_grpc
from tests.access import AccessAdmin, Account, issue, login, new_nonce, predict, sign, signed
from tests.checks import raw_channel
from tests.refusals import Refusal, as_refusal, refusal_of
from tests.running import RunningServer

Request = predict_pb2.IssueTokenRequest
INT64 = (-(2**63), 2**63 - 1)


@pytest.fixture
def account(admin: AccessAdmin, model: str, name: str) -> Account:
    return admin.account(name, model)


@pytest.fixture(scope="session")
def refused(server: RunningServer) -> Refusal:
    """How somebody is refused whom nobody knows."""
    stranger = Account("", "ak_" + "0" * 20, "mhs_nobody")
    with raw_channel(server.address) as channel:
        return refusal_of(lambda: login(channel, stranger))


def changed(account: Account, **values: object) -> Request:
    """What was signed, but for a field that somebody has changed on the way."""
    request = signed(account)
    for name, value in values.items():
        setattr(request, name, value)
    return request


def with_signature(account: Account, change: Callable[[str], str]) -> Request:
    request = signed(account)
    request.signature = change(request.signature)
    return request


def test_a_signature_gets_a_token_that_calls_what_was_granted(
    channel: grpc.Channel, account: Account, model: str
) -> None:
    before = time.time()
    answer = predict_pb2_grpc.PredictStub(channel).IssueToken(signed(account))

    assert predict(channel, model, answer.token) > 1
    assert len(answer.token) <= 1024
    assert before + 7190 < answer.expire_time.ToSeconds() < time.time() + 7210


def test_the_refusal_of_a_stranger_says_what_may_be_wrong_and_not_what_is(refused: Refusal) -> None:
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    for each in ("access key", "signature", "timestamp", "nonce"):
        assert each in refused.message
    assert refused.retry_after is None


FORGERIES: dict[str, Callable[[Account], Request]] = {
    "another secret key": lambda a: signed(replace(a, secret_key="mhs_" + "A" * 43)),
    "an empty secret key": lambda a: signed(replace(a, secret_key="")),
    "the secret key without its prefix": lambda a: signed(replace(a, secret_key=a.secret_key.removeprefix("mhs_"))),
    "the access key for a secret key": lambda a: signed(replace(a, secret_key=a.access_key)),
    "another access key": lambda a: changed(a, access_key="ak_" + "1" * 20),
    "no access key": lambda a: changed(a, access_key=""),
    "the access key in capitals": lambda a: changed(a, access_key=a.access_key.upper()),
    "a blank after the access key": lambda a: changed(a, access_key=a.access_key + " "),
    "a gigantic access key": lambda a: changed(a, access_key=a.access_key * 10_000),
    "an access key of many lines": lambda a: changed(a, access_key=f"{a.access_key}\n1\nnonce"),
    "the account's id for an access key": lambda a: changed(a, access_key=a.id),
    "another time": lambda a: changed(a, timestamp=int(time.time()) - 1),
    "another nonce": lambda a: changed(a, nonce=new_nonce()),
    "no signature": lambda a: changed(a, signature=""),
    "zeros": lambda a: changed(a, signature="0" * 64),
    "half of the signature": lambda a: with_signature(a, lambda s: s[:32]),
    "the signature twice": lambda a: with_signature(a, lambda s: s * 2),
    "a blank after the signature": lambda a: with_signature(a, lambda s: s + "\n"),
    "no hexadecimal": lambda a: changed(a, signature="g" * 64),
    "digits of another script": lambda a: changed(a, signature="٣" * 64),
    "a gigantic signature": lambda a: changed(a, signature="a" * 1_000_000),
    "the secret key for a signature": lambda a: changed(a, signature=a.secret_key),
    "a clock that is late": lambda a: signed(a, timestamp=int(time.time()) - 310),
    "a clock that is early": lambda a: signed(a, timestamp=int(time.time()) + 310),
    "milliseconds": lambda a: signed(a, timestamp=int(time.time() * 1000)),
    "no time": lambda a: signed(a, timestamp=0),
    "a time long ago": lambda a: signed(a, timestamp=INT64[0]),
    "a time far ahead": lambda a: signed(a, timestamp=INT64[1]),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_every_wrong_login_is_refused_in_the_same_words(
    channel: grpc.Channel, account: Account, refused: Refusal, forgery: str
) -> None:
    request = FORGERIES[forgery](account)

    assert refusal_of(lambda: issue(channel, request)) == refused
    assert login(channel, account)


@pytest.mark.parametrize("apart", [-280, 280])
def test_a_clock_that_is_a_little_off_does_not_matter(channel: grpc.Channel, account: Account, apart: int) -> None:
    assert issue(channel, signed(account, timestamp=int(time.time()) + apart))


def test_a_signature_may_be_in_capitals(channel: grpc.Channel, account: Account) -> None:
    assert issue(channel, with_signature(account, str.upper))


@pytest.mark.parametrize(
    "nonce", ["", "short", "x" * 129, "with blanks", "eightß88", "line\nbreak", "\0" * 8, "a/b/c/d/e"]
)
def test_what_is_no_nonce_is_said_to_be_none(channel: grpc.Channel, account: Account, nonce: str) -> None:
    refusal = refusal_of(lambda: issue(channel, signed(account, nonce=nonce)))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


@pytest.mark.parametrize("nonce", ["a" * 8, "z" * 128, "A-Z_a.z-09"])
def test_a_nonce_has_8_to_128_plain_characters(channel: grpc.Channel, account: Account, nonce: str) -> None:
    assert issue(channel, signed(account, nonce=nonce))


def test_who_listens_cannot_use_what_was_sent_again(channel: grpc.Channel, account: Account, refused: Refusal) -> None:
    request = signed(account)
    assert issue(channel, request)

    assert {refusal_of(lambda: issue(channel, request)) for _ in range(3)} == {refused}


def test_a_nonce_is_taken_once_whatever_time_is_signed_with_it(
    channel: grpc.Channel, account: Account, refused: Refusal
) -> None:
    now, nonce = int(time.time()), new_nonce()
    assert issue(channel, signed(account, timestamp=now, nonce=nonce))

    assert refusal_of(lambda: issue(channel, signed(account, timestamp=now + 1, nonce=nonce))) == refused


def test_of_many_who_send_the_same_at_once_one_gets_a_token(
    server: RunningServer, channel: grpc.Channel, account: Account, refused: Refusal
) -> None:
    request = signed(account)

    def attempt(_: int) -> Refusal | None:
        try:
            issue(channel, request)
        except grpc.RpcError as error:
            return as_refusal(error)
        return None

    with ThreadPoolExecutor(9) as threads:
        answers = list(threads.map(attempt, range(9)))

    assert answers.count(None) == 1
    assert answers.count(refused) == 8


def test_accounts_do_not_take_each_others_nonces(
    channel: grpc.Channel, admin: AccessAdmin, account: Account, name: str
) -> None:
    nonce = new_nonce()
    assert issue(channel, signed(account, nonce=nonce))

    assert issue(channel, signed(admin.account(f"{name}-2"[-50:]), nonce=nonce))


def test_a_wrong_signature_uses_up_no_nonce(channel: grpc.Channel, account: Account, refused: Refusal) -> None:
    right = signed(account)
    wrong = signed(replace(account, secret_key="mhs_wrong"), timestamp=right.timestamp, nonce=right.nonce)
    assert refusal_of(lambda: issue(channel, wrong)) == refused

    assert issue(channel, right)


def test_a_login_that_was_heard_is_worth_nothing_after_a_restart_either(tmp_path: Path, refused: Refusal) -> None:
    with RunningServer(tmp_path / "state") as server, raw_channel(server.address) as channel:
        account = AccessAdmin(server).account("shop")
        request = signed(account)
        assert issue(channel, request)

    with RunningServer(tmp_path / "state") as server, raw_channel(server.address) as channel:
        assert refusal_of(lambda: issue(channel, request)) == refused
        assert login(channel, account)


def test_what_one_server_takes_is_worth_nothing_on_another(
    channel: grpc.Channel, account: Account, tmp_path: Path, refused: Refusal
) -> None:
    with RunningServer(tmp_path / "state") as server, raw_channel(server.address) as elsewhere:
        assert refusal_of(lambda: login(elsewhere, account)) == refused
        namesake = AccessAdmin(server).account(account.id)

    assert refusal_of(lambda: login(channel, namesake)) == refused
    assert refusal_of(lambda: login(channel, replace(account, secret_key=namesake.secret_key))) == refused


def test_who_may_log_in_is_not_asked_for_a_token(channel: grpc.Channel, account: Account) -> None:
    stub = predict_pb2_grpc.PredictStub(channel)

    for header in ("", "Bearer wrong", "Basic mha_", "Bearer mhk_wrong"):
        assert stub.IssueToken(signed(account), metadata=[("authorization", header)]).token


def test_the_signature_is_made_as_it_is_described() -> None:
    made = sign("ak_00112233445566778899", "mhs_secret", 1_700_000_000, "nonce-nonce")

    assert made == "a6cc33351d3c7db4ff2f7ea728818eee4e04a46d705c4b2f1fde1a6f7fda6790"
