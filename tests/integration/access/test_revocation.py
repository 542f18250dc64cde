"""What is taken back is taken back at once: the first call after the change was acknowledged is refused."""

import threading
from pathlib import Path

import grpc
import pytest

from modelhost.v1 import operator_pb2
from tests.access import AccessAdmin, Account, health, in_database, listed, login, outcome
from tests.checks import raw_channel
from tests.refusals import refusal_of
from tests.running import RunningServer

SERVING, SERVICE_UNKNOWN = 1, 3


@pytest.fixture
def account(admin: AccessAdmin, model: str, name: str) -> Account:
    return admin.account(name, model)


@pytest.fixture
def operator_id(name: str) -> str:
    return name


def test_an_account_that_is_deleted_is_let_in_with_nothing(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account
) -> None:
    token, (_, key) = login(channel, account), admin.api_key(account)
    assert (outcome(channel, model, token), outcome(channel, model, key)) == ("OK", "OK")

    admin.delete(account)

    assert (outcome(channel, model, token), outcome(channel, model, key)) == ("UNAUTHENTICATED",) * 2
    assert refusal_of(lambda: login(channel, account)).reason == "UNAUTHENTICATED"
    assert refusal_of(lambda: health(channel, model, token)).reason == "SERVICE_NOT_FOUND"


def test_an_account_of_the_name_of_one_that_was_deleted_inherits_nothing(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account
) -> None:
    token, (_, key) = login(channel, account), admin.api_key(account)
    admin.delete(account)

    heir = admin.account(account.id)

    assert refusal_of(lambda: login(channel, account)).reason == "UNAUTHENTICATED"
    assert (outcome(channel, model, token), outcome(channel, model, key)) == ("UNAUTHENTICATED",) * 2
    assert outcome(channel, model, login(channel, heir)) == "SERVICE_NOT_FOUND"


def test_an_account_that_is_disabled_is_let_in_with_nothing_until_it_is_enabled(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account
) -> None:
    token, (_, key) = login(channel, account), admin.api_key(account)

    admin.disable(account)

    assert (outcome(channel, model, token), outcome(channel, model, key)) == ("UNAUTHENTICATED",) * 2
    assert refusal_of(lambda: login(channel, account)).reason == "UNAUTHENTICATED"
    assert refusal_of(lambda: health(channel, model, token)).reason == "SERVICE_NOT_FOUND"

    admin.disable(account, disabled=False)

    assert [outcome(channel, model, each) for each in (token, key, login(channel, account))] == ["OK"] * 3


def test_an_api_key_that_is_deleted_is_of_no_use_and_the_others_are(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account
) -> None:
    (name, key), (_, other) = admin.api_key(account), admin.api_key(account)
    token = login(channel, account)
    assert outcome(channel, model, key) == "OK"

    admin.delete_api_key(name)

    assert [outcome(channel, model, each) for each in (key, other, token)] == ["UNAUTHENTICATED", "OK", "OK"]


def test_a_grant_that_is_taken_back_lets_nobody_in_and_comes_back(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account
) -> None:
    token, (_, key) = login(channel, account), admin.api_key(account)
    assert outcome(channel, model, token) == "OK"

    admin.revoke(account, model)

    assert (outcome(channel, model, token), outcome(channel, model, key)) == ("SERVICE_NOT_FOUND",) * 2
    assert refusal_of(lambda: health(channel, model, token)).reason == "SERVICE_NOT_FOUND"

    admin.grant(account, model)

    assert (outcome(channel, model, token), outcome(channel, model, key)) == ("OK", "OK")


def test_no_call_begins_after_the_change_was_acknowledged_however_many_are_made(
    server: RunningServer, admin: AccessAdmin, model: str, account: Account
) -> None:
    acknowledged, begun = threading.Event(), threading.Barrier(5)
    late: list[str] = []

    def call_on_and_on() -> None:
        with raw_channel(server.address) as channel:
            token = login(channel, account)
            assert outcome(channel, model, token) == "OK"
            begun.wait()
            while True:
                after = acknowledged.is_set()
                ended = outcome(channel, model, token)
                if after:
                    late.append(ended)
                    return

    threads = [threading.Thread(target=call_on_and_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    admin.revoke(account, model)
    acknowledged.set()
    for thread in threads:
        thread.join()

    assert late == ["SERVICE_NOT_FOUND"] * 4


def test_a_secret_key_that_is_replaced_at_once_ends_with_its_tokens(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account
) -> None:
    token, (_, key) = login(channel, account), admin.api_key(account)
    assert outcome(channel, model, token) == "OK"

    new = admin.rotate(account, overlap=0)

    assert refusal_of(lambda: login(channel, account)).reason == "UNAUTHENTICATED"
    assert outcome(channel, model, token) == "UNAUTHENTICATED"
    assert [outcome(channel, model, each) for each in (login(channel, new), key)] == ["OK", "OK"]


def test_secret_keys_overlap_with_their_tokens_until_the_older_ones_are_ended(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account
) -> None:
    second = admin.rotate(account, overlap=3600)
    third = admin.rotate(second, overlap=3600)

    tokens = [login(channel, each) for each in (account, second, third)]
    assert [outcome(channel, model, each) for each in tokens] == ["OK"] * 3

    fourth = admin.rotate(third, overlap=0)

    assert [outcome(channel, model, each) for each in tokens] == ["UNAUTHENTICATED"] * 3
    for each in (account, second, third):
        assert refusal_of(lambda each=each: login(channel, each)).reason == "UNAUTHENTICATED"
    assert outcome(channel, model, login(channel, fourth)) == "OK"


def test_what_has_ended_while_the_server_was_stopped_has_ended(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with RunningServer(state) as server, raw_channel(server.address) as channel:
        admin = AccessAdmin(server)
        first = admin.account("shop")
        old = login(channel, first)
        second = admin.rotate(first, overlap=3600)
        young = login(channel, second)
        _, key = admin.api_key(first)
        _, ended_key = admin.api_key(first)
        viewer = admin.operator("viewer", "viewer")
    in_database(
        state,
        ("UPDATE credentials SET expires = created + 60 - 7200 WHERE expires IS NOT NULL", ()),
        ("UPDATE credentials SET expires = 1 WHERE id = (SELECT id FROM credentials WHERE kind = 'api_key'"
         " ORDER BY created DESC LIMIT 1)", ()),
        ("UPDATE operators SET expires = 1", ()),
    )  # fmt: skip

    with RunningServer(state) as server, raw_channel(server.address) as channel:
        assert refusal_of(lambda: login(channel, first)).reason == "UNAUTHENTICATED"
        assert login(channel, second)
        told = {each: outcome(channel, "nothing", each) for each in (old, young, key, ended_key)}
        assert list(told.values()) == ["TOKEN_EXPIRED", "SERVICE_NOT_FOUND", "SERVICE_NOT_FOUND", "TOKEN_EXPIRED"]
        assert listed(channel, viewer) == "TOKEN_EXPIRED"


def test_a_new_secret_key_of_the_server_ends_all_bearer_tokens_and_nothing_else(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "state") as server, raw_channel(server.address) as channel:
        admin = AccessAdmin(server)
        account = admin.account("shop")
        token, (_, key) = login(channel, account), admin.api_key(account)
        viewer = admin.operator("viewer", "viewer")
        assert outcome(channel, "nothing", token) == "SERVICE_NOT_FOUND"

        server.client.admin.RotateSecretKey(operator_pb2.RotateSecretKeyRequest())

        assert outcome(channel, "nothing", token) == "UNAUTHENTICATED"
        assert outcome(channel, "nothing", key) == "SERVICE_NOT_FOUND"
        assert outcome(channel, "nothing", login(channel, account)) == "SERVICE_NOT_FOUND"
        assert listed(channel, viewer) == "OK"
