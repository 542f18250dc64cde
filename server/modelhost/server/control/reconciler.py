"""Brings what is to what is wished, one task per deployment.

A task reads the wish from the database, does the next thing that is missing, and reads again; it rests when nothing
is. A change of the wish wakes it, and interrupts a build that is no longer wanted. All that must outlive the process
is in the database, so that a new server carries on from there.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from modelhost.server.control import failures
from modelhost.server.control.builder import Broken, Builder
from modelhost.server.control.changes import Changes
from modelhost.server.control.deployments import as_served
from modelhost.server.control.states import advance, move, revision_to_build
from modelhost.server.errors import DiskFull, StepFailed
from modelhost.server.resources import (
    Deployment,
    DeploymentState,
    Failure,
    RevisionState,
    UpdateState,
)
from modelhost.server.serving.finish import finish
from modelhost.server.serving.pool import Pool, PoolListener
from modelhost.server.serving.router import Router
from modelhost.server.store import deployments
from modelhost.server.store.database import Database, Transaction
from modelhost.server.store.logs import Logs
from modelhost.v1.error_reason_pb2 import ErrorReason

STOP_GRACE_SECONDS = 10.0
RETRY_SECONDS = 5.0
READINESS = "readiness"  # what Changes tells of when `Reconciler.is_ready` changes; no uid

_D = DeploymentState
log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Reconciler:
    """Owns a task per deployment that has something to do. Used on the event loop only.

    `worker_lost` gets a deployment's id and the cause whenever one of its workers ends that was to live on.
    """

    def __init__(
        self,
        *,
        database: Database,
        builder: Builder,
        router: Router,
        logs: Logs,
        changes: Changes,
        worker_lost: Callable[[str, str], None],
        stop_grace: float,
    ) -> None:
        self.database = database
        self.builder = builder
        self.router = router
        self.logs = logs
        self.changes = changes
        self.worker_lost = worker_lost
        self.grace = stop_grace  # seconds that calls have to finish when the server ends
        self._actors: dict[str, _Actor] = {}
        self._closing = False
        self._awaited: set[str] = set()  # deployments that were at work when the server before this one ended

    @property
    def is_ready(self) -> bool:
        """Whether all that an earlier server served is served again, or has failed; `Changes` tells of `READINESS`."""
        return not self._awaited

    async def prepare(self) -> None:
        """Make all services known, before anybody asks for them."""
        self._awaited = set(await self.database.run(deployments.unsettled))
        for deployment in await self.database.run(_all):
            self.introduce(deployment)

    async def start(self) -> None:
        """Carry on with everything that the database says is not at rest."""
        for uid in list(self._awaited):
            self.poke(uid)

    def introduce(self, deployment: Deployment) -> None:
        """Make its service known, and the state of the deployment."""
        self.router.add(deployment.service_id, deployment.id, deployment.uid)
        self.router.find(deployment.service_id).state = deployment.state

    def poke(self, uid: str) -> None:
        """The wish for a deployment may have changed."""
        self.changes.notify(uid)
        if self._closing:
            return
        actor = self._actors.get(uid)
        if actor is None or actor.task.done():
            actor = self._actors[uid] = _Actor(self, uid)
            actor.task.add_done_callback(lambda task: self._forget(uid, task))
        actor.wake.set()

    def attended(self, uid: str) -> None:
        """A deployment is as it should be, or cannot be brought there for now."""
        if uid in self._awaited:
            self._awaited.discard(uid)
            if self.is_ready:
                self.changes.notify(READINESS)
                log.info("ready: what ran before runs again")

    def _forget(self, uid: str, task: "asyncio.Task[None]") -> None:
        if uid in self._actors and self._actors[uid].task is task:
            del self._actors[uid]

    async def close(self) -> None:
        """Interrupt builds, finish calls, end all workers. The wishes stay as they are."""
        self._closing = True
        tasks = [actor.task for actor in self._actors.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def hurry(self) -> None:
        """Have `close`, under way or yet to come, let no call finish."""
        self.grace = 0
        if self._closing:
            for actor in self._actors.values():
                actor.task.cancel()


class _Actor:
    """The task of one deployment, and the pool that serves it."""

    def __init__(self, owner: Reconciler, uid: str) -> None:
        self._owner = owner
        self._uid = uid
        self._pool: Pool | None = None
        self._draining: set[asyncio.Task[None]] = set()  # pools that were replaced and have calls to finish
        self.wake = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        structlog.contextvars.clear_contextvars()  # of whoever woke it
        try:
            while True:
                self.wake.clear()
                try:
                    rest = await self._step()
                except Exception as error:
                    known = error if isinstance(error, DiskFull) else DiskFull.told_by(error)
                    if known is not None:
                        log.warning("trying again", seconds=RETRY_SECONDS, error=known.message)
                    else:
                        log.exception("reconciling failed; trying again", seconds=RETRY_SECONDS)
                    self._owner.attended(self._uid)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self.wake.wait(), RETRY_SECONDS)
                    continue
                if rest:
                    self._owner.attended(self._uid)
                if rest and not self.wake.is_set():
                    if self._pool is None and not self._draining:
                        return
                    await self.wake.wait()
        finally:
            try:
                if self._pool is not None:
                    await self._pool.drain(self._owner.grace)
            finally:
                await finish(self._end_draining())

    async def _step(self) -> bool:
        """Do the next thing; true if there was none."""
        deployment = await self._owner.database.run(self._read_and_supersede)
        if deployment is None:
            return True
        structlog.contextvars.bind_contextvars(deployment=deployment.id)  # in all that this task starts, too
        self._owner.introduce(deployment)
        if number := revision_to_build(deployment, loaded=self._pool is not None):
            await self._bring_up(deployment, number)
            return False
        match deployment.state:
            case _D.STOPPING:
                await self._unroute(deployment, STOP_GRACE_SECONDS)
                await self._change(lambda d: d.state is _D.STOPPING, lambda _, d: _at_rest(d, _D.STOPPED, d.failure))
            case _D.DELETING:
                await self._unroute(deployment, 0)
                self._owner.router.remove(deployment.service_id)
                await asyncio.to_thread(self._owner.logs.remove, deployment.uid)
                await self._owner.database.run(lambda tx: deployments.delete(tx, deployment.uid))
                self._owner.changes.notify(deployment.uid)
            case _D.RUNNING if self._pool is not None and self._pool.failure is not None:
                await self._give_up(deployment, self._pool.failure)
            case _D.RUNNING if self._pool is not None and self._pool.size != deployment.workers:
                await self._resize(deployment, self._pool)
            case _:
                return True
        return False

    async def _bring_up(self, deployment: Deployment, number: int) -> None:
        """Build a revision and route it, unless the wish changes meanwhile."""
        revision = await self._owner.database.run(lambda tx: deployments.revision(tx, deployment.uid, number))
        if revision is None:  # a newer wish has come, and this one is not kept
            return
        build = asyncio.ensure_future(
            self._owner.builder.build(
                deployment,
                revision,
                listener=PoolListener(
                    changed=lambda: self._seen(deployment),
                    ended=lambda cause: self._owner.worker_lost(deployment.id, cause),
                    broken=self.wake.set,
                ),
            )
        )
        built = False
        try:
            built = await self._until_built(build, number)
        finally:
            if not built:
                await finish(_abandon(build))
        if not built:
            return
        result = build.result()
        if isinstance(result, Broken):
            await self._failed(deployment, number, result)
        else:
            await self._activate(deployment, number, result)

    async def _until_built(self, build: "asyncio.Future[Any]", number: int) -> bool:
        """Wait for a build; false as soon as it is not wanted any more."""
        while not build.done():
            waking = asyncio.ensure_future(self.wake.wait())
            try:
                await asyncio.wait([build, waking], return_when=asyncio.FIRST_COMPLETED)
            finally:
                waking.cancel()
            self.wake.clear()
            if not build.done():
                now = await self._read()
                if now is None or not self._wants(now, number):
                    return False
        return True

    def _wants(self, deployment: Deployment, number: int) -> bool:
        """Whether that revision is still the one to build."""
        return revision_to_build(deployment, loaded=self._pool is not None) == number

    async def _activate(self, deployment: Deployment, number: int, pool: Pool) -> None:
        """Route the pool in the moment in which the database says so, then drain the one before it."""
        before = self._pool

        def swap() -> None:
            self._pool = pool
            self._owner.router.route(deployment.service_id, pool, number)
            log.info("revision is served", deployment=deployment.id, revision=number)  # in the database's context

        def activate(_: Transaction, current: Deployment) -> Deployment:
            updating = current.update_state is UpdateState.IN_PROGRESS
            running = current if current.state is _D.RUNNING else move(current, _D.RUNNING)
            return replace(
                running,
                active=number,
                update_state=UpdateState.DONE if updating and number == current.target else current.update_state,
                failure=None if number == current.target else current.failure,
                service_created=current.service_created or time.time(),
            )

        try:
            # To the end: the swap comes with the commit, even if we are cancelled in between.
            await finish(self._change(lambda d: self._wants(d, number), activate, then=swap))
        finally:
            if self._pool is not pool:  # stopped, deleted or updated in the last moment
                await pool.close()
            elif before is not None:
                self._retire(before)

    async def _failed(self, deployment: Deployment, number: int, broken: Broken) -> None:
        def fail(tx: Transaction, current: Deployment) -> Deployment:
            if self._pool is not None:  # an update: what runs goes on
                return replace(current, update_state=UpdateState.FAILED, failure=broken.failure)
            if current.update_state is UpdateState.IN_PROGRESS and number != current.target:
                return replace(current, active=0, failure=broken.failure)  # the target may be what mends it
            return _at_rest(as_served(tx, current), _D.FAILED, broken.failure)

        await self._change(lambda d: self._wants(d, number), fail)
        log.warning("revision failed", revision=number, reason=broken.failure.reason, error=broken.failure.message)

    async def _give_up(self, deployment: Deployment, error: StepFailed) -> None:
        """The workers of a running deployment cannot be replaced any more."""
        failure = failures.failure_of(error, deployment, revision=deployment.active, step="load", now=time.time())
        self._owner.router.route(deployment.service_id, None, 0)
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()  # calls that an earlier revision still has are none of its business
        await self._change(
            lambda d: d.state is _D.RUNNING and d.target == deployment.target,
            lambda tx, d: _at_rest(as_served(tx, d), _D.FAILED, failure),
        )

    async def _resize(self, deployment: Deployment, pool: Pool) -> None:
        """Have another number of workers, or take the wish back where there is no room for them."""
        try:
            pool.resize(deployment.workers)
        except StepFailed as error:
            failure = failures.failure_of(error, deployment, revision=deployment.active, step="load", now=time.time())
            await self._change(
                lambda d: d.state is _D.RUNNING and d.workers == deployment.workers,
                lambda _, d: replace(d, workers=pool.size, update_state=UpdateState.FAILED, failure=failure),
            )

    def _seen(self, deployment: Deployment) -> None:
        self._owner.router.changed(self._owner.router.find(deployment.service_id))
        self._owner.changes.notify(deployment.uid)

    def _retire(self, pool: Pool) -> None:
        """Let a pool that was replaced finish its calls, however long they may take, without being waited for."""
        task = asyncio.ensure_future(pool.drain(pool.call_timeout))
        self._draining.add(task)
        task.add_done_callback(self._drained)

    def _drained(self, task: "asyncio.Task[None]") -> None:
        self._draining.discard(task)
        self.wake.set()

    async def _end_draining(self) -> None:
        """Close the pools that still have calls to finish."""
        if tasks := set(self._draining):
            await asyncio.sleep(0)  # one that has not begun to drain would not be closed when it is cancelled
            for task in tasks:
                task.cancel()  # closes the pool
            await asyncio.wait(tasks)

    async def _unroute(self, deployment: Deployment, grace: float) -> None:
        """Take the deployment out of service; its calls have `grace` seconds, unless it is to be deleted."""
        self._owner.router.route(deployment.service_id, None, 0)
        pool, self._pool = self._pool, None
        if pool is not None:
            self._retire(pool)
        if grace:
            grace_over = asyncio.get_running_loop().time() + grace
            while self._draining and (left := grace_over - asyncio.get_running_loop().time()) > 0:
                waking = asyncio.ensure_future(self.wake.wait())
                try:
                    await asyncio.wait([waking, *self._draining], timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waking.cancel()
                self.wake.clear()
                now = await self._read()
                if now is None or now.state is _D.DELETING:
                    break
        await self._end_draining()

    def _read_and_supersede(self, tx: Transaction) -> Deployment | None:
        """The deployment as it is; its revisions that nobody waits for any more are ended in the same moment."""
        deployment = deployments.by_uid(tx, self._uid)
        if deployment is not None:
            _supersede(tx, deployment)
        return deployment

    async def _read(self) -> Deployment | None:
        return await self._owner.database.run(lambda tx: deployments.by_uid(tx, self._uid))

    async def _change(
        self,
        wanted: Callable[[Deployment], bool],
        change: Callable[[Transaction, Deployment], Deployment],
        *,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Store a change, if it is still wanted of the deployment as it then is; else nothing happens."""

        def transaction(tx: Transaction) -> None:
            current = deployments.by_uid(tx, self._uid)
            if current is None or not wanted(current):
                return
            deployments.save(tx, change(tx, current), time.time())
            if then is not None:
                tx.after_commit(then)
            tx.after_commit(lambda: self._owner.changes.notify(self._uid))

        await self._owner.database.run(transaction)


def _at_rest(deployment: Deployment, state: DeploymentState, failure: Failure | None) -> Deployment:
    """The deployment with nothing of it running, nor on the way."""
    return replace(move(deployment, state), active=0, update_state=UpdateState.NONE, failure=failure)


async def _abandon(build: "asyncio.Future[Pool | Broken]") -> None:
    """End a build; a pool that it has made in the last moment is closed."""
    build.cancel()
    await asyncio.wait([build])
    if not build.cancelled() and build.exception() is None and isinstance(pool := build.result(), Pool):
        await pool.close()


def _supersede(tx: Transaction, deployment: Deployment) -> None:
    """End the revisions that were never built and are not wanted any more."""
    if deployment.state is _D.DELETING:
        return
    for revision in deployments.unfinished(tx, deployment.uid, but=(deployment.active, deployment.target)):
        error = StepFailed(
            ErrorReason.ERROR_REASON_REVISION_SUPERSEDED,
            "revision {target} took the place of revision {revision} before that was built",
            target=deployment.target,
            revision=revision.number,
        )
        failure = failures.failure_of(error, deployment, revision=revision.number, step="", now=time.time())
        deployments.save_revision(tx, replace(advance(revision, RevisionState.FAILED), failure=failure))


def _all(tx: Transaction) -> list[Deployment]:
    """Every deployment, none with a revision left over that nobody waits for."""
    found: list[Deployment] = []
    while page := deployments.page(tx, found[-1].id if found else "", 1000):
        found += page
    unfinished = deployments.with_unfinished(tx)
    for deployment in found:
        if deployment.uid in unfinished:
            _supersede(tx, deployment)
    return found
