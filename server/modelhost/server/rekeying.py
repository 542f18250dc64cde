"""Another `secret.key`: everything that is sealed under the one before is sealed anew, while the server runs.

The new key is written beside the old one, as `secret.key.next`, then all is sealed with it in one transaction, then the
file takes the old one's place. What a server that is killed in between leaves is settled at the next start by which of
the two opens what is in the database.
"""

import os
from collections.abc import Callable
from pathlib import Path

import structlog

from modelhost.server.access import issuing
from modelhost.server.control import secret_env, sources
from modelhost.server.errors import Conflict
from modelhost.server.private import write
from modelhost.server.store import requests, seals
from modelhost.server.store.database import Transaction
from modelhost.server.vault import Vault, encoded, new_key
from modelhost.v1.error_reason_pb2 import ErrorReason

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def settled(path: Path, tx: Transaction) -> Vault:
    """The vault with the key that the database is sealed with, read or made. Raises `OSError`, `ValueError`."""
    upcoming = _upcoming(path)
    vault = Vault.from_file(path)
    check = seals.check(tx)
    if upcoming.exists():
        if check is not None and not vault.passes(check) and (following := Vault.from_file(upcoming)).passes(check):
            upcoming.rename(path)
            log.warning("a change of secret.key that was cut off is complete now")
            return following
        upcoming.unlink()
    if check is None or not vault.passes(check):
        if check is not None:
            log.warning("secret.key is not the one that stored secrets were sealed with: they have to be set again")
        seals.set_check(tx, vault.check())
    return vault


class Rekeying:
    """Changes the key of `vault`, whose file is `path`. `changed` is called once another key is in force."""

    def __init__(self, path: Path, vault: Vault, changed: Callable[[], None]) -> None:
        self._path = path
        self._vault = vault
        self._changed = changed

    def change(self, tx: Transaction) -> int:
        """Seal everything with a new key, in force with this transaction; returns how many secrets that were.

        From here on what is sealed is sealed with it, also later in this transaction. What the key there is does not
        open stays as it is. Raises `Conflict` where the key before could not be given its name yet, `OSError`.
        """
        upcoming = _upcoming(self._path)
        self._finish(upcoming)
        key = new_key()
        following = Vault(key)
        write(upcoming, encoded(key))

        def renewed(sealed: str, purpose: str) -> str | None:
            try:
                return following.close_bytes(self._vault.open_bytes(sealed, purpose), purpose)
            except Conflict:
                return None

        count = seals.renew(
            tx,
            renewed,
            of_data_source=sources.purpose,
            of_variable=secret_env.purpose,
            of_secret_key=issuing.purpose,
            of_answer=requests.purpose,
        )
        seals.set_check(tx, following.check())
        tx.on_rollback(self._vault.use(key))

        def act() -> None:
            try:
                self._finish(upcoming)
            except Conflict as error:
                log.error("secret.key could not be put in its place; the next start does that", error=error.message)
            self._changed()

        tx.after_commit(act)
        return count

    def _finish(self, upcoming: Path) -> None:
        """Give the key in force its name, where it has that of one to come."""
        try:
            if upcoming.exists() and self._vault.is_key(upcoming):
                os.rename(upcoming, self._path)
        except OSError as error:
            raise Conflict(
                ErrorReason.ERROR_REASON_STATE_CONFLICT,
                "{upcoming} could not be put in the place of {key}: {cause}",
                hint="Mend that, or restart the server, which tries it again.",
                upcoming=upcoming.name,
                key=self._path.name,
                cause=os.strerror(error.errno) if error.errno else error,
            ) from None


def _upcoming(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")
