"""When calls are kept back so that more go together: the rule by itself, by a clock of the test's own."""

import heapq
import itertools
import random
import statistics
from collections.abc import Callable

import pytest

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


# ---- what comes of it


class Simulation:
    """A worker whose runs take a second, whatever is in them, and its callers; by the rule, or without it."""

    def __init__(self, *, longest: float) -> None:
        self._rule = Patience(32, longest)
        self._random = random.Random(7)
        self._events: list[tuple[float, int, str, list[float]]] = []
        self._numbers = itertools.count()
        self.now = 0.0
        self.took: list[float] = []

    def closed(self, callers: int, pause: float) -> float:
        """Calls a second of callers who come back after about so many seconds."""
        for _ in range(callers):
            self._add(self._random.random(), "call")
        self._run(lambda: self._random.uniform(pause / 2, pause * 3 / 2))
        return len(self.took) / self.now

    def open(self, rate: float) -> float:
        """The mean seconds of a call where so many come in a second, whatever becomes of the others."""
        at = 0.0
        for _ in range(20_000):
            at += self._random.expovariate(rate)
            self._add(at, "call")
        self._run(None)
        return statistics.mean(self.took)

    def _add(self, at: float, what: str, arrived: list[float] | None = None) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), what, arrived or []))

    def _run(self, pause: Callable[[], float] | None) -> None:
        waiting: list[float] = []
        busy = False
        while self._events and len(self.took) < 10_000:
            self.now, _, what, arrived = heapq.heappop(self._events)
            if what == "call":
                waiting.append(self.now)
            elif what == "ended":
                busy = False
                self.took += [self.now - each for each in arrived]
                for _ in arrived if pause else ():
                    self._add(self.now + pause(), "call")
                self._rule.ran(len(arrived), 1.0, len(waiting), self.now)
            if busy or not waiting:
                continue
            if until := self._rule.until(len(waiting), self.now):
                self._add(until, "look")
                continue
            self._rule.went(len(waiting))
            busy, together, waiting = True, waiting[:32], waiting[32:]
            self._add(self.now + 1.0, "ended", together)


@pytest.mark.parametrize(
    ("callers", "pause", "gain"), [(1, 0.02, 1.0), (2, 0.02, 1.9), (8, 0.04, 1.8), (32, 0.1, 1.6), (32, 0.6, 1.0)]
)
def test_callers_who_come_back_soon_are_served_nearly_twice_as_often_and_others_no_less(
    callers: int, pause: float, gain: float
) -> None:
    kept_back, taken_as_they_are = (Simulation(longest=longest).closed(callers, pause) for longest in (1.0, 0.0))

    assert kept_back / taken_as_they_are > gain - 0.01


@pytest.mark.parametrize("rate", [0.1, 1.0, 2.0, 4.0, 16.0])
def test_callers_who_know_nothing_of_each_other_lose_next_to_nothing(rate: float) -> None:
    kept_back, taken_as_they_are = (Simulation(longest=longest).open(rate) for longest in (1.0, 0.0))

    assert kept_back / taken_as_they_are < 1.03
