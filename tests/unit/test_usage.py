"""Usage as it is asked for: what is stored and what is not yet, in the periods of UTC that the API promises."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from modelhost.server.access.ledger import Keeper
from modelhost.server.access.usage import UsageRecorder
from modelhost.server.api.admin.usage import UsageMethods
from modelhost.server.api.call import Call
from modelhost.server.errors import InvalidRequest, NotFound, reason_name
from modelhost.server.resources import (
    DataSource,
    Deployment,
    DeploymentState,
    ModelSettings,
    ModelSource,
    SourceOptions,
    UpdateState,
)
from modelhost.server.store import deployments, sources
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import usage_pb2 as pb

NOON = datetime(2026, 3, 18, 12, 0, tzinfo=UTC)  # a Wednesday
SHOP, STATS, ADMIN = "serviceAccounts/shop", "serviceAccounts/stats", "operators/admin"
SERVICE = "svc-1"
DEPLOYMENT = Deployment(
    "u1", "iris", SERVICE, "", ModelSource("models"), ModelSettings(), DeploymentState.RUNNING,
    1, 1, UpdateState.NONE, None, 1, 1.0, 1.0, 2.0,
)  # fmt: skip
OTHER = replace(DEPLOYMENT, uid="u2", id="rose", service_id="svc-2")
NEVER_RAN = replace(DEPLOYMENT, uid="u3", id="tulip", service_id="svc-3", service_created=None)


def prepare(tx: Transaction) -> None:
    sources.insert(tx, DataSource("s1", "models", "git", "/models", "", SourceOptions(), "", 1, 1.0, 1.0))
    for deployment in (DEPLOYMENT, OTHER, NEVER_RAN):
        deployments.insert(tx, deployment)


class Host:
    """What counts and answers on one database, at a time that a test says."""

    def __init__(self, path: Path) -> None:
        self.now = NOON
        self.database = Database(path)
        self.start()

    def start(self) -> None:
        """Forget all that is not in the database, as a restart does."""
        self.recorder = UsageRecorder(self._clock)
        self.keeper = Keeper(self.database, [self.recorder])
        self._methods = UsageMethods(self.database, self.recorder, self._clock)

    def _clock(self) -> float:
        return self.now.timestamp()

    def call(self, caller: str = SHOP, code: str = "OK", *, seconds: float = 0.01, service: str = SERVICE) -> None:
        self.recorder.ended(service, caller, code, seconds, 10, 100)

    async def calls_at(self, *times: datetime, caller: str = SHOP) -> None:
        """One call at each of the times, stored; the clock is then as it was."""
        before = self.now
        for self.now in times:
            self.call(caller)
        self.now = before
        assert await self.keeper.write()

    async def usage(self, service: str = SERVICE, caller: str = "", days: int = 0) -> pb.ServiceUsage:
        request = pb.GetServiceUsageRequest(service=service, caller=caller, days=days)
        return await self._methods.get_service_usage(Call("", {}, lambda: "", None), request)

    async def past(self) -> tuple[int, int, int]:
        """Calls in the past hour, 24 hours and 7 days."""
        usage = await self.usage()
        return tuple(each.counts.requests for each in (usage.past_hour, usage.past_day, usage.past_week))  # type: ignore[return-value]

    async def rows(self, span: int) -> list[tuple[str, datetime]]:
        """Service and start of what is stored of a span."""
        sql = "SELECT service_id, start FROM usage WHERE span = ? ORDER BY start, service_id"
        found = await self.database.run(lambda tx: list(tx.execute(sql, span)))
        return [(str(name), datetime.fromtimestamp(int(str(start)), UTC)) for name, start in found]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path / "modelhost.db")
    await host.database.run(prepare)
    yield host
    host.database.close()


def starts(periods: list[pb.UsagePeriod]) -> list[datetime]:
    return [each.start_time.ToDatetime(UTC) for each in periods]


def calls(periods: list[pb.UsagePeriod]) -> dict[datetime, int]:
    """Calls by start of the period, of those that had any."""
    return {each.start_time.ToDatetime(UTC): each.counts.requests for each in periods if each.counts.requests}


# ---- what is counted


@pytest.mark.parametrize("is_stored", [False, True])
async def test_what_came_of_calls_is_told_by_caller_whether_stored_or_not(host: Host, is_stored: bool) -> None:
    for code in ("OK", "UNKNOWN", "OK", "RESOURCE_EXHAUSTED", "UNKNOWN"):
        host.call(SHOP, code, seconds=0.2)
    host.call(ADMIN, "UNKNOWN", seconds=3.0)
    host.call(SHOP, service="svc-2")
    if is_stored:
        assert await host.keeper.write()

    usage = await host.usage()

    assert (usage.service, usage.deployment) == ("services/svc-1", "deployments/iris")
    whole = usage.past_hour.counts
    assert whole == usage.past_day.counts == usage.past_week.counts == usage.hours[-1].counts == usage.days[-1].counts
    assert (whole.requests, whole.request_bytes, whole.response_bytes) == (6, 60, 600)
    assert [(each.code, each.count) for each in whole.failures] == [("UNKNOWN", 3), ("RESOURCE_EXHAUSTED", 1)]
    assert whole.latency_p50_seconds == pytest.approx(0.2, rel=0.1)
    assert whole.latency_p90_seconds == whole.latency_p99_seconds == pytest.approx(3.0, rel=0.1)
    assert [(each.caller, each.past_week.requests) for each in usage.callers] == [(SHOP, 5), (ADMIN, 1)]
    shop = usage.callers[0]
    assert shop.past_hour == shop.past_day == shop.past_week
    assert shop.past_week.latency_p99_seconds == pytest.approx(0.2, rel=0.1)


async def test_what_is_stored_and_what_is_not_yet_are_one(host: Host) -> None:
    for number in range(1, 4):
        host.call(seconds=0.01 * number)
        await host.keeper.write()
    host.call("anonymous", "UNKNOWN", seconds=0.04)

    usage = await host.usage()

    assert usage.past_hour.counts.requests == 4
    assert usage.past_hour.counts.latency_p50_seconds == pytest.approx(0.02, rel=0.1)
    assert {each.caller: each.past_day.requests for each in usage.callers} == {SHOP: 3, "anonymous": 1}


async def test_without_a_call_all_is_there_and_zero(host: Host) -> None:
    usage = await host.usage()

    assert list(usage.callers) == []
    periods = [usage.past_hour, usage.past_day, usage.past_week, *usage.hours, *usage.days]
    assert {each.counts.SerializeToString() for each in periods} == {b""}


async def test_one_callers_usage_is_that_of_its_calls_alone(host: Host) -> None:
    for caller in (SHOP, SHOP, STATS, ADMIN):
        host.call(caller)
    await host.keeper.write()
    for caller in (SHOP, STATS, STATS):
        host.call(caller)

    usage = await host.usage(caller=SHOP)

    assert [(each.caller, each.past_hour.requests) for each in usage.callers] == [(SHOP, 3)]
    assert usage.past_hour.counts.requests == usage.past_week.counts.requests == 3
    assert usage.hours[-1].counts.requests == usage.days[-1].counts.requests == 3


async def test_a_caller_that_is_nobody_has_called_nothing(host: Host) -> None:
    host.call(SHOP)

    usage = await host.usage(caller="serviceAccounts/nobody")

    assert (list(usage.callers), usage.past_week.counts.requests) == ([], 0)


# ---- borders of periods


async def test_periods_are_whole_minutes_hours_and_days_of_utc_with_none_left_out(host: Host) -> None:
    host.now = NOON + timedelta(minutes=34, seconds=56)

    usage = await host.usage(days=90)

    assert usage.past_hour.start_time.ToDatetime(UTC) == datetime(2026, 3, 18, 11, 35, tzinfo=UTC)
    assert usage.past_day.start_time.ToDatetime(UTC) == datetime(2026, 3, 17, 13, 0, tzinfo=UTC)
    assert usage.past_week.start_time.ToDatetime(UTC) == datetime(2026, 3, 12, tzinfo=UTC)
    assert starts(list(usage.hours)) == [NOON - timedelta(hours=ago) for ago in reversed(range(24))]
    midnight = datetime(2026, 3, 18, tzinfo=UTC)
    assert starts(list(usage.days)) == [midnight - timedelta(days=ago) for ago in reversed(range(90))]


@pytest.mark.parametrize("asked", [0, 1, 7, 8, 90])
async def test_there_are_as_many_days_as_are_asked_for(host: Host, asked: int) -> None:
    await host.calls_at(*(NOON - timedelta(days=ago) for ago in range(90)))

    usage = await host.usage(days=asked)

    assert [each.counts.requests for each in usage.days] == [1] * (asked or 7)
    assert usage.past_week.counts.requests == 7


@pytest.mark.parametrize("is_stored", [False, True])
async def test_calls_leave_the_past_hour_minute_by_minute(host: Host, is_stored: bool) -> None:
    host.now = NOON + timedelta(seconds=59)
    host.call()
    host.now = NOON + timedelta(seconds=60)
    host.call()
    if is_stored:
        await host.keeper.write()

    seen = []
    for seconds in (59 * 60 + 59, 60 * 60, 60 * 60 + 59, 61 * 60):
        host.now = NOON + timedelta(seconds=seconds)
        seen.append(await host.past())

    assert seen == [(2, 2, 2), (1, 2, 2), (1, 2, 2), (0, 2, 2)]


@pytest.mark.parametrize("is_stored", [False, True])
async def test_calls_leave_the_past_day_hour_by_hour_and_the_past_week_day_by_day(host: Host, is_stored: bool) -> None:
    host.now = NOON - timedelta(seconds=1)
    host.call()
    if is_stored:
        await host.keeper.write()

    seen = []
    midnight = datetime(2026, 3, 25, tzinfo=UTC)
    for moment in (NOON + timedelta(hours=23), midnight):
        for host.now in (moment - timedelta(seconds=1), moment):
            seen.append(await host.past())

    assert seen == [(0, 1, 1), (0, 0, 1), (0, 0, 1), (0, 0, 0)]


async def test_a_call_is_in_the_hour_and_day_in_which_it_ended(host: Host) -> None:
    midnight = datetime(2026, 3, 18, tzinfo=UTC)
    await host.calls_at(midnight - timedelta(milliseconds=1), midnight)

    usage = await host.usage()

    assert calls(list(usage.hours)) == {midnight - timedelta(hours=1): 1, midnight: 1}
    assert calls(list(usage.days)) == {midnight - timedelta(days=1): 1, midnight: 1}


async def test_calls_of_one_batch_are_each_in_their_own_minute(host: Host) -> None:
    for seconds in (0, 59, 60, 3599, 3600):
        host.now = NOON + timedelta(seconds=seconds)
        host.call()
    await host.keeper.write()

    assert await host.rows(60) == [(SERVICE, NOON + timedelta(minutes=each)) for each in (0, 1, 59, 60)]
    assert calls(list((await host.usage()).hours)) == {NOON: 4, NOON + timedelta(hours=1): 1}


async def test_a_clock_that_is_set_back_breaks_nothing(host: Host) -> None:
    host.call()
    host.now -= timedelta(minutes=5)
    host.call()
    await host.keeper.write()
    host.call()

    assert await host.past() == (3, 3, 3)


# ---- how long it is kept


async def test_minutes_are_kept_for_two_hours_and_all_else_for_90_days(host: Host) -> None:
    old = NOON - timedelta(days=90, hours=1)
    await host.calls_at(old, old + timedelta(hours=1), NOON - timedelta(hours=2, minutes=1), NOON - timedelta(hours=2))

    assert await host.rows(60) == [(SERVICE, NOON - timedelta(hours=2))]
    kept = [old + timedelta(hours=1), NOON - timedelta(hours=3), NOON - timedelta(hours=2)]
    assert await host.rows(3600) == [(SERVICE, start) for start in kept]
    assert await host.rows(86400) == [(SERVICE, datetime(2026, 3, 18, tzinfo=UTC))]


async def test_what_is_shown_of_90_days_is_kept_to_their_end(host: Host) -> None:
    await host.calls_at(datetime(2026, 3, 18, tzinfo=UTC))
    host.now = datetime(2026, 6, 15, 23, 59, tzinfo=UTC)
    await host.calls_at(host.now)

    assert [each.counts.requests for each in (await host.usage(days=90)).days] == [1, *[0] * 88, 1]


async def test_old_usage_goes_when_there_is_no_new_one(host: Host) -> None:
    await host.calls_at(NOON)

    host.now += timedelta(days=91, hours=1)
    await host.keeper.write()

    assert await host.rows(60) == await host.rows(3600) == await host.rows(86400) == []


async def test_of_very_much_old_usage_some_goes_with_each_write(host: Host) -> None:
    def fill(tx: Transaction) -> None:
        tx.execute(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 6000)"
            f" INSERT INTO usage SELECT '{SERVICE}', 3600, n * 3600, 'anonymous', 0, 0, '{{}}', x'80' FROM numbers"
        )

    await host.database.run(fill)
    left = []
    for _ in range(3):
        host.call()
        await host.keeper.write()
        left.append(len(await host.rows(3600)))

    assert left == [1001, 1, 1]


async def test_usage_goes_with_its_deployment_and_what_comes_late_breaks_nothing(host: Host) -> None:
    host.call()
    host.call(service="svc-2")
    await host.keeper.write()
    host.call()
    host.call(service="svc-2")

    await host.database.run(lambda tx: deployments.delete(tx, "u1"))
    assert await host.keeper.write()

    assert [name for name, _ in await host.rows(3600)] == ["svc-2"]
    assert (await host.usage("svc-2")).past_hour.counts.requests == 2


# ---- restarts and failures


async def test_a_restart_keeps_what_was_stored_and_a_clean_one_all(host: Host) -> None:
    host.call(seconds=0.5)
    await host.keeper.close()
    host.start()
    host.call(seconds=0.5)
    await host.keeper.write()
    host.call(seconds=0.5)
    host.start()  # as after a SIGKILL: what was not stored is lost

    counts = (await host.usage()).past_hour.counts

    assert counts.requests == 2
    assert counts.latency_p50_seconds == pytest.approx(0.5, rel=0.1)


async def test_counts_that_cannot_be_stored_are_shown_and_stored_later(host: Host, tmp_path: Path) -> None:
    host.call()
    await host.keeper.write()
    with closing(apsw.Connection(str(tmp_path / "modelhost.db"))) as other:
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON usage WHEN new.span = 86400 BEGIN SELECT RAISE(FAIL, 'no'); END"
        )
    with capture_logs():
        for _ in range(3):
            host.call()
            assert not await host.keeper.write()  # fails when half of it is written
            host.now += timedelta(minutes=1)
    assert await host.past() == (4, 4, 4)

    await host.database.run(lambda tx: tx.execute("DROP TRIGGER refuse"))
    assert await host.keeper.write()
    host.start()

    assert await host.past() == (4, 4, 4)
    assert len(await host.rows(60)) == 3


async def test_while_nothing_can_be_stored_what_is_held_does_not_grow_with_every_minute(host: Host) -> None:
    minutes = 5 * 60
    for _ in range(minutes):
        host.call()
        batch = host.recorder.take()
        assert batch is not None
        host.recorder.put_back(batch)
        host.now += timedelta(minutes=1)

    held = host.recorder.unwritten(SERVICE)
    assert len(held) <= 60 + 2 + 5
    assert sum(callers[SHOP].requests for callers in held.values()) == minutes
    assert await host.past() == (59, minutes, minutes)
    await host.keeper.write()
    assert set(calls(list((await host.usage()).hours)).values()) == {60}


class Moody:
    """A ledger whose writes fail every other time, after those of the ledgers before it."""

    def __init__(self) -> None:
        self._asked = 0

    def take(self) -> "Moody":
        return self

    def put_back(self, batch: "Moody") -> None: ...

    def write(self, tx: Transaction) -> None:
        self._asked += 1
        if self._asked % 2:
            raise RuntimeError("told to")


async def test_every_call_is_seen_exactly_once_at_any_moment_of_a_write(host: Host) -> None:
    """Reads and writes come in any order, and some writes fail; no read misses a call or has one twice."""
    chance = random.Random(7)
    keeper = Keeper(host.database, [host.recorder, Moody()])
    made = 0

    async def write() -> None:
        await keeper.write()

    async def read() -> None:
        assert (await host.usage()).past_hour.counts.requests == made

    with capture_logs():
        for _ in range(50):
            for _ in range(chance.randrange(1, 4)):
                host.call(chance.choice([SHOP, STATS]))
                made += 1
            acts = []
            for act in chance.sample([write, read], counts=[3, 7], k=10):
                acts.append(asyncio.ensure_future(act()))
                for _ in range(chance.choice([0, 0, 1, 5])):
                    await asyncio.sleep(0)
            await asyncio.gather(*acts)

    await host.keeper.write()
    assert (await host.usage()).past_hour.counts.requests == made
    assert host.recorder.unwritten(SERVICE) == {}


# ---- which service, and what cannot be asked


@pytest.mark.parametrize("name", ["svc-1", "services/svc-1", "iris", "deployments/iris"])
async def test_a_service_has_its_own_name_and_its_deployments(host: Host, name: str) -> None:
    assert (await host.usage(name)).service == "services/svc-1"


@pytest.mark.parametrize("name", ["svc-9", "services/svc-9", "deployments/tulip", "svc-3"])
async def test_of_what_is_no_service_there_is_no_usage(host: Host, name: str) -> None:
    with pytest.raises(NotFound) as caught:
        await host.usage(name)

    assert reason_name(caught.value.reason) == "SERVICE_NOT_FOUND"


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda host: host.usage(""), "service"),
        (lambda host: host.usage("services/"), "service"),
        (lambda host: host.usage("revisions/a/b"), "service"),
        (lambda host: host.usage(days=-1), "days"),
        (lambda host: host.usage(days=91), "days"),
        (lambda host: host.usage(caller="shop"), "caller"),
        (lambda host: host.usage(caller="serviceAccounts/"), "caller"),
        (lambda host: host.usage(caller="serviceAccounts/a/b"), "caller"),
        (lambda host: host.usage(caller="services/shop"), "caller"),
    ],
)
async def test_what_cannot_be_asked_says_which_field(host: Host, ask: Callable[[Host], object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await ask(host)  # type: ignore[misc]

    assert caught.value.field == field
