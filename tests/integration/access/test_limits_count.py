"""What counts for an account's limits, whose they are, how they are changed, and what outlives the server."""

import time
from pathlib import Path

import grpc
import pytest

from modelhost.v1 import deployment_pb2
from tests.access import AccessAdmin, Account, describe, health, in_database, login, outcome, predict
from tests.checks import raw_channel
from tests.git_repos import Repo
from tests.limits import DAY_SECONDS, RARELY, request_of, send, until_refused, within_a_day
from tests.obedient import OBEDIENT
from tests.refusals import refusal_of
from tests.running import RunningServer, eventually


@pytest.fixture
def account(admin: AccessAdmin, name: str) -> Account:
    return admin.account(name)


@pytest.fixture
def token(channel: grpc.Channel, account: Account) -> str:
    return login(channel, account)


def test_refused_calls_count_for_no_limit(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str
) -> None:
    def use() -> tuple[list[str], int, int]:
        admin.grant(account, model, requests_per_second=RARELY, burst=2, requests_per_day=50, request_bytes=1000)
        too_large = [refusal_of(lambda: send(channel, request_of(model, 2000), token)).reason for _ in range(5)]
        answered, _ = until_refused(lambda: predict(channel, model, token))
        too_often = [refusal_of(lambda: predict(channel, model, token)).reason for _ in range(5)]
        return too_large + too_often, answered, admin.used_today(account)

    reasons, answered, used = within_a_day(use)

    assert reasons == ["REQUEST_TOO_LARGE"] * 5 + ["RATE_LIMIT_EXCEEDED"] * 5
    assert (answered, used) == (2, 2)


def test_what_asks_and_does_not_call_counts_for_no_limit(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str
) -> None:
    admin.grant(account, model, requests_per_day=1)
    for _ in range(3):
        assert describe(channel, model, token).serving
        assert health(channel, model, token) == 1

    assert predict(channel, model, token) > 1


def test_limits_are_an_accounts_own_whatever_it_is_let_in_with_and_another_has_its_own(
    channel: grpc.Channel, admin: AccessAdmin, model: str, other: str, account: Account, token: str, name: str
) -> None:
    admin.grant(account, model, requests_per_second=RARELY, burst=2)
    admin.grant(account, other, requests_per_second=RARELY, burst=1)
    _, key = admin.api_key(account)

    assert [bool(predict(channel, model, each)) for each in (token, key)] == [True, True]
    for each in (token, key, login(channel, account)):
        assert refusal_of(lambda each=each: predict(channel, model, each)).reason == "RATE_LIMIT_EXCEEDED"
    assert predict(channel, other, token) > 1
    neighbour = login(channel, admin.account(f"n-{name}"[:50], model, requests_per_second=RARELY))
    assert predict(channel, model, neighbour) > 1


def test_limits_are_changed_while_they_are_in_use(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str
) -> None:
    def change() -> list[str]:
        admin.grant(account, model)
        used = admin.used_today(account)
        seen = []
        for limits in (
            {"requests_per_day": used + 1},
            {"requests_per_day": used + 2},
            {"requests_per_day": 1},
            {},
            {"requests_per_second": RARELY, "burst": 1},
            {"request_bytes": 10},
            {"concurrent_calls": 1},
        ):
            admin.grant(account, model, **limits)
            seen += [outcome(channel, model, token) for _ in range(2)]
        return seen

    assert within_a_day(change) == [
        "OK", "DAILY_QUOTA_EXCEEDED",
        "OK", "DAILY_QUOTA_EXCEEDED",
        "DAILY_QUOTA_EXCEEDED", "DAILY_QUOTA_EXCEEDED",
        "OK", "OK",
        "OK", "RATE_LIMIT_EXCEEDED",
        "REQUEST_TOO_LARGE", "REQUEST_TOO_LARGE",
        "OK", "OK",
    ]  # fmt: skip


def test_a_days_count_outlives_the_server_and_not_the_day(tmp_path: Path, repo: Repo) -> None:
    repo.commit(OBEDIENT)
    state = tmp_path / "state"
    with RunningServer(state) as server, raw_channel(server.address) as channel:
        admin = AccessAdmin(server)
        server.add_source("model", repo)
        server.deploy("model", "model")
        account = admin.account("shop", "model", requests_per_day=3)
        token = login(channel, account)
        assert predict(channel, "model", token) > 1
        assert predict(channel, "model", token) > 1
        admin.set_open("model", open_=True)
    today = ("UPDATE grants SET day = ?", (int(time.time() // DAY_SECONDS),))  # whatever the clock says by now
    in_database(state, today)

    with RunningServer(state) as server, raw_channel(server.address) as channel:
        eventually(lambda: server.get("model").observed.live_workers)
        assert AccessAdmin(server).used_today(account) == 2
        assert predict(channel, "model", token) > 1
        assert refusal_of(lambda: predict(channel, "model", token)).reason == "DAILY_QUOTA_EXCEEDED"
        assert predict(channel, "model", None) > 1  # it is open still, and nobody is counted
        server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name="model"))
    in_database(state, ("UPDATE grants SET day = day - 1", ()))

    with RunningServer(state) as server, raw_channel(server.address) as channel:
        assert AccessAdmin(server).used_today(account) == 0
        assert refusal_of(lambda: predict(channel, "model", token)).reason == "SERVICE_NOT_RUNNING"
        assert AccessAdmin(server).used_today(account) == 1
