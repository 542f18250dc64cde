"""When calls are kept back so that more go together: the rule by itself, by a clock of the test's own."""

from modelhost.server.serving.batching import Patience

RUN = 0.1  # seconds; a quarter of it may be waited


def patience(most: int = 32, longest: float = 1.0) -> Patience:
    return Patience(most, longest)


def test_nobody_waits_before_anything_has_run() -> None:
    assert patience().until(1, 0.0) == 0


def test_a_caller_by_itself_never_waits() -> None:
    rule = patience()
    rule.ran(1, RUN, waiting=0, now=10.0)

    assert rule.until(1, 10.0) == 0


def test_those_who_were_answered_together_are_waited_for_a_quarter_of_a_run() -> None:
    rule = patience()
    rule.ran(4, RUN, waiting=0, now=10.0)

    assert rule.until(1, 10.001) == 10.0 + RUN / 4
    assert rule.until(3, 10.002) == 10.0 + RUN / 4
    assert rule.until(4, 10.003) == 0
    assert rule.until(1, 10.0 + RUN / 4) == 0


def test_those_that_wait_already_are_waited_for_besides() -> None:
    rule = patience()
    rule.ran(4, RUN, waiting=3, now=10.0)

    assert rule.until(6, 10.0) > 0
    assert rule.until(7, 10.0) == 0


def test_no_more_are_waited_for_than_may_go_together() -> None:
    rule = patience(most=5)
    rule.ran(4, RUN, waiting=4, now=10.0)

    assert rule.until(4, 10.0) > 0
    assert rule.until(5, 10.0) == 0


def test_a_full_batch_waits_for_nobody() -> None:
    rule = patience(most=4)
    rule.ran(4, RUN, waiting=4, now=10.0)

    assert rule.until(4, 10.0) == 0


def test_the_wait_has_a_limit() -> None:
    rule = patience(longest=0.005)
    rule.ran(4, RUN, waiting=0, now=10.0)

    assert rule.until(1, 10.0) == 10.005
    assert patience(longest=0).until(1, 10.0) == 0


def test_nobody_waits_for_less_than_a_timer_can_tell() -> None:
    rule = patience()
    rule.ran(4, 0.003, waiting=0, now=10.0)

    assert rule.until(1, 10.0) == 0


def run_in_vain(rule: Patience, now: float) -> bool:
    """A run of four of whom one comes back; whether that one waited."""
    rule.ran(4, RUN, waiting=0, now=now)
    waited = rule.until(1, now) > 0
    rule.went(1)
    return waited


def test_a_wait_in_vain_is_tried_again_more_and_more_rarely() -> None:
    rule = patience()

    waited = [run_in_vain(rule, float(number)) for number in range(200)]

    assert [number for number, each in enumerate(waited) if each] == [0, 2, 6, 14, 30, 62, 126, 190]


def test_a_wait_that_was_worth_it_is_tried_again_at_once() -> None:
    rule = patience()
    for number in range(2):
        run_in_vain(rule, float(number))
    rule.ran(4, RUN, waiting=0, now=2.0)
    assert rule.until(1, 2.0) > 0
    rule.went(2)

    rule.ran(4, RUN, waiting=0, now=3.0)

    assert rule.until(1, 3.0) > 0


def test_when_nobody_waited_nothing_was_in_vain() -> None:
    rule = patience()
    rule.ran(4, RUN, waiting=0, now=1.0)
    rule.went(1)  # a second later

    rule.ran(4, RUN, waiting=0, now=3.0)

    assert rule.until(1, 3.0) > 0


def test_how_long_a_run_takes_is_learned() -> None:
    rule = patience()
    for number in range(100):
        rule.ran(4, 2 * RUN, waiting=0, now=float(number))

    assert abs(rule.until(1, 99.0) - (99.0 + RUN / 2)) < 0.001
