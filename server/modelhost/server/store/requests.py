"""SQL of answered mutations: a repeat with the same request id gets the first answer."""

from dataclasses import dataclass

from modelhost.server.store.database import Transaction

KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Answered:
    """What was asked and answered under a request id. `sealed` is the digest of the request and the answer."""

    method: str
    sealed: str


def purpose(request_id: str) -> str:
    """What an answer is sealed for."""
    return f"answer {request_id}"


def recall(tx: Transaction, request_id: str) -> Answered | None:
    """What was answered under that id, if anything."""
    row = tx.one("SELECT method, sealed FROM requests WHERE request_id = ?", request_id)
    return Answered(str(row[0]), str(row[1])) if row else None


def remember(tx: Transaction, request_id: str, answered: Answered, now: float) -> None:
    """Keep an answer for a day, and drop those that are older."""
    tx.execute("DELETE FROM requests WHERE created < ?", now - KEPT_SECONDS)
    tx.insert("requests", request_id=request_id, method=answered.method, sealed=answered.sealed, created=now)
