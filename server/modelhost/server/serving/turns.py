"""Whose turn it is to load a model: a few at a time, each deployment in its turn, nobody for long."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TURN_SECONDS = 10.0  # after which the next may begin, too: what loads that long waits for something, or will for long
LATE_PLACES = 4  # times as many may load for longer than that, beside those whose turn it is


class Turns:
    """`places` for loads. Those who wait are served in turn, one load of each at a time. On the event loop."""

    def __init__(self, places: int, seconds: float = TURN_SECONDS) -> None:
        self._free = places
        self._late_places = places * LATE_PLACES
        self._late = 0
        self._seconds = seconds
        self._waiting: dict[object, deque[asyncio.Future[None]]] = {}  # who comes next is first

    @property
    def are_taken(self) -> bool:
        """Whether somebody who came now would wait."""
        return not self._free

    @asynccontextmanager
    async def turn(self, who: object) -> AsyncIterator[None]:
        """Wait for a place, and have it until the end of the block, or for as long as a turn is."""
        await self._take(who)
        is_late = False

        def hand_on() -> None:
            nonlocal is_late
            if self._late < self._late_places:
                is_late = True
                self._late += 1
                self._give()

        timer = asyncio.get_running_loop().call_later(self._seconds, hand_on)
        try:
            yield
        finally:
            timer.cancel()
            if is_late:
                self._late -= 1
            else:
                self._give()

    async def _take(self, who: object) -> None:
        if self._free:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given in the same moment
                self._give()
            raise

    def _give(self) -> None:
        """Hand a place on."""
        while self._waiting:
            who = next(iter(self._waiting))
            places = self._waiting.pop(who)
            place = places.popleft()
            if places:
                self._waiting[who] = places  # as the last
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
