"""Once a day every GitLab is asked when the token that is registered for it expires."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from modelhost.server.control import token_check
from modelhost.server.control.sources import GITLAB, Location, Sources
from modelhost.server.control.token_check import ASK_SECONDS, TokenCheck
from modelhost.server.resources import DataSource
from modelhost.server.store import sources
from modelhost.server.store.database import Database
from modelhost.server.vault import Vault
from tests.gitlab_operators import get, register
from tests.gitlab_stand_in import GitLab, Slow, Status, Token
from tests.local_hosts import LOCAL
from tests.running import RunningServer, eventually

SELF = "*/personal_access_tokens/self"


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Host:
    """What a check works with."""

    def __init__(self, folder: Path, gitlab: GitLab, clock: Clock) -> None:
        self.database = Database(folder / "modelhost.db")
        self.sources = Sources(
            self.database,
            folder / "cache",
            {},
            Vault.from_file(folder / "secret.key"),
            snapshot_limit=1024,
            outgoing=LOCAL,
        )
        self.check = TokenCheck(self.database, self.sources, clock=clock)
        self._gitlab = gitlab

    async def register(self, source_id: str, token: Token) -> DataSource:
        location = Location(GITLAB, self._gitlab.url, token=str(token))
        return await self.database.run(lambda tx: self.sources.create(tx, source_id, location, ""))

    async def update(self, source_id: str, token: Token) -> None:
        location = Location(GITLAB, self._gitlab.url, token=str(token))
        await self.database.run(lambda tx: self.sources.update(tx, self.sources.find(tx, source_id), location, ""))

    async def expires(self, source_id: str) -> date | None:
        seconds = (await self.sources.get(source_id)).options.token_expires
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).date()


@pytest.fixture
async def host(tmp_path: Path, gitlab: GitLab, clock: Clock) -> AsyncIterator[Host]:
    host = Host(tmp_path, gitlab, clock)
    yield host
    await asyncio.to_thread(host.sources.close)
    host.database.close()


def in_days(days: int) -> date:
    return datetime.now(UTC).date() + timedelta(days=days)


async def test_what_gitlab_says_is_kept_and_no_change(host: Host, gitlab: GitLab) -> None:
    made = await host.register("energy", gitlab.token(expires=in_days(90)))

    with capture_logs() as logs:
        await host.check.check()

    assert await host.expires("energy") == in_days(90)
    assert (await host.sources.get("energy")).version == made.version
    assert logs == []


async def test_a_token_is_asked_about_once_a_day_and_a_new_one_at_once(
    host: Host, gitlab: GitLab, clock: Clock
) -> None:
    await host.register("energy", gitlab.token())

    async def asked() -> int:
        gitlab.requests.clear()
        await host.check.check()
        return len(gitlab.requests_to(SELF))

    assert (await asked(), await asked()) == (1, 0)
    clock.now += ASK_SECONDS - 1
    assert await asked() == 0
    clock.now += 1
    assert (await asked(), await asked()) == (1, 0)
    await host.update("energy", gitlab.token())
    assert (await asked(), await asked()) == (1, 0)
    await host.register("weather", gitlab.token())
    assert (await asked(), await asked()) == (1, 0)


async def test_one_that_expires_within_thirty_days_is_warned_of_without_being_shown(host: Host, gitlab: GitLab) -> None:
    soon = gitlab.token(expires=in_days(9))
    await host.register("energy", soon)
    await host.register("weather", gitlab.token(expires=in_days(90)))

    with capture_logs() as logs:
        await host.check.check()

    [entry] = logs
    assert (entry["log_level"], entry["data_source"]) == ("warning", "energy")
    assert f"the token expires on {in_days(9)}" in entry["warning"]
    assert soon not in str(logs)


async def test_a_failure_is_noted_changes_nothing_and_keeps_no_other_from_being_asked(
    host: Host, gitlab: GitLab, clock: Clock
) -> None:
    await host.register("energy", gitlab.token(expires=in_days(90)))
    await host.check.check()
    await host.register("weather", gitlab.token(expires=in_days(60)))
    clock.now += ASK_SECONDS
    gitlab.faults.once(SELF, Status(403))

    with capture_logs() as logs:
        await host.check.check()

    [entry] = logs
    assert (entry["log_level"], entry["data_source"], entry["reason"]) == ("info", "energy", "SOURCE_ACCESS_DENIED")
    assert (await host.expires("energy"), await host.expires("weather")) == (in_days(90), in_days(60))
    gitlab.requests.clear()
    await host.check.check()
    assert len(gitlab.requests_to(SELF)) == 1, "only the one that had no answer is asked again"


async def test_what_was_said_of_an_old_token_is_not_kept_of_the_new_one(host: Host, gitlab: GitLab) -> None:
    old = await host.register("energy", gitlab.token(expires=in_days(9)))
    await host.update("energy", gitlab.token())

    await host.database.run(lambda tx: sources.note_expiry(tx, old, 1.0))

    assert await host.expires("energy") is None


async def test_it_goes_on_after_a_fault_of_its_own(host: Host, gitlab: GitLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_check, "LOOK_SECONDS", 0.01)
    await host.register("energy", gitlab.token(expires=in_days(90)))
    await host.database.run(lambda tx: tx.execute("UPDATE data_sources SET options = '[]'"))
    with capture_logs() as logs:
        running = asyncio.ensure_future(host.check.run())
        await asyncio.to_thread(eventually, lambda: logs)
    await host.database.run(lambda tx: tx.execute("UPDATE data_sources SET options = '{}'"))

    await asyncio.to_thread(eventually, lambda: gitlab.requests_to(SELF))

    running.cancel()
    assert logs[0]["log_level"] == "error"


def test_a_server_asks_soon_after_its_start_and_shows_what_it_heard(gitlab: GitLab, tmp_path: Path) -> None:
    with RunningServer(tmp_path / "state") as server:
        register(server, "energy", gitlab, token=gitlab.token(expires=in_days(9)))
        assert list(get(server, "energy").warnings) == []

    with RunningServer(tmp_path / "state") as server:
        eventually(lambda: get(server, "energy").warnings)


def test_a_gitlab_that_does_not_answer_holds_up_neither_start_nor_stop(gitlab: GitLab, tmp_path: Path) -> None:
    with RunningServer(tmp_path / "state") as server:
        register(server, "energy", gitlab)
    gitlab.faults.always("*", Slow(100))
    with RunningServer(tmp_path / "state") as server:
        eventually(lambda: gitlab.requests_to(SELF))
        assert get(server, "energy").gitlab.url == gitlab.url
    assert len(gitlab.requests_to(SELF)) == 1
