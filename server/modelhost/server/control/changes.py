"""Tells those who watch a deployment that it has changed."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Changes:
    """Subscriptions by deployment uid. Used on the event loop only."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def notify(self, uid: str) -> None:
        """Something about the deployment is new."""
        for event in self._watchers.get(uid, ()):
            event.set()

    @contextmanager
    def watch(self, uid: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change; whoever waits for it clears it. Changes in quick succession are one."""
        event = asyncio.Event()
        self._watchers[uid].add(event)
        try:
            yield event
        finally:
            self._watchers[uid].discard(event)
            if not self._watchers[uid]:
                del self._watchers[uid]
