"""SQL of what was locked for environments, by the digest of the environment."""

import time

import msgspec

from modelhost.server.resources import EnvironmentLock
from modelhost.server.store.codec import encode
from modelhost.server.store.database import Transaction


def insert(tx: Transaction, lock: EnvironmentLock) -> None:
    """Store a lock; of no effect if it is stored."""
    tx.execute(
        "INSERT OR IGNORE INTO environment_locks (digest, runtime, version, platform, repositories, packages, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        lock.digest, lock.runtime, lock.version, lock.platform, encode(lock.repositories), encode(lock.packages),
        time.time(),
    )  # fmt: skip


def get(tx: Transaction, digest: str) -> EnvironmentLock | None:
    """The lock of the environment of that digest."""
    row = tx.one(
        "SELECT digest, runtime, version, platform, repositories, packages FROM environment_locks WHERE digest = ?",
        digest,
    )
    if row is None:
        return None
    found, runtime, version, platform, repositories, packages = map(str, row)
    return EnvironmentLock(found, runtime, version, platform, _lines(repositories), _lines(packages))


def missing(tx: Transaction) -> set[str]:
    """Digests of the environments that kept revisions name and whose lock is not stored."""
    rows = tx.execute(
        "SELECT DISTINCT environment_digest FROM revisions WHERE environment_digest <> ''"
        " AND environment_digest NOT IN (SELECT digest FROM environment_locks)"
    )
    return {str(row[0]) for row in rows}


def forget_unnamed(tx: Transaction) -> None:
    """Delete what no kept revision names any more."""
    tx.execute("DELETE FROM environment_locks WHERE digest NOT IN (SELECT environment_digest FROM revisions)")


def _lines(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])
