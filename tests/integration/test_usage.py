"""Usage of a real server: who called what, what came of it, and that a restart forgets nothing."""

import json
from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelhost.client import Client, ModelHostError
from modelhost.v1 import deployment_pb2, service_account_pb2, service_pb2, usage_pb2
from tests.checks import refused
from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import RunningServer, eventually

OPERATOR = "operators/admin"
SHOP, STATS = "usage-shop", "usage-stats"


@pytest.fixture(scope="session")
def models(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data source with the obedient model."""
    repo = Repo(tmp_path_factory.mktemp("usage") / "repo")
    repo.commit(OBEDIENT)
    server.add_source("usage", repo)
    return "usage"


@pytest.fixture
def model(server: RunningServer, models: str, name: str) -> str:
    """A deployment that nobody has called yet."""
    server.deploy(name, models)
    return name


@pytest.fixture(scope="session")
def accounts(server: RunningServer) -> Iterator[dict[str, Client]]:
    """Clients of two service accounts."""
    clients = {account: client_of(server, account) for account in (SHOP, STATS)}
    yield clients
    for client in clients.values():
        client.close()


def client_of(server: RunningServer, account: str) -> Client:
    """Make a service account, and a client that has an API key of it."""
    admin = server.client.admin
    admin.CreateServiceAccount(service_account_pb2.CreateServiceAccountRequest(service_account_id=account))
    key = admin.CreateApiKey(service_account_pb2.CreateApiKeyRequest(service_account=f"serviceAccounts/{account}")).key
    return server.connect(key)


def grant(server: RunningServer, account: str, name: str) -> None:
    server.client.admin.GrantService(service_account_pb2.GrantServiceRequest(service_account=account, service=name))


def usage_of(server: RunningServer, name: str, **fields: Any) -> usage_pb2.ServiceUsage:
    return server.client.admin.GetServiceUsage(usage_pb2.GetServiceUsageRequest(service=name, **fields))


def failures(counts: usage_pb2.UsageCounts) -> dict[str, int]:
    return {each.code: each.count for each in counts.failures}


def fail(client: Client, name: str, what: str) -> None:
    with pytest.raises(ModelHostError):
        client.predict(name, do(what))


def test_calls_are_told_by_caller_and_code_as_soon_as_they_are_answered(
    server: RunningServer, model: str, accounts: dict[str, Client]
) -> None:
    for account, client in accounts.items():
        grant(server, account, model)
        client.predict(model, do("echo", value=account))
    accounts[SHOP].predict(model, do("nothing"))
    fail(accounts[SHOP], model, "raise")
    fail(accounts[SHOP], model, "raise")
    fail(accounts[STATS], model, "reject")
    server.predict(model, do("nothing"))

    usage = usage_of(server, model)

    assert (usage.service, usage.deployment) == (server.get(model).service, f"deployments/{model}")
    assert [(each.caller, each.past_hour.requests, failures(each.past_hour)) for each in usage.callers] == [
        (f"serviceAccounts/{SHOP}", 4, {"UNKNOWN": 2}),
        (f"serviceAccounts/{STATS}", 2, {"INVALID_ARGUMENT": 1}),
        (OPERATOR, 1, {}),
    ]
    whole = usage.past_hour.counts
    assert (whole.requests, failures(whole)) == (7, {"UNKNOWN": 2, "INVALID_ARGUMENT": 1})
    assert list(failures(whole)) == ["UNKNOWN", "INVALID_ARGUMENT"], "most first"
    assert 0 < whole.latency_p50_seconds <= whole.latency_p90_seconds <= whole.latency_p99_seconds < 60
    assert usage.past_day.counts == usage.past_week.counts == whole


def test_hours_and_days_are_all_there_and_hold_the_calls(server: RunningServer, model: str) -> None:
    for _ in range(3):
        server.predict(model, do("nothing"))

    usage = usage_of(server, model, days=90)

    for periods, count, length in ((usage.hours, 24, timedelta(hours=1)), (usage.days, 90, timedelta(days=1))):
        starts = [each.start_time.ToDatetime(UTC) for each in periods]
        assert [start - starts[0] for start in starts] == [number * length for number in range(count)]
        assert sum(each.counts.requests for each in periods) == 3
        assert sum(each.counts.requests for each in periods[-2:]) == 3
    assert len(usage_of(server, model).days) == 7


def test_bytes_are_those_of_requests_and_responses(server: RunningServer, model: str) -> None:
    server.predict(model, do("return_much", size=50_000))
    answered = usage_of(server, model).past_hour.counts
    assert answered.request_bytes < 1_000
    assert 50_000 < answered.response_bytes < 51_000

    server.predict(model, do("echo", value="x" * 50_000))
    echoed = usage_of(server, model).past_hour.counts

    assert 50_000 < echoed.request_bytes - answered.request_bytes < 51_000
    assert 50_000 < echoed.response_bytes - answered.response_bytes < 51_000


def test_one_callers_usage_can_be_asked_for(server: RunningServer, model: str, accounts: dict[str, Client]) -> None:
    grant(server, SHOP, model)
    accounts[SHOP].predict(model, do("nothing"))
    server.predict(model, do("nothing"))
    server.predict(model, do("nothing"))

    usage = usage_of(server, model, caller=f"serviceAccounts/{SHOP}")

    assert [each.caller for each in usage.callers] == [f"serviceAccounts/{SHOP}"]
    assert usage.past_hour.counts.requests == sum(each.counts.requests for each in usage.hours) == 1
    assert usage_of(server, model, caller=OPERATOR).past_hour.counts.requests == 2


def test_who_is_not_let_in_does_not_count(server: RunningServer, model: str, accounts: dict[str, Client]) -> None:
    fail(accounts[STATS], model, "nothing")  # was not granted it
    with server.connect("not-a-token") as stranger, server.connect(None) as nobody:
        fail(stranger, model, "nothing")
        fail(nobody, model, "nothing")

    assert usage_of(server, model).past_hour.counts.requests == 0


def test_calls_of_an_open_service_without_a_token_are_anonymous(server: RunningServer, model: str) -> None:
    server.client.admin.OpenService(service_pb2.OpenServiceRequest(name=model))

    try:
        with server.connect(None) as nobody:
            nobody.predict(model, do("nothing"))
    finally:
        server.client.admin.CloseService(service_pb2.CloseServiceRequest(name=model))

    assert [(each.caller, each.past_day.requests) for each in usage_of(server, model).callers] == [("anonymous", 1)]


def test_a_call_with_debug_is_no_use(server: RunningServer, model: str) -> None:
    request = deployment_pb2.DebugDeploymentRequest(name=model, parameters_json=json.dumps(do("nothing")))
    assert server.client.admin.DebugDeployment(request).result_json

    assert usage_of(server, model).past_hour.counts.requests == 0


def test_a_deleted_account_is_named_as_it_was(server: RunningServer, model: str) -> None:
    with client_of(server, "usage-gone") as client:
        grant(server, "usage-gone", model)
        client.predict(model, do("nothing"))
    request = service_account_pb2.DeleteServiceAccountRequest(name="usage-gone")
    server.client.admin.DeleteServiceAccount(request)

    assert [each.caller for each in usage_of(server, model).callers] == ["serviceAccounts/usage-gone"]


def test_before_it_has_run_a_service_has_no_usage(server: RunningServer, models: str, name: str) -> None:
    server.create(name, models)

    with refused("SERVICE_NOT_FOUND"):
        usage_of(server, name)


@pytest.mark.parametrize("fields", [{"days": -1}, {"days": 91}, {"caller": "usage-shop"}])
def test_what_cannot_be_asked_is_refused(server: RunningServer, model: str, fields: dict[str, Any]) -> None:
    with refused("FIELD_INVALID") as caught:
        usage_of(server, model, **fields)

    assert [each.subject for each in caught.value.violations] == list(fields)


def test_a_restart_forgets_no_call_and_counting_goes_on(tmp_path: Path, repo: Repo) -> None:
    repo.commit(OBEDIENT)
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.deploy("model", "models")
        for _ in range(5):
            server.predict("model", do("nothing"))
        fail(server.client, "model", "raise")
        before = usage_of(server, "model")

    with RunningServer(tmp_path / "state") as server:
        assert usage_of(server, "model").past_week == before.past_week
        eventually(lambda: server.get("model").observed.live_workers)
        server.predict("model", do("nothing"))
        after = usage_of(server, "model")

    assert after.past_week.counts.requests == 7
    assert failures(after.past_week.counts) == {"UNKNOWN": 1}
    assert [(each.caller, each.past_week.requests) for each in after.callers] == [(OPERATOR, 7)]
