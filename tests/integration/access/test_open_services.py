"""A service that was opened answers everybody, until it is closed; both are in the audit."""

import json
from collections.abc import Iterator

import grpc
import pytest

from modelhost.v1 import audit_pb2, deployment_pb2, predict_pb2, usage_pb2
from tests.access import AccessAdmin, describe, health, health_watch, login, methods_of, predict
from tests.checks import raw_call
from tests.refusals import refusal_of
from tests.running import RunningServer, eventually

SERVING, SERVICE_UNKNOWN = 1, 3
PREDICT = methods_of(predict_pb2.DESCRIPTOR.services_by_name["Predict"])
NO_MESSAGE = b"\xff\xff\xff"


@pytest.fixture
def opened(admin: AccessAdmin, model: str) -> Iterator[str]:
    admin.set_open(model, open_=True)
    yield model
    admin.set_open(model, open_=False)


def anonymous_is_let_in(channel: grpc.Channel) -> bool:
    """Whether calls without credentials are looked at at all."""
    path = "/modelhost.v1.Predict/Predict"
    reason = refusal_of(lambda: raw_call(channel, path, PREDICT[path], NO_MESSAGE, None)).reason
    assert reason in ("MALFORMED_REQUEST", "UNAUTHENTICATED")
    return reason == "MALFORMED_REQUEST"


def test_an_open_service_answers_whoever_comes_without_credentials(
    server: RunningServer, channel: grpc.Channel, opened: str
) -> None:
    for name in (opened, server.get(opened).service):
        assert predict(channel, name, None) > 1
        assert describe(channel, name, None).deployment == opened
        assert health(channel, name.removeprefix("services/"), None) == SERVING


def test_an_open_service_answers_every_account_and_every_operator(
    channel: grpc.Channel, admin: AccessAdmin, opened: str, name: str
) -> None:
    token, viewer = login(channel, admin.account(name)), admin.operator(name, "viewer")

    assert predict(channel, opened, token) > 1
    assert predict(channel, opened, viewer) > 1


def test_an_account_with_limits_has_them_at_an_open_service_too(
    channel: grpc.Channel, admin: AccessAdmin, opened: str, name: str
) -> None:
    token = login(channel, admin.account(name, opened, requests_per_second=0.001, burst=1))

    assert predict(channel, opened, token) > 1
    assert refusal_of(lambda: predict(channel, opened, token)).reason == "RATE_LIMIT_EXCEEDED"


@pytest.mark.parametrize("token", ["", "wrong", "mhk_wrong", "mha_wrong", "eyJhbGciOiJub25lIn0.e30."])
def test_wrong_credentials_are_wrong_at_an_open_service_too(channel: grpc.Channel, opened: str, token: str) -> None:
    assert refusal_of(lambda: predict(channel, opened, token)).reason == "UNAUTHENTICATED"
    assert refusal_of(lambda: describe(channel, opened, token)).reason == "UNAUTHENTICATED"


def test_nobody_without_credentials_gets_further_than_the_open_service(
    channel: grpc.Channel, opened: str, other: str
) -> None:
    for call in (predict, describe):
        assert refusal_of(lambda call=call: call(channel, other, None)).reason == "UNAUTHENTICATED"
    assert refusal_of(lambda: health(channel, other, None)).reason == "SERVICE_NOT_FOUND"


def test_a_service_that_is_closed_refuses_the_very_next_call(
    channel: grpc.Channel, admin: AccessAdmin, opened: str, name: str
) -> None:
    token = login(channel, admin.account(name))
    watch = health_watch(channel, opened, None)
    assert next(watch).status == SERVING
    assert predict(channel, opened, None) > 1
    assert predict(channel, opened, token) > 1

    admin.set_open(opened, open_=False)

    assert refusal_of(lambda: predict(channel, opened, None)).reason == "UNAUTHENTICATED"
    assert refusal_of(lambda: describe(channel, opened, None)).reason == "UNAUTHENTICATED"
    assert refusal_of(lambda: predict(channel, opened, token)).reason == "SERVICE_NOT_FOUND"
    assert next(watch).status == SERVICE_UNKNOWN
    watch.cancel()
    assert not anonymous_is_let_in(channel)


def test_opening_twice_is_opening_once(channel: grpc.Channel, admin: AccessAdmin, opened: str) -> None:
    admin.set_open(opened, open_=True)
    assert anonymous_is_let_in(channel)

    admin.set_open(opened, open_=False)
    admin.set_open(opened, open_=False)

    assert not anonymous_is_let_in(channel)


def test_an_open_service_that_is_deleted_leaves_no_door_open(
    server: RunningServer, channel: grpc.Channel, admin: AccessAdmin, model: str, name: str
) -> None:
    server.deploy(name, model)
    admin.set_open(name, open_=True)
    assert anonymous_is_let_in(channel)

    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))

    eventually(lambda: not anonymous_is_let_in(channel))
    assert refusal_of(lambda: predict(channel, name, None)).reason == "UNAUTHENTICATED"


def test_opening_and_closing_are_in_the_audit_and_anonymous_calls_in_the_usage(
    server: RunningServer, channel: grpc.Channel, admin: AccessAdmin, model: str
) -> None:
    def anonymous_calls() -> int:
        request = usage_pb2.GetServiceUsageRequest(service=model, caller="anonymous")
        return int(server.client.admin.GetServiceUsage(request).past_day.counts.requests)

    service = server.get(model).service
    before = anonymous_calls()
    admin.set_open(model, open_=True)
    assert predict(channel, model, None) > 1
    admin.set_open(model, open_=False)
    assert refusal_of(lambda: predict(channel, model, None)).reason == "UNAUTHENTICATED"

    asked = audit_pb2.ListAuditEventsRequest(resource=service, page_size=2)
    closed, opened = server.client.admin.ListAuditEvents(asked).audit_events
    assert (opened.method, closed.method) == ("modelhost.v1.Admin/OpenService", "modelhost.v1.Admin/CloseService")
    assert (opened.operator, opened.resource) == ("operators/admin", service)
    assert json.loads(opened.after_json) == {"open": True}
    assert json.loads(closed.before_json) == {"open": True}
    assert opened.peer.startswith("ipv4:127.0.0.1:")
    assert anonymous_calls() == before + 1  # the refused one is nobody's
