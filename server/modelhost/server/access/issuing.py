"""Tokens in return for signatures: `modelhost.v1.Predict.IssueToken`.

A signature is over the access key, a time and a nonce, so that whoever listens cannot use it again: the time must be
near the server's, and the nonce is remembered, across restarts, for as long as the time would be taken.
"""

import hmac
import math
import re
import time
from collections.abc import Callable
from typing import Final

import structlog

from modelhost.server.access.accounts import Accounts, LiveKey
from modelhost.server.access.throttle import Throttle
from modelhost.server.access.tokens import Tokens
from modelhost.server.errors import Busy, Conflict, DomainError, InvalidRequest, Unauthenticated
from modelhost.server.store import accounts
from modelhost.server.store.database import Database
from modelhost.server.vault import Vault
from modelhost.v1.error_reason_pb2 import ErrorReason

SKEW_SECONDS: Final = 300
VERSION: Final = "modelhost-v1"
SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{64}")
NONCE: Final = re.compile(r"[A-Za-z0-9_.-]{8,128}")
WRONG_AT_ONCE, SECONDS_EACH_WRONG = 10, 6.0
TOKENS_AT_ONCE, SECONDS_EACH_TOKEN = 100, 1.0  # of one account: an application may have many processes
LONGEST_ACCESS_KEY = 100  # characters; those that are given out are shorter

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Issuer:
    """Gives tokens to those who can sign for them."""

    def __init__(
        self,
        database: Database,
        live: Accounts,
        tokens: Tokens,
        vault: Vault,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._accounts = live
        self._tokens = tokens
        self._vault = vault
        self._wrong = Throttle(WRONG_AT_ONCE, SECONDS_EACH_WRONG)
        self._tokens_got = Throttle(TOKENS_AT_ONCE, SECONDS_EACH_TOKEN)
        self._clock = clock

    async def issue(
        self, access_key: str, timestamp: int, nonce: str, signature: str, *, host: str
    ) -> tuple[str, float]:
        """A token and when it expires. `host` is where the call comes from.

        Raises `InvalidRequest` for what is no nonce, `Unauthenticated` in the same words whatever else is wrong, and
        `Busy` LOGIN_THROTTLED after too many wrong signatures for the key from that host, or too many tokens for it.
        """
        if not NONCE.fullmatch(nonce):
            raise InvalidRequest("nonce", "{field} must be 8 to 128 characters of A-Z a-z 0-9 _ - .")
        now = self._clock()
        known_as = access_key[:LONGEST_ACCESS_KEY]
        if wait := self._wrong.wait(known_as, host, now=now):
            raise _throttled("too many wrong signatures for {access_key} from {host}", wait, known_as, host)
        key = self._signer(access_key, timestamp, nonce, signature, now)
        if key is not None and (wait := self._tokens_got.wait(known_as, now=now)):
            raise _throttled("too many tokens for {access_key}: one is good for many calls", wait, known_as, host)
        if key is None or not await self._is_new(access_key, timestamp, nonce, now):
            self._wrong.count(known_as, host, now=now)
            # Of keys that somebody makes up there is no end, and nobody who would want to know.
            say = log.info if self._accounts.with_access_key(access_key) else log.debug
            say("a signature was refused", access_key=known_as, host=host)
            raise _refused()
        self._tokens_got.count(known_as, now=now)
        if not key.works(self._clock()):  # it was taken away meanwhile
            raise _refused()
        key.used(now)
        return self._tokens.issue(key.account.uid, key.id, None if key.expires == math.inf else key.expires)

    def _signer(self, access_key: str, timestamp: int, nonce: str, signature: str, now: float) -> LiveKey | None:
        """The secret key that has made the signature, if any has. As much work where there is no such account."""
        message = f"{VERSION}\n{access_key}\n{timestamp}\n{nonce}".encode("utf-8", "replace")
        given = signature.lower() if SIGNATURE.fullmatch(signature) else ""
        account = self._accounts.with_access_key(access_key)
        keys = account.secret_keys(now) if account else []
        found = None
        for key in keys:
            try:
                secret = self._vault.open(key.sealed, purpose(key.id))
            except Conflict:  # sealed under a secret.key that is lost; another key of the account may open
                continue
            if hmac.compare_digest(_signed(secret, message), given):
                found = key
        if not keys:
            hmac.compare_digest(_signed("none", message), given)
        return found if abs(now - timestamp) <= SKEW_SECONDS else None

    async def _is_new(self, access_key: str, timestamp: int, nonce: str, now: float) -> bool:
        until = timestamp + SKEW_SECONDS
        return await self._database.run(lambda tx: accounts.take_nonce(tx, access_key, nonce, until, now))


def purpose(key_id: str) -> str:
    """What a secret key is sealed for."""
    return f"secret key {key_id}"


def _signed(secret: str, message: bytes) -> str:
    return hmac.digest(secret.encode(), message, "sha256").hex()


def _throttled(template: str, wait: float, access_key: str, host: str) -> DomainError:
    reason = ErrorReason.ERROR_REASON_LOGIN_THROTTLED
    return Busy(reason, template, retry_after=wait, access_key=access_key, host=host)


def _refused() -> DomainError:
    return Unauthenticated(
        ErrorReason.ERROR_REASON_UNAUTHENTICATED,
        "no token for this: the access key is not known, its secret key did not make the signature, the timestamp is"
        " over 5 minutes from this server's clock, or the nonce was used before",
    )
