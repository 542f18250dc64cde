"""The database: SQLite through apsw, one connection on one thread.

A transaction is one synchronous function that runs on that thread from BEGIN to COMMIT: no other task's statements can
slip into it, and none of its own is acknowledged before all of it is on disk.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from modelhost.server.errors import DiskFull
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
        self.rolled_back: list[Callable[[], None]] = []

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

    def on_rollback(self, act: Callable[[], None]) -> None:
        """Have `act` called on the database's thread if nothing of this transaction happens."""
        self.rolled_back.append(act)


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

        A caller that is cancelled meanwhile does not undo it. Raises also `DiskFull`.
        """
        future = self._thread.submit(self._transact, transaction, asyncio.get_running_loop())
        return await asyncio.shield(asyncio.wrap_future(future))

    def run_now(self, transaction: Callable[[Transaction], T]) -> T:
        """Run a transaction, and wait for it: before there is anybody whom that would keep. Raises also `DiskFull`."""
        return self._thread.submit(self._transact, transaction, asyncio.get_running_loop()).result()

    def _transact(self, function: Callable[[Transaction], T], loop: asyncio.AbstractEventLoop) -> T:
        transaction = Transaction(self._connection)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            result = function(transaction)
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:  # SQLite has rolled back by itself where the disk failed
                self._connection.execute("ROLLBACK")
            for act in transaction.rolled_back:
                act()
            if is_full(error):
                raise DiskFull(os.strerror(errno.ENOSPC)) from error
            raise
        for act in transaction.committed:
            loop.call_soon_threadsafe(act)
        return result

    def close(self) -> None:
        """Finish what was submitted and close the file."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()


def is_full(error: BaseException) -> bool:
    """Whether SQLite says that there is no room, which it says differently for the index of its log."""
    code = getattr(error, "extendedresult", None)
    return isinstance(error, apsw.FullError) or (isinstance(error, apsw.IOError) and code == apsw.SQLITE_IOERR_SHMSIZE)


def check_whole(connection: apsw.Connection) -> None:
    """Find damage before anything is done on the strength of what the file says. Raises `apsw.CorruptError`.

    Of the tables and of the indexes: what an index has lost is not found by its name any more, though it is there.
    """
    if (problem := connection.execute("PRAGMA integrity_check(1)").get) != "ok":
        raise apsw.CorruptError(f"it is damaged: {' '.join(str(problem).split())}")


def _open(path: Path) -> apsw.Connection:
    try:
        if not path.exists():
            _make(path)
        return _opened(path)
    except apsw.Error as error:
        if is_full(error):
            raise OSError(errno.ENOSPC, "there is no room to open the database", str(path)) from error
        raise DatabaseUnusable(
            f"the database {path} cannot be used: {error}; it was left as it is. Move it away, with its -wal "
            "file: then `modelhost restore` puts that of a backup in its place, or the next start begins with none"
        ) from error


def _make(path: Path) -> None:
    """Make an empty database that is whole as soon as it has its name: an empty file is never one of ours."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise apsw.CorruptError(f"there is {log.name}, which holds changes of it, but the file itself is missing")
    draft = path.with_name(f".{path.name}.new")
    for left in path.parent.glob(f"{draft.name}*"):
        left.unlink()
    draft.touch(0o600)
    connection = apsw.Connection(str(draft))
    try:
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection)
    finally:
        connection.close()
    draft.rename(path)


def _opened(path: Path) -> apsw.Connection:
    if path.is_file() and not path.stat().st_size:
        raise apsw.NotADBError("it is empty")
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # Else closing a file that is refused would write into it what lies in its log.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        check_whole(connection)
        _use_wal(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")  # an acknowledged change survives a power cut
        migrate(connection)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: apsw.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").get
    if mode != "wal":
        raise OSError(
            f"SQLite cannot use a write-ahead log here (journal mode is {mode}); is the disk a network share?"
        )
