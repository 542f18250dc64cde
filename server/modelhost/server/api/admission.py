"""Which service a call means, and whether its caller may know of it and call it. Asked on every call: no SQL."""

import time
from collections.abc import Callable

from modelhost.server.access.callers import Caller, unauthenticated
from modelhost.server.access.limits import LiveGrant
from modelhost.server.api.call import Call
from modelhost.server.errors import NotFound
from modelhost.server.identities import Role
from modelhost.server.serving.router import Router, Service

CALLING = Role.DEPLOYER  # the least role of operators who may call any service


class Admission:
    """The one place that decides who may call which service: Predict, Health and whatever else speaks of services."""

    def __init__(self, router: Router, *, clock: Callable[[], float] = time.time) -> None:
        self._router = router
        self._clock = clock

    def find(self, caller: Caller, name: str) -> Service:
        """The service of that service id or deployment id, for one who may know of it.

        Raises `NotFound` SERVICE_NOT_FOUND, in the same words for one that is not there and one that is not granted;
        and `Unauthenticated`, whatever is there, for a caller without credentials who may not call it.
        """
        try:
            service = self._router.find(name)
        except NotFound:
            if caller.is_anonymous:
                raise unauthenticated() from None
            raise
        if service.open or service.deployment_uid in caller.grants or caller.role is not None:
            return service
        raise unauthenticated() if caller.is_anonymous else self._router.no_service(name)

    def enter(self, call: Call, service: Service) -> LiveGrant | None:
        """Let a call of a service that was found begin; the grant that it counts for is to be left once it is over.

        Raises `Busy` for one over a limit, and `Forbidden` for operators who only look.
        """
        grant = call.caller.grants.get(service.deployment_uid)
        if grant is not None:
            grant.enter(call.size, self._clock())
        else:
            self._check_role(call, service)
        return grant

    def check(self, call: Call, service: Service) -> None:
        """Whether a call that was let in would be again, but for limits. Raises as `find` and `enter` do."""
        self.find(call.caller, service.service_id)
        if service.deployment_uid not in call.caller.grants:
            self._check_role(call, service)

    def _check_role(self, call: Call, service: Service) -> None:
        if call.caller.role is not None and not service.open:
            call.caller.require(CALLING, call.method.rpartition("/")[2])
