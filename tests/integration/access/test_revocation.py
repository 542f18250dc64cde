"""What is taken back is taken back at once: the first call after the change was acknowledged is refused."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from modelhost.v1 import admin_pb2_grpc, deployment_pb2, log_pb2, operator_pb2
from tests.access import (
    AccessAdmin,
    Account,
    as_refusal,
    bearer,
    health,
    health_watch,
    in_database,
    login,
    predict,
    refusal_of,
)
from tests.checks import raw_channel, refused
from tests.obedient import do
from tests.running import RunningServer

SERVING, SERVICE_UNKNOWN = 1, 3


@pytest.fixture
def account(admin: AccessAdmin, model: str, name: str) -> Account:
    return admin.account(name, model)


@pytest.fixture
def operator_id(name: str) -> str:
    return name


def outcome(channel: grpc.Channel, service: str, token: str) -> str:
    """`OK`, or the reason for which a call is refused."""
    try:
        predict(channel, service, token)
    except grpc.RpcError as error:
        return as_refusal(error).reason
    return "OK"


def listed(channel: grpc.Channel, token: str) -> str:
    """`OK`, or the reason for which an operator's call is refused."""
    try:
        admin_pb2_grpc.AdminStub(channel).ListDeployments(
            deployment_pb2.ListDeploymentsRequest(page_size=1), metadata=bearer(token)
        )
    except grpc.RpcError as error:
        return as_refusal(error).reason
    return "OK"


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


# -- operators ---------------------------------------------------------------------------------------------------------

Change = Callable[[AccessAdmin, str], object]
LET_IN_NO_MORE: dict[str, Change] = {
    "deleted": lambda admin, operator: admin.delete_operator(operator),
    "disabled": lambda admin, operator: admin.change_operator(operator, disabled=True),
    "given another token": lambda admin, operator: admin.rotate_operator(operator),
}


@pytest.mark.parametrize("change", LET_IN_NO_MORE)
def test_an_operator_is_let_in_no_more_at_once(
    channel: grpc.Channel, admin: AccessAdmin, operator_id: str, change: str
) -> None:
    token = admin.operator(operator_id, "admin")
    assert listed(channel, token) == "OK"

    LET_IN_NO_MORE[change](admin, operator_id)

    assert listed(channel, token) == "UNAUTHENTICATED"


def test_an_operator_who_gets_another_role_has_it_at_once(
    server: RunningServer, channel: grpc.Channel, admin: AccessAdmin, model: str, operator_id: str
) -> None:
    token = admin.operator(operator_id, "admin")
    with closing(server.connect(token)) as client:
        asked = operator_pb2.ListOperatorsRequest()
        assert client.admin.ListOperators(asked)

        admin.change_operator(operator_id, role="viewer")

        with refused("ROLE_REQUIRED"):
            client.admin.ListOperators(asked)
        assert outcome(channel, model, token) == "ROLE_REQUIRED"
        assert listed(channel, token) == "OK"

        admin.change_operator(operator_id, role="deployer")

        assert outcome(channel, model, token) == "OK"
        with refused("ROLE_REQUIRED"):
            client.admin.ListOperators(asked)


def test_an_operator_who_is_enabled_again_is_let_in_with_the_same_token(
    channel: grpc.Channel, admin: AccessAdmin, operator_id: str
) -> None:
    token = admin.operator(operator_id, "viewer")
    admin.change_operator(operator_id, disabled=True)
    assert listed(channel, token) == "UNAUTHENTICATED"

    admin.change_operator(operator_id, disabled=False)

    assert listed(channel, token) == "OK"


# -- while a stream is under way ---------------------------------------------------------------------------------------


def watching(channel: grpc.Channel, model: str, token: str) -> Iterator[object]:
    request = deployment_pb2.WatchDeploymentRequest(name=model)
    stream: Iterator[object] = admin_pb2_grpc.AdminStub(channel).WatchDeployment(request, metadata=bearer(token))
    return stream


def tailing(channel: grpc.Channel, model: str, token: str) -> Iterator[object]:
    request = log_pb2.TailLogRequest(deployment=model, kind=log_pb2.LOG_KIND_RUN)
    stream: Iterator[object] = admin_pb2_grpc.AdminStub(channel).TailLog(request, metadata=bearer(token))
    return stream


@pytest.mark.parametrize("stream_of", [watching, tailing])
@pytest.mark.parametrize("change", LET_IN_NO_MORE)
def test_a_stream_ends_when_its_operator_is_let_in_no_more(
    server: RunningServer,
    channel: grpc.Channel,
    admin: AccessAdmin,
    model: str,
    operator_id: str,
    change: str,
    stream_of: Callable[[grpc.Channel, str, str], Iterator[object]],
) -> None:
    server.predict(model, do("say", lines=1))
    stream = stream_of(channel, model, admin.operator(operator_id, "viewer"))
    next(stream)

    LET_IN_NO_MORE[change](admin, operator_id)

    refusal = refusal_of(lambda: list(stream))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


def test_a_stream_goes_on_through_changes_that_take_nothing_away(
    server: RunningServer, channel: grpc.Channel, admin: AccessAdmin, model: str, operator_id: str, account: Account
) -> None:
    with raw_channel(server.address) as other:
        stream = watching(other, model, admin.operator(operator_id, "admin"))
        next(stream)

        admin.change_operator(operator_id, role="viewer")  # which is enough to watch
        admin.rotate(account, overlap=0)
        admin.delete(account)
        server.scale(model, 2)
        assert next(stream)
        server.scale(model, 1)


def test_a_watch_of_health_tells_that_a_grant_was_taken_back_and_given_again(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account
) -> None:
    watch = health_watch(channel, model, login(channel, account))
    assert next(watch).status == SERVING

    admin.revoke(account, model)
    assert next(watch).status == SERVICE_UNKNOWN
    admin.grant(account, model)
    assert next(watch).status == SERVING
    admin.disable(account)
    assert next(watch).status == SERVICE_UNKNOWN
    admin.disable(account, disabled=False)
    assert next(watch).status == SERVING
    admin.delete(account)
    assert next(watch).status == SERVICE_UNKNOWN
    watch.cancel()
