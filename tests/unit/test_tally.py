"""What came of calls adds up, and its percentiles are those of the calls to within a tenth."""

import math
import random
from collections.abc import Callable

import pytest

from modelhost.server.store.tally import Tally, add_all

HOUR = 3600.0
PERCENTS = (1, 50, 90, 99, 100)


def tally_of(seconds: list[float]) -> Tally:
    tally = Tally()
    for each in seconds:
        tally.count("OK", each, 0, 0)
    return tally


def exact(seconds: list[float], percent: int) -> float:
    """The time that so many of a hundred did not pass, read from all of them."""
    ordered = sorted(seconds)
    return next(each for number, each in enumerate(ordered, 1) if number * 100 >= percent * len(ordered))


SHAPES: dict[str, Callable[[random.Random], float]] = {
    "all alike": lambda _: 0.0173,
    "evenly from least to most": lambda chance: chance.uniform(20e-6, HOUR),
    "evenly on a scale of powers": lambda chance: 20e-6 * (HOUR / 20e-6) ** chance.random(),
    "as calls are": lambda chance: min(max(chance.lognormvariate(-6, 1.5), 20e-6), HOUR),
    "quick ones and a few that wait for minutes": lambda chance: chance.choice([0.0011] * 60 + [171.0]),
    "at the bounds of buckets": lambda chance: 20e-6 * 2.0 ** (chance.randrange(100) / 4),
    "the shortest": lambda _: 20e-6,
    "the longest": lambda _: HOUR,
}


@pytest.mark.parametrize("count", [1, 2, 3, 10, 99, 100, 101, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_percentile_is_right_to_within_a_tenth_of_its_value(shape: str, count: int) -> None:
    chance = random.Random(f"{shape} {count}")
    seconds = [SHAPES[shape](chance) for _ in range(count)]
    tally = tally_of(seconds)

    for percent in PERCENTS:
        assert tally.percentile(percent) == pytest.approx(exact(seconds, percent), rel=0.1)


def test_nine_of_ten_is_the_ninth_of_ten_and_not_the_tenth() -> None:
    tally = tally_of([0.001] * 9 + [60.0])

    assert tally.percentile(90) == pytest.approx(0.001, rel=0.1)
    assert tally.percentile(91) == pytest.approx(60.0, rel=0.1)


def test_without_calls_there_is_nothing() -> None:
    assert [Tally().percentile(percent) for percent in PERCENTS] == [0.0] * len(PERCENTS)
    assert Tally().requests == 0


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 19e-6])
def test_what_is_too_short_to_matter_counts_as_the_shortest(seconds: float) -> None:
    assert tally_of([seconds]).percentile(50) == pytest.approx(20e-6, rel=0.1)


def test_calls_of_a_day_are_counted_too_and_need_no_more_room() -> None:
    tally = tally_of([24 * HOUR] * 1000)

    assert tally.percentile(99) == pytest.approx(24 * HOUR, rel=0.1)
    assert len(tally.latency) == 1


def test_the_buckets_of_all_calls_of_up_to_an_hour_are_few() -> None:
    steps = 100_000

    tally = tally_of([20e-6 * (HOUR / 20e-6) ** (step / steps) for step in range(steps + 1)])

    assert set(tally.latency) == set(range(110))


def test_a_sum_of_tallies_is_the_tally_of_all_calls() -> None:
    chance = random.Random(5)
    parts = [[chance.lognormvariate(-5, 2) for _ in range(chance.randrange(50))] for _ in range(20)]
    whole = Tally()

    for part in parts:
        whole.add(tally_of(part))

    assert whole == tally_of([each for part in parts for each in part])


def test_failures_are_counted_by_code_and_bytes_both_ways() -> None:
    tally = Tally()
    for code in ("OK", "UNKNOWN", "OK", "RESOURCE_EXHAUSTED", "UNKNOWN"):
        tally.count(code, 0.001, 10, 100)

    assert tally.failures == {"UNKNOWN": 2, "RESOURCE_EXHAUSTED": 1}
    assert (tally.requests, tally.received, tally.sent) == (5, 50, 500)


def test_what_is_added_stays_as_it_was() -> None:
    one, other = tally_of([1.0]), tally_of([2.0])
    sums: dict[str, dict[str, Tally]] = {}

    add_all(sums, "all", {"a": one})
    add_all(sums, "all", {"a": other})

    assert sums["all"]["a"] == tally_of([1.0, 2.0])
    assert (one, other) == (tally_of([1.0]), tally_of([2.0]))


def test_the_middle_of_a_bucket_is_no_more_than_half_a_bucket_away() -> None:
    worst = max(
        abs(math.log2(tally_of([seconds]).percentile(50) / seconds))
        for seconds in (20e-6 * 1.0007**step for step in range(25_000))
    )

    assert worst <= 1 / 8 + 1e-9
