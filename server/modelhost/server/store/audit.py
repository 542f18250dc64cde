"""SQL of the audit. Events are added, and never changed."""

from dataclasses import dataclass, replace

from modelhost.server.identities import AuditEvent
from modelhost.server.store.codec import decode_row
from modelhost.server.store.database import Transaction, Value

COLUMNS = "number, time, operator, method, resource, peer, request_id, before, after"
_FIRST_AFTER_SLASH = chr(ord("/") + 1)


@dataclass(frozen=True)
class AuditFilter:
    """Which events; "" and None are any. `resource` is one with all that belongs to it; `until` is not in it."""

    operator: str = ""
    method: str = ""
    resource: str = ""
    since: float | None = None
    until: float | None = None


def insert(tx: Transaction, event: AuditEvent) -> AuditEvent:
    """Store a new event; returns it with its number."""
    row = tx.one(
        "INSERT INTO audit_events (time, operator, method, resource, peer, request_id, before, after)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
        event.time, event.operator, event.method, event.resource, event.peer, event.request_id, event.before,
        event.after,
    )  # fmt: skip
    assert row is not None
    return replace(event, number=int(row[0] or 0))


def page(tx: Transaction, wanted: AuditFilter, before: int | None, limit: int) -> list[AuditEvent]:
    """At most `limit` events, newest first; only those with a number below `before`, if given."""
    conditions: list[tuple[str, tuple[Value, ...]]] = []
    if wanted.operator:
        conditions.append(("operator = ?", (wanted.operator,)))
    if wanted.method:
        conditions.append(("method = ?", (wanted.method,)))
    if wanted.resource:
        below = (f"{wanted.resource}/", f"{wanted.resource}{_FIRST_AFTER_SLASH}")
        conditions.append(("(resource = ? OR (resource >= ? AND resource < ?))", (wanted.resource, *below)))
    if wanted.since is not None:
        conditions.append(("time >= ?", (wanted.since,)))
    if wanted.until is not None:
        conditions.append(("time < ?", (wanted.until,)))
    if before is not None:
        conditions.append(("number < ?", (before,)))
    where = f"WHERE {' AND '.join(text for text, _ in conditions)}" if conditions else ""
    values = [value for _, group in conditions for value in group]
    rows = tx.execute(f"SELECT {COLUMNS} FROM audit_events {where} ORDER BY number DESC LIMIT ?", *values, limit)
    return [decode_row(AuditEvent, COLUMNS, row) for row in rows]
