"""Asks every GitLab once a day when the token of its data source expires, so that people hear of it in time."""

import asyncio
import time
from collections.abc import Callable

import structlog

from modelhost.server.control.sources import GITLAB, Sources
from modelhost.server.errors import DomainError, reason_name
from modelhost.server.resources import DataSource
from modelhost.server.sources.gitlab.expiry import expiry_warning
from modelhost.server.store import sources
from modelhost.server.store.database import Database

LOOK_SECONDS = 3600.0
ASK_SECONDS = 24 * 3600.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class TokenCheck:
    """`clock` says what time it is, in seconds since 1970."""

    def __init__(self, database: Database, data_sources: Sources, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._sources = data_sources
        self._clock = clock
        self._asked: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Look every hour for those to be asked, until cancelled."""
        while True:
            try:
                await self.check()
            except Exception:
                log.exception("checking tokens failed; trying again later")
            await asyncio.sleep(LOOK_SECONDS)

    async def check(self) -> None:
        """Ask about each token that this server has had no answer about for a day; about a new one at once."""
        found = await self._database.run(lambda tx: sources.of_kind(tx, GITLAB))
        records = {(record.uid, record.secret): record for record in found}
        self._asked = {key: at for key, at in self._asked.items() if key in records}
        for key, record in records.items():
            now = self._clock()
            if now - self._asked.get(key, -ASK_SECONDS) >= ASK_SECONDS and await self._ask(record):
                self._asked[key] = now

    async def _ask(self, record: DataSource) -> bool:
        """Ask; false if there was no answer."""
        expires, answered = record.options.token_expires, True
        try:
            expires = (await self._sources.test(record)).token_expires
        except DomainError as error:
            answered = False
            log.info(
                "cannot ask when a token expires",
                data_source=record.id,
                reason=reason_name(error.reason),
                error=error.message,
            )
        except Exception:
            answered = False
            log.exception("asking when a token expires failed", data_source=record.id)
        if warning := expiry_warning(expires, self._clock()):
            log.warning("a data source needs a new token", data_source=record.id, warning=warning)
        return answered
