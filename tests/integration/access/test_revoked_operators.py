"""Operators who are let in no more, or to less, from the very next call on, and streams that end with that."""

from collections.abc import Callable, Iterator
from contextlib import closing

import grpc
import pytest

from modelhost.v1 import admin_pb2_grpc, deployment_pb2, log_pb2, operator_pb2
from tests.access import AccessAdmin, Account, bearer, health_watch, listed, login, outcome
from tests.checks import raw_channel, refused
from tests.obedient import do
from tests.refusals import refusal_of
from tests.running import RunningServer

SERVING, SERVICE_UNKNOWN = 1, 3


@pytest.fixture
def account(admin: AccessAdmin, model: str, name: str) -> Account:
    return admin.account(name, model)


@pytest.fixture
def operator_id(name: str) -> str:
    return name


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
