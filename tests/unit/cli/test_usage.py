"""How a service was used, as the command shows it."""

import re

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from modelhost.cli.usage import bars
from modelhost.v1.usage_pb2 import CallerUsage, FailureCount, UsageCounts, UsagePeriod
from tests.unit.client.fake_access import NOW


def counts(requests, *failures):
    return UsageCounts(
        requests=requests,
        failures=[FailureCount(code=code, count=count) for code, count in failures],
        latency_p50_seconds=0.0042,
        latency_p90_seconds=0.0123,
        latency_p99_seconds=1.5,
        request_bytes=2_500_000,
        response_bytes=900,
    )


@pytest.fixture
def used(server):
    """A day of calls, some of which failed."""
    usage = server.usage
    usage.past_hour.counts.CopyFrom(UsageCounts())
    usage.past_day.counts.CopyFrom(counts(200, ("RESOURCE_EXHAUSTED", 3), ("UNKNOWN", 1)))
    usage.past_week.counts.CopyFrom(counts(100_000, ("UNKNOWN", 1)))
    week = counts(900)
    usage.callers.extend(
        [
            CallerUsage(caller="serviceAccounts/shop", past_hour=counts(3), past_day=counts(20), past_week=week),
            CallerUsage(caller="anonymous"),
        ]
    )
    for hour in range(24):
        failed = [("UNKNOWN", 1)] if hour == 20 else []
        start = Timestamp(seconds=NOW + (hour - 23) * 3600)
        usage.hours.append(UsagePeriod(start_time=start, counts=counts(hour * 10, *failed)))
    for day in range(7):
        start = Timestamp(seconds=NOW - 36_000 + (day - 6) * 86_400)
        usage.days.append(UsagePeriod(start_time=start, counts=counts(8 if day else 0)))
    return server


def test_a_service_is_shown_by_period_by_caller_and_over_time(cli, used):
    assert [" ".join(line.split()) for line in cli("usage", "churn").out.splitlines()] == [
        "churn (svc-churn)",
        "PERIOD REQUESTS SUCCESS P50 MS P90 MS P99 MS RECEIVED SENT FAILURES",
        "past hour 0 - - - - - - -",
        "past 24 hours 200 98.0% 4.2 12 1500 2.5 MB 900 B 3 RESOURCE_EXHAUSTED, 1 UNKNOWN",
        "past 7 days 100000 99.9% 4.2 12 1500 2.5 MB 900 B 1 UNKNOWN",
        "",
        "CALLER PAST HOUR 24 HOURS 7 DAYS SUCCESS P50 MS P90 MS P99 MS RECEIVED SENT FAILURES",
        "serviceAccounts/shop 3 20 900 100% 4.2 12 1500 2.5 MB 900 B -",
        "anonymous 0 0 0 - - - - - - -",
        "",
        "by hour, from 2026-11-27 11:00 UTC",
        f"requests {' '.join(str(hour * 10) for hour in range(24))}",
        "failed " + "0 " * 20 + "1 0 0 0",
        "",
        "by day, from 2026-11-22 00:00 UTC",
        "requests 0 8 8 8 8 8 8",
    ]


def test_on_a_terminal_bars_are_drawn_and_failures_seen(used, terminal):
    code, shown = terminal("usage", "churn").finish()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert code == 0
    assert re.search(r"requests  ▁▂[▂-█]{22}  at most 230\b", plain)
    assert re.search(r"failed    ▁{20}█▁▁▁  at most 1\b", plain)
    assert "\x1b[31m  failed" in shown


def test_a_terminal_without_such_characters_has_numbers(used, terminal, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code, shown = terminal("usage", "churn").finish()
    assert code == 0
    assert "requests  0 8 8 8 8 8 8" in shown
    assert shown.isascii()


def test_with_json_there_is_all_of_it(server, cli, used):
    document = cli("usage", "churn", "--json", "--days", "30").document
    assert document["past_day"]["counts"]["requests"] == "200"
    assert (len(document["hours"]), len(document["callers"])) == (24, 2)
    assert server.requests("GetServiceUsage")[0].days == 30


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("shop", "serviceAccounts/shop"),
        ("serviceAccounts/shop", "serviceAccounts/shop"),
        ("operators/ada", "operators/ada"),
        ("anonymous", "anonymous"),
    ],
)
def test_one_caller_can_be_asked_for(server, cli, given, asked):
    cli("usage", "churn", "--caller", given)
    assert server.requests("GetServiceUsage")[0].caller == asked


@pytest.mark.parametrize("days", ["0", "91"])
def test_as_many_days_as_are_kept_can_be_asked_for(server, cli, days):
    assert (cli("usage", "churn", "--days", days).code, server.calls) == (2, [])


@pytest.mark.parametrize(
    ("numbers", "drawn"),
    [
        ([], ""),
        ([0, 0], "▁▁"),
        ([0, 1, 1000], "▁▂█"),
        ([7, 7], "██"),
        (list(range(8)), "▁▂▃▄▅▆▇█"),
    ],
)
def test_whatever_is_not_nothing_can_be_seen(numbers, drawn):
    assert bars(numbers) == drawn
