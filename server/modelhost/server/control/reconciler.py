"""Brings what is to what is wished, one task per deployment.

A task reads the wish from the database, does the next thing that is missing, and reads again; it rests when nothing
is. A change of the wish wakes it, and interrupts a build that is no longer wanted. All that must outlive the process
is in the database, so that a new server carries on from there.
"""

import asyncio
import contextvars

import structlog

from modelhost.server.control.actor import Actor, Plane, supersede
from modelhost.server.resources import Deployment
from modelhost.server.store import deployments
from modelhost.server.store.database import Transaction

READINESS = "readiness"  # what Changes tells of when `Reconciler.is_ready` changes; no uid

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Reconciler:
    """Owns a task per deployment that has something to do. Used on the event loop only."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._actors: dict[str, Actor] = {}
        self._closing = False
        self._awaited: set[str] = set()  # deployments that were at work when the server before this one ended

    @property
    def is_ready(self) -> bool:
        """Whether all that an earlier server served is served again, or has failed; `Changes` tells of `READINESS`."""
        return not self._awaited

    async def prepare(self) -> None:
        """Make all services known, before anybody asks for them."""
        self._awaited = set(await self._plane.database.run(deployments.unsettled))
        for deployment in await self._plane.database.run(_all):
            self._plane.introduce(deployment)

    async def start(self) -> None:
        """Carry on with everything that the database says is not at rest."""
        for uid in list(self._awaited):
            self.poke(uid)

    def poke(self, uid: str) -> None:
        """The wish for a deployment may have changed."""
        self._plane.changes.notify(uid)
        if self._closing:
            return
        actor = self._actors.get(uid)
        if actor is None or actor.task.done():
            actor = self._actors[uid] = Actor(self._plane, uid, lambda: self._attended(uid))
            actor.task.add_done_callback(lambda task: self._forget(uid, task))
        actor.wake.set()

    def _attended(self, uid: str) -> None:
        """A deployment is as it should be, or cannot be brought there for now."""
        if uid in self._awaited:
            self._awaited.discard(uid)
            if self.is_ready:
                self._plane.changes.notify(READINESS)
                contextvars.Context().run(log.info, "ready: what ran before runs again")  # of no deployment

    def _forget(self, uid: str, task: "asyncio.Task[None]") -> None:
        actor = self._actors.get(uid)
        if actor is not None and actor.task is task:
            del self._actors[uid]
            if actor.wake.is_set() and not task.cancelled():  # it was told of something while it ended
                self.poke(uid)

    async def close(self) -> None:
        """Interrupt builds, end all workers and the calls that they still have. The wishes stay as they are."""
        self.cancel()
        await asyncio.gather(*(actor.task for actor in self._actors.values()), return_exceptions=True)

    def cancel(self) -> None:
        """Begin to close: from now on nothing that happens to builds and workers changes what is stored."""
        if not self._closing:
            self._closing = True
            for actor in self._actors.values():
                actor.task.cancel()


def _all(tx: Transaction) -> list[Deployment]:
    """Every deployment, none with a revision left over that nobody waits for."""
    found: list[Deployment] = []
    while page := deployments.page(tx, found[-1].id if found else "", 1000):
        found += page
    unfinished = deployments.with_unfinished(tx)
    for deployment in found:
        if deployment.uid in unfinished:
            supersede(tx, deployment)
    return found
