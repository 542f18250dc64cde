"""Registered data sources: rules of registering them, and opening one."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from modelhost.envs import Job
from modelhost.server.errors import AlreadyExists, Conflict, NotFound
from modelhost.server.resources import DataSource, SourceOptions
from modelhost.server.sources import Source
from modelhost.server.sources.git import GitSource
from modelhost.server.sources.git_place import parse_url
from modelhost.server.store import sources
from modelhost.server.store.database import Database, Transaction
from modelhost.server.vault import Vault
from modelhost.v1.error_reason_pb2 import ErrorReason

THREADS = 8

T = TypeVar("T")


class Sources:
    """Data sources as the control plane and the API see them.

    `cache` is a directory for what is worth keeping. `marker` goes into the environment of every command.
    """

    def __init__(self, database: Database, cache: Path, marker: Mapping[str, str], vault: Vault) -> None:
        self._database = database
        self._cache = cache
        self._marker = marker
        self._vault = vault
        # Not asyncio's own threads: places that do not answer must not keep logs and listings waiting.
        self._threads = ThreadPoolExecutor(THREADS, "sources")

    def close(self) -> None:
        """Wait for the threads; every question must have been answered or given up."""
        self._threads.shutdown()

    def open(self, record: DataSource) -> Source:
        """The place itself."""
        secret = self._vault.open(record.secret, _purpose(record.uid)) if record.secret else ""
        return GitSource(secret or record.url, self._cache)

    async def ask(self, question: Callable[[Job], T]) -> T:
        """Ask a place, on a thread, what is no part of a build. A caller that goes away ends it."""
        job = Job(marker=self._marker)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, question, job)
        except asyncio.CancelledError:
            job.cancel()
            raise

    async def get(self, source_id: str) -> DataSource:
        """The data source of that id. Raises `NotFound` DATA_SOURCE_NOT_FOUND."""
        return await self._database.run(lambda tx: self.find(tx, source_id))

    def find(self, tx: Transaction, source_id: str) -> DataSource:
        """The same within a transaction."""
        record = sources.get(tx, source_id)
        if record is None:
            known = ", ".join(source.id for source in sources.page(tx, "", 10)) or "none"
            raise NotFound(
                ErrorReason.ERROR_REASON_DATA_SOURCE_NOT_FOUND,
                "there is no data source {data_source}; registered: {known}",
                hint="`modelhost source add` registers one.",
                data_source=source_id,
                known=known,
            )
        return record

    def create(self, tx: Transaction, source_id: str, *, kind: str, url: str, description: str) -> DataSource:
        """Register a place. Raises `InvalidRequest`, `AlreadyExists`."""
        if sources.get(tx, source_id):
            raise AlreadyExists(
                ErrorReason.ERROR_REASON_DATA_SOURCE_EXISTS,
                "a data source {data_source} is registered already",
                data_source=source_id,
            )
        now = time.time()
        uid = uuid.uuid4().hex
        plain, secret = self._split(url, uid)
        record = DataSource(
            uid=uid,
            id=source_id,
            kind=kind,
            url=plain,
            secret=secret,
            options=SourceOptions(),
            description=description,
            version=1,
            created=now,
            updated=now,
        )
        sources.insert(tx, record)
        return record

    def update(self, tx: Transaction, record: DataSource, *, url: str | None, description: str) -> DataSource:
        """Change a registered place; `url` is `None` where it stays. Raises `InvalidRequest`."""
        changed = replace(record, description=description)
        if url is not None:
            plain, secret = self._split(url, record.uid)
            changed = replace(changed, url=plain, secret=secret)
        return sources.save(tx, changed, time.time())

    def _split(self, url: str, uid: str) -> tuple[str, str]:
        """A URL without credentials, and all of it sealed if it has some."""
        place = parse_url(url, "data_source.git.url")
        return place.url, self._vault.close(url, _purpose(uid)) if place.credentials else ""

    def delete(self, tx: Transaction, source_id: str) -> None:
        """Forget a place. Raises `NotFound`, and `Conflict` DATA_SOURCE_IN_USE."""
        self.find(tx, source_id)
        if users := sources.used_by(tx, source_id, 10):
            raise Conflict(
                ErrorReason.ERROR_REASON_DATA_SOURCE_IN_USE,
                "data source {data_source} is used by: {deployments}",
                hint="Delete these deployments first, or give them another source.",
                data_source=source_id,
                deployments=", ".join(users),
            )
        sources.delete(tx, source_id)


def _purpose(uid: str) -> str:
    return f"data source {uid}"
