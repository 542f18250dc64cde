"""SQL of data sources and of what was fetched from them."""

from dataclasses import replace

from modelhost.server.resources import DataSource
from modelhost.server.store.codec import decode_row, encode
from modelhost.server.store.database import Transaction, Value

COLUMNS = "uid, id, kind, url, secret, options, description, version, created, updated"


def insert(tx: Transaction, source: DataSource) -> None:
    """Store a new data source."""
    fixed: dict[str, Value] = {"uid": source.uid, "id": source.id, "kind": source.kind, "created": source.created}
    tx.insert("data_sources", **fixed, **_changing(source))


def save(tx: Transaction, source: DataSource, now: float) -> DataSource:
    """Store a changed data source; returns it with its new version and time."""
    changed = replace(source, version=source.version + 1, updated=now)
    columns = _changing(changed)
    names = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE data_sources SET {names} WHERE uid = ?", *columns.values(), changed.uid)
    return changed


def note_expiry(tx: Transaction, source: DataSource, expires: float | None) -> None:
    """Keep what a place said of its token, unless it has another token by now.

    No change that anybody made: version and time stay.
    """
    current = get(tx, source.id)
    if current is not None and (current.uid, current.secret) == (source.uid, source.secret):
        options = replace(current.options, token_expires=expires)
        tx.execute("UPDATE data_sources SET options = ? WHERE uid = ?", encode(options), current.uid)


def _changing(source: DataSource) -> dict[str, Value]:
    return {
        "url": source.url,
        "secret": source.secret,
        "options": encode(source.options),
        "description": source.description,
        "version": source.version,
        "updated": source.updated,
    }


def get(tx: Transaction, source_id: str) -> DataSource | None:
    """The data source of that id."""
    row = tx.one(f"SELECT {COLUMNS} FROM data_sources WHERE id = ?", source_id)
    return decode_row(DataSource, COLUMNS, row) if row else None


def uids(tx: Transaction) -> set[str]:
    """Uids of all data sources."""
    return {str(row[0]) for row in tx.execute("SELECT uid FROM data_sources")}


def page(tx: Transaction, after: str, limit: int) -> list[DataSource]:
    """At most `limit` data sources whose id comes after `after`, by id."""
    rows = tx.execute(f"SELECT {COLUMNS} FROM data_sources WHERE id > ? ORDER BY id LIMIT ?", after, limit)
    return [decode_row(DataSource, COLUMNS, row) for row in rows]


def of_kind(tx: Transaction, kind: str) -> list[DataSource]:
    """All data sources of a kind, by id."""
    rows = tx.execute(f"SELECT {COLUMNS} FROM data_sources WHERE kind = ? ORDER BY id", kind)
    return [decode_row(DataSource, COLUMNS, row) for row in rows]


def delete(tx: Transaction, source_id: str) -> None:
    """Forget a data source and what was fetched from it. No deployment may use it."""
    tx.execute("DELETE FROM data_sources WHERE id = ?", source_id)


def used_by(tx: Transaction, source_id: str, limit: int) -> list[str]:
    """Ids of at most `limit` deployments that use the data source, now or in a revision that is kept."""
    rows = tx.execute(
        "SELECT id FROM deployments WHERE data_source = ? OR uid IN"
        " (SELECT deployment_uid FROM revisions WHERE json_extract(source, '$.data_source') = ?) ORDER BY id LIMIT ?",
        source_id, source_id, limit,
    )  # fmt: skip
    return [str(row[0]) for row in rows]


def remember_fetch(
    tx: Transaction, source_uid: str, project: str, commit: str, selection: str, snapshot_digest: str
) -> None:
    """Note which snapshot a selection of a commit gave. `selection` is its canonical text."""
    tx.execute(
        "INSERT OR REPLACE INTO fetches VALUES (?, ?, ?, ?, ?)",
        source_uid, project, commit, selection, snapshot_digest,
    )  # fmt: skip


def recall_fetch(tx: Transaction, source_uid: str, project: str, commit: str, selection: str) -> str | None:
    """The digest of the snapshot that a selection of a commit gave, if it was ever fetched."""
    row = tx.one(
        "SELECT snapshot_digest FROM fetches"
        ' WHERE data_source_uid = ? AND project = ? AND "commit" = ? AND selection = ?',
        source_uid, project, commit, selection,
    )  # fmt: skip
    return str(row[0]) if row else None
