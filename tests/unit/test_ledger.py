"""What is counted is stored once: whoever is cancelled, whatever fails, and however often."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from modelhost.server.access.ledger import Keeper
from modelhost.server.errors import DiskFull
from modelhost.server.store.database import Database, Transaction
from tests.full_disk import MIB, small_disk

OFTEN = 0.001


class Refused(Exception):
    """Raised by a batch that is told to."""


class CountBatch:
    """Adds a number to the stored one."""

    def __init__(self, ledger: "CountLedger", number: int) -> None:
        self._ledger = ledger
        self.number = number

    def write(self, tx: Transaction) -> None:
        tx.execute("UPDATE counts SET number = number + ? WHERE name = ?", self.number, self._ledger.name)
        if self._ledger.writing is not None:
            self._ledger.writing.set()
            assert self._ledger.may_end.wait(30)
        if self._ledger.refusals:
            self._ledger.refusals -= 1
            raise Refused
        tx.execute(self._ledger.also)
        tx.after_commit(self._ledger.stored.set)


class CountLedger:
    """Counts one thing. So many writes as `refusals` says fail; while `writing` is there they wait for `may_end`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.new = 0
        self.refusals = 0
        self.also = "SELECT 1"
        self.writing: threading.Event | None = None
        self.may_end = threading.Event()
        self.stored = asyncio.Event()
        self.came_back = asyncio.Event()

    def take(self) -> CountBatch | None:
        number, self.new = self.new, 0
        return CountBatch(self, number) if number else None

    def put_back(self, batch: CountBatch) -> None:
        self.new += batch.number
        self.came_back.set()


def prepare(tx: Transaction) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, number INTEGER)")
    tx.execute("INSERT OR IGNORE INTO counts VALUES ('one', 0), ('two', 0)")


async def stored(database: Database) -> tuple[int, int]:
    """The numbers of ledgers `one` and `two`."""
    rows = await database.run(lambda tx: list(tx.execute("SELECT number FROM counts ORDER BY name")))
    one, two = (int(str(row[0])) for row in rows)
    return one, two


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "modelhost.db")
    await database.run(prepare)
    yield database
    database.close()


@pytest.fixture
def one() -> Iterator[CountLedger]:
    ledger = CountLedger("one")
    yield ledger
    ledger.may_end.set()


@pytest.fixture
def two() -> CountLedger:
    return CountLedger("two")


@pytest.fixture
def keeper(database: Database, one: CountLedger, two: CountLedger) -> Keeper:
    return Keeper(database, [one, two], OFTEN)


async def until_in_the_middle(ledger: CountLedger) -> None:
    """Wait until a write of the ledger has begun, which then does not end."""
    assert ledger.writing is not None
    assert await asyncio.to_thread(ledger.writing.wait, 30)


async def test_what_is_new_is_stored_every_few_moments(database: Database, keeper: Keeper, one: CountLedger) -> None:
    running = asyncio.ensure_future(keeper.run())
    for total in (3, 6):
        one.new += 3
        async with asyncio.timeout(30):
            await one.stored.wait()
        one.stored.clear()
        assert (await stored(database), one.new) == ((total, 0), 0)

    running.cancel()


async def test_nothing_new_needs_no_database(database: Database, keeper: Keeper, tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "modelhost.db"))) as other:
        other.execute("BEGIN IMMEDIATE")  # with which no transaction of ours comes about

        assert await keeper.write()


async def test_all_ledgers_are_stored_together_or_none_is(
    database: Database, keeper: Keeper, one: CountLedger, two: CountLedger
) -> None:
    one.new, two.new, two.refusals = 3, 4, 1
    with capture_logs():
        assert not await keeper.write()
    assert await stored(database) == (0, 0)
    assert (one.new, two.new) == (3, 4)

    two.new += 1
    assert await keeper.write()

    assert await stored(database) == (3, 5)
    assert (one.new, two.new) == (0, 0)


async def test_a_commit_that_fails_is_put_back(database: Database, keeper: Keeper, one: CountLedger) -> None:
    late = "CREATE TABLE tails (name TEXT REFERENCES counts DEFERRABLE INITIALLY DEFERRED)"  # looked at by COMMIT
    await database.run(lambda tx: tx.execute(late))
    one.new, one.also = 3, "INSERT INTO tails VALUES ('nothing that there is')"

    with capture_logs():
        assert not await keeper.write()
    assert (await stored(database), one.new) == ((0, 0), 3)
    one.also = "SELECT 1"
    assert await keeper.write()

    assert (await stored(database), one.new) == ((3, 0), 0)


async def test_a_failure_is_told_once_and_so_is_its_end(keeper: Keeper, one: CountLedger) -> None:
    one.new, one.refusals = 3, 3
    with capture_logs() as said:
        for _ in range(6):
            one.new += 1
            await keeper.write()

    assert [(line["log_level"], line["event"]) for line in said] == [
        ("warning", "what was counted cannot be stored; trying again"),
        ("info", "what was counted is stored again"),
    ]
    assert isinstance(said[0]["exc_info"], Refused)


async def test_it_goes_on_after_a_failure(database: Database, keeper: Keeper, one: CountLedger) -> None:
    one.new, one.refusals = 3, 2
    with capture_logs():
        running = asyncio.ensure_future(keeper.run())
        async with asyncio.timeout(30):
            await one.came_back.wait()
            await one.stored.wait()
    running.cancel()

    assert await stored(database) == (3, 0)


async def test_a_cancel_in_the_middle_of_a_write_neither_loses_nor_doubles(
    database: Database, keeper: Keeper, one: CountLedger
) -> None:
    one.new, one.writing = 3, threading.Event()
    running = asyncio.ensure_future(keeper.run())
    await until_in_the_middle(one)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    one.new += 10  # counted while the cancelled task's write is still under way
    last = asyncio.ensure_future(keeper.close())
    one.may_end.set()
    await last

    assert await stored(database) == (13, 0)


async def test_a_cancel_in_the_middle_of_a_write_that_fails_neither_loses_nor_doubles(
    database: Database, keeper: Keeper, one: CountLedger, two: CountLedger
) -> None:
    one.new, two.new, one.writing, one.refusals = 3, 4, threading.Event(), 1
    running = asyncio.ensure_future(keeper.run())
    await until_in_the_middle(one)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    last = asyncio.ensure_future(keeper.close())
    with capture_logs() as said:
        one.may_end.set()
        await last

    assert [line["event"] for line in said] == [
        "what was counted cannot be stored; trying again",
        "what was counted is stored again",
    ]
    assert await stored(database) == (3, 4)


async def test_who_cancels_every_wait_changes_nothing(database: Database, keeper: Keeper, one: CountLedger) -> None:
    one.writing = threading.Event()
    one.new = 1
    waits = [asyncio.ensure_future(keeper.write())]
    await until_in_the_middle(one)
    for _ in range(20):
        one.new += 1
        waits.append(asyncio.ensure_future(keeper.write()))
    await asyncio.sleep(0)
    for wait in waits:
        wait.cancel()
    one.may_end.set()
    await asyncio.gather(*waits, return_exceptions=True)

    await keeper.close()

    assert (await stored(database), one.new) == ((21, 0), 0)


async def test_laststores_the_last(database: Database, keeper: Keeper, one: CountLedger, two: CountLedger) -> None:
    one.new, two.new = 1, 2

    await keeper.close()

    assert await stored(database) == (1, 2)


async def test_what_is_lost_at_the_end_is_told(keeper: Keeper, one: CountLedger) -> None:
    one.new, one.refusals = 1, 1
    with capture_logs() as said:
        await keeper.close()

    assert said[-1]["event"] == "what was counted last cannot be stored and is lost"


async def test_on_a_full_disk_counts_wait_for_room(tmp_path: Path, one: CountLedger) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        database = Database(disk.path / "modelhost.db")
        await database.run(prepare)
        keeper = Keeper(database, [one])
        one.new, one.also = 3, "CREATE TABLE large AS SELECT randomblob(1000000) AS bytes"
        with disk.filled(), capture_logs() as said:
            assert not await keeper.write()
            one.new += 4
            assert not await keeper.write()
        assert one.new == 7
        assert [line.get("error") for line in said] == [DiskFull("No space left on device").message]

        assert await keeper.write()

        assert await stored(database) == (7, 0)
        database.close()
