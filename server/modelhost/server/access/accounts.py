"""Service accounts, as calls find them: in memory, with their keys and grants. What is stored is read into it.

A change is made in the database first, and here as soon as that is on disk: whoever is told that a grant was taken back
knows that no call of it begins any more.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelhost.server.access.callers import USE_NOTED_SECONDS
from modelhost.server.access.limits import LiveGrant
from modelhost.server.access.uses import Use
from modelhost.server.identities import Credential, CredentialKind, Grant, ServiceAccount
from modelhost.server.store import accounts
from modelhost.server.store.database import Transaction


class LiveAccount:
    """An account. `grants` are by deployment uid."""

    __slots__ = ("access_key", "disabled", "grants", "id", "keys", "name", "uid")

    def __init__(self, account: ServiceAccount) -> None:
        self.uid = account.uid
        self.id = account.id
        self.name = f"serviceAccounts/{account.id}"
        self.access_key = account.access_key
        self.disabled = account.disabled
        self.keys: dict[str, LiveKey] = {}
        self.grants: dict[str, LiveGrant] = {}

    def secret_keys(self, now: float) -> "list[LiveKey]":
        """Those that still work."""
        return [key for key in self.keys.values() if key.kind is CredentialKind.SECRET_KEY and key.works(now)]


class LiveKey:
    """A key of an account, and whether it still works."""

    __slots__ = ("account", "digest", "expires", "id", "kind", "sealed", "use")

    def __init__(self, account: LiveAccount, credential: Credential) -> None:
        self.account = account
        self.id = credential.id
        self.kind = CredentialKind(credential.kind)
        self.sealed = credential.sealed
        self.digest = credential.digest
        self.expires = math.inf  # 0 once it is gone
        self.use = Use()

    def works(self, now: float) -> bool:
        """Whether it lets its account in."""
        return now < self.expires and not self.account.disabled

    def used(self, now: float) -> None:
        """It has let its account in."""
        if now - self.use.last >= USE_NOTED_SECONDS:
            self.use.last = now


@dataclass(frozen=True)
class StoredAccount:
    """All that is stored of an account."""

    account: ServiceAccount
    credentials: list[Credential]
    grants: list[Grant]


def read(tx: Transaction, account: ServiceAccount) -> StoredAccount:
    """What is stored, for `Accounts.put`."""
    return StoredAccount(account, accounts.credentials(tx, account.uid), accounts.grants(tx, account.uid))


class Accounts:
    """All accounts. On the event loop only."""

    def __init__(self) -> None:
        self._by_uid: dict[str, LiveAccount] = {}
        self._by_access_key: dict[str, LiveAccount] = {}
        self._by_digest: dict[str, LiveKey] = {}  # API keys

    def with_access_key(self, access_key: str) -> LiveAccount | None:
        """The account of that access key."""
        return self._by_access_key.get(access_key)

    def with_api_key(self, digest: str) -> LiveKey | None:
        """The API key of that digest."""
        return self._by_digest.get(digest)

    def key(self, account_uid: str, key_id: str) -> LiveKey | None:
        """A key of an account."""
        account = self._by_uid.get(account_uid)
        return account.keys.get(key_id) if account else None

    def put(self, stored: StoredAccount) -> None:
        """Have an account as it is stored now. Keys and grants that stay go on, with what was counted of them."""
        account = self._by_uid.get(stored.account.uid)
        if account is None:
            account = LiveAccount(stored.account)
            self._by_uid[account.uid] = self._by_access_key[account.access_key] = account
        account.disabled = stored.account.disabled
        self._put_keys(account, stored.credentials)
        granted = {grant.deployment_uid: grant for grant in stored.grants}
        for uid in account.grants.keys() - granted.keys():
            del account.grants[uid]
        for uid, grant in granted.items():
            if (live := account.grants.get(uid)) is not None:
                live.change(grant.limits)
            else:
                account.grants[uid] = LiveGrant(grant, account.id)

    def _put_keys(self, account: LiveAccount, credentials: list[Credential]) -> None:
        stored = {credential.id: credential for credential in credentials}
        for key_id in account.keys.keys() - stored.keys():
            self._end(account.keys.pop(key_id))
        for key_id, credential in stored.items():
            key = account.keys.get(key_id)
            if key is None:
                key = account.keys[key_id] = LiveKey(account, credential)
                if key.digest:
                    self._by_digest[key.digest] = key
            key.sealed = credential.sealed
            key.expires = math.inf if credential.expires is None else credential.expires

    def _end(self, key: LiveKey) -> None:
        key.expires = 0
        self._by_digest.pop(key.digest, None)

    def remove(self, uid: str) -> None:
        """Let an account in no more."""
        account = self._by_uid.pop(uid, None)
        if account is None:
            return
        del self._by_access_key[account.access_key]
        account.grants.clear()
        for key in account.keys.values():
            self._end(key)

    def forget_service(self, deployment_uid: str) -> None:
        """A deployment is no more, and neither are the grants of its service."""
        for account in self._by_uid.values():
            account.grants.pop(deployment_uid, None)

    def grants(self) -> Iterator[LiveGrant]:
        """All grants of all accounts."""
        for account in self._by_uid.values():
            yield from account.grants.values()

    def uses(self) -> Mapping[str, Use]:
        """When each key was last used, by its id."""
        return {key.id: key.use for account in self._by_uid.values() for key in account.keys.values()}

    def grant(self, account_uid: str, deployment_uid: str) -> LiveGrant | None:
        """A grant, with what was used of it."""
        account = self._by_uid.get(account_uid)
        return account.grants.get(deployment_uid) if account else None

    def last_used(self, account_uid: str) -> dict[str, float]:
        """When keys of an account were last used since the start of the server, by their ids. From any thread."""
        account = self._by_uid.get(account_uid)
        keys = list(account.keys.values()) if account else []  # at once: the event loop may change them meanwhile
        return {key.id: key.use.last for key in keys if key.use.last}

    def load(self, tx: Transaction) -> list[StoredAccount]:
        """All that are stored, for `put`."""
        return [read(tx, account) for account in accounts.page(tx, "", -1)]
