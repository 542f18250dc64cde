"""One call of a model with everything that helps to understand it: by a warm worker, or by one started for it."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass

from structlog.contextvars import bound_contextvars

from modelhost.envs import Environment, EnvironmentStore
from modelhost.server.control.holds import Holds
from modelhost.server.control.loading import Loader
from modelhost.server.control.memory import MemoryBudget, MemoryShare
from modelhost.server.errors import Conflict, PredictionFailed, StepFailed
from modelhost.server.resources import Deployment, Revision
from modelhost.server.serving.debugged import Debugged
from modelhost.server.serving.host import WorkerHost
from modelhost.server.serving.router import Router
from modelhost.server.serving.worker import Worker
from modelhost.server.sources.snapshots import SnapshotStore
from modelhost.v1.error_reason_pb2 import ErrorReason

ONE_OFF_WORKERS = 2  # at a time, of all deployments


@dataclass(frozen=True)
class Outcome:
    """What was seen, and why there is no result: the call failed, its worker died, or the model was not loaded."""

    seen: Debugged
    error: StepFailed | PredictionFailed | None


class Debugger:
    """Calls models for debugging. Used on the event loop only."""

    def __init__(
        self,
        *,
        router: Router,
        snapshots: SnapshotStore,
        environments: EnvironmentStore,
        holds: Holds,
        host: WorkerHost,
        loader: Loader,
        memory: MemoryBudget,
    ) -> None:
        self._router = router
        self._snapshots = snapshots
        self._environments = environments
        self._holds = holds
        self._host = host
        self._loader = loader
        self._memory = memory
        self._room = asyncio.Semaphore(ONE_OFF_WORKERS)
        self._workers: set[Worker] = set()
        self._none_left = asyncio.Event()
        self._closing = False

    async def close(self) -> None:
        """End the calls in workers of their own; returns when nothing of these is left."""
        self._closing = True
        self._none_left.clear()
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        if self._workers:
            await self._none_left.wait()

    async def call(
        self, deployment: Deployment, revision: Revision, parameters: bytes, *, deadline: float | None, request_id: str
    ) -> Outcome:
        """Call a revision once. Raises `Conflict` where it has no environment, and what a pool raises before a call."""
        if revision.number == deployment.active:
            pool, number = self._router.running(self._router.find(deployment.service_id))
            if number == revision.number:
                return await _outcome(pool.debug(parameters, deadline, request_id), time.time())
        try:
            async with asyncio.timeout_at(deadline):
                with bound_contextvars(deployment=deployment.id, revision=revision.number):
                    return await self._call_one_off(deployment, revision, parameters, request_id)
        except TimeoutError:
            raise PredictionFailed(
                ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
                "the call's deadline passed while a worker was started for it, or while the model ran",
            ) from None

    async def _call_one_off(
        self, deployment: Deployment, revision: Revision, parameters: bytes, request_id: str
    ) -> Outcome:
        hold = self._holds.take()
        hold.add(revision.snapshot_digest)
        hold.add(revision.environment)
        hold.settle()
        asked = time.time()
        try:
            environment = await asyncio.to_thread(self._environment, revision)
            if environment is None:
                raise Conflict(
                    ErrorReason.ERROR_REASON_STATE_CONFLICT,
                    "revision {revision} of {deployment} is {state} and has no environment to be called in",
                    deployment=deployment.id,
                    revision=revision.number,
                    state=revision.state.upper(),
                    hint="Start the deployment, or roll back to the revision; its failure and build log say the rest.",
                )
            async with self._room:
                spec = self._loader.spec(revision, environment)
                share = self._memory.share(spec.memory)
                if self._closing:
                    raise Conflict(ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING, "the server is ending")
                worker = Worker(self._host, spec)
                self._workers.add(worker)
                try:
                    return await _outcome(_start_and_call(worker, share, parameters, request_id, asked), asked)
                finally:
                    await worker.stop()
                    share.hold(0)
                    self._workers.discard(worker)
                    if not self._workers:
                        self._none_left.set()
        finally:
            hold.release()

    def _environment(self, revision: Revision) -> Environment | None:
        """The environment, if files and environment of the revision are there."""
        if not revision.settings or not revision.environment or not self._snapshots.find(revision.snapshot_digest):
            return None
        return self._environments.find(revision.environment)


async def _start_and_call(
    worker: Worker, share: MemoryShare, parameters: bytes, request_id: str, asked: float
) -> Debugged:
    share.hold(1)
    await worker.start()
    sent = time.time()
    header, body = await worker.debug(parameters, request_id)
    return Debugged.of(header, body, worker.mask, asked=asked, sent=sent)


async def _outcome(call: Awaitable[Debugged], asked: float) -> Outcome:
    """Await a call; what ends it after it has begun is part of what was asked for."""
    try:
        seen = await call
    except (StepFailed, PredictionFailed) as error:
        if error.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED:
            raise
        return Outcome(Debugged.nothing(time.time() - asked), error)
    return Outcome(seen, seen.failure)
