"""Which pool answers for a service: a dictionary, read on every call and changed in one step."""

from collections.abc import Callable
from dataclasses import dataclass

from modelhost.server.errors import Conflict, NotFound
from modelhost.server.resources import DeploymentState
from modelhost.server.serving.pool import Pool, PoolStatus
from modelhost.v1.error_reason_pb2 import ErrorReason


@dataclass(slots=True, eq=False)
class Service:
    """A service that can be called, or could be if its deployment ran. `state` is the deployment's when last read.

    `open` is whether everybody may call it, `gone` whether it is none any more, though a call may be under way.
    """

    service_id: str
    deployment_id: str
    deployment_uid: str
    pool: Pool | None = None
    revision: int = 0
    state: DeploymentState = DeploymentState.STOPPED
    open: bool = False
    gone: bool = False

    @property
    def starting(self) -> bool:
        """Whether it is one to wait for."""
        return self.state in (DeploymentState.STARTING, DeploymentState.RUNNING)


class Router:
    """Services by service id and by deployment id. Changed on the event loop only."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._listeners: list[Callable[[Service], None]] = []
        self._on_removal: list[Callable[[Service], None]] = []
        self._count_open = 0

    def add(self, service_id: str, deployment_id: str, deployment_uid: str, *, open_: bool = False) -> None:
        """Make a service known; of no effect if it is."""
        if service_id not in self._services:
            service = Service(service_id, deployment_id, deployment_uid, open=open_)
            self._services[service_id] = self._services[deployment_id] = service
            self._count_open += open_
            self.changed(service)

    def remove(self, service_id: str) -> None:
        """Forget a service."""
        if service := self._services.pop(service_id, None):
            self._services.pop(service.deployment_id, None)
            service.pool, service.gone = None, True
            self._count_open -= service.open
            self.changed(service)
            for listener in self._on_removal:
                listener(service)

    def set_open(self, service_id: str, open_: bool) -> None:
        """Let everybody call a service, or only those whom it is granted; of no effect for one that is not known."""
        if (service := self._services.get(service_id)) is not None and service.open != open_:
            service.open = open_
            self._count_open += 1 if open_ else -1
            self.changed(service)

    @property
    def has_open(self) -> bool:
        """Whether there is a service that everybody may call."""
        return self._count_open > 0

    def route(self, service_id: str, pool: Pool | None, revision: int) -> None:
        """Send the service's calls to `pool` from now on."""
        service = self._services[service_id]
        service.pool, service.revision = pool, revision
        self.changed(service)

    def find(self, name: str) -> Service:
        """The service of that service id or deployment id. Raises `NotFound` SERVICE_NOT_FOUND."""
        service = self._services.get(name)
        if service is None:
            raise self.no_service(name)
        return service

    def no_service(self, name: str) -> NotFound:
        """What is said of a service that is not there, and of one that the caller may not know of."""
        return NotFound(
            ErrorReason.ERROR_REASON_SERVICE_NOT_FOUND, "there is no prediction service {service}", service=name
        )

    def running(self, service: Service) -> tuple[Pool, int]:
        """The pool and revision that answer for a service. Raises `Conflict` SERVICE_NOT_RUNNING."""
        if service.pool is None and service.starting:
            raise Conflict(
                ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING,
                "service {service} is being started; try again in a moment",
                service=service.service_id,
            )
        if service.pool is None:
            raise Conflict(
                ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING,
                "service {service} is not running; `modelhost start {deployment}` starts it",
                service=service.service_id,
                deployment=service.deployment_id,
            )
        return service.pool, service.revision

    def services(self) -> dict[str, Service]:
        """All services as they are now, each under both of its names. From any thread."""
        return self._services.copy()

    def status(self, service_id: str) -> PoolStatus:
        """What is seen of a service's workers now; all zero if it does not run."""
        service = self._services.get(service_id)
        pool = service.pool if service else None  # read once: transactions ask on the database's thread
        return pool.status if pool else PoolStatus()

    def listen(self, listener: Callable[[Service], None]) -> None:
        """Have `listener` called whenever a service's route or number of live workers changes."""
        self._listeners.append(listener)

    def on_removal(self, listener: Callable[[Service], None]) -> None:
        """Have `listener` called whenever a service is forgotten."""
        self._on_removal.append(listener)

    def changed(self, service: Service) -> None:
        """Tell the listeners."""
        for listener in self._listeners:
            listener(service)
