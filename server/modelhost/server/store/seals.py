"""SQL of everything that is sealed: all of it is read, and written again, when the key changes."""

import json
from collections.abc import Callable
from typing import Any

from modelhost.server.store.database import Transaction

Purpose = Callable[[str], str]
# A text sealed anew for a purpose; None for one that does not open.
Renew = Callable[[str, str], str | None]


def check(tx: Transaction) -> str | None:
    """The text that the right key opens."""
    row = tx.one("SELECT sealed FROM key_check")
    return str(row[0]) if row else None


def set_check(tx: Transaction, sealed: str) -> None:
    """Store the text that the right key opens."""
    tx.execute("DELETE FROM key_check")
    tx.insert("key_check", sealed=sealed)


def renew(
    tx: Transaction,
    renewed: Renew,
    *,
    of_data_source: Purpose,
    of_variable: Purpose,
    of_secret_key: Purpose,
    of_answer: Purpose,
) -> int:
    """Have everything sealed anew; returns how many texts that were. Each purpose is made of what a text belongs to."""
    count = 0
    for table, key, column, purpose in (
        ("data_sources", "uid", "secret", of_data_source),
        ("credentials", "id", "sealed", of_secret_key),
        ("requests", "request_id", "sealed", of_answer),
    ):
        for owner, sealed in list(tx.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} <> ''")):
            if (new := renewed(str(sealed), purpose(str(owner)))) is not None:
                tx.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", new, owner)
                count += 1
    for table, key, column in (
        ("deployments", "uid", "settings"),
        ("revisions", "deployment_uid, number", "requested"),
        ("revisions", "deployment_uid, number", "settings"),
    ):
        holds = f"json_extract({column}, '$.secret_env') IS NOT NULL"
        for row in list(tx.execute(f"SELECT {key}, {column} FROM {table} WHERE {holds}")):
            settings: dict[str, Any] = json.loads(str(row[-1]))
            for name, sealed in settings["secret_env"].items():
                if (new := renewed(sealed, of_variable(name))) is not None:
                    settings["secret_env"][name] = new
                    count += 1
            where = " AND ".join(f"{name.strip()} = ?" for name in key.split(","))
            changed = json.dumps(settings, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            tx.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", changed, *row[:-1])
    return count
