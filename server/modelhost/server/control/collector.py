"""Removes what nothing names any more: files and environments of revisions that are not kept, caches of sources."""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from modelhost.envs import EnvironmentStore
from modelhost.envs.files import remove_tree
from modelhost.server.control.holds import Holds
from modelhost.server.sources.snapshots import SnapshotStore
from modelhost.server.store import deployments, locks, sources
from modelhost.server.store.database import Database

EVERY_SECONDS = 3600.0
UNNAMED_SECONDS = 24 * 3600.0  # somebody may be about to roll forward again

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class Collected:
    """Digests of what was removed, and its bytes."""

    environments: list[str]
    snapshots: list[str]
    freed_bytes: int


@dataclass(frozen=True)
class _Item:
    """Something on disk."""

    digest: str
    is_environment: bool
    size: int
    created: float


class Collector:
    """`holds` knows what builds and pools need, whether or not the database names it.

    `caches` has a folder for each data source, by its uid.
    """

    def __init__(
        self,
        database: Database,
        snapshots: SnapshotStore,
        environments: EnvironmentStore,
        holds: Holds,
        caches: Path,
    ) -> None:
        self._database = database
        self._snapshots = snapshots
        self._environments = environments
        self._holds = holds
        self._caches = caches
        self._unnamed_since: dict[str, float] = {}
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Collect every hour what has been unnamed for a day, until cancelled."""
        while True:
            try:
                collected = await self.collect(unnamed_for=UNNAMED_SECONDS)
                if collected.environments or collected.snapshots:
                    log.info("collected what nothing names", freed_bytes=collected.freed_bytes)
            except Exception:
                log.exception("collecting failed; trying again later")
            await asyncio.sleep(EVERY_SECONDS)

    async def collect(self, *, unnamed_for: float = 0, only_say: bool = False) -> Collected:
        """Remove what has not been named for so many seconds, as far as this server has seen."""
        async with self._lock:
            present = {item.digest: item for item in await asyncio.to_thread(self._present)}
            named_snapshots, named_environments = await self._database.run(deployments.named_digests)
            needed = named_snapshots | named_environments
            now = time.monotonic()
            self._unnamed_since = {
                digest: self._unnamed_since.get(digest, now) for digest in present if digest not in needed
            }
            old = [digest for digest, since in self._unnamed_since.items() if now - since >= unnamed_for]
            items = [present[digest] for digest in old]
            removed = items if only_say else await asyncio.to_thread(self._remove, items)
            if not only_say:
                await self._database.run(locks.forget_unnamed)
                await self._clear_caches()
            return Collected(
                environments=sorted(item.digest for item in removed if item.is_environment),
                snapshots=sorted(item.digest for item in removed if not item.is_environment),
                freed_bytes=sum(item.size for item in removed),
            )

    async def _clear_caches(self) -> None:
        """Remove what was kept of data sources that are gone. They are listed first: those made meanwhile stay."""
        folders = await asyncio.to_thread(lambda: list(self._caches.iterdir()) if self._caches.exists() else [])
        known = await self._database.run(sources.uids)
        for folder in folders:
            if folder.name not in known:
                await asyncio.to_thread(remove_tree, folder)

    def _present(self) -> list[_Item]:
        environments = [_Item(one.spec_digest, True, one.size_bytes, one.created) for one in self._environments.list()]
        return environments + [_Item(digest, False, size, made) for digest, size, made in self._snapshots.stored()]

    def _remove(self, items: list[_Item]) -> list[_Item]:
        return [item for item in items if self._removed(item)]

    def _removed(self, item: _Item) -> bool:
        guard = partial(self._holds.unless_held, item.digest, item.created)
        try:
            if item.is_environment:
                return self._environments.remove(item.digest, guard)
            return self._snapshots.remove(item.digest, guard)
        except OSError as error:  # what is left of it is no longer whole, and the next start removes it
            log.warning("what nothing names cannot be removed", digest=item.digest, error=str(error))
            return False
