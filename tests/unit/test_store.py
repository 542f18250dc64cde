"""Transactions on real SQLite: whole or not at all, one after the other, and on disk before anybody hears of them."""

import asyncio
import os
import shutil
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from modelhost.server.errors import DiskFull, reason_name
from modelhost.server.store.database import Database, DatabaseUnusable, Transaction
from modelhost.server.store.migrations import MIGRATIONS, SchemaTooNew, migrate
from tests.full_disk import MIB, small_disk


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "modelhost.db")
    await database.run(lambda tx: tx.execute("CREATE TABLE words (word TEXT PRIMARY KEY) STRICT"))
    yield database
    database.close()


async def words(database: Database) -> list[str]:
    rows = await database.run(lambda tx: list(tx.execute("SELECT word FROM words ORDER BY rowid")))
    return [str(row[0]) for row in rows]


class Changed(Exception):
    """Raised by transactions that change their mind."""


# ---- transactions


async def test_a_transaction_that_raises_leaves_nothing_of_what_it_did(database: Database) -> None:
    def change_then_fail(tx: Transaction) -> None:
        tx.insert("words", word="one")
        tx.insert("words", word="two")
        raise Changed

    with pytest.raises(Changed):
        await database.run(change_then_fail)

    assert await words(database) == []


async def test_a_statement_that_fails_takes_those_before_it_along(database: Database) -> None:
    def repeat(tx: Transaction) -> None:
        tx.insert("words", word="one")
        tx.insert("words", word="one")

    with pytest.raises(apsw.ConstraintError):
        await database.run(repeat)

    assert await words(database) == []
    await database.run(lambda tx: tx.insert("words", word="two"))
    assert await words(database) == ["two"]


async def test_a_commit_that_fails_is_rolled_back_and_the_next_transaction_goes_on(database: Database) -> None:
    late = "CREATE TABLE tails (word TEXT REFERENCES words DEFERRABLE INITIALLY DEFERRED)"  # looked at by COMMIT
    await database.run(lambda tx: tx.execute(late))

    def dangle(tx: Transaction) -> None:
        tx.insert("words", word="one")
        tx.insert("tails", word="nothing that there is")

    with pytest.raises(apsw.ConstraintError):
        await database.run(dangle)

    assert await words(database) == []
    await database.run(lambda tx: tx.insert("words", word="two"))
    assert await words(database) == ["two"]


async def test_a_transaction_that_finds_no_room_is_undone_and_the_next_one_goes_on(database: Database) -> None:
    def few_pages(tx: Transaction) -> None:
        (count,) = tx.one("PRAGMA page_count") or (0,)
        tx.execute(f"PRAGMA max_page_count = {count}")

    def grow(tx: Transaction) -> None:
        tx.insert("words", word="one")
        tx.insert("words", word="x" * 100_000)

    await database.run(few_pages)
    for _ in range(2):
        with pytest.raises(DiskFull) as caught:
            await database.run(grow)
        assert reason_name(caught.value.reason) == "DISK_FULL"
        assert await words(database) == []

    await database.run(lambda tx: tx.execute("PRAGMA max_page_count = 100000"))
    await database.run(grow)
    assert len(await words(database)) == 2


@pytest.mark.parametrize("room", [0, 8192, 40_960])
async def test_a_commit_that_finds_no_room_on_the_disk_is_undone_and_works_once_there_is(
    tmp_path: Path, room: int
) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        database = Database(disk.path / "modelhost.db")
        try:
            await database.run(lambda tx: tx.execute("CREATE TABLE words (word TEXT PRIMARY KEY) STRICT"))
            await database.run(lambda tx: tx.insert("words", word="before"))
            with disk.filled(leave=room):
                for _ in range(3):
                    with pytest.raises(DiskFull):
                        await database.run(lambda tx: tx.insert("words", word="x" * 100_000))
                    assert await words(database) == ["before"]

            await database.run(lambda tx: tx.insert("words", word="x" * 100_000))
            assert len(await words(database)) == 2
        finally:
            database.close()
        Database(disk.path / "modelhost.db").close()


def test_on_a_full_disk_a_database_is_not_called_damaged(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        with disk.filled(), pytest.raises(OSError, match="no room"):
            Database(disk.path / "new.db")
        Database(disk.path / "new.db").close()
        with disk.filled(), pytest.raises(OSError, match="no room"):
            Database(disk.path / "new.db")
        Database(disk.path / "new.db").close()


async def test_a_transaction_that_sqlite_rolls_back_itself_raises_what_went_wrong(database: Database) -> None:
    def give_up(tx: Transaction) -> None:
        tx.insert("words", word="one")
        tx.execute("INSERT OR ROLLBACK INTO words VALUES ('one')")

    with pytest.raises(apsw.ConstraintError, match="UNIQUE"):
        await database.run(give_up)

    await database.run(lambda tx: tx.insert("words", word="two"))
    assert await words(database) == ["two"]


async def test_a_hundred_writers_at_once_come_one_after_the_other(database: Database) -> None:
    await database.run(lambda tx: tx.execute("CREATE TABLE counter (value INTEGER)"))
    await database.run(lambda tx: tx.insert("counter", value=0))
    inside = 0

    def increment(tx: Transaction) -> int:
        nonlocal inside
        inside += 1
        assert inside == 1
        (value,) = tx.one("SELECT value FROM counter") or (0,)
        time.sleep(0.001)  # room for others to come in between, if they could
        tx.execute("UPDATE counter SET value = ?", value + 1)
        inside -= 1
        return value

    seen = await asyncio.gather(*(database.run(increment) for _ in range(100)))

    assert seen == list(range(100))
    assert await database.run(lambda tx: tx.one("SELECT value FROM counter")) == (100,)


async def test_what_is_to_happen_after_the_commit_happens_on_the_loop_when_others_can_see_it(
    database: Database, tmp_path: Path
) -> None:
    seen: list[tuple[int, list[object]]] = []

    def look() -> None:
        with apsw.Connection(str(tmp_path / "modelhost.db")) as other:
            seen.append((threading.get_ident(), list(other.execute("SELECT word FROM words"))))

    def change(tx: Transaction) -> None:
        tx.after_commit(look)
        tx.insert("words", word="one")

    await database.run(change)

    assert seen == [(threading.get_ident(), [("one",)])]


async def test_nothing_happens_after_a_commit_that_there_was_not(database: Database) -> None:
    happened: list[str] = []

    def change_then_fail(tx: Transaction) -> None:
        tx.after_commit(lambda: happened.append("after"))
        raise Changed

    with pytest.raises(Changed):
        await database.run(change_then_fail)
    await words(database)

    assert happened == []


async def test_what_happens_after_commits_happens_in_their_order_and_before_the_caller_goes_on(
    database: Database,
) -> None:
    happened: list[int] = []

    async def change(number: int) -> None:
        await database.run(lambda tx: tx.after_commit(lambda: happened.append(number)))
        assert happened[-1] >= number

    await asyncio.gather(*(change(number) for number in range(20)))

    assert happened == list(range(20))


async def test_a_caller_who_is_cancelled_undoes_nothing(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def change(tx: Transaction) -> None:
        tx.insert("words", word="one")
        begun.set()
        go_on.wait(10)
        tx.insert("words", word="two")

    task = asyncio.create_task(database.run(change))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()

    assert await words(database) == ["one", "two"]


async def test_a_caller_who_is_cancelled_before_it_is_his_turn_undoes_nothing_either(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()
    first = asyncio.create_task(database.run(lambda tx: begun.set() or go_on.wait(10)))
    await asyncio.to_thread(begun.wait, 10)

    task = asyncio.create_task(database.run(lambda tx: tx.insert("words", word="one")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await first

    assert await words(database) == ["one"]


async def test_nobody_else_writes_while_a_transaction_has_only_read_yet(database: Database, tmp_path: Path) -> None:
    def read_then_write(tx: Transaction) -> None:
        tx.one("SELECT count(*) FROM words")
        with closing(apsw.Connection(str(tmp_path / "modelhost.db"))) as other, pytest.raises(apsw.BusyError):
            other.execute("INSERT INTO words VALUES ('from outside')")
        tx.insert("words", word="one")

    await database.run(read_then_write)

    assert await words(database) == ["one"]


async def test_statements_have_run_whether_or_not_their_rows_are_taken(database: Database) -> None:
    await database.run(lambda tx: tx.execute("INSERT INTO words VALUES ('one') RETURNING word") and None)

    assert await words(database) == ["one"]


async def test_a_transaction_knows_how_many_rows_it_has_changed(database: Database) -> None:
    def change(tx: Transaction) -> int:
        tx.execute("INSERT INTO words VALUES ('one'), ('two'), ('three')")
        tx.execute("DELETE FROM words WHERE word <> 'one'")
        return tx.changed

    assert await database.run(change) == 2


async def test_closing_finishes_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "modelhost.db"
    database = Database(path)
    await database.run(lambda tx: tx.execute("CREATE TABLE words (word TEXT)"))

    last = asyncio.ensure_future(database.run(lambda tx: tx.insert("words", word="last")))
    await asyncio.sleep(0)
    database.close()
    await last

    with apsw.Connection(str(path)) as reader:
        assert list(reader.execute("SELECT word FROM words")) == [("last",)]


# ---- the file


async def test_the_database_is_as_safe_as_is_said(database: Database, tmp_path: Path) -> None:
    def pragmas(tx: Transaction) -> list[object]:
        return [tx.one(f"PRAGMA {name}") for name in ("journal_mode", "foreign_keys", "synchronous")]

    full = 2
    # Within a transaction, and so on the connection that writes.
    assert await database.run(pragmas) == [("wal",), (1,), (full,)]
    assert stat.S_IMODE((tmp_path / "modelhost.db").stat().st_mode) == 0o600


def schema(path: Path) -> list[object]:
    with apsw.Connection(str(path)) as reader:
        return list(reader.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name"))


def version(path: Path) -> int:
    with apsw.Connection(str(path)) as reader:
        return int(reader.execute("PRAGMA user_version").get)


@pytest.mark.parametrize("first", range(1, len(MIGRATIONS) + 1))
def test_a_file_of_any_earlier_version_becomes_what_a_new_one_is(tmp_path: Path, first: int) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    with closing(apsw.Connection(str(old))) as connection:
        migrate(connection, MIGRATIONS[:first])
    assert version(old) == first

    Database(old).close()
    Database(new).close()

    assert schema(old) == schema(new) != []
    assert version(old) == version(new) == len(MIGRATIONS)


def test_a_migration_that_fails_leaves_the_version_before_whole(tmp_path: Path) -> None:
    path = tmp_path / "modelhost.db"
    good = "CREATE TABLE one (x)"
    bad = "CREATE TABLE two (x); INSERT INTO two VALUES (1); CREATE TABLE one (x)"

    with closing(apsw.Connection(str(path))) as connection:
        with pytest.raises(apsw.SQLError, match="already exists"):
            migrate(connection, (good, bad, "CREATE TABLE three (x)"))

        assert [name for _, name, _ in schema(path)] == ["one"]
        assert version(path) == 1
        migrate(connection, (good, "CREATE TABLE two (x)"))

    assert [name for _, name, _ in schema(path)] == ["one", "two"]
    assert version(path) == 2


def test_a_file_of_a_newer_server_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "modelhost.db"
    Database(path).close()
    with apsw.Connection(str(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = schema(path)
    threads = set(threading.enumerate())

    with pytest.raises(SchemaTooNew, match="run a newer modelhost"):
        Database(path)

    assert schema(path) == before
    assert version(path) == len(MIGRATIONS) + 1
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("content", [b"not a database at all" * 200, b"SQLite format 3\0" + b"x" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "modelhost.db"
    path.write_bytes(content)

    with pytest.raises(DatabaseUnusable, match=r"modelhost\.db cannot be used"):
        Database(path)

    assert path.read_bytes() == content


def with_content(path: Path, count: int = 2000) -> None:
    """A database with some pages of tables and of indexes."""
    Database(path).close()
    with closing(apsw.Connection(str(path))) as connection, connection:
        for number in range(count):
            row = (f"id-{number}", "CreateDeployment", "x" * 204, float(number))
            connection.execute("INSERT INTO requests VALUES (?, ?, ?, ?)", row)


def refusal(path: Path) -> str:
    """What is said of a database that is refused; every file of it stays as it was."""
    files = [path, *(beside for beside in path.parent.glob(f"{path.name}-wal"))]
    before = [file.read_bytes() for file in files if file.is_file()]
    threads = set(threading.enumerate())
    with pytest.raises(DatabaseUnusable) as caught:
        Database(path)
    assert [file.read_bytes() for file in files if file.is_file()] == before
    assert set(threading.enumerate()) <= threads
    assert "modelhost.db cannot be used: " in str(caught.value)
    assert "`modelhost restore`" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kept", [0, 50, 100, 4096, 100_000])
def test_a_database_that_was_cut_short_is_refused_and_left_as_it_is(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "modelhost.db"
    with_content(path)
    path.write_bytes(path.read_bytes()[:kept])

    refusal(path)

    assert path.stat().st_size == kept, "an empty one too: it may have been a full disk that emptied it"


def page_of(path: Path, name: str) -> tuple[int, int]:
    """The size of a page, and the number of the last one of a table or an index."""
    with closing(apsw.Connection(str(path))) as connection:
        size = connection.execute("PRAGMA page_size").get
        (page,) = connection.execute("SELECT max(pageno) FROM dbstat WHERE name = ?", (name,)).fetchone()
    return int(size), int(page)


@pytest.mark.parametrize("name", ["requests", "requests_by_created"])
def test_a_page_of_other_bytes_is_found_be_it_of_a_table_or_of_an_index(tmp_path: Path, name: str) -> None:
    path = tmp_path / "modelhost.db"
    with_content(path)
    size, page = page_of(path, name)
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : page * size] = bytes(reversed(content[(page - 1) * size : page * size]))
    path.write_bytes(content)

    refusal(path)


def test_an_index_that_says_other_than_its_table_is_found(tmp_path: Path) -> None:
    """Every page is well-formed: what a `quick_check` looks at is whole."""
    path = tmp_path / "modelhost.db"
    with_content(path)
    size, page = page_of(path, "requests_by_created")
    content = bytearray(path.read_bytes())
    place = content.rindex(b"id-1", (page - 1) * size, page * size)
    content[place : place + 4] = b"id-7"
    path.write_bytes(content)
    with closing(apsw.Connection(str(path))) as connection:
        assert connection.execute("PRAGMA quick_check(1)").get == "ok"

    assert "it is damaged" in refusal(path)


def test_the_log_of_another_database_is_found_and_not_written_into_the_file(tmp_path: Path) -> None:
    path, other = tmp_path / "modelhost.db", tmp_path / "other" / "modelhost.db"
    other.parent.mkdir()
    with_content(path)
    with_content(other, 500)
    with closing(apsw.Connection(str(other))) as writer:
        writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        with writer:
            writer.execute("DELETE FROM requests WHERE created > 495")
    shutil.copy(f"{other}-wal", f"{path}-wal")

    refusal(path)


def test_a_log_without_its_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "modelhost.db"
    log = tmp_path / "modelhost.db-wal"
    log.write_bytes(b"changes")

    assert "the file itself is missing" in refusal(path)
    assert (path.exists(), log.read_bytes()) == (False, b"changes")


def test_a_folder_in_the_place_of_the_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "modelhost.db"
    (path / "precious").mkdir(parents=True)

    refusal(path)

    assert [file.name for file in path.iterdir()] == ["precious"]


def test_a_database_that_was_being_made_when_the_server_was_killed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "modelhost.db"
    for name in (".modelhost.db.new", ".modelhost.db.new-journal"):
        (tmp_path / name).write_bytes(b"half")

    Database(path).close()

    assert [file.name for file in tmp_path.iterdir()] == ["modelhost.db"]
    assert version(path) == len(MIGRATIONS)


async def test_an_acknowledged_change_is_in_the_file_without_any_goodbye(database: Database, tmp_path: Path) -> None:
    await database.run(lambda tx: tx.insert("words", word="one"))

    copies = tmp_path / "copies"
    copies.mkdir()
    for name in ("modelhost.db", "modelhost.db-wal"):  # what would be found after a crash
        shutil.copy(tmp_path / name, copies / name)

    with apsw.Connection(os.fspath(copies / "modelhost.db")) as found:
        assert list(found.execute("SELECT word FROM words")) == [("one",)]
