"""Waiting for what must come to its end, whatever becomes of the one who waits: a process to be reaped, say."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def finish(work: Awaitable[T]) -> T:
    """Await `work` to its end and return its result. A caller that is cancelled meanwhile is so only afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen: what the caller is told is that it was cancelled
        try:
            raise cancelled
        finally:
            del (
                cancelled,
                task,
            )  # else the error's traceback would hold itself, and the result, until they are collected
    return task.result()
