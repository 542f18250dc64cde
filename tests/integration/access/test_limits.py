"""How much a service account may call: each limit holds, and says so."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from modelhost.client import InvalidRequest
from modelhost.v1 import predict_pb2, predict_pb2_grpc
from tests.access import AccessAdmin, Account, bearer, login, outcome, predict
from tests.checks import Gate
from tests.limits import RARELY, request_of, seconds_to_midnight, send, until_refused, within_a_day
from tests.obedient import do
from tests.refusals import Refusal, refusal_of
from tests.running import eventually


@pytest.fixture
def account(admin: AccessAdmin, name: str) -> Account:
    return admin.account(name)


@pytest.fixture
def token(channel: grpc.Channel, account: Account) -> str:
    return login(channel, account)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


# -- each limit --------------------------------------------------------------------------------------------------------


def test_calls_beyond_the_burst_have_to_wait_for_the_rate(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str
) -> None:
    admin.grant(account, model, requests_per_second=RARELY, burst=3)

    answered, refusal = until_refused(lambda: predict(channel, model, token))

    assert answered == 3
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED")
    assert refusal.retry_after is not None
    assert 900 < refusal.retry_after <= 1000
    assert f"service account {account.id} may call this service once in 1000 s" in refusal.message


def test_a_rate_without_a_burst_lets_the_calls_of_one_second_come_at_once(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str
) -> None:
    admin.grant(account, model, requests_per_second=RARELY)

    assert until_refused(lambda: predict(channel, model, token))[0] == 1


def test_who_waits_as_long_as_was_said_may_call_again(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str
) -> None:
    admin.grant(account, model, requests_per_second=5, burst=1)
    _, refusal = until_refused(lambda: predict(channel, model, token))
    assert refusal.retry_after is not None
    assert refusal.retry_after <= 0.2

    time.sleep(refusal.retry_after + 0.002)

    assert predict(channel, model, token) > 1


def test_a_days_calls_are_counted_until_midnight(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str
) -> None:
    def use_up() -> tuple[int, Refusal, float]:
        admin.grant(account, model, requests_per_day=3)
        answered, refusal = until_refused(lambda: predict(channel, model, token))
        return answered, refusal, seconds_to_midnight()

    answered, refusal, left = within_a_day(use_up)

    assert answered == 3
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DAILY_QUOTA_EXCEEDED")
    assert refusal.retry_after is not None
    assert left - 1 <= refusal.retry_after <= left + 60
    assert admin.used_today(account) == 3


def test_calls_under_way_leave_room_for_no_more_and_give_it_back(
    channel: grpc.Channel,
    admin: AccessAdmin,
    model: str,
    account: Account,
    token: str,
    gate: Gate,
    threads: ThreadPoolExecutor,
) -> None:
    admin.grant(account, model, concurrent_calls=2)
    waiting = [
        threads.submit(predict, channel, model, token, parameters)
        for parameters in (do("wait", path=gate.path), do("nothing"))
    ]  # the second in the queue
    eventually(lambda: admin.used_today(account) == 2)

    refusal = refusal_of(lambda: predict(channel, model, token))
    neighbour = admin.account(f"n-{account.id}"[:50], model)
    waiting.append(threads.submit(predict, channel, model, login(channel, neighbour)))
    gate.open()

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CONCURRENCY_LIMIT_EXCEEDED")
    assert refusal.retry_after == 0.1
    assert len({call.result() for call in waiting}) == 1  # by the one worker
    assert all(predict(channel, model, token) for _ in range(5))
    assert admin.used_today(account) == 7


@pytest.mark.parametrize("deed", ["raise", "reject", "die", "return_much"])
def test_a_call_that_fails_gives_its_room_back(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str, deed: str
) -> None:
    admin.grant(account, model, concurrent_calls=1)
    parameters = do(deed, size=9_000_000) if deed == "return_much" else do(deed)

    for _ in range(2):
        reason = refusal_of(lambda: predict(channel, model, token, parameters)).reason
        assert reason not in ("CONCURRENCY_LIMIT_EXCEEDED", "")

    assert predict(channel, model, token) > 1


def test_a_call_whose_caller_went_away_gives_its_room_back(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str, gate: Gate
) -> None:
    admin.grant(account, model, concurrent_calls=1)
    request = predict_pb2.PredictRequest(service=model, parameters_json=json.dumps(do("wait", path=gate.path)))
    stub = predict_pb2_grpc.PredictStub(channel)
    for give_up in ("cancel", "deadline"):
        before = admin.used_today(account)
        timeout = 0.2 if give_up == "deadline" else None
        call = stub.Predict.future(request, metadata=bearer(token), timeout=timeout)
        eventually(lambda before=before: admin.used_today(account) == before + 1)
        if give_up == "cancel":
            call.cancel()
        else:
            assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.open()
        eventually(lambda: outcome(channel, model, token) == "OK")
        gate.close()


def test_a_request_may_have_so_many_bytes_and_not_one_more(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str
) -> None:
    admin.grant(account, model, request_bytes=1000)
    assert send(channel, request_of(model, 1000), token)

    refusal = refusal_of(lambda: send(channel, request_of(model, 1001), token))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")
    assert refusal.retry_after is None  # another time it will be as large
    assert "1001 bytes" in refusal.message
    assert "1000" in refusal.message


@pytest.mark.parametrize(
    "limits",
    [
        {"requests_per_second": -1}, {"requests_per_second": float("nan")}, {"requests_per_second": float("inf")},
        {"requests_per_second": 1e-9}, {"requests_per_second": 1e9}, {"burst": 1}, {"burst": -1},
        {"requests_per_second": 1, "burst": -1}, {"requests_per_day": -1}, {"requests_per_day": 2**63 - 1},
        {"concurrent_calls": -1}, {"concurrent_calls": 2**31 - 1}, {"request_bytes": -1}, {"request_bytes": 2**63 - 1},
    ],
    ids=str,
)  # fmt: skip
def test_limits_that_make_no_sense_are_refused(
    channel: grpc.Channel, admin: AccessAdmin, model: str, account: Account, token: str, limits: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        admin.grant(account, model, **limits)

    assert refusal_of(lambda: predict(channel, model, token)).reason == "SERVICE_NOT_FOUND"
