"""Keys and tokens that end soon, in words, and a look at them every day, so that people hear of it in time."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import structlog

from modelhost.server.identities import Credential, CredentialKind, Operator
from modelhost.server.store import accounts, operators
from modelhost.server.store.database import Database, Transaction

WARNING_DAYS = 30
DAY_SECONDS = 86_400

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def of_keys(credentials: Sequence[Credential], now: float) -> list[str]:
    """Sentences about keys of one account that have ended, or will within `WARNING_DAYS`."""
    return [warning for warning in _of_keys(credentials, now) if warning]


def _of_keys(credentials: Sequence[Credential], now: float) -> Iterator[str]:
    """A secret key that has a successor is worth a sentence only while it is still used."""
    secrets = [each for each in credentials if each.kind is CredentialKind.SECRET_KEY]
    newest = max((each.created for each in secrets), default=0.0)
    for each in credentials:
        if each.kind is CredentialKind.API_KEY:
            yield _warning(f"the API key {each.id}", each.expires, now, "`modelhost account key` makes another")
        elif each.created == newest:
            yield _warning(f"the secret key {each.id}", each.expires, now, "`modelhost account rotate` makes another")
        elif (each.last_used or 0.0) > newest:
            what = f"the secret key {each.id}, which is still used,"
            yield _warning(what, each.expires, now, "the application needs the one that replaces it")


def of_operator(operator: Operator, now: float) -> list[str]:
    """A sentence about an operator's token that has ended, or will within `WARNING_DAYS`."""
    remedy = f"`modelhost operator rotate {operator.id}` makes another"
    warning = _warning("the token", operator.expires, now, remedy)
    return [warning] if warning else []


def _warning(what: str, expires: float | None, now: float, remedy: str) -> str:
    if expires is None or expires - now > WARNING_DAYS * DAY_SECONDS:
        return ""
    date = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if expires <= now:
        return f"{what} has expired on {date}: {remedy}"
    days = math.ceil((expires - now) / DAY_SECONDS)
    return f"{what} expires on {date}, in {days} {'day' if days == 1 else 'days'}: {remedy}"


class ExpiryCheck:
    """Warns in the log, once a day, of keys and tokens that end soon. `clock` is in seconds since the epoch."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        """Look every day, until cancelled."""
        while True:
            try:
                await self.check()
            except Exception:
                log.exception("looking for keys that expire failed; trying again tomorrow")
            await asyncio.sleep(DAY_SECONDS)

    async def check(self) -> None:
        """Look now."""
        now = self._clock()
        for name, warning in await self._database.run(lambda tx: _all_warnings(tx, now)):
            log.warning("a key or token expires", of=name, warning=warning)


def _all_warnings(tx: Transaction, now: float) -> list[tuple[str, str]]:
    found = []
    for account in accounts.page(tx, "", -1):
        if not account.disabled:
            warnings = of_keys(accounts.credentials(tx, account.uid), now)
            found += [(f"serviceAccounts/{account.id}", warning) for warning in warnings]
    for operator in operators.page(tx, "", -1):
        if not operator.disabled:
            found += [(f"operators/{operator.id}", warning) for warning in of_operator(operator, now)]
    return found
