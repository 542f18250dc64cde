"""Counts what comes of each caller's calls of each service, minute by minute, until it is stored."""

import time
from collections.abc import Callable, Mapping

from modelhost.server.store import usage
from modelhost.server.store.database import Transaction
from modelhost.server.store.tally import Tally, add_all

Callers = dict[str, Tally]
Services = dict[str, Callers]
Minutes = dict[int, Services]  # by their first second since 1970

NO_MINUTE = -1.0


class UsageBatch:
    """Counts on their way to the database."""

    def __init__(self, minutes: Mapping[int, Services], now: float, stored: Callable[["UsageBatch"], None]) -> None:
        self.minutes = minutes
        self._now = now
        self._stored = stored

    def write(self, tx: Transaction) -> None:
        """Add them to what is stored, and delete what is too old."""
        usage.add(tx, self.minutes)
        usage.prune(tx, self._now)
        tx.after_commit(lambda: self._stored(self))


class UsageRecorder:
    """A ledger (`access/ledger.py`) of calls. Used on the event loop only, so nothing waits for anything.

    It holds a tally per minute, service and caller for what is not stored yet: for as many as were let in to call what
    there is, which callers cannot make up. While nothing can be stored, minutes that are over for an hour become one.
    `clock` gives seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._new: Minutes = {}
        self._taken: list[UsageBatch] = []
        self._minute = NO_MINUTE
        self._current: Services = {}  # the one of `_new` for this minute
        self._pruned = 0.0

    def ended(self, service_id: str, caller: str, code: str, seconds: float, received: int, sent: int) -> None:
        """A call has ended with `code` (`OK`, `UNKNOWN` …); `received` and `sent` are bytes.

        `caller` is `serviceAccounts/<id>`, `operators/<id>` or `anonymous`. It takes about a microsecond.
        """
        minute = self._clock() // usage.MINUTE
        if minute != self._minute:
            self._turn(minute)
        try:
            tally = self._current[service_id][caller]
        except KeyError:
            tally = self._current.setdefault(service_id, {}).setdefault(caller, Tally())
        tally.count(code, seconds, received, sent)

    def take(self) -> UsageBatch | None:
        """Hand out what is new; once an hour even nothing, for old usage to go where there is no new one."""
        now = self._clock()
        if not self._new and abs(now - self._pruned) < usage.HOUR:
            return None
        batch = UsageBatch(self._new, now, self._taken_is_stored)
        self._taken.append(batch)
        self._new, self._minute, self._pruned = {}, NO_MINUTE, now
        return batch

    def put_back(self, batch: UsageBatch) -> None:
        """Have a batch that was not stored as new again."""
        self._taken.remove(batch)
        for start, services in batch.minutes.items():
            self._add(start, services)

    def unwritten(self, service_id: str) -> dict[int, Callers]:
        """What was counted of a service and is not in the database, by minute and caller.

        Called by `Transaction.after_commit` of a transaction that reads what is stored, it is what that did not see.
        """
        found: dict[int, Callers] = {}
        for minutes in (self._new, *(batch.minutes for batch in self._taken)):
            for start, services in minutes.items():
                if callers := services.get(service_id):
                    add_all(found, start, callers)
        return found

    def _taken_is_stored(self, batch: UsageBatch) -> None:
        self._taken.remove(batch)

    def _turn(self, minute: float) -> None:
        """Count in another minute from now on."""
        start = int(minute) * usage.MINUTE
        for old in [each for each in self._new if each < start - usage.HOUR and each % usage.HOUR]:
            self._add(old - old % usage.HOUR, self._new.pop(old))
        self._current = self._new.setdefault(start, {})
        self._minute = minute

    def _add(self, start: int, services: Services) -> None:
        into = self._new.setdefault(start, {})
        for service_id, callers in services.items():
            add_all(into, service_id, callers)
