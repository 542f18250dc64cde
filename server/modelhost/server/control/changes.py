"""Tells those who watch a deployment that it has changed."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

ACCESS = "access"  # told of when somebody may be let in no more, or to something else; no uid


class Changes:
    """Subscriptions by deployment uid, or by another word that whoever notifies also has. On the event loop only."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def notify(self, *subjects: str) -> None:
        """Something about them is new."""
        for subject in subjects:
            for event in self._watchers.get(subject, ()):
                event.set()

    @contextmanager
    def watch(self, *subjects: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change; whoever waits for it clears it. Changes in quick succession are one."""
        event = asyncio.Event()
        for subject in subjects:
            self._watchers[subject].add(event)
        try:
            yield event
        finally:
            for subject in subjects:
                self._watchers[subject].discard(event)
                if not self._watchers[subject]:
                    del self._watchers[subject]
