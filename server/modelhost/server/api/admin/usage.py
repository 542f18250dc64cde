"""How services were used."""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from modelhost.server.access.usage import UsageRecorder
from modelhost.server.api import convert, names
from modelhost.server.api.admin.services import find_running_service
from modelhost.server.api.call import Call
from modelhost.server.errors import InvalidRequest
from modelhost.server.resources import Deployment
from modelhost.server.store import usage
from modelhost.server.store.database import Database, Transaction
from modelhost.server.store.tally import Tally
from modelhost.server.store.usage import DAY, HOUR, MINUTE
from modelhost.v1 import usage_pb2 as pb

DAYS_DEFAULT: Final = 7
ANONYMOUS: Final = "anonymous"
_CALLER = re.compile(r"(serviceAccounts|operators)/[^/]+")


class UsageMethods:
    """Handler of GetServiceUsage. `clock` is the recorder's."""

    def __init__(self, database: Database, recorder: UsageRecorder, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._recorder = recorder
        self._clock = clock

    async def get_service_usage(self, call: Call, request: pb.GetServiceUsageRequest) -> pb.ServiceUsage:
        """Show what is stored and what is not stored yet."""
        caller = _caller(request.caller)
        name = names.parse_service(request.service)
        windows = Windows(int(self._clock()), _days(request.days))
        unwritten: dict[int, dict[str, Tally]] = {}

        def read(tx: Transaction) -> tuple[Deployment, dict[int, Iterator[tuple[int, str, Tally]]]]:
            deployment = find_running_service(tx, name)
            service_id = deployment.service_id
            # Between this transaction and what it has called after it nothing is stored: one of them has each count.
            tx.after_commit(lambda: unwritten.update(self._recorder.unwritten(service_id)))
            return deployment, {
                span: usage.read(tx, service_id, span, since, caller) for span, since in windows.since.items()
            }

        def show() -> pb.ServiceUsage:
            for span, rows in stored.items():
                for start, name, tally in rows:
                    windows.add(span, start, name, tally)
            for start, callers in unwritten.items():
                for name, tally in callers.items():
                    if caller in ("", name):
                        windows.add_minute(start, name, tally)
            return windows.shown(deployment)

        deployment, stored = await self._database.run(read)
        return await asyncio.to_thread(show)  # of many callers it would hold up calls


class Windows:
    """The periods that are shown, and what was counted in them.

    The past hour is this minute and the 59 before, the past 24 hours this hour and the 23 before, the past 7 days this
    day and the 6 before. All of UTC.
    """

    def __init__(self, now: int, days: int) -> None:
        minute, hour, day = (now - now % span for span in (MINUTE, HOUR, DAY))
        self._now = minute
        self._past = {MINUTE: minute - 59 * MINUTE, HOUR: hour - 23 * HOUR, DAY: day - 6 * DAY}
        self._callers: dict[int, dict[str, Tally]] = {span: {} for span in self._past}
        self._periods = {
            HOUR: {hour - ago * HOUR: Tally() for ago in reversed(range(24))},
            DAY: {day - ago * DAY: Tally() for ago in reversed(range(days))},
        }
        self.since = {**self._past, DAY: min(self._past[DAY], *self._periods[DAY])}

    def add(self, span: int, start: int, caller: str, tally: Tally) -> None:
        """Count what came of a caller's calls in a period of that span."""
        if start >= self._past[span]:
            self._callers[span].setdefault(caller, Tally()).add(tally)
        if whole := self._periods.get(span, {}).get(start):
            whole.add(tally)

    def add_minute(self, start: int, caller: str, tally: Tally) -> None:
        """Count what came of a caller's calls in a minute, in the periods of all spans."""
        start = min(start, self._now)  # the next minute may have begun meanwhile
        for span in self.since:
            self.add(span, start - start % span, caller, tally)

    def shown(self, deployment: Deployment) -> pb.ServiceUsage:
        """All of it as the answer."""
        hour, day, week = (self._callers[span] for span in (MINUTE, HOUR, DAY))
        past_hour, past_day, past_week = (
            _period(self._past[span], _sum(self._callers[span].values())) for span in (MINUTE, HOUR, DAY)
        )
        return pb.ServiceUsage(
            service=names.join(names.SERVICES, deployment.service_id),
            deployment=names.join(names.DEPLOYMENTS, deployment.id),
            past_hour=past_hour,
            past_day=past_day,
            past_week=past_week,
            callers=[
                pb.CallerUsage(
                    caller=caller,
                    past_hour=_counts(hour.get(caller, Tally())),
                    past_day=_counts(day.get(caller, Tally())),
                    past_week=_counts(tally),
                )
                for caller, tally in sorted(week.items(), key=lambda item: (-item[1].requests, item[0]))
            ],
            hours=[_period(start, tally) for start, tally in self._periods[HOUR].items()],
            days=[_period(start, tally) for start, tally in self._periods[DAY].items()],
        )


def _sum(tallies: Iterable[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        whole.add(tally)
    return whole


def _period(start: int, tally: Tally) -> pb.UsagePeriod:
    return pb.UsagePeriod(start_time=convert.timestamp(start), counts=_counts(tally))


def _counts(tally: Tally) -> pb.UsageCounts:
    by_number = sorted(tally.failures.items(), key=lambda item: (-item[1], item[0]))
    return pb.UsageCounts(
        requests=tally.requests,
        failures=[pb.FailureCount(code=code, count=count) for code, count in by_number],
        latency_p50_seconds=tally.percentile(50),
        latency_p90_seconds=tally.percentile(90),
        latency_p99_seconds=tally.percentile(99),
        request_bytes=tally.received,
        response_bytes=tally.sent,
    )


def _days(days: int) -> int:
    if not 0 <= days <= usage.DAYS_KEPT:
        raise InvalidRequest("days", "days must be 1 to {most}, not {days}", most=usage.DAYS_KEPT, days=days)
    return days or DAYS_DEFAULT


def _caller(caller: str) -> str:
    if caller and caller != ANONYMOUS and not _CALLER.fullmatch(caller):
        raise InvalidRequest(
            "caller",
            "{field} must be serviceAccounts/<id>, operators/<id> or {anonymous}, not {caller}",
            anonymous=ANONYMOUS,
            caller=repr(caller[:80]),
        )
    return caller
