"""The database: SQLite through apsw, one connection on one thread.

A transaction is one synchronous function that runs on that thread from BEGIN to COMMIT: no other task's statements can
slip into it, and none of its own is acknowledged before all of it is on disk.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw
from modelhost.server.store.migrations import migrate

T = TypeVar("T")

Value = None | int | float | str | bytes
Row = tuple[Value, ...]

BUSY_TIMEOUT_MS = 5_000


class Transaction:
    """What a transaction function works with. Not to be kept beyond it."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.committed: list[Callable[[], None]] = []

    def execute(self, sql: str, *values: Value) -> Iterator[Row]:
        """Run one statement and return its rows. It has run when this returns, whether or not rows are taken."""
        return iter(self._connection.execute(sql, values).fetchall())

    def one(self, sql: str, *values: Value) -> Row | None:
        """Run one statement and return its first row."""
        return next(self.execute(sql, *values), None)

    def insert(self, table: str, **columns: Value) -> None:
        """Insert a row."""
        names = ", ".join(f'"{name}"' for name in columns)
        self.execute(f"INSERT INTO {table} ({names}) VALUES ({_marks(columns)})", *columns.values())

    @property
    def changed(self) -> int:
        """How many rows the last statement changed."""
        return self._connection.changes()

    def after_commit(self, act: Callable[[], None]) -> None:
        """Have `act` called on the event loop once this transaction is on disk; not at all if it is rolled back."""
        self.committed.append(act)


def _marks(values: Sequence[object] | dict[str, Value]) -> str:
    return ", ".join("?" for _ in values)


class Database:
    """Opens (and migrates) the file; runs transactions one after the other."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, "database")
        self._connection = self._thread.submit(_open, path).result()

    async def run(self, transaction: Callable[[Transaction], T]) -> T:
        """Run a transaction and return what it returns; if it raises, nothing of it happened.

        A caller that is cancelled meanwhile does not undo it.
        """
        future = self._thread.submit(self._transact, transaction, asyncio.get_running_loop())
        return await asyncio.shield(asyncio.wrap_future(future))

    def _transact(self, function: Callable[[Transaction], T], loop: asyncio.AbstractEventLoop) -> T:
        transaction = Transaction(self._connection)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = function(transaction)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        for act in transaction.committed:
            loop.call_soon_threadsafe(act)
        return result

    def close(self) -> None:
        """Finish what was submitted and close the file."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()


def _open(path: Path) -> apsw.Connection:
    path.touch(0o600)
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    _use_wal(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # an acknowledged change survives a power cut
    migrate(connection)
    return connection


def _use_wal(connection: apsw.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").get
    if mode != "wal":
        raise OSError(
            f"SQLite cannot use a write-ahead log here (journal mode is {mode}); is the disk a network share?"
        )
