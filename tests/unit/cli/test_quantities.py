"""Times, sizes and rates as people type them."""

from datetime import UTC, datetime, timedelta

import pytest

from modelhost.cli.errors import CommandError
from modelhost.cli.quantities import byte_count, duration, instant, per_second


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("1.5m", 90), ("5min", 300), ("2h", 7200), ("90d", 7_776_000), ("2w", 1_209_600)],
)
def test_a_time_is_a_number_and_a_unit(text, seconds):
    assert duration(text, "--expires") == timedelta(seconds=seconds)


def test_a_time_that_is_too_long_for_anything_is_left_to_the_server():
    assert duration("9" * 30 + "d", "--expires") > timedelta(days=3650)


@pytest.mark.parametrize(
    ("text", "rate"), [("10/s", 10), ("600/m", 10), ("36/h", 0.01), ("86400/d", 1), ("0.5 / s", 0.5)]
)
def test_a_rate_is_a_number_and_a_unit_of_time(text, rate):
    assert per_second(text, "--rate") == rate


@pytest.mark.parametrize("text", ["", "10", "/s", "0/s", "-1/s", "10/y", "1e9/s"])
def test_what_is_no_rate_is_said(text):
    with pytest.raises(CommandError, match="is no rate"):
        per_second(text, "--rate")


@pytest.mark.parametrize(("text", "count"), [("64KiB", 65536), ("1MiB", 2**20), ("4096", 4096)])
def test_a_size_is_a_number_and_a_unit(text, count):
    assert byte_count(text, "--request-bytes") == count


def test_a_moment_is_a_date_or_so_long_ago():
    assert instant("2026-11-28T10:30", "--since") == datetime(2026, 11, 28, 10, 30).astimezone()
    assert instant("2026-11-28T10:30:00+02:00", "--since") == datetime(2026, 11, 28, 8, 30, tzinfo=UTC)
    before = datetime.now(UTC)
    assert before <= instant("2h", "--since") + timedelta(hours=2) <= datetime.now(UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "9999999999w", "2 fortnights"])
def test_what_is_no_moment_is_said(text):
    with pytest.raises(CommandError, match=r"'.*' is no time"):
        instant(text, "--since")
