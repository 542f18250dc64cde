"""A service that is not granted looks like one that is not there, to the last byte of the answer."""

import json
from collections.abc import Callable

import grpc
import pytest

from modelhost.v1 import deployment_pb2, predict_pb2, predict_pb2_grpc
from tests.access import AccessAdmin, Account, bearer, describe, health, health_watch, login, predict
from tests.refusals import refusal_of
from tests.running import MESSAGE_LIMIT, Deployment, RunningServer, eventually, reason_of

SERVICE_UNKNOWN = 3

Ask = Callable[[grpc.Channel, str, str | None], object]


def predict_nothing(channel: grpc.Channel, service: str, token: str | None) -> object:
    """A call without parameters, which is refused of a service that is there."""
    request = predict_pb2.PredictRequest(service=service)
    return predict_pb2_grpc.PredictStub(channel).Predict(request, metadata=bearer(token))


def predict_much(channel: grpc.Channel, service: str, token: str | None) -> object:
    """A call that is nearly too large."""
    text = json.dumps("x" * (MESSAGE_LIMIT - 1000))
    request = predict_pb2.PredictRequest(service=service, parameters_json=text)
    return predict_pb2_grpc.PredictStub(channel).Predict(request, metadata=bearer(token))


ASKED: dict[str, Ask] = {
    "Predict": predict,
    "Predict without parameters": predict_nothing,
    "Predict with much": predict_much,
    "DescribeService": describe,
    "Health.Check": health,
}
FORMS = ["{id}", "services/{id}", "deployments/{id}"]


def like(name: str) -> str:
    """A name of the same length that nothing has."""
    return name[:-1] + ("0" if name[-1] != "0" else "1")


@pytest.fixture
def stranger(channel: grpc.Channel, admin: AccessAdmin, model: str, name: str) -> str:
    """The token of an account that may call `model` and nothing else."""
    return login(channel, admin.account(name, model))


@pytest.fixture
def hidden(server: RunningServer, other: str) -> list[str]:
    """All names of a service that runs."""
    return [other, server.get(other).service.removeprefix("services/")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("asked", ASKED)
def test_what_is_not_granted_is_answered_like_what_is_not_there(
    channel: grpc.Channel, stranger: str, hidden: list[str], asked: str, form: str
) -> None:
    ask = ASKED[asked]
    for service in hidden:
        there, missing = form.format(id=service), form.format(id=like(service))
        told = refusal_of(lambda there=there: ask(channel, there, stranger))

        assert told.of(service) == refusal_of(lambda missing=missing: ask(channel, missing, stranger)).of(like(service))
        assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "SERVICE_NOT_FOUND")


@pytest.mark.parametrize("token", [None, "wrong", "mhk_wrong", "mha_wrong"])
@pytest.mark.parametrize("asked", ASKED)
def test_who_is_not_known_is_told_nothing_of_what_there_is(
    channel: grpc.Channel, hidden: list[str], asked: str, token: str | None
) -> None:
    for service in hidden:
        told = refusal_of(lambda service=service: ASKED[asked](channel, service, token))

        missing = refusal_of(lambda service=service: ASKED[asked](channel, like(service), token))
        assert told.of(service) == missing.of(like(service))
        assert told.reason == ("SERVICE_NOT_FOUND" if asked == "Health.Check" else "UNAUTHENTICATED")


@pytest.mark.parametrize("asked", ASKED)
def test_nobody_without_credentials_is_told_more_where_some_other_service_is_open(
    channel: grpc.Channel, admin: AccessAdmin, model: str, hidden: list[str], asked: str
) -> None:
    admin.set_open(model, open_=True)
    try:
        for service in hidden:
            told = refusal_of(lambda service=service: ASKED[asked](channel, service, None))
            missing = refusal_of(lambda service=service: ASKED[asked](channel, like(service), None))
            assert told.of(service) == missing.of(like(service))
    finally:
        admin.set_open(model, open_=False)


def test_a_watch_of_what_is_not_granted_is_one_of_what_is_not_there(
    server: RunningServer, channel: grpc.Channel, stranger: str, other: str
) -> None:
    watches = [health_watch(channel, service, stranger) for service in (other, like(other))]
    assert [next(watch).status for watch in watches] == [SERVICE_UNKNOWN] * 2

    server.scale(other, 2)  # of which nothing is told
    server.scale(other, 1)
    for watch in watches:
        watch.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_what_does_not_run_and_is_not_granted_is_not_there_either(
    server: RunningServer, channel: grpc.Channel, stranger: str, model: str, name: str
) -> None:
    service = f"{name[:40]}-idle"
    server.create(service, model)
    for ask in ASKED.values():
        told = refusal_of(lambda ask=ask: ask(channel, service, stranger)).of(service)
        assert told == refusal_of(lambda ask=ask: ask(channel, like(service), stranger)).of(like(service))

    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=service))


def test_a_service_that_is_deleted_takes_its_grants_along(
    server: RunningServer, channel: grpc.Channel, admin: AccessAdmin, model: str, name: str
) -> None:
    server.create(name, model)
    account: Account = admin.account(name, name)
    token = login(channel, account)
    assert refusal_of(lambda: predict(channel, name, token)).reason == "SERVICE_NOT_RUNNING"

    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name))
    eventually(lambda: reason_of(lambda: server.get(name)) == "DEPLOYMENT_NOT_FOUND")
    server.create(name, model)

    assert server.get(name).state == Deployment.STATE_STOPPED
    assert refusal_of(lambda: predict(channel, name, token)).reason == "SERVICE_NOT_FOUND"


def test_listing_health_tells_of_no_prediction_service(channel: grpc.Channel, stranger: str, hidden: list[str]) -> None:
    stub = channel.unary_unary("/grpc.health.v1.Health/List")

    answers = {stub(b"", metadata=bearer(token)) for token in (None, stranger)}

    assert len(answers) == 1
    assert not [name for name in hidden if name.encode() in answers.copy().pop()]
