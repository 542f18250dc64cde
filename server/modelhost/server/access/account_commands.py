"""What operators wish of service accounts: each is one function of one transaction, in force once that is on disk."""

import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from modelhost.server.access.accounts import Accounts, read
from modelhost.server.access.gate import API_KEY_PREFIX
from modelhost.server.access.issuing import purpose
from modelhost.server.access.operators import digest_of
from modelhost.server.errors import AlreadyExists, Conflict, NotFound
from modelhost.server.identities import Credential, CredentialKind, Grant, GrantLimits, ServiceAccount
from modelhost.server.store import accounts
from modelhost.server.store.database import Transaction
from modelhost.server.vault import Vault
from modelhost.v1.error_reason_pb2 import ErrorReason

ACCESS_KEY_PREFIX = "ak_"
SECRET_KEY_PREFIX = "mhs_"  # noqa: S105 - tells people and secret scanners what it is
MOST_SECRET_KEYS = 5  # that work; who rotates more often than overlaps end is told so
MOST_API_KEYS = 50


@dataclass(frozen=True)
class Found:
    """An account with its keys, newest first."""

    account: ServiceAccount
    credentials: list[Credential]


class AccountCommands:
    """The commands. `changed` is called once a change is in force."""

    def __init__(
        self, live: Accounts, vault: Vault, changed: Callable[[], None], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._live = live
        self._vault = vault
        self._changed = changed
        self._clock = clock

    def find(self, tx: Transaction, account_id: str) -> ServiceAccount:
        """The account of that id. Raises `NotFound` SERVICE_ACCOUNT_NOT_FOUND."""
        account = accounts.get(tx, account_id)
        if account is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_SERVICE_ACCOUNT_NOT_FOUND,
                "there is no service account {account}; `modelhost account list` shows those there are",
                account=account_id,
            )
        return account

    def look(self, tx: Transaction, account: ServiceAccount) -> Found:
        """An account with its keys, used as of now."""
        used = self._live.last_used(account.uid)
        stored = accounts.credentials(tx, account.uid)
        return Found(account, [replace(each, last_used=used.get(each.id, each.last_used)) for each in stored])

    def create(
        self, tx: Transaction, account_id: str, *, description: str, disabled: bool, lifetime: float | None
    ) -> tuple[Found, str]:
        """Store a new account; returns its secret key, too. Raises `AlreadyExists`."""
        if accounts.get(tx, account_id):
            raise AlreadyExists(
                ErrorReason.ERROR_REASON_SERVICE_ACCOUNT_EXISTS,
                "a service account {account} exists already; `modelhost account rotate {account}` changes its secret",
                account=account_id,
            )
        now = self._clock()
        account = ServiceAccount(
            uid=uuid.uuid4().hex,
            id=account_id,
            description=description,
            access_key=ACCESS_KEY_PREFIX + secrets.token_hex(10),
            disabled=disabled,
            version=1,
            created=now,
            updated=now,
        )
        accounts.insert(tx, account)
        secret = self._new_secret(tx, account, now, lifetime)
        return self._put(tx, account), secret

    def update(self, tx: Transaction, account: ServiceAccount) -> Found:
        """Store new values of an account: `description`, `disabled`."""
        return self._put(tx, accounts.save(tx, account, self._clock()))

    def delete(self, tx: Transaction, account: ServiceAccount) -> None:
        """Forget an account."""
        accounts.delete(tx, account.uid)

        def act() -> None:
            self._live.remove(account.uid)
            self._changed()

        tx.after_commit(act)

    def rotate(
        self, tx: Transaction, account: ServiceAccount, *, overlap: float, lifetime: float | None
    ) -> tuple[Found, str]:
        """Make a new secret key, and have the others end after `overlap` seconds. Raises `Conflict` TOO_MANY_KEYS."""
        now = self._clock()
        working = 0
        for each in accounts.credentials(tx, account.uid):
            if each.kind is not CredentialKind.SECRET_KEY:
                continue
            if overlap <= 0 or (each.expires is not None and each.expires <= now):
                accounts.delete_credential(tx, each.id)
                continue
            working += 1
            if each.expires is None or each.expires > now + overlap:
                accounts.end_credential(tx, each.id, now + overlap)
        if working >= MOST_SECRET_KEYS:
            raise Conflict(
                ErrorReason.ERROR_REASON_TOO_MANY_KEYS,
                "service account {account} has {count} secret keys that still work; end them with an overlap of 0, or"
                " wait until one has ended",
                account=account.id,
                count=working,
            )
        secret = self._new_secret(tx, account, now, lifetime)
        return self._put(tx, accounts.save(tx, account, now)), secret

    def create_api_key(
        self, tx: Transaction, account: ServiceAccount, description: str, lifetime: float | None
    ) -> tuple[Credential, str]:
        """Make an API key; returns the key, too. Raises `Conflict` TOO_MANY_KEYS."""
        now = self._clock()
        held = [each for each in accounts.credentials(tx, account.uid) if each.kind is CredentialKind.API_KEY]
        if len(held) >= MOST_API_KEYS:
            raise Conflict(
                ErrorReason.ERROR_REASON_TOO_MANY_KEYS,
                "service account {account} has {count} API keys; delete one first",
                account=account.id,
                count=len(held),
            )
        key = API_KEY_PREFIX + secrets.token_urlsafe(32)
        credential = _credential(account, CredentialKind.API_KEY, now, lifetime, description)
        credential = replace(credential, digest=digest_of(key))
        accounts.insert_credential(tx, credential)
        self._put(tx, accounts.save(tx, account, now))
        return credential, key

    def find_api_key(self, tx: Transaction, account: ServiceAccount, key_id: str) -> Credential:
        """An API key. Raises `NotFound` API_KEY_NOT_FOUND."""
        for each in self.look(tx, account).credentials:
            if each.kind is CredentialKind.API_KEY and each.id == key_id:
                return each
        raise NotFound(
            ErrorReason.ERROR_REASON_API_KEY_NOT_FOUND,
            "service account {account} has no API key {key}; `modelhost account show {account}` lists those it has",
            account=account.id,
            key=key_id,
        )

    def delete_api_key(self, tx: Transaction, account: ServiceAccount, key_id: str) -> None:
        """Forget an API key. Raises `NotFound`."""
        accounts.delete_credential(tx, self.find_api_key(tx, account, key_id).id)
        self._put(tx, accounts.save(tx, account, self._clock()))

    def grant(self, tx: Transaction, account: ServiceAccount, deployment_uid: str, limits: GrantLimits) -> Grant:
        """Let an account call a service."""
        accounts.save_grant(tx, account.uid, deployment_uid, limits, self._clock())
        self._put(tx, account)
        return self.find_grant(tx, account, deployment_uid, "")

    def find_grant(self, tx: Transaction, account: ServiceAccount, deployment_uid: str, service: str) -> Grant:
        """A grant. Raises `NotFound` GRANT_NOT_FOUND."""
        found = accounts.grant(tx, account.uid, deployment_uid)
        if found is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_GRANT_NOT_FOUND,
                "service account {account} was not granted {service}; `modelhost grants` lists who may call what",
                account=account.id,
                service=service,
            )
        return found

    def revoke(self, tx: Transaction, account: ServiceAccount, deployment_uid: str, service: str) -> None:
        """Take a grant back. Raises `NotFound`."""
        self.find_grant(tx, account, deployment_uid, service)
        accounts.delete_grant(tx, account.uid, deployment_uid)
        self._put(tx, account)

    def used_today(self, grant: Grant) -> int:
        """How many calls counted since midnight UTC."""
        live = self._live.grant(grant.account_uid, grant.deployment_uid)
        return live.used_on(self._clock()) if live else 0

    def _new_secret(self, tx: Transaction, account: ServiceAccount, now: float, lifetime: float | None) -> str:
        secret = SECRET_KEY_PREFIX + secrets.token_urlsafe(32)
        credential = _credential(account, CredentialKind.SECRET_KEY, now, lifetime, "")
        sealed = self._vault.close(secret, purpose(credential.id))
        accounts.insert_credential(tx, replace(credential, sealed=sealed))
        return secret

    def _put(self, tx: Transaction, account: ServiceAccount) -> Found:
        """Have it in force once it is on disk."""
        stored = read(tx, account)

        def act() -> None:
            self._live.put(stored)
            self._changed()

        tx.after_commit(act)
        return self.look(tx, account)


def _credential(
    account: ServiceAccount, kind: CredentialKind, now: float, lifetime: float | None, description: str
) -> Credential:
    return Credential(
        id=secrets.token_hex(6),
        account_uid=account.uid,
        kind=kind,
        sealed="",
        digest="",
        description=description,
        created=now,
        expires=None if lifetime is None else now + lifetime,
        last_used=None,
    )
