"""Whole copies of the database, taken by SQLite while a server may be writing to it, and a look into one."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import apsw

from modelhost.server.resources import DeploymentState
from modelhost.server.store.database import BUSY_TIMEOUT_MS, DatabaseUnusable, check_whole, is_full
from modelhost.server.store.migrations import check_known


@dataclass(frozen=True)
class Contents:
    """What a database holds: the number of its schema, and how many of each there are."""

    schema: int
    data_sources: int
    deployments: int
    running: int
    revisions: int
    locks: int


def copy_database(source: Path, target: Path) -> Contents:
    """Copy the database as it is at one moment to a new file, readable by its owner alone, and check the copy.

    Raises `DatabaseUnusable`, `SchemaTooNew`, `OSError`.
    """
    target.touch(0o600, exist_ok=False)
    try:
        _copy(source, target)
    except apsw.Error as error:
        if is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise DatabaseUnusable(f"the database {source} cannot be copied: {error}") from error
    return inspect(target, shown=source)


def key_check(path: Path) -> str | None:
    """The text of a copy that the right key opens; None in one from before there was such a text."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        if not connection.table_exists(None, "key_check"):
            return None
        found = connection.execute("SELECT sealed FROM key_check").get
        return None if found is None else str(found)
    finally:
        connection.close()


def inspect(path: Path, *, shown: Path) -> Contents:
    """Check every byte of a copy; `shown` is the file that is named where something is wrong.

    Raises `DatabaseUnusable`, `SchemaTooNew`.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            check_whole(connection)
            schema = check_known(connection)
            if not schema:
                raise apsw.NotADBError("it is no database of ModelHost")
            return _contents(connection, schema)
        finally:
            connection.close()
    except apsw.Error as error:
        raise DatabaseUnusable(f"the database in {shown} cannot be used: {error}") from error


def _copy(source: Path, target: Path) -> None:
    reader = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        reader.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a damaged one is left as it is
        reader.set_busy_timeout(BUSY_TIMEOUT_MS)
        writer = apsw.Connection(str(target))
        try:
            with writer.backup("main", reader, "main") as backup:
                backup.step(-1)  # at once: it keeps no writer waiting
            writer.execute("PRAGMA journal_mode = DELETE")  # one file, that needs none beside it
        finally:
            writer.close()
        check_whole(reader)
        reader.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    finally:
        reader.close()


def _contents(connection: apsw.Connection, schema: int) -> Contents:
    def count(table: str, *values: str) -> int:
        return int(connection.execute(f"SELECT count(*) FROM {table}", values).get)

    return Contents(
        schema=schema,
        data_sources=count("data_sources"),
        deployments=count("deployments"),
        running=count(
            "deployments WHERE state IN (?, ?)", DeploymentState.RUNNING.value, DeploymentState.STARTING.value
        ),
        revisions=count("revisions"),
        locks=count("environment_locks") if schema >= 3 else 0,
    )
