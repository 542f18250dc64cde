"""`modelhost grant`, `revoke` and `grants`: who may call what, and how much."""

from collections.abc import Iterable
from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import AccountName, ServiceName
from modelhost.cli.completion import complete_account, complete_service
from modelhost.cli.connection import Session
from modelhost.cli.flags import verb
from modelhost.cli.output import Output
from modelhost.cli.paging import whole
from modelhost.cli.quantities import byte_count, per_second
from modelhost.cli.render import moment, short, size

_MOST = 1_000_000


@verb
def grant(
    session: Session,
    account: AccountName,
    service: ServiceName,
    *,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="N/TIME", help="Calls in the long run: 10/s, 600/m, 1000/h.")
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=_MOST, help="Calls at once after a pause; else those of one second."),
    ] = None,
    daily: Annotated[int | None, typer.Option(metavar="N", min=1, help="Calls from midnight to midnight UTC.")] = None,
    concurrent: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=_MOST, help="Calls under way at a time.")
    ] = None,
    request_bytes: Annotated[
        str | None, typer.Option("--request-bytes", metavar="SIZE", help="Largest request: 64KiB, 1MiB.")
    ] = None,
) -> None:
    """Let a service account call a service, within limits; what is not said is not limited.

    Of one that may call it already, the limits become these, all of them. They hold from the next call on.

    Examples:
      modelhost grant shop churn
      modelhost grant shop churn --rate 10/s --burst 20 --daily 100000
      modelhost grant shop churn --rate 600/m --concurrent 4 --request-bytes 1MiB
    """
    limits = api.GrantLimits(
        requests_per_second=per_second(rate, "--rate") if rate is not None else 0,
        burst=burst or 0,
        requests_per_day=daily or 0,
        concurrent_calls=concurrent or 0,
        request_bytes=byte_count(request_bytes, "--request-bytes") if request_bytes is not None else 0,
    )
    granted = session.admin.GrantService(
        api.GrantServiceRequest(service_account=account, service=service, limits=limits)
    )
    if session.as_json:
        session.out.document(granted)
    else:
        who, what = short(granted.service_account), short(granted.deployment)
        session.out.line(f"{who} may call {what} ({short(granted.service)}): {limit_words(granted.limits)}")


@verb
def revoke(session: Session, account: AccountName, service: ServiceName) -> None:
    """Take a grant back. For the account there is no such service any more; calls under way are finished.

    Examples:
      modelhost revoke shop churn
    """
    answer = session.admin.RevokeService(api.RevokeServiceRequest(service_account=account, service=service))
    if session.as_json:
        session.out.document(answer)
    else:
        session.out.line(f"{short(account)} may no longer call {short(service)}")


@verb
def grants(
    session: Session,
    *,
    account: Annotated[
        str, typer.Option(metavar="ACCOUNT", help="Only those of this one.", autocompletion=complete_account)
    ] = "",
    service: Annotated[
        str, typer.Option(metavar="SERVICE", help="Only those to this one.", autocompletion=complete_service)
    ] = "",
) -> None:
    """List who may call what, with limits, and how many calls of today count for the limit of a day.

    Examples:
      modelhost grants
      modelhost grants --account shop
      modelhost grants --service churn --json
    """
    answer = whole(session.admin.ListGrants, api.ListGrantsRequest(service_account=account, service=service))
    if session.as_json:
        session.out.document(answer)
    else:
        grants_table(session.out, answer.grants, empty="no grants: `modelhost grant ACCOUNT SERVICE`")


def grants_table(out: Output, listed: "Iterable[api.Grant]", *, empty: str) -> None:
    """Print grants, one a line."""
    rows = [
        (
            short(each.service_account),
            short(each.deployment),
            short(each.service),
            rate_words(each.limits.requests_per_second),
            str(each.limits.burst or ""),
            _today(each),
            str(each.limits.concurrent_calls or ""),
            size(each.limits.request_bytes) if each.limits.request_bytes else "",
            moment(each.create_time),
        )
        for each in listed
    ]
    headings = ["ACCOUNT", "DEPLOYMENT", "SERVICE", "RATE", "BURST", "TODAY", "AT A TIME", "REQUEST", "GRANTED"]
    out.table(headings, rows, empty=empty)


def _today(each: "api.Grant") -> str:
    limit = each.limits.requests_per_day
    return f"{each.requests_today} of {limit}" if limit else str(each.requests_today)


def limit_words(limits: "api.GrantLimits") -> str:
    """Return limits in words: `10/s, 20 at once, 1000 a day`."""
    parts = []
    if limits.requests_per_second:
        parts.append(rate_words(limits.requests_per_second))
    if limits.burst:
        parts.append(f"{limits.burst} at once")
    if limits.requests_per_day:
        parts.append(f"{limits.requests_per_day} a day")
    if limits.concurrent_calls:
        parts.append(f"{limits.concurrent_calls} at a time")
    if limits.request_bytes:
        parts.append(f"requests up to {size(limits.request_bytes)}")
    return ", ".join(parts) or "no limits"


def rate_words(per_second: float) -> str:
    """Return a rate as people give it: `10/s`, `30/m`, `5/h`; nothing for none."""
    for unit, seconds in (("s", 1), ("m", 60)):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:g}/{unit}"
    return f"{per_second * 3600:g}/h" if per_second else ""
