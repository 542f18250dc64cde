"""SQL of operators."""

from dataclasses import replace

from modelhost.server.identities import Operator
from modelhost.server.store.codec import decode_row
from modelhost.server.store.database import Transaction, Value

COLUMNS = "uid, id, role, description, digest, disabled, version, created, updated, token_created, expires, last_used"


def _changing(operator: Operator) -> dict[str, Value]:
    return {
        "role": int(operator.role),
        "description": operator.description,
        "digest": operator.digest,
        "disabled": operator.disabled,
        "version": operator.version,
        "updated": operator.updated,
        "token_created": operator.token_created,
        "expires": operator.expires,
        "last_used": operator.last_used,
    }


def insert(tx: Transaction, operator: Operator) -> None:
    """Store a new operator."""
    tx.insert("operators", uid=operator.uid, id=operator.id, created=operator.created, **_changing(operator))


def save(tx: Transaction, operator: Operator, now: float) -> Operator:
    """Store a changed operator; returns it with its new version and time."""
    changed = replace(operator, version=operator.version + 1, updated=now)
    columns = _changing(changed)
    names = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE operators SET {names} WHERE uid = ?", *columns.values(), changed.uid)
    return changed


def get(tx: Transaction, operator_id: str) -> Operator | None:
    """The operator of that id."""
    row = tx.one(f"SELECT {COLUMNS} FROM operators WHERE id = ?", operator_id)
    return decode_row(Operator, COLUMNS, row) if row else None


def page(tx: Transaction, after: str, limit: int) -> list[Operator]:
    """At most `limit` operators whose id comes after `after`, by id; a negative limit is none."""
    rows = tx.execute(f"SELECT {COLUMNS} FROM operators WHERE id > ? ORDER BY id LIMIT ?", after, limit)
    return [decode_row(Operator, COLUMNS, row) for row in rows]


def delete(tx: Transaction, uid: str) -> None:
    """Forget an operator; what it did stays in the audit."""
    tx.execute("DELETE FROM operators WHERE uid = ?", uid)


def note_use(tx: Transaction, uid: str, when: float) -> None:
    """Keep when an operator's token was last used."""
    tx.execute("UPDATE operators SET last_used = ? WHERE uid = ?", when, uid)
