"""Registered data sources: rules of registering them, and opening one."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from modelhost.envs import Job
from modelhost.server.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from modelhost.server.resources import DataSource, SourceOptions
from modelhost.server.sources import Source, SourceReport
from modelhost.server.sources.git.place import parse_url
from modelhost.server.sources.git.source import GitSource
from modelhost.server.sources.gitlab.place import GitLabLimits, GitLabPlace, check_token, origin, parse_place
from modelhost.server.sources.outgoing import Outgoing
from modelhost.server.store import sources
from modelhost.server.store.database import Database, Transaction
from modelhost.server.vault import Vault
from modelhost.v1.error_reason_pb2 import ErrorReason

GIT, GITLAB = "git", "gitlab"
THREADS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Location:
    """Where a data source is to lie. `url` may have Git's credentials; `token` is GitLab's, "" for the one it has."""

    kind: str
    url: str = field(repr=False)
    options: SourceOptions = field(default_factory=SourceOptions)
    token: str = field(default="", repr=False)


class Sources:
    """Data sources as the control plane and the API see them.

    `cache` is a directory for what is worth keeping, a folder for each by its uid. `marker` goes into the environment
    of every command. No more than `snapshot_limit` bytes are ever fetched for a snapshot. `outgoing` says where places
    may be.
    """

    def __init__(
        self,
        database: Database,
        cache: Path,
        marker: Mapping[str, str],
        vault: Vault,
        *,
        snapshot_limit: int,
        outgoing: Outgoing,
    ) -> None:
        self._database = database
        self._cache = cache
        self._marker = marker
        self._vault = vault
        self._outgoing = outgoing
        self._limits = GitLabLimits(max_bytes=snapshot_limit)
        # Not asyncio's own threads: places that do not answer must not keep logs and listings waiting.
        self._threads = ThreadPoolExecutor(THREADS, "sources")

    def close(self) -> None:
        """Wait for the threads; every question must have been answered or given up."""
        self._threads.shutdown()

    def open(self, record: DataSource) -> Source:
        """The place itself. For the first GitLab that imports python-gitlab, half a second: not on the event loop.

        Raises `Conflict` SECRET_UNREADABLE.
        """
        secret = self._secret(record) if record.secret else ""
        cache = self._cache / record.uid
        if record.kind == GIT:
            return GitSource(secret or record.url, cache, self._outgoing)
        from modelhost.server.sources.gitlab.source import GitLabSource

        options = record.options
        place = GitLabPlace(record.url, options.namespace, options.ca_certificates, options.insecure_skip_verify)
        return GitLabSource(
            place, secret, cache, self._outgoing, limits=self._limits, token_expires=options.token_expires
        )

    async def ask(self, record: DataSource, question: Callable[[Source, Job], T]) -> T:
        """Ask a place, on a thread, what is no part of a build. A caller that goes away ends it."""
        job = Job(marker=self._marker)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: question(self.open(record), job))
        except asyncio.CancelledError:
            job.cancel()
            raise

    async def test(self, record: DataSource, project: str = "") -> SourceReport:
        """Ask a place whether it can be used, and remember when its token expires. Raises what is wrong with it."""
        report = await self.ask(record, lambda source, job: source.test(project, job))
        if record.kind == GITLAB:
            await self._database.run(lambda tx: sources.note_expiry(tx, record, report.token_expires))
        return report

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

    def create(self, tx: Transaction, source_id: str, location: Location, description: str) -> DataSource:
        """Register a place. Raises `InvalidRequest`, `AlreadyExists`, `Conflict` HOST_NOT_ALLOWED."""
        if sources.get(tx, source_id):
            raise AlreadyExists(
                ErrorReason.ERROR_REASON_DATA_SOURCE_EXISTS,
                "a data source {data_source} is registered already; `modelhost source update {data_source}` changes it",
                data_source=source_id,
            )
        now = time.time()
        blank = DataSource(
            uid=uuid.uuid4().hex,
            id=source_id,
            kind=location.kind,
            url="",
            secret="",
            options=SourceOptions(),
            description=description,
            version=1,
            created=now,
            updated=now,
        )
        record = self._placed(blank, location)
        sources.insert(tx, record)
        return record

    def update(self, tx: Transaction, record: DataSource, location: Location, description: str) -> DataSource:
        """Change a registered place; where `location` is as before, so is its secret.

        Raises `InvalidRequest`, and `Conflict` HOST_NOT_ALLOWED for a new place that is; an old one can be described.
        """
        return sources.save(tx, self._placed(replace(record, description=description), location), time.time())

    def _placed(self, record: DataSource, location: Location) -> DataSource:
        """The same at another place of its kind."""
        return self._placed_in_git(record, location) if record.kind == GIT else self._placed_in_gitlab(record, location)

    def _placed_in_git(self, record: DataSource, location: Location) -> DataSource:
        """Of a URL with credentials, all of it is the secret. Whoever sends back the URL that is shown keeps them."""
        place = parse_url(location.url, "data_source.git.url")
        if location.url == record.url:
            return record
        place.check(self._outgoing)
        secret = self._vault.close(location.url, purpose(record.uid)) if place.credentials else ""
        return replace(record, url=place.url, secret=secret)

    def _placed_in_gitlab(self, record: DataSource, location: Location) -> DataSource:
        """A token is for one host: at another, it has to be given anew."""
        place = parse_place(
            location.url,
            location.options.namespace,
            ca_certificates=location.options.ca_certificates,
            insecure_skip_verify=location.options.insecure_skip_verify,
            field="data_source.gitlab",
        )
        if place.url != record.url:
            place.check(self._outgoing)
        secret, expires = record.secret, record.options.token_expires
        if location.token or not secret:
            check_token(location.token, "data_source.gitlab.token")
            secret, expires = self._vault.close(location.token, purpose(record.uid)), None
        elif origin(place.url) != origin(record.url):
            raise InvalidRequest(
                "data_source.gitlab.token",
                "give the token too when the url changes: the one of {url} is not sent to another host",
                url=record.url,
            )
        options = SourceOptions(place.namespace, place.ca_certificates, place.insecure_skip_verify, expires)
        return replace(record, url=place.url, secret=secret, options=options)

    def _secret(self, record: DataSource) -> str:
        try:
            return self._vault.open(record.secret, purpose(record.uid))
        except Conflict as error:
            raise Conflict(
                error.reason,
                "the stored {secret} of data source {data_source} does not open with this server's secret.key",
                hint="Give it anew with `modelhost source update`, or restore the state directory's secret.key.",
                secret="password" if record.kind == GIT else "token",
                data_source=record.id,
            ) from None

    def delete(self, tx: Transaction, source_id: str) -> None:
        """Forget a place. Raises `NotFound`, and `Conflict` DATA_SOURCE_IN_USE."""
        self.find(tx, source_id)
        if users := sources.used_by(tx, source_id, 10):
            raise Conflict(
                ErrorReason.ERROR_REASON_DATA_SOURCE_IN_USE,
                "data source {data_source} is used by deployments, or by kept revisions of them: {deployments}",
                hint="Delete them, or update them from another source until no revision that is kept names this one:"
                " `modelhost show NAME --revisions` lists those.",
                data_source=source_id,
                deployments=", ".join(users),
            )
        sources.delete(tx, source_id)


def purpose(uid: str) -> str:
    """What the secret of a data source is sealed for."""
    return f"data source {uid}"
