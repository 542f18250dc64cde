"""SQL of usage: what came of each caller's calls of each service, by minute, hour and day of UTC.

The same calls are in a row of each span, so that no question needs more rows than it shows periods. Usage goes with
the deployment whose service it is of.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from modelhost.server.store.codec import encode
from modelhost.server.store.database import Row, Transaction
from modelhost.server.store.tally import Tally

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
DAYS_KEPT: Final = 90
KEPT: Final = {MINUTE: 2 * HOUR, HOUR: DAYS_KEPT * DAY, DAY: DAYS_KEPT * DAY}
PRUNED_AT_ONCE: Final = 5_000  # rows: more would hold up other transactions

_KEY = "service_id = ? AND span = ? AND start = ? AND caller = ?"
_COUNTS = "received, sent, failures, latency"


def add(tx: Transaction, minutes: Mapping[int, Mapping[str, Mapping[str, Tally]]]) -> None:
    """Add counts by minute (of its first second since 1970), service id and caller to those that are stored.

    What is of a service that is no more is passed over.
    """
    for start, services in minutes.items():
        for service_id, callers in services.items():
            if tx.one("SELECT 1 FROM deployments WHERE service_id = ?", service_id) is not None:
                for caller, tally in callers.items():
                    for span in KEPT:
                        _add(tx, (service_id, span, start - start % span, caller), tally)


def read(tx: Transaction, service_id: str, span: int, since: int, caller: str = "") -> Iterator[tuple[int, str, Tally]]:
    """Start, caller and counts of the periods of a span from `since` on; all callers if none is named.

    It has been read when this returns; what it says is decoded as it is taken, which may be elsewhere and later.
    """
    rows = tx.execute(
        f"SELECT start, caller, {_COUNTS} FROM usage"
        " WHERE service_id = ? AND span = ? AND start >= ? AND (caller = ? OR ? = '')",
        service_id, span, since, caller, caller,
    )  # fmt: skip
    return ((int(str(start)), str(name), _decoded(tuple(counts))) for start, name, *counts in rows)


def prune(tx: Transaction, now: float) -> None:
    """Delete what is older than it is kept, or as much of it as takes no time to speak of."""
    for span, seconds in KEPT.items():
        tx.execute(
            "DELETE FROM usage WHERE (service_id, span, start, caller) IN"
            " (SELECT u.service_id, u.span, u.start, u.caller FROM deployments d CROSS JOIN usage u"
            " ON u.service_id = d.service_id AND u.span = ? AND u.start < ? LIMIT ?)",
            span, int(now) - seconds, PRUNED_AT_ONCE,
        )  # fmt: skip


def _add(tx: Transaction, key: tuple[str, int, int, str], tally: Tally) -> None:
    whole = tally
    if row := tx.one(f"SELECT {_COUNTS} FROM usage WHERE {_KEY}", *key):
        whole = _decoded(row)
        whole.add(tally)
    tx.execute(
        f"INSERT OR REPLACE INTO usage (service_id, span, start, caller, {_COUNTS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        *key, whole.received, whole.sent, encode(whole.failures), msgspec.msgpack.encode(whole.latency),
    )  # fmt: skip


def _decoded(row: Row) -> Tally:
    received, sent, failures, latency = row
    return Tally(
        failures=_FAILURES.decode(str(failures)),
        latency=_LATENCY.decode(bytes(latency) if isinstance(latency, bytes) else b""),
        received=int(str(received)),
        sent=int(str(sent)),
    )


_FAILURES = msgspec.json.Decoder(dict[str, int])
_LATENCY = msgspec.msgpack.Decoder(dict[int, int])
