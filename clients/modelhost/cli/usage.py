"""`modelhost usage`: how a service was used, and by whom."""

from collections.abc import Sequence
from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import ServiceName
from modelhost.cli.connection import Session
from modelhost.cli.flags import verb
from modelhost.cli.output import Cell, Output
from modelhost.cli.render import short, size

_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = ["REQUESTS", "SUCCESS", "P50 MS", "P90 MS", "P99 MS", "RECEIVED", "SENT", "FAILURES"]


@verb
def usage(
    session: Session,
    service: ServiceName,
    *,
    days: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=90, help="How many days are shown day by day; 7 if not said.")
    ] = None,
    caller: Annotated[
        str, typer.Option(metavar="NAME", help="Only calls of this one: shop, operators/ada, anonymous.")
    ] = "",
) -> None:
    """Show how a service was used in the past hour, 24 hours and 7 days, by whom, and by hour and day.

    Times are those of the whole call, that in the queue included. Periods are of UTC. Calls that were not let in are
    in none of it.

    Examples:
      modelhost usage churn
      modelhost usage churn --days 30 --caller shop
      modelhost usage churn --json | jq .past_day.counts.requests
    """
    found = session.admin.GetServiceUsage(
        api.GetServiceUsageRequest(service=service, caller=_full_name(caller), days=days or 0)
    )
    if session.as_json:
        session.out.document(found)
        return
    out = session.out
    out.line(f"{short(found.deployment)} ({short(found.service)})", style="bold")
    periods = (("past hour", found.past_hour), ("past 24 hours", found.past_day), ("past 7 days", found.past_week))
    out.table(["PERIOD", *_COLUMNS], [(name, *_cells(period.counts)) for name, period in periods])
    if found.callers:
        out.line()
        rows = [
            (each.caller, str(each.past_hour.requests), str(each.past_day.requests), *_cells(each.past_week))
            for each in found.callers
        ]
        out.table(["CALLER", "PAST HOUR", "24 HOURS", "7 DAYS", *_COLUMNS[1:]], rows)
    for what, series in (("hour", found.hours), ("day", found.days)):
        _show_series(out, what, series)


def _full_name(caller: str) -> str:
    return f"serviceAccounts/{caller}" if caller and caller != "anonymous" and "/" not in caller else caller


def _cells(counts: "api.UsageCounts") -> tuple[Cell, ...]:
    if not counts.requests:
        return ("0", *[""] * (len(_COLUMNS) - 1))
    failed = _failed(counts)
    latencies = (counts.latency_p50_seconds, counts.latency_p90_seconds, counts.latency_p99_seconds)
    return (
        str(counts.requests),
        (_percent(counts.requests - failed, counts.requests), "yellow" if failed else ""),
        *(_milliseconds(seconds) for seconds in latencies),
        size(counts.request_bytes),
        size(counts.response_bytes),
        ", ".join(f"{failure.count} {failure.code}" for failure in counts.failures),
    )


def _failed(counts: "api.UsageCounts") -> int:
    return sum(failure.count for failure in counts.failures)


def _percent(part: int, whole: int) -> str:
    """Return a share, never 100% while something is missing: `99.9%`."""
    share = 100 * part / whole
    return f"{share:.0f}%" if part in {0, whole} else f"{min(max(share, 0.1), 99.9):.1f}%"


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _show_series(out: Output, what: str, series: "Sequence[api.UsagePeriod]") -> None:
    """Show requests and failures by hour or day, oldest first: as bars on a terminal, as numbers elsewhere."""
    if not series:
        return
    requests = [period.counts.requests for period in series]
    failed = [_failed(period.counts) for period in series]
    out.line()
    begin = series[0].start_time.ToDatetime()
    out.line(f"by {what}, from {begin:%Y-%m-%d %H:%M} UTC")
    out.line(f"  requests  {_drawn(out, requests)}", style="green")
    if any(failed):
        out.line(f"  failed    {_drawn(out, failed)}", style="red")


def _drawn(out: Output, numbers: Sequence[int]) -> str:
    words = " ".join(map(str, numbers))
    if not out.is_terminal:
        return words
    return out.symbol(f"{bars(numbers)}  at most {max(numbers)}", words)


def bars(numbers: Sequence[int]) -> str:
    """Return a bar for each number, by its share of the largest; whatever is not 0 can be told from 0."""
    most, top = max(numbers, default=0), len(_BARS) - 1
    return "".join(_BARS[-(-number * top // most)] if most else _BARS[0] for number in numbers)
