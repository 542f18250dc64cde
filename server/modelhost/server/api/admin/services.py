"""Prediction services, as operators see them."""

import time
from collections.abc import Callable
from dataclasses import replace

from modelhost.server.api import convert, names, paging
from modelhost.server.api.auditing import Subject
from modelhost.server.api.call import Call
from modelhost.server.api.mutations import Mutations
from modelhost.server.errors import NotFound
from modelhost.server.resources import Deployment
from modelhost.server.serving.pool import PoolStatus
from modelhost.server.serving.router import Router
from modelhost.server.store import deployments
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import service_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason


class ServiceMethods:
    """Handlers of the Service methods."""

    def __init__(
        self, database: Database, router: Router, mutations: Mutations, access_changed: Callable[[], None]
    ) -> None:
        self._database = database
        self._router = router
        self._mutations = mutations
        self._access_changed = access_changed

    async def get_service(self, call: Call, request: pb.GetServiceRequest) -> pb.Service:
        """Show one."""
        name = names.parse_service(request.name, "name")
        return self._shown(await self._database.run(lambda tx: find_running_service(tx, name)))

    async def open_service(self, call: Call, request: pb.OpenServiceRequest) -> pb.Service:
        """Let everybody call one."""
        return await self._set_open(call, request, open_=True)

    async def close_service(self, call: Call, request: pb.CloseServiceRequest) -> pb.Service:
        """Let only those call one whom it is granted."""
        return await self._set_open(call, request, open_=False)

    async def _set_open(
        self, call: Call, request: pb.OpenServiceRequest | pb.CloseServiceRequest, *, open_: bool
    ) -> pb.Service:
        name = names.parse_service(request.name, "name")

        def change(tx: Transaction) -> pb.Service:
            found = find_running_service(tx, name) if open_ else find_service(tx, name)
            if found.open != open_:
                found = deployments.save(tx, replace(found, open=open_), time.time())

                def act() -> None:
                    self._router.set_open(found.service_id, open_)
                    self._access_changed()

                tx.after_commit(act)
            return self._shown(found)

        return await self._mutations.run(call, request, pb.Service, change, self._subject(name))

    def _subject(self, name: str) -> Subject:
        service = self._router.find(name).service_id
        return Subject(
            names.join(names.SERVICES, service), lambda tx: convert.service(find_service(tx, name), PoolStatus())
        )

    async def list_services(self, call: Call, request: pb.ListServicesRequest) -> pb.ListServicesResponse:
        """List them."""
        size = paging.page_size(request.page_size)
        after = paging.key_in(request.page_token, "services")
        found = await self._database.run(lambda tx: deployments.services_page(tx, after, size + 1))
        return pb.ListServicesResponse(
            services=[self._shown(one) for one in found[:size]],
            next_page_token=paging.cut("services", [one.service_id for one in found], size),
        )

    def _shown(self, found: Deployment) -> pb.Service:
        return convert.service(found, self._router.status(found.service_id))


def find_service(tx: Transaction, name: str) -> Deployment:
    """The deployment of a service by the id of either, from the moment that it is created. Raises `NotFound`."""
    found = deployments.by_service(tx, name) or deployments.get(tx, name)
    if found is None:
        raise _no_service(name)
    return found


def find_running_service(tx: Transaction, name: str) -> Deployment:
    """The same, from the moment that the deployment was RUNNING. Raises `NotFound`."""
    found = find_service(tx, name)
    if found.service_created is None:
        raise _no_service(name)
    return found


def _no_service(name: str) -> NotFound:
    return NotFound(
        ErrorReason.ERROR_REASON_SERVICE_NOT_FOUND,
        "there is no prediction service {service}; it exists once its deployment has been RUNNING",
        service=name,
    )
