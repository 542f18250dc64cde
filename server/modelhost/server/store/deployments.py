"""SQL of deployments and their revisions."""

from collections.abc import Sequence
from dataclasses import replace

from modelhost.server.resources import Deployment, DeploymentState, Revision, RevisionState
from modelhost.server.store.codec import decode_row, encode
from modelhost.server.store.database import Transaction, Value

COLUMNS = (
    "uid, id, service_id, description, source, settings, state, active, target, update_state, failure, version,"
    " created, updated, service_created, workers, open"
)
REVISION_COLUMNS = (
    'deployment_uid, number, state, source, requested, settings, "commit", snapshot_digest, environment,'
    " environment_digest, runtime_version, failure, created, ready"
)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" for _ in values)


def _columns(deployment: Deployment) -> dict[str, Value]:
    return {
        "id": deployment.id,
        "service_id": deployment.service_id,
        "description": deployment.description,
        "data_source": deployment.source.data_source,
        "source": encode(deployment.source),
        "settings": encode(deployment.settings),
        "state": deployment.state,
        "active": deployment.active,
        "target": deployment.target,
        "update_state": deployment.update_state,
        "failure": encode(deployment.failure) if deployment.failure else None,
        "version": deployment.version,
        "created": deployment.created,
        "updated": deployment.updated,
        "service_created": deployment.service_created,
        "workers": deployment.workers,
        "open": deployment.open,
    }


def insert(tx: Transaction, deployment: Deployment) -> None:
    """Store a new deployment."""
    tx.insert("deployments", uid=deployment.uid, **_columns(deployment))


def save(tx: Transaction, deployment: Deployment, now: float) -> Deployment:
    """Store a changed deployment; returns it with its new version and time."""
    changed = replace(deployment, version=deployment.version + 1, updated=now)
    columns = _columns(changed)
    names = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE deployments SET {names} WHERE uid = ?", *columns.values(), changed.uid)
    return changed


def get(tx: Transaction, deployment_id: str) -> Deployment | None:
    """The deployment of that id."""
    return _one(tx, "id", deployment_id)


def by_uid(tx: Transaction, uid: str) -> Deployment | None:
    """The deployment of that uid."""
    return _one(tx, "uid", uid)


def by_service(tx: Transaction, service_id: str) -> Deployment | None:
    """The deployment that a service id is reserved for."""
    return _one(tx, "service_id", service_id)


def _one(tx: Transaction, column: str, value: str) -> Deployment | None:
    row = tx.one(f"SELECT {COLUMNS} FROM deployments WHERE {column} = ?", value)
    return decode_row(Deployment, COLUMNS, row) if row else None


def page(tx: Transaction, after: str, limit: int) -> list[Deployment]:
    """At most `limit` deployments whose id comes after `after`, by id."""
    rows = tx.execute(f"SELECT {COLUMNS} FROM deployments WHERE id > ? ORDER BY id LIMIT ?", after, limit)
    return [decode_row(Deployment, COLUMNS, row) for row in rows]


def services_page(tx: Transaction, after: str, limit: int) -> list[Deployment]:
    """Deployments whose service exists and whose service id comes after `after`, by service id."""
    rows = tx.execute(
        f"SELECT {COLUMNS} FROM deployments"
        " WHERE service_created IS NOT NULL AND service_id > ? ORDER BY service_id LIMIT ?",
        after, limit,
    )  # fmt: skip
    return [decode_row(Deployment, COLUMNS, row) for row in rows]


def unsettled(tx: Transaction) -> list[str]:
    """Uids of the deployments that something must be done for after a start of the server."""
    settled = [state for state in DeploymentState if state.is_settled]
    rows = tx.execute(
        f"SELECT uid FROM deployments WHERE state NOT IN ({_marks(settled)}) ORDER BY created",
        *settled,
    )
    return [str(row[0]) for row in rows]


def delete(tx: Transaction, uid: str) -> None:
    """Forget a deployment and its revisions."""
    tx.execute("DELETE FROM deployments WHERE uid = ?", uid)


def insert_revision(tx: Transaction, revision: Revision) -> None:
    """Store a new revision."""
    tx.insert("revisions", deployment_uid=revision.deployment_uid, number=revision.number, **_changing(revision))


def save_revision(tx: Transaction, revision: Revision) -> None:
    """Store a changed revision; of no effect if it is kept no longer."""
    columns = _changing(revision)
    names = ", ".join(f'"{name}" = ?' for name in columns)
    tx.execute(
        f"UPDATE revisions SET {names} WHERE deployment_uid = ? AND number = ?",
        *columns.values(), revision.deployment_uid, revision.number,
    )  # fmt: skip


def _changing(revision: Revision) -> dict[str, Value]:
    return {
        "state": revision.state,
        "source": encode(revision.source),
        "requested": encode(revision.requested),
        "settings": encode(revision.settings) if revision.settings else None,
        "commit": revision.commit,
        "snapshot_digest": revision.snapshot_digest,
        "environment": revision.environment,
        "environment_digest": revision.environment_digest,
        "runtime_version": revision.runtime_version,
        "failure": encode(revision.failure) if revision.failure else None,
        "created": revision.created,
        "ready": revision.ready,
    }


def revision(tx: Transaction, uid: str, number: int) -> Revision | None:
    """A revision of the deployment."""
    row = tx.one(
        f"SELECT {REVISION_COLUMNS} FROM revisions WHERE deployment_uid = ? AND number = ?",
        uid,
        number,
    )
    return decode_row(Revision, REVISION_COLUMNS, row) if row else None


def newest_revision(tx: Transaction, uid: str) -> int:
    """Number of the deployment's newest revision, 0 if it has none."""
    row = tx.one("SELECT max(number) FROM revisions WHERE deployment_uid = ?", uid)
    return int(row[0]) if row and isinstance(row[0], int) else 0


def revision_before(tx: Transaction, uid: str, number: int) -> int:
    """Number of the kept revision before that one, 0 if there is none."""
    row = tx.one("SELECT max(number) FROM revisions WHERE deployment_uid = ? AND number < ?", uid, number)
    return int(row[0]) if row and isinstance(row[0], int) else 0


def revisions_page(tx: Transaction, uid: str, before: int, limit: int) -> list[Revision]:
    """At most `limit` revisions numbered below `before`, newest first."""
    rows = tx.execute(
        f"SELECT {REVISION_COLUMNS} FROM revisions WHERE deployment_uid = ? AND number < ?"
        " ORDER BY number DESC LIMIT ?",
        uid, before, limit,
    )  # fmt: skip
    return [decode_row(Revision, REVISION_COLUMNS, row) for row in rows]


def forget_revisions(tx: Transaction, uid: str, numbers: list[int]) -> None:
    """Delete revisions of a deployment."""
    for number in numbers:
        tx.execute("DELETE FROM revisions WHERE deployment_uid = ? AND number = ?", uid, number)


def revision_numbers(tx: Transaction, uid: str) -> list[int]:
    """Numbers of the kept revisions, newest first."""
    rows = tx.execute("SELECT number FROM revisions WHERE deployment_uid = ? ORDER BY number DESC", uid)
    return [int(str(row[0])) for row in rows]


def unfinished(tx: Transaction, uid: str, but: tuple[int, ...]) -> list[Revision]:
    """Revisions whose build has not ended, without those of the numbers `but`."""
    ended = [state for state in RevisionState if state.is_terminal]
    rows = tx.execute(
        f"SELECT {REVISION_COLUMNS} FROM revisions WHERE deployment_uid = ?"
        f" AND state NOT IN ({_marks(ended)}) AND number NOT IN ({_marks(but)}) ORDER BY number",
        uid, *ended, *but,
    )  # fmt: skip
    return [decode_row(Revision, REVISION_COLUMNS, row) for row in rows]


def with_unfinished(tx: Transaction) -> set[str]:
    """Uids of the deployments that have revisions whose build has not ended."""
    ended = [state for state in RevisionState if state.is_terminal]
    rows = tx.execute(f"SELECT DISTINCT deployment_uid FROM revisions WHERE state NOT IN ({_marks(ended)})", *ended)
    return {str(row[0]) for row in rows}


def all_revision_numbers(tx: Transaction) -> dict[str, set[int]]:
    """Numbers of the kept revisions of every deployment, by its uid."""
    found: dict[str, set[int]] = {}
    for uid, number in tx.execute("SELECT deployment_uid, number FROM revisions"):
        found.setdefault(str(uid), set()).add(int(str(number)))
    return found


def named_digests(tx: Transaction) -> tuple[set[str], set[str]]:
    """Digests of all snapshots, and of all environments' specs, that a kept revision names."""
    rows = list(tx.execute("SELECT snapshot_digest, environment FROM revisions"))
    return {str(row[0]) for row in rows}, {str(row[1]) for row in rows}


def environment_users(tx: Transaction, environment: str) -> list[tuple[str, int]]:
    """Deployment ids and revision numbers that use an environment."""
    rows = tx.execute(
        "SELECT d.id, r.number FROM revisions r JOIN deployments d ON d.uid = r.deployment_uid"
        " WHERE r.environment = ? ORDER BY d.id, r.number",
        environment,
    )
    return [(str(row[0]), int(str(row[1]))) for row in rows]
