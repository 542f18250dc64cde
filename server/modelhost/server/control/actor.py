"""The task of one deployment: it reads the wish, does the next thing that is missing, and reads again."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from modelhost.server.control import failures
from modelhost.server.control.builder import Broken, Builder
from modelhost.server.control.changes import Changes
from modelhost.server.control.deployments import as_served
from modelhost.server.control.draining import Draining
from modelhost.server.control.states import advance, move, revision_to_build
from modelhost.server.errors import DiskFull, StepFailed
from modelhost.server.resources import Deployment, DeploymentState, Failure, RevisionState, UpdateState
from modelhost.server.serving.finish import finish
from modelhost.server.serving.pool import Pool, PoolListener
from modelhost.server.serving.router import Router
from modelhost.server.store import deployments
from modelhost.server.store.database import Database, Transaction
from modelhost.server.store.logs import Logs
from modelhost.v1.error_reason_pb2 import ErrorReason

STOP_GRACE_SECONDS = 10.0
RETRY_SECONDS = 5.0

_D = DeploymentState
log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass
class Plane:
    """What all deployments are brought up with.

    `worker_lost` gets a deployment's id and the cause whenever one of its workers ends that was to live on.
    """

    database: Database
    builder: Builder
    router: Router
    logs: Logs
    changes: Changes
    worker_lost: Callable[[str, str], None]

    def introduce(self, deployment: Deployment) -> None:
        """Make its service known, and the state of the deployment."""
        # Whether it is open changes with the transaction that changes it: what is read here may be of before that.
        self.router.add(deployment.service_id, deployment.id, deployment.uid, open_=deployment.open)
        self.router.find(deployment.service_id).state = deployment.state


class Actor:
    """The task of one deployment, and the pool that serves it. `attended` is called when it is as it should be, or
    cannot be brought there for now.
    """

    def __init__(self, plane: Plane, uid: str, attended: Callable[[], None]) -> None:
        self._plane = plane
        self._uid = uid
        self._attended = attended
        self._pool: Pool | None = None
        self.wake = asyncio.Event()
        self._draining = Draining(self.wake.set)
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
                    self._attended()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self.wake.wait(), RETRY_SECONDS)
                    continue
                if rest:
                    self._attended()
                if rest and not self.wake.is_set():
                    if self._pool is None and not self._draining:
                        return
                    await self.wake.wait()
        finally:
            try:
                if self._pool is not None:
                    await self._pool.close()
            finally:
                await finish(self._draining.end())

    async def _step(self) -> bool:
        """Do the next thing; true if there was none."""
        deployment = await self._plane.database.run(self._read_and_supersede)
        if deployment is None:
            return True
        structlog.contextvars.bind_contextvars(deployment=deployment.id)  # in all that this task starts, too
        self._plane.introduce(deployment)
        if number := revision_to_build(deployment, loaded=self._pool is not None):
            await self._bring_up(deployment, number)
            return False
        match deployment.state:
            case _D.STOPPING:
                await self._unroute(deployment, STOP_GRACE_SECONDS)
                await self._change(lambda d: d.state is _D.STOPPING, lambda _, d: _at_rest(d, _D.STOPPED, d.failure))
            case _D.DELETING:
                await self._unroute(deployment, 0)
                self._plane.router.remove(deployment.service_id)
                await asyncio.to_thread(self._plane.logs.remove, deployment.uid)
                await self._plane.database.run(lambda tx: deployments.delete(tx, deployment.uid))
                self._plane.changes.notify(deployment.uid)
            case _D.RUNNING if self._pool is not None and self._pool.failure is not None:
                await self._give_up(deployment, self._pool.failure)
            case _D.RUNNING if self._pool is not None and self._pool.size != deployment.workers:
                await self._resize(deployment, self._pool)
            case _:
                return True
        return False

    async def _bring_up(self, deployment: Deployment, number: int) -> None:
        """Build a revision and route it, unless the wish changes meanwhile."""
        revision = await self._plane.database.run(lambda tx: deployments.revision(tx, deployment.uid, number))
        if revision is None:  # a newer wish has come, and this one is not kept
            return
        build = asyncio.ensure_future(
            self._plane.builder.build(
                deployment,
                revision,
                listener=PoolListener(
                    changed=lambda: self._seen(deployment),
                    ended=lambda cause: self._plane.worker_lost(deployment.id, cause),
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
                if self._pool is not None and now.state is _D.RUNNING and self._pool.size != now.workers:
                    await self._resize(now, self._pool)
        return True

    def _wants(self, deployment: Deployment, number: int) -> bool:
        """Whether that revision is still the one to build."""
        return revision_to_build(deployment, loaded=self._pool is not None) == number

    async def _activate(self, deployment: Deployment, number: int, pool: Pool) -> None:
        """Route the pool in the moment in which the database says so, then drain the one before it."""
        before = self._pool

        def swap() -> None:
            self._pool = pool
            self._plane.router.route(deployment.service_id, pool, number)
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
                self._draining.add(before)

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
        self._plane.router.route(deployment.service_id, None, 0)
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
                lambda _, d: replace(d, workers=pool.size, update_state=_refused(d.update_state), failure=failure),
            )

    def _seen(self, deployment: Deployment) -> None:
        self._plane.router.changed(self._plane.router.find(deployment.service_id))
        self._plane.changes.notify(deployment.uid)

    async def _unroute(self, deployment: Deployment, grace: float) -> None:
        """Take the deployment out of service; its calls have `grace` seconds, unless it is to be deleted."""
        self._plane.router.route(deployment.service_id, None, 0)
        pool, self._pool = self._pool, None
        if pool is not None:
            self._draining.add(pool)
        if grace:
            await self._draining.wait(grace, self.wake, self._is_to_be_deleted)
        await self._draining.end()

    async def _is_to_be_deleted(self) -> bool:
        now = await self._read()
        return now is None or now.state is _D.DELETING

    def _read_and_supersede(self, tx: Transaction) -> Deployment | None:
        """The deployment as it is; its revisions that nobody waits for any more are ended in the same moment."""
        deployment = deployments.by_uid(tx, self._uid)
        if deployment is not None:
            supersede(tx, deployment)
        return deployment

    async def _read(self) -> Deployment | None:
        return await self._plane.database.run(lambda tx: deployments.by_uid(tx, self._uid))

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
            tx.after_commit(lambda: self._plane.changes.notify(self._uid))

        await self._plane.database.run(transaction)


def _at_rest(deployment: Deployment, state: DeploymentState, failure: Failure | None) -> Deployment:
    """The deployment with nothing of it running, nor on the way."""
    return replace(move(deployment, state), active=0, update_state=UpdateState.NONE, failure=failure)


def _refused(state: UpdateState) -> UpdateState:
    """After a change that could not be made; an update that is under way goes on."""
    return state if state is UpdateState.IN_PROGRESS else UpdateState.FAILED


async def _abandon(build: "asyncio.Future[Pool | Broken]") -> None:
    """End a build; a pool that it has made in the last moment is closed."""
    build.cancel()
    await asyncio.wait([build])
    if not build.cancelled() and build.exception() is None and isinstance(pool := build.result(), Pool):
        await pool.close()


def supersede(tx: Transaction, deployment: Deployment) -> None:
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
