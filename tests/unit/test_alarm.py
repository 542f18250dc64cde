"""An alarm rings once, at the last time that it was set to, however often it was set."""

import asyncio
from collections.abc import Iterator

import pytest

from modelhost.server.serving.alarm import NEVER, Alarm
from tests.clock import Clock


class Rung:
    """An alarm, how often it has rung, and its clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.count = 0
        self.sets_again = False

        async def build() -> Alarm:
            return Alarm(self._ring)

        self.alarm = clock.run_until_complete(build())

    def _ring(self) -> None:
        self.count += 1
        if self.sets_again:
            self.sets_again = False
            self.set(10)

    def set(self, seconds: float) -> None:
        self.alarm.set(self.clock.time() + seconds)

    def wait(self, seconds: float) -> None:
        self.clock.run_until_complete(self.clock.wait(seconds))


@pytest.fixture
def rung() -> Iterator[Rung]:
    clock = Clock()
    try:
        yield Rung(clock)
    finally:
        clock.close()


def test_it_rings_once_when_it_is_due(rung: Rung) -> None:
    rung.set(10)
    rung.wait(9)
    assert rung.count == 0
    rung.wait(2)
    assert rung.count == 1
    rung.wait(100)
    assert rung.count == 1


@pytest.mark.parametrize(("first", "second"), [(10, 20), (20, 10)])
def test_it_rings_at_the_last_time_that_it_was_set_to(rung: Rung, first: float, second: float) -> None:
    rung.set(first)
    rung.set(second)
    rung.wait(second - 1)
    assert rung.count == 0
    rung.wait(2)
    assert rung.count == 1
    rung.wait(30)
    assert rung.count == 1


def test_one_that_is_turned_off_is_silent_and_can_be_set_again(rung: Rung) -> None:
    rung.set(10)
    rung.alarm.set(NEVER)
    rung.wait(20)
    assert rung.count == 0
    rung.set(10)
    rung.wait(11)
    assert rung.count == 1


def test_no_later_than_never_moves_it_back(rung: Rung) -> None:
    rung.set(10)
    rung.alarm.no_later_than(rung.clock.time() + 20)
    rung.wait(11)
    assert rung.count == 1
    rung.set(20)
    rung.alarm.no_later_than(rung.clock.time() + 10)
    rung.wait(11)
    assert rung.count == 2
    rung.wait(20)
    assert rung.count == 2


def test_it_can_be_set_while_it_rings(rung: Rung) -> None:
    rung.sets_again = True
    rung.set(10)
    rung.wait(11)
    rung.wait(11)
    assert rung.count == 2


def test_one_that_is_set_for_each_of_many_calls_has_one_timer(rung: Rung) -> None:
    timers = 0
    call_at = rung.clock.call_at

    def counted(*arguments: object, **options: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*arguments, **options)  # type: ignore[arg-type]

    rung.clock.call_at = counted  # type: ignore[method-assign, assignment]
    for _ in range(1000):
        rung.set(60)
        rung.alarm.set(NEVER)
    assert timers == 1


def test_a_closed_one_leaves_the_loop_nothing(rung: Rung) -> None:
    timers: list[asyncio.TimerHandle] = []
    call_at = rung.clock.call_at

    def kept(*arguments: object, **options: object) -> asyncio.TimerHandle:
        timers.append(call_at(*arguments, **options))  # type: ignore[arg-type]
        return timers[-1]

    rung.clock.call_at = kept  # type: ignore[method-assign, assignment]
    rung.set(10)
    rung.set(5)
    rung.alarm.close()
    assert [timer.cancelled() for timer in timers] == [True, True]
    rung.wait(20)
    assert rung.count == 0
