"""Pools that are routed no more, and have calls to finish."""

import asyncio
from collections.abc import Awaitable, Callable

from modelhost.server.serving.pool import Pool


class Draining:
    """The pools of one deployment that drain. `on_drained` is called whenever one has ended."""

    def __init__(self, on_drained: Callable[[], None]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_drained = on_drained

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._tasks)

    def add(self, pool: Pool) -> None:
        """Let a pool finish its calls, however long they may take, without being waited for."""
        task = asyncio.ensure_future(pool.drain(pool.call_timeout))
        self._tasks.add(task)
        task.add_done_callback(self._drained)

    def _drained(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._on_drained()

    async def wait(self, grace: float, wake: asyncio.Event, is_over: Callable[[], Awaitable[bool]]) -> None:
        """Wait until none is left, for at most `grace` seconds, or until `is_over`, asked at each `wake`."""
        loop = asyncio.get_running_loop()
        grace_over = loop.time() + grace
        while self._tasks and (left := grace_over - loop.time()) > 0:
            waking = asyncio.ensure_future(wake.wait())
            try:
                await asyncio.wait([waking, *self._tasks], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waking.cancel()
            wake.clear()
            if await is_over():
                return

    async def end(self) -> None:
        """Close those that are left."""
        if tasks := set(self._tasks):
            await asyncio.sleep(0)  # one that has not begun to drain would not be closed when it is cancelled
            for task in tasks:
                task.cancel()  # closes the pool
            await asyncio.wait(tasks)
