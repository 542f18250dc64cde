"""`grpc.health.v1.Health` (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).

The server and its gRPC services are open to everyone: `""` and the others are SERVING while the process answers, which
is liveness; `modelhost.v1.Predict` only once what ran before a restart runs again, which is readiness. A prediction
service is for those who may call it, and is SERVING only while a live worker has its model loaded; for everyone else it
does not exist.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Set
from typing import Any

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse

from modelhost.server.access.callers import NOBODY
from modelhost.server.access.gate import Gate
from modelhost.server.api.admission import Admission
from modelhost.server.api.call import Call
from modelhost.server.control.changes import ACCESS, Changes
from modelhost.server.control.reconciler import READINESS
from modelhost.server.errors import NotFound, Unauthenticated
from modelhost.server.serving.router import Router
from modelhost.v1.error_reason_pb2 import ErrorReason

_Status: Any = HealthCheckResponse  # the generated module has no types


class HealthMethods:
    """Handlers of the Health service.

    `open_names` are the full names of the gRPC services; `ready_name` is the one of them that waits for `is_ready`, of
    whose change `changes` tells as READINESS.
    """

    def __init__(
        self,
        router: Router,
        gate: Gate,
        admission: Admission,
        changes: Changes,
        *,
        open_names: Set[str],
        ready_name: str,
        is_ready: Callable[[], bool],
        stopping: asyncio.Event,
    ) -> None:
        self._router = router
        self._gate = gate
        self._admission = admission
        self._changes = changes
        self._open_names = open_names | {""}
        self._ready_name = ready_name
        self._is_ready = is_ready
        self._stopping = stopping

    async def check(self, call: Call, request: HealthCheckRequest) -> HealthCheckResponse:
        """Say how a service is. Raises `NotFound` for one that is not known, or not to this caller."""
        status = self._status(call, request.service)
        if status == _Status.SERVICE_UNKNOWN:
            raise NotFound(
                ErrorReason.ERROR_REASON_SERVICE_NOT_FOUND, "there is no service {service}", service=request.service
            )
        return HealthCheckResponse(status=status)

    async def list(self, call: Call, request: HealthListRequest) -> HealthListResponse:
        """Say how everything is that is open to everyone."""
        return HealthListResponse(
            statuses={name: HealthCheckResponse(status=self._status(call, name)) for name in self._open_names}
        )

    async def watch(self, call: Call, request: HealthCheckRequest) -> AsyncIterator[HealthCheckResponse]:
        """Say how a service is, and again whenever that changes."""
        with self._changes.watch(self._subject(request.service), ACCESS) as changed:
            stopping = asyncio.ensure_future(self._stopping.wait())
            try:
                last = None
                while True:
                    changed.clear()
                    status = self._status(call, request.service)
                    if status != last:
                        last = status
                        yield HealthCheckResponse(status=status)
                    if stopping.done():
                        return
                    waiting = asyncio.ensure_future(changed.wait())
                    left = call.caller.seconds_left(time.time())
                    try:
                        await asyncio.wait([waiting, stopping], return_when=asyncio.FIRST_COMPLETED, timeout=left)
                    finally:
                        waiting.cancel()
            finally:
                stopping.cancel()

    def _status(self, call: Call, name: str) -> Any:
        if name in self._open_names:
            waits = name == self._ready_name and not self._is_ready()
            return _Status.NOT_SERVING if self._stopping.is_set() or waits else _Status.SERVING
        try:
            call.caller = NOBODY  # whoever it was before may be let in no more
            call.caller = self._gate.caller(call.metadata)
            service = self._admission.find(call.caller, name)
        except (Unauthenticated, NotFound):
            return _Status.SERVICE_UNKNOWN
        live = self._router.status(service.service_id).live and not self._stopping.is_set()
        return _Status.SERVING if live else _Status.NOT_SERVING

    def _subject(self, name: str) -> str:
        """What to watch for changes: a prediction service by the name it is asked for, there or not."""
        return READINESS if name == self._ready_name else name
