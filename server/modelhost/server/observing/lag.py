"""How late the event loop comes to what is due. Whatever holds it up holds up every call."""

import asyncio
import time
from collections.abc import Callable

INTERVAL_SECONDS = 0.25


async def watch_lag(observe: Callable[[float], None]) -> None:
    """Tell `observe` by how many seconds each of a row of timers came late, until cancelled."""
    while True:
        begun = time.monotonic()  # the loop's own clock stands still while a callback runs
        await asyncio.sleep(INTERVAL_SECONDS)
        observe(max(0.0, time.monotonic() - begun - INTERVAL_SECONDS))
