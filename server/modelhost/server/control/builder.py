"""The way of a revision to a pool that is ready to be routed: fetch, provision, load.

Each step finds what an earlier try has left, so that the walk can be begun again at any time: after a restart of the
server, after a failure, or only to start the same revision once more.
"""

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from modelhost.envs import Environment, EnvironmentStore, Job, read_requirements
from modelhost.server.control import failures, locked, settings
from modelhost.server.control.buildlog import BuildLog, StepObserver
from modelhost.server.control.changes import Changes
from modelhost.server.control.checks import check_main_file, check_test_call
from modelhost.server.control.holds import Hold, Holds
from modelhost.server.control.loading import Loader
from modelhost.server.control.memory import MemoryBudget
from modelhost.server.control.runtimes import Runtimes
from modelhost.server.control.sources import Sources
from modelhost.server.control.states import advance
from modelhost.server.errors import StepFailed
from modelhost.server.resources import Deployment, Failure, ModelSettings, Revision, RevisionState
from modelhost.server.serving.finish import finish
from modelhost.server.serving.host import WorkerHost
from modelhost.server.serving.pool import Pool, PoolListener
from modelhost.server.sources import Selection
from modelhost.server.sources.snapshots import Snapshot, SnapshotStore
from modelhost.server.store import deployments, locks, sources
from modelhost.server.store.codec import encode
from modelhost.server.store.database import Database, Transaction
from modelhost.server.store.logs import Logs
from modelhost.v1.error_reason_pb2 import ErrorReason

T = TypeVar("T")
log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class Broken:
    """A step failed; `revision` is as stored after it."""

    failure: Failure
    revision: Revision


class Builder:
    """Builds revisions. Blocking work is done on threads of its own, so that slow builds leave others room."""

    def __init__(
        self,
        *,
        database: Database,
        data_sources: Sources,
        snapshots: SnapshotStore,
        environments: EnvironmentStore,
        runtimes: Runtimes,
        logs: Logs,
        changes: Changes,
        holds: Holds,
        host: WorkerHost,
        loader: Loader,
        memory: MemoryBudget,
        concurrency: int,
        step_ended: StepObserver,
    ) -> None:
        self._database = database
        self._sources = data_sources
        self._snapshots = snapshots
        self._environments = environments
        self._runtimes = runtimes
        self._logs = logs
        self._changes = changes
        self._host = host
        self._holds = holds
        self._loader = loader
        self._memory = memory
        self._step_ended = step_ended
        self._threads = ThreadPoolExecutor(concurrency, "builder")

    def close(self) -> None:
        """Wait for the threads; every build must have ended or been cancelled."""
        self._threads.shutdown()

    async def build(
        self,
        deployment: Deployment,
        revision: Revision,
        *,
        listener: PoolListener,
    ) -> Pool | Broken:
        """Walk a revision to a loaded pool. Cancelling ends what is under way; the revision can be begun again."""
        structlog.contextvars.bind_contextvars(revision=revision.number)  # in the task of this build, and its pool's
        build_log = BuildLog(self._logs.build(deployment.uid, revision.number), revision.number, self._step_ended)
        walk = _Walk(deployment, revision, build_log, listener, self._holds.take())
        if walk.revision.state is not RevisionState.READY:
            await self._restart(walk)
        pool: Pool | None = None
        try:
            with build_log.step("fetch"):
                snapshot = await self._fetch(walk)
            with build_log.step("provision"):
                environment = await self._provision(walk, snapshot)
            with build_log.step("load"):
                pool = await self._load(walk, environment)
            await self._advance(walk, RevisionState.READY, ready=time.time())
            walk.hold.settle()
            return pool
        except BaseException as error:
            if pool is not None:
                await pool.close()
            walk.hold.release()
            if isinstance(error, Exception):
                return await self._fail(walk, error)
            await finish(self._interrupted(walk))
            raise

    # -- the steps -------------------------------------------------------------------------------------------------

    async def _fetch(self, walk: "_Walk") -> Snapshot:
        await self._advance(walk, RevisionState.FETCHING)
        revision, say = walk.revision, walk.log.say
        if revision.snapshot_digest:
            snapshot = await self._intact(revision.snapshot_digest, walk)
            if snapshot is not None:
                say(f"files of commit {revision.commit[:12]} are here: {len(snapshot.files)} files")
                check_main_file(walk.settings, snapshot)
                return snapshot
        record = await self._sources.get(revision.source.data_source)
        source = await self._in_thread(walk, lambda job: self._sources.open(record))
        project = revision.source.project
        if not revision.commit:
            commit = await self._in_thread(walk, source.resolve, project, revision.source.ref)
            say(f"{revision.source.ref or 'the default branch'} is commit {commit}")
            await self._save(walk, commit=commit)
        commit = walk.revision.commit
        selection = Selection(revision.source.directory, revision.source.paths)
        key = (record.uid, project, commit, encode(selection))
        digest = await self._database.run(lambda tx: sources.recall_fetch(tx, *key))
        snapshot = await self._intact(digest, walk) if digest else None
        if snapshot is None:

            def take(job: Job) -> Snapshot:
                """Take it; what was there already, and was collected before it was held, is taken again."""
                while True:
                    taken = self._snapshots.take(source, project, commit, selection, job)
                    walk.hold.add(taken.digest)
                    if held := self._snapshots.find(taken.digest):
                        return held

            snapshot = await self._in_thread(walk, take)
            taken = snapshot.digest
            await self._database.run(lambda tx: sources.remember_fetch(tx, *key, taken))
        _check_same(revision, snapshot)
        size = snapshot.total_bytes
        say(f"{len(snapshot.files)} files, {size:,} bytes")
        resolved = await self._in_thread(walk, lambda job: settings.resolve(revision.requested, snapshot.root))
        await self._save(walk, snapshot_digest=snapshot.digest, settings=resolved)
        await self._runtimes.usable(str(resolved.runtime))
        check_main_file(resolved, snapshot)
        return snapshot

    async def _provision(self, walk: "_Walk", snapshot: Snapshot) -> Environment:
        await self._advance(walk, RevisionState.PROVISIONING)
        wanted = walk.settings
        interpreter = await self._runtimes.usable(str(wanted.runtime))
        walk.log.say(f"runtime {interpreter.name}: {interpreter.version} at {interpreter.path}")
        digest = walk.revision.environment_digest
        lock = await self._database.run(lambda tx: locks.get(tx, digest))

        def build(job: Job) -> Environment:
            requirements = read_requirements(
                interpreter, snapshot.root, wanted.requirements_file or "", wanted.requirements or ()
            )
            specs = locked.specify(self._environments, interpreter, requirements, lock, job)
            for spec in specs:
                walk.hold.add(spec.digest)
            return self._environments.build(specs[0], snapshot.root, job, lock.packages if lock else ())

        environment = await self._in_thread(walk, build)
        revision = walk.revision
        found = environment.spec_digest, environment.digest, environment.interpreter.version
        if lock is None or found != (revision.environment, revision.environment_digest, revision.runtime_version):
            await self._save(
                walk,
                also=lambda tx: locks.insert(tx, locked.lock_of(environment)),
                environment=environment.spec_digest,
                environment_digest=environment.digest,
                runtime_version=environment.interpreter.version,
            )
        walk.log.say(f"environment {environment.digest[:12]} with {len(environment.lock)} packages")
        return environment

    async def _load(self, walk: "_Walk", environment: Environment) -> Pool:
        await self._advance(walk, RevisionState.LOADING)
        wanted = walk.settings
        spec = self._loader.spec(walk.revision, environment)
        workers = walk.deployment.workers
        pool = Pool(
            self._host,
            spec,
            size=workers,
            queue_size=wanted.queue_size or 1,
            room=self._memory.share(wanted.memory or 0),
            listener=replace(walk.listener, closed=walk.hold.release),
        )
        walk.log.say(f"loading {wanted.main_file}, function {wanted.function}" + f", {workers} times" * (workers > 1))
        if self._host.turns.are_taken:
            walk.log.say("waiting for other models, which are being loaded")
        loaded = await pool.start()
        try:
            for warning in loaded.warnings:
                walk.log.say(f"warning: {warning}")
            if (wanted.max_batch_size or 1) > 1 and not loaded.batch and not wanted.batch_dimension:
                walk.log.say(f"warning: no batches, for the main file defines no function {wanted.function}_batch")
            if wanted.test_call:
                await check_test_call(pool, wanted.test_call, spec.mask)
                walk.log.say(
                    "the test call gave what was expected" if wanted.test_call.expected_json else "test call passed"
                )
        except BaseException:
            await pool.close()
            raise
        return pool

    # -- what they share -------------------------------------------------------------------------------------------

    async def _intact(self, digest: str, walk: "_Walk") -> Snapshot | None:
        """The snapshot, if it is there and every byte of it is as it was; a damaged one is dropped."""
        walk.hold.add(digest)
        snapshot = self._snapshots.find(digest)
        if snapshot is None:
            return None
        problems = await self._in_thread(walk, lambda job: self._snapshots.verify(digest))
        if not problems:
            return snapshot
        walk.log.say(f"the stored files are damaged and are fetched again: {problems[0]}")
        await self._in_thread(walk, lambda job: self._snapshots.remove(digest))
        return None

    async def _in_thread(self, walk: "_Walk", function: Callable[..., T], *arguments: object) -> T:
        """Call `function(*arguments, job)` on a thread. Cancelling cancels the job and waits for its end."""
        job = walk.log.job(dict(self._host.marker))
        context = contextvars.copy_context()  # so that what is logged there has the deployment and the revision
        work = self._threads.submit(lambda: context.run(function, *arguments, job))
        future = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            job.cancel()
            if not work.cancel():  # it has begun
                with suppress(Exception):  # Cancelled, or whatever came first: nobody asks any more
                    await finish(future)
            raise

    async def _restart(self, walk: "_Walk") -> None:
        if walk.revision.state is not RevisionState.PENDING:
            walk.revision = replace(advance(walk.revision, RevisionState.PENDING), failure=None)

    async def _advance(self, walk: "_Walk", state: RevisionState, **changes: Any) -> None:
        """Store the next state; a revision that was READY before stays READY whatever happens now."""
        if walk.revision.state is not RevisionState.READY:
            await self._save(walk, state=advance(walk.revision, state).state, **changes)

    async def _save(
        self, walk: "_Walk", *, also: Callable[[Transaction], None] = lambda _: None, **changes: Any
    ) -> None:
        before = walk.revision
        walk.revision = revision = replace(before, **changes)

        def save(tx: Transaction) -> None:
            deployments.save_revision(tx, revision)
            also(tx)

        try:
            await self._database.run(save)
        except Exception:  # not stored; a cancel, on the other hand, undoes nothing
            walk.revision = before
            raise
        self._changes.notify(revision.deployment_uid)

    async def _fail(self, walk: "_Walk", error: Exception) -> Broken:
        known = failures.as_domain_error(error)
        if known.reason == ErrorReason.ERROR_REASON_INTERNAL:
            log.error("a step failed", step=walk.log.current_step, exc_info=error)
        failure = failures.failure_of(
            known, walk.deployment, revision=walk.revision.number, step=walk.log.current_step, now=time.time()
        )
        with suppress(OSError):  # that the disk is full may be the failure
            if details := failures.details_of(error):
                walk.log.say(details)
            walk.log.say(f"failed: {failure.reason}: {failure.message}")
            if failure.hint:
                walk.log.say(f"hint: {failure.hint}")
        await self._advance(walk, RevisionState.FAILED, failure=failure)
        return Broken(failure, walk.revision)

    async def _interrupted(self, walk: "_Walk") -> None:
        with suppress(OSError):
            walk.log.say("interrupted")
        if not walk.revision.state.is_terminal and walk.revision.state is not RevisionState.PENDING:
            await self._advance(walk, RevisionState.PENDING)


@dataclass
class _Walk:
    """One build under way."""

    deployment: Deployment
    revision: Revision
    log: BuildLog
    listener: PoolListener
    hold: Hold

    @property
    def settings(self) -> ModelSettings:
        """Those in force."""
        assert self.revision.settings is not None  # fetched
        return self.revision.settings


def _check_same(revision: Revision, snapshot: Snapshot) -> None:
    """Files that were fetched before, and are fetched again, must be the same."""
    if revision.snapshot_digest not in ("", snapshot.digest):
        raise StepFailed(
            ErrorReason.ERROR_REASON_SNAPSHOT_CHANGED,
            "the files of commit {commit} are not those that revision {revision} was made of: their digest is {found},"
            " it was {expected}",
            commit=revision.commit[:12],
            revision=revision.number,
            found=snapshot.digest[:16],
            expected=revision.snapshot_digest[:16],
        )
