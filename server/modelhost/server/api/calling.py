"""What all calls of models have in common, whatever they bring: who is let in, which pool answers, who is told."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from structlog.contextvars import bind_contextvars

from modelhost.server.api.admission import Admission
from modelhost.server.api.call import Call
from modelhost.server.api.methods import Observer
from modelhost.server.api.status import Code
from modelhost.server.errors import DomainError, NotTaken, PredictionFailed
from modelhost.server.serving.pool import Pool
from modelhost.server.serving.router import Router, Service

T = TypeVar("T")

_NAMES = {code: code.name for code in Code}  # an enum makes a name anew each time


class ModelCalls:
    """Lets calls of models in, and has each made with the pool that answers for its service."""

    def __init__(self, router: Router, admission: Admission) -> None:
        self._router = router
        self._admission = admission

    async def run(self, call: Call, name: str, make: Callable[[Pool, int], Awaitable[T]]) -> T:
        """Make a call of the service of that name with `make`, which gets a pool and the number of its revision.

        It is asked again with another pool where an update has replaced the first before a worker took the call.
        Raises what `Admission`, `Router.running` and `make` raise.
        """
        service = call.service = self._admission.find(call.caller, name)
        grant = self._admission.enter(call, service)
        try:
            return await self.made(call, service, make)
        finally:
            if grant is not None:
                grant.leave()

    async def made(self, call: Call, service: Service, make: Callable[[Pool, int], Awaitable[T]]) -> T:
        """The same, of a service that the call was let in to."""
        pool, revision = self._router.running(service)
        try:
            while True:
                try:
                    return await make(pool, revision)
                except NotTaken:  # by a pool that an update has replaced meanwhile
                    if service.pool in (pool, None):
                        raise
                    pool, revision = self._router.running(service)
        except Exception as error:
            name_call(error, call, service, revision)
            raise


def name_call(error: Exception, call: Call, service: Service, revision: int) -> None:
    """Say which call of a model it was that failed: to its caller, or of a fault of the server in the log."""
    if isinstance(error, PredictionFailed):
        error.values["request_id"] = call.request_id
    elif not isinstance(error, DomainError):  # which the dispatcher logs
        bind_contextvars(deployment=service.deployment_id, revision=revision)


def observer(
    of_services: Callable[[Service | None, str, str, float], None],
    of_callers: Callable[[str, str, str, float, int, int], None],
) -> Observer:
    """Tells of the calls of models, by whatever method.

    `of_services` hears of all: of which service, or None for those that were not let in, so that callers cannot make up
    names to be kept, nor spoil the figures of a service that is none of theirs; code, reason, seconds. `of_callers`
    hears of those that were let in: service, caller, code, seconds, bytes of request and response.
    """

    def observe(call: Call, code: Code, reason: str, seconds: float, sent: int) -> None:
        service, name = call.service, _NAMES[code]
        of_services(service, name, reason, seconds)
        if service is not None:
            of_callers(service.service_id, call.caller.name, name, seconds, call.size, sent)

    return observe
