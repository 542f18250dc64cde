"""A call whose items come one by one: those that were made and are not taken yet, and how long both sides may take.

Room for items is granted to the worker as the caller takes them, so a slow caller holds the model up, and at most
`ROOM_ITEMS` items, or `ROOM_BYTES` and the last item, wait here.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from modelhost.server.errors import DomainError
from modelhost.server.serving.answers import caller_too_slow, too_large
from modelhost.server.serving.link import Header, Received

ROOM_ITEMS = 16
ROOM_BYTES = 1024 * 1024


class Stream:
    """The items of one call, JSON each. Close it, whatever comes of it: a worker is busy until it is over.

    `ended` is done once the worker has no more to do with it. `tell` sends a message to the worker, and `overran` gives
    the worker up; both are called only before that. `timeout` is how long the model may take for an item, and how long
    a caller that holds it up may take for the next one, in seconds; `limit` is for an item, in bytes.
    """

    def __init__(self, timeout: float, limit: int, tell: Callable[[Header], None], overran: Callable[[], None]) -> None:
        self.ended: asyncio.Future[tuple[Header, Received]]
        self._timeout = timeout
        self._limit = limit
        self._tell = tell
        self._overran = overran
        self._loop = asyncio.get_running_loop()
        self._items: deque[Received] = deque()
        self._room = [ROOM_ITEMS, ROOM_BYTES]  # that the worker still has
        self._taken = [0, 0]  # and it does not know of
        self._waiter: asyncio.Future[None] | None = None
        self._failure: DomainError | None = None
        self._is_cancelled = False
        self._is_over = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def room(self) -> Header:
        """How much may be sent before anything is taken."""
        return {"items": ROOM_ITEMS, "bytes": ROOM_BYTES}

    def begin(self, answer: "asyncio.Future[tuple[Header, Received]]") -> None:
        """It is sent; `answer` is what the worker says last."""
        self.ended = answer
        answer.add_done_callback(self._over)
        if not answer.done():
            self._restart_clock()

    def end_at(self, when: float, failure: DomainError) -> None:
        """Have it fail then, in the loop's time, if it is not over."""
        self._timers["deadline"] = self._loop.call_at(when, self.fail, failure)

    # -- the worker's side

    def put(self, item: Received, oversize: int | None) -> bool:
        """The worker has made an item; of one that is over the limit there is the size alone.

        False if there was no room for it: only a worker that keeps to no rules sends one then.
        """
        if min(self._room) <= 0:
            return False
        self._room[0] -= 1
        self._room[1] -= oversize or len(item)
        if oversize is not None:
            self.fail(too_large(oversize, self._limit))
        if not self._is_cancelled:
            self._items.append(item)
            self._wake()
            self._restart_clock()
        return True

    def _over(self, answer: "asyncio.Future[tuple[Header, Received]]") -> None:
        for timer in self._timers.values():
            timer.cancel()
        if not self._is_cancelled and answer.exception() is None and (last := answer.result()[1]):
            self._items.append(last)  # of a function that is no generator
        self._is_over = True
        self._wake()

    # -- the caller's side

    async def next(self) -> Received | None:
        """The next item, or None after the last one. Raises what ended it, once all items before that are taken."""
        while not self._items:
            if self._failure is not None:
                raise self._failure
            if self._is_over:
                self.ended.result()
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        item = self._items.popleft()
        self._grant(len(item))
        return item

    def fail(self, failure: DomainError) -> None:
        """End it for this reason, if it is not over: the worker is to make no more items."""
        if not self._is_cancelled and not self.ended.done():
            self._failure = failure
            self._cancel()
            self._wake()

    def close(self) -> None:
        """Nobody wants any more of it."""
        self._items.clear()
        if not self._is_cancelled and not self.ended.done():
            self._cancel()

    def _cancel(self) -> None:
        if self._is_held_up:
            self._restart_clock()
        self._is_cancelled = True
        self._tell({"type": "cancel"})

    def _grant(self, size: int) -> None:
        """Make room for what was taken: for half of all there is at a time, that not every item costs a message."""
        if self._is_cancelled or self.ended.done():
            return
        if self._is_held_up:
            self._restart_clock()
        self._taken[0] += 1
        self._taken[1] += size
        items, length = self._taken
        if items * 2 >= ROOM_ITEMS or length * 2 >= ROOM_BYTES:
            self._room = [self._room[0] + items, self._room[1] + length]
            self._taken = [0, 0]
            self._tell({"type": "more", "items": items, "bytes": length})

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- time

    @property
    def _is_held_up(self) -> bool:
        """Whether it is for the caller to go on, not for the model."""
        return min(self._room) <= 0 and not self._is_cancelled

    def _restart_clock(self) -> None:
        """Somebody has done what there was to wait for: the time for what comes next begins."""
        if "next" in self._timers:
            self._timers["next"].cancel()
        self._timers["next"] = self._loop.call_later(self._timeout, self._late)

    def _late(self) -> None:
        if self.ended.done():  # in this very turn: the worker has another call by now
            return
        if self._is_held_up:
            self.fail(caller_too_slow(self._timeout))
        else:
            self._overran()
