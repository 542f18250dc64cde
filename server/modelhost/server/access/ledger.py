"""What is counted in memory and stored a little later, so that no call waits for a disk.

At most what was counted since the last write is lost when the server is killed; nothing when it is stopped.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import structlog

from modelhost.server.errors import DomainError
from modelhost.server.store.database import Database, Transaction

WRITE_SECONDS = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Batch(Protocol):
    """What a ledger handed out to be stored. The ledger changes nothing of it meanwhile."""

    def write(self, tx: Transaction) -> None:
        """Store it. Runs on the database's thread."""


B = TypeVar("B", bound=Batch)


class Ledger(Protocol[B]):
    """Something that counts. Used on the event loop only; neither method waits or raises."""

    def take(self) -> B | None:
        """What is new since the last time, which from now on is the batch's; None if there is nothing."""

    def put_back(self, batch: B) -> None:
        """A batch was not stored: it is new again."""


class Keeper:
    """Stores what is new in each of the ledgers every few seconds, all of it in one transaction.

    Each batch is stored or put back, never both: a write goes on to its end in a task of its own, whoever is cancelled
    while waiting for it, and the next one waits for that.
    """

    def __init__(self, database: Database, ledgers: Sequence[Ledger[Any]], seconds: float = WRITE_SECONDS) -> None:
        self._database = database
        self._ledgers = ledgers
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._writes: set[asyncio.Task[bool]] = set()
        self._failing = False

    async def run(self) -> None:
        """Write every few seconds until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.write()

    async def write(self) -> bool:
        """Write what is new, after what is being written; false if that failed. A cancel does not end it."""
        write = asyncio.ensure_future(self._write())
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)
        return await asyncio.shield(write)

    async def close(self) -> None:
        """Write the last. To be called when nothing counts any more, and before the database is closed."""
        if not await self.write():
            log.error("what was counted last cannot be stored and is lost")

    async def _write(self) -> bool:
        async with self._lock:
            taken = [(ledger, batch) for ledger in self._ledgers if (batch := ledger.take()) is not None]
            if not taken:
                return True

            def write(tx: Transaction) -> None:
                for _, batch in taken:
                    batch.write(tx)

            try:
                await self._database.run(write)
            except Exception as error:
                for ledger, batch in taken:
                    ledger.put_back(batch)
                self._failed(error)
                return False
            if self._failing:
                log.info("what was counted is stored again")
                self._failing = False
            return True

    def _failed(self, error: Exception) -> None:
        """Say so once, not every few seconds."""
        if not self._failing:
            known = {"error": error.message} if isinstance(error, DomainError) else {"exc_info": error}
            log.warning("what was counted cannot be stored; trying again", **known)
        self._failing = True
