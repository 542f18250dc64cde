"""SQL of service accounts: their keys, their grants, and the nonces of the tokens that they got."""

from dataclasses import replace

from modelhost.server.identities import Credential, Grant, GrantLimits, ServiceAccount
from modelhost.server.store.codec import decode_row, encode
from modelhost.server.store.database import Transaction

COLUMNS = "uid, id, description, access_key, disabled, version, created, updated"
CREDENTIAL_COLUMNS = "id, account_uid, kind, sealed, digest, description, created, expires, last_used"
GRANT_COLUMNS = "account_uid, deployment_uid, limits, created, updated, day, used"


def insert(tx: Transaction, account: ServiceAccount) -> None:
    """Store a new account."""
    tx.insert(
        "service_accounts", uid=account.uid, id=account.id, description=account.description,
        access_key=account.access_key, disabled=account.disabled, version=account.version, created=account.created,
        updated=account.updated,
    )  # fmt: skip


def save(tx: Transaction, account: ServiceAccount, now: float) -> ServiceAccount:
    """Store a changed account; returns it with its new version and time."""
    changed = replace(account, version=account.version + 1, updated=now)
    tx.execute(
        "UPDATE service_accounts SET description = ?, disabled = ?, version = ?, updated = ? WHERE uid = ?",
        changed.description, changed.disabled, changed.version, changed.updated, changed.uid,
    )  # fmt: skip
    return changed


def get(tx: Transaction, account_id: str) -> ServiceAccount | None:
    """The account of that id."""
    row = tx.one(f"SELECT {COLUMNS} FROM service_accounts WHERE id = ?", account_id)
    return decode_row(ServiceAccount, COLUMNS, row) if row else None


def page(tx: Transaction, after: str, limit: int) -> list[ServiceAccount]:
    """At most `limit` accounts whose id comes after `after`, by id; a negative limit is none."""
    rows = tx.execute(f"SELECT {COLUMNS} FROM service_accounts WHERE id > ? ORDER BY id LIMIT ?", after, limit)
    return [decode_row(ServiceAccount, COLUMNS, row) for row in rows]


def delete(tx: Transaction, uid: str) -> None:
    """Forget an account with its keys and grants."""
    tx.execute("DELETE FROM service_accounts WHERE uid = ?", uid)


# -- keys ----------------------------------------------------------------------------------------------------------


def insert_credential(tx: Transaction, credential: Credential) -> None:
    """Store a new key."""
    tx.insert(
        "credentials", id=credential.id, account_uid=credential.account_uid, kind=credential.kind,
        sealed=credential.sealed, digest=credential.digest, description=credential.description,
        created=credential.created, expires=credential.expires, last_used=credential.last_used,
    )  # fmt: skip


def credentials(tx: Transaction, account_uid: str) -> list[Credential]:
    """An account's keys, newest first."""
    rows = tx.execute(
        f"SELECT {CREDENTIAL_COLUMNS} FROM credentials WHERE account_uid = ? ORDER BY created DESC, id", account_uid
    )
    return [decode_row(Credential, CREDENTIAL_COLUMNS, row) for row in rows]


def end_credential(tx: Transaction, credential_id: str, expires: float) -> None:
    """Have a key end at a time."""
    tx.execute("UPDATE credentials SET expires = ? WHERE id = ?", expires, credential_id)


def delete_credential(tx: Transaction, credential_id: str) -> None:
    """Forget a key."""
    tx.execute("DELETE FROM credentials WHERE id = ?", credential_id)


def note_use(tx: Transaction, credential_id: str, when: float) -> None:
    """Keep when a key was last used."""
    tx.execute("UPDATE credentials SET last_used = ? WHERE id = ?", when, credential_id)


# -- grants --------------------------------------------------------------------------------------------------------


def save_grant(tx: Transaction, account_uid: str, deployment_uid: str, limits: GrantLimits, now: float) -> None:
    """Store a grant, or other limits of one there is: what counted today goes on to count."""
    tx.execute(
        "INSERT INTO grants VALUES (?, ?, ?, ?, ?, 0, 0)"
        " ON CONFLICT DO UPDATE SET limits = excluded.limits, updated = excluded.updated",
        account_uid, deployment_uid, encode(limits), now, now,
    )  # fmt: skip


def grant(tx: Transaction, account_uid: str, deployment_uid: str) -> Grant | None:
    """What an account may call of a deployment's service."""
    row = tx.one(
        f"SELECT {GRANT_COLUMNS} FROM grants WHERE account_uid = ? AND deployment_uid = ?", account_uid, deployment_uid
    )
    return decode_row(Grant, GRANT_COLUMNS, row) if row else None


def grants(tx: Transaction, account_uid: str) -> list[Grant]:
    """All grants of an account."""
    rows = tx.execute(f"SELECT {GRANT_COLUMNS} FROM grants WHERE account_uid = ?", account_uid)
    return [decode_row(Grant, GRANT_COLUMNS, row) for row in rows]


def delete_grant(tx: Transaction, account_uid: str, deployment_uid: str) -> None:
    """Forget a grant."""
    tx.execute("DELETE FROM grants WHERE account_uid = ? AND deployment_uid = ?", account_uid, deployment_uid)


def grants_page(
    tx: Transaction, account_id: str, service_id: str, after: tuple[str, str], limit: int
) -> list[tuple[Grant, str, str, str]]:
    """At most `limit` grants after account and service `after`, by these; "" is any account, any service.

    Each with the ids of its account, its service and its deployment.
    """
    columns = ", ".join(f"grants.{name.strip()}" for name in GRANT_COLUMNS.split(","))
    rows = tx.execute(
        f"SELECT service_accounts.id, service_id, deployments.id, {columns} FROM grants"
        " JOIN service_accounts ON service_accounts.uid = account_uid"
        " JOIN deployments ON deployments.uid = deployment_uid"
        " WHERE ? IN ('', service_accounts.id) AND ? IN ('', service_id) AND (service_accounts.id, service_id) > (?, ?)"
        " ORDER BY service_accounts.id, service_id LIMIT ?",
        account_id, service_id, *after, limit,
    )  # fmt: skip
    return [(decode_row(Grant, GRANT_COLUMNS, row[3:]), str(row[0]), str(row[1]), str(row[2])) for row in rows]


def note_used(tx: Transaction, account_uid: str, deployment_uid: str, day: int, used: int) -> None:
    """Keep how many calls of a day counted."""
    tx.execute(
        "UPDATE grants SET day = ?, used = ? WHERE account_uid = ? AND deployment_uid = ?",
        day, used, account_uid, deployment_uid,
    )  # fmt: skip


# -- nonces --------------------------------------------------------------------------------------------------------


def take_nonce(tx: Transaction, access_key: str, nonce: str, expires: float, now: float) -> bool:
    """Remember a nonce until it expires; false if it is remembered already. Forgets those that have expired."""
    tx.execute("DELETE FROM nonces WHERE expires < ?", now)
    tx.execute("INSERT INTO nonces VALUES (?, ?, ?) ON CONFLICT DO NOTHING", access_key, nonce, expires)
    return tx.changed > 0
