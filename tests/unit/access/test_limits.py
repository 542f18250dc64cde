"""What a grant lets through, and what of it is stored."""

import pytest

from modelhost.server.access.limits import DAY_SECONDS, LiveGrant, Quotas
from modelhost.server.errors import Busy, reason_name
from modelhost.server.identities import Grant, GrantLimits

NOON = 20_000 * DAY_SECONDS + DAY_SECONDS / 2


def granted(*, day: int = 0, used: int = 0, **limits: float) -> LiveGrant:
    return LiveGrant(Grant("account", "deployment", GrantLimits(**limits), 0.0, 0.0, day, used), "shop")


def let_through(grant: LiveGrant, count: int, now: float, size: int = 100) -> int:
    """How many of so many calls in a row are, each over before the next."""
    passed = 0
    for _ in range(count):
        try:
            grant.enter(size, now)
        except Busy:
            continue
        grant.leave()
        passed += 1
    return passed


def refusal(grant: LiveGrant, now: float, size: int = 100) -> Busy:
    with pytest.raises(Busy) as caught:
        grant.enter(size, now)
    return caught.value


def test_without_limits_everything_passes() -> None:
    assert let_through(granted(), 1000, NOON, size=10**9) == 1000


@pytest.mark.parametrize(
    ("rate", "burst", "at_once", "in_two_seconds"),
    [(10, 0, 10, 20), (10, 3, 3, 3), (10, 50, 50, 20), (0.5, 0, 1, 1), (0.001, 2, 2, 0)],
)
def test_a_rate_lets_a_burst_through_and_then_so_many_a_second(
    rate: float, burst: int, at_once: int, in_two_seconds: int
) -> None:
    grant = granted(rate=rate, burst=burst)

    assert let_through(grant, 100, NOON) == at_once
    assert let_through(grant, 100, NOON) == 0
    later = [let_through(grant, 100, NOON + step / 100) for step in range(1, 201)]
    expected = 20 if burst != 3 and rate == 10 else round(2 * rate)
    assert sum(later) == pytest.approx(expected, abs=1)


def test_who_is_refused_for_the_rate_is_told_when_the_next_call_passes() -> None:
    grant = granted(rate=4, burst=1)
    assert let_through(grant, 1, NOON) == 1

    refused = refusal(grant, NOON + 0.05)

    assert reason_name(refused.reason) == "RATE_LIMIT_EXCEEDED"
    assert refused.retry_after == pytest.approx(0.2)
    assert let_through(grant, 1, NOON + 0.05 + refused.retry_after + 1e-6) == 1


def test_a_clock_that_is_set_back_gives_nothing_away_and_takes_nothing_for_long() -> None:
    grant = granted(rate=10, burst=10)
    assert let_through(grant, 100, NOON) == 10

    assert let_through(grant, 100, NOON - 3600) == 0
    assert let_through(grant, 100, NOON - 3599) == 10


def test_calls_under_way_are_limited_until_one_is_over() -> None:
    grant = granted(concurrent=2)
    grant.enter(1, NOON)
    grant.enter(1, NOON)

    refused = refusal(grant, NOON)

    assert reason_name(refused.reason) == "CONCURRENCY_LIMIT_EXCEEDED"
    assert refused.retry_after
    grant.leave()
    grant.enter(1, NOON)


def test_a_large_request_is_refused_and_no_waiting_would_help() -> None:
    grant = granted(request_bytes=100)
    grant.enter(100, NOON)

    refused = refusal(grant, NOON, size=101)

    assert reason_name(refused.reason) == "REQUEST_TOO_LARGE"
    assert refused.retry_after is None
    assert refused.values["size"] == "101"


def test_a_days_calls_are_counted_from_midnight_to_midnight() -> None:
    grant = granted(daily=3)
    assert let_through(grant, 10, NOON) == 3

    refused = refusal(grant, NOON)

    assert reason_name(refused.reason) == "DAILY_QUOTA_EXCEEDED"
    assert refused.retry_after == DAY_SECONDS / 2
    assert grant.used_on(NOON) == 3
    assert grant.used_on(NOON + DAY_SECONDS) == 0
    assert let_through(grant, 10, NOON + DAY_SECONDS / 2) == 3


def test_what_was_used_before_a_restart_counts_on_the_same_day_alone() -> None:
    today = int(NOON // DAY_SECONDS)

    assert let_through(granted(daily=3, day=today, used=2), 10, NOON) == 1
    assert let_through(granted(daily=3, day=today - 1, used=3), 10, NOON) == 3


@pytest.mark.parametrize(
    "limits", [{"request_bytes": 10}, {"concurrent": 1}, {"rate": 0.001, "burst": 1}, {"daily": 1}]
)
def test_a_call_that_one_limit_refuses_counts_for_no_other(limits: dict[str, float]) -> None:
    grant = granted(**limits)
    if "request_bytes" not in limits:
        grant.enter(1, NOON)
    before = (grant.used, grant.running)

    refusal(grant, NOON)

    assert (grant.used, grant.running) == before


def test_other_limits_are_in_force_at_once_and_forget_nothing_that_was_used() -> None:
    grant = granted(daily=5)
    assert let_through(grant, 3, NOON) == 3

    grant.change(GrantLimits(daily=4))
    assert let_through(grant, 3, NOON) == 1
    grant.change(GrantLimits(rate=1, burst=2))
    assert let_through(grant, 5, NOON + 10) == 2


def test_counts_are_taken_to_be_stored_once_and_again_when_that_failed() -> None:
    one, other = granted(), granted()
    quotas = Quotas(lambda: (one, other))
    assert quotas.take() is None
    let_through(one, 2, NOON)

    batch = quotas.take()

    assert batch is not None
    assert [(grant is one, counts) for grant, counts in batch.changed] == [(True, (int(NOON // DAY_SECONDS), 2))]
    assert quotas.take() is None
    quotas.put_back(batch)
    again = quotas.take()
    assert again is not None
    assert again.changed == batch.changed
