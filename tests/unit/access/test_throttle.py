"""Wrong signatures slow down the pair of key and host that they come with, and nobody else."""

from modelhost.server.access.throttle import MOST_KEPT, Throttle

BURST, SECONDS_EACH = 10, 6.0


def after_failures(throttle: Throttle, count: int, now: float = 0.0) -> None:
    for _ in range(count):
        throttle.count("key", "host", now=now)


def test_a_few_wrong_tries_cost_nothing() -> None:
    throttle = Throttle(BURST, SECONDS_EACH)
    after_failures(throttle, BURST - 1)

    assert throttle.wait("key", "host", now=0.0) == 0


def test_more_have_to_wait_and_only_for_the_same_key_and_host() -> None:
    throttle = Throttle(BURST, SECONDS_EACH)
    after_failures(throttle, BURST)

    assert throttle.wait("key", "host", now=0.0) == SECONDS_EACH
    assert throttle.wait("key", "host", now=SECONDS_EACH) == 0
    assert throttle.wait("another", "host", now=0.0) == 0
    assert throttle.wait("key", "elsewhere", now=0.0) == 0


def test_a_pair_that_was_quiet_for_long_begins_anew() -> None:
    throttle = Throttle(BURST, SECONDS_EACH)
    after_failures(throttle, BURST)

    later = BURST * SECONDS_EACH
    after_failures(throttle, BURST - 1, later)

    assert throttle.wait("key", "host", now=later) == 0


def test_one_try_at_a_time_passes_once_the_bucket_is_empty() -> None:
    throttle = Throttle(BURST, SECONDS_EACH)
    now, tries = 0.0, 0
    while now < 600:
        if throttle.wait("key", "host", now=now) == 0:
            tries += 1
            throttle.count("key", "host", now=now)
        now += 0.5

    assert tries == BURST + 600 / SECONDS_EACH - 1


def test_names_that_somebody_makes_up_take_no_room_for_ever() -> None:
    throttle = Throttle(BURST, SECONDS_EACH)
    after_failures(throttle, BURST)

    for number in range(MOST_KEPT + 5):
        throttle.count(f"made-up-{number}", "host", now=0.0)

    assert len(throttle._full_at) == MOST_KEPT
    assert throttle.wait("key", "host", now=0.0) == 0  # the oldest is the first to be forgotten
