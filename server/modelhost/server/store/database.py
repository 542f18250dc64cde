"""The database: SQLite through apsw, one connection on one thread.

A transaction is one synchronous function that runs on that thread from BEGIN to COMMIT: no other task's statements can
slip into it, and none of its own is acknowledged before all of it is on disk.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from modelhost.server.store.migrations import migrate

T = TypeVar("T")

Value = None | int | float | str | bytes
Row = tuple[Value, ...]

BUSY_TIMEOUT_MS = 5_000


class DatabaseUnusable(Exception):
    """The file cannot be opened, is no database or is damaged."""


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
        self.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})", *columns.values())

    @property
    def changed(self) -> int:
        """How many rows the last statement changed."""
        return self._connection.changes()

    def after_commit(self, act: Callable[[], None]) -> None:
        """Have `act` called on the event loop once this transaction is on disk; not at all if it is rolled back."""
        self.committed.append(act)


class Database:
    """Opens (and migrates) the file; runs transactions one after the other.

    Raises `DatabaseUnusable`, `SchemaTooNew`, `OSError`; the file is then as it was.
    """

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, "database")
        try:
            self._connection = self._thread.submit(_open, path).result()
        except BaseException:
            self._thread.shutdown()
            raise

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
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has rolled back by itself where the disk failed
                self._connection.execute("ROLLBACK")
            raise
        for act in transaction.committed:
            loop.call_soon_threadsafe(act)
        return result

    def close(self) -> None:
        """Finish what was submitted and close the file."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()


def _open(path: Path) -> apsw.Connection:
    try:
        return _opened(path)
    except apsw.Error as error:
        raise DatabaseUnusable(
            f"the database {path} cannot be used: {error}; put a copy in its place that is whole, or move it away "
            "to begin with none"
        ) from error


def _opened(path: Path) -> apsw.Connection:
    path.touch(0o600)
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        _check(connection)
        _use_wal(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")  # an acknowledged change survives a power cut
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: apsw.Connection) -> None:
    """Find damage before anything is done on the strength of what the file says. Raises `apsw.CorruptError`."""
    if connection.execute("PRAGMA quick_check(1)").get != "ok":
        raise apsw.CorruptError("it is damaged")


def _use_wal(connection: apsw.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").get
    if mode != "wal":
        raise OSError(
            f"SQLite cannot use a write-ahead log here (journal mode is {mode}); is the disk a network share?"
        )
