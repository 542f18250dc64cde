"""`modelhost audit`: who changed what."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from modelhost.cli import api
from modelhost.cli.completion import complete_operator
from modelhost.cli.connection import Session
from modelhost.cli.flags import verb
from modelhost.cli.output import Output
from modelhost.cli.paging import pages
from modelhost.cli.quantities import instant
from modelhost.cli.render import moment, short

_LAST = 50
_LONGEST = 40  # characters of a value
_NO_NEWS = {"name", "uid", "etag", "createTime", "updateTime", "warnings"}  # of every change, or said by the rest


@verb
def audit(
    session: Session,
    *,
    operator: Annotated[
        str,
        typer.Option(metavar="NAME", help="Only what this operator changed.", autocompletion=complete_operator),
    ] = "",
    method: Annotated[str, typer.Option(metavar="METHOD", help="Only calls of this one: UpdateDeployment.")] = "",
    resource: Annotated[
        str, typer.Option(metavar="NAME", help="Only changes of this, and of what is part of it: deployments/churn.")
    ] = "",
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only from then on: 2h, 7d, 2026-11-28.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only before then.")] = None,
    last: Annotated[
        int | None,
        typer.Option("--last", "-n", metavar="N", min=1, help=f"The last N; {_LAST}, or all since --since."),
    ] = None,
) -> None:
    """Print what operators have changed, newest last: when, who, by which method, what, and the values that changed.

    Secrets are in none of it. With --json, one JSON object a line, with all values, and as `before_json` and
    `after_json` those of the fields that are different.

    Examples:
      modelhost audit
      modelhost audit --operator ada --since 7d
      modelhost audit --resource serviceAccounts/shop --last 5
      modelhost audit --since 2026-11-01 --until 2026-12-01 --json
    """
    request = api.ListAuditEventsRequest(operator=operator, method=method, resource=resource)
    if since is not None:
        request.start_time.FromDatetime(instant(since, "--since"))
    if until is not None:
        request.end_time.FromDatetime(instant(until, "--until"))
    most = last or (None if since is not None else _LAST)
    found = list(islice(_events(session, request), None if most is None else most + 1))
    shown = found[:most][::-1]
    if len(found) > len(shown) and last is None:
        session.out.note(f"the last {most}; --last N prints more, --since TIME all from then on")
    for event in shown:
        if session.as_json:
            session.out.json_line(event)
        else:
            session.out.line(_in_one_line(session.out, event))


def _events(session: Session, request: "api.ListAuditEventsRequest") -> "Iterator[api.AuditEvent]":
    for page in pages(session.admin.ListAuditEvents, request):
        yield from page.audit_events


def _in_one_line(out: Output, event: "api.AuditEvent") -> str:
    parts = [moment(event.time), short(event.operator), short(event.method), event.resource]
    changes = ", ".join(_changes(out, event.before_json, event.after_json))
    return "  ".join(part or "-" for part in [*parts, changes, f"from {_host(event.peer)}"])


def _changes(out: Output, before: str, after: str) -> Iterator[str]:
    """Yield what is different: `workers 1 → 2`; of something new its values, of something gone that it is."""
    if before and not after:
        yield "deleted"
        return
    old, new = _fields(before), _fields(after)
    arrow = out.symbol("→", "->")
    for name in sorted({*old, *new} - _NO_NEWS):
        if not before:
            yield f"{name} {_value(new[name])}"
        elif old.get(name) != new.get(name):
            yield f"{name} {_value(old.get(name))} {arrow} {_value(new.get(name))}"


def _fields(text: str) -> dict[str, Any]:
    """Return the fields of a JSON object by their path: `settings.limits.memory_bytes`."""
    try:
        return dict(_flat("", json.loads(text))) if text else {}
    except ValueError:
        return {}


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}" if path else name, inner)
    else:
        yield path, value


def _value(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) or " " in value or not value else value
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _host(peer: str) -> str:
    """Return where a call came from: `10.1.2.3` of `ipv4:10.1.2.3:41234`, `::1 as ann` of `ipv6:[::1]:41234 as ann`."""
    where, as_, name = peer.partition(" as ")
    kind, _, rest = where.partition(":")
    if kind in {"ipv4", "ipv6"}:
        where = rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]")
    return f"{where}{as_}{name}"
