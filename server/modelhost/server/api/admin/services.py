"""Prediction services, as operators see them."""

from modelhost.server.api import convert, names, paging
from modelhost.server.api.call import Call
from modelhost.server.errors import NotFound
from modelhost.server.resources import Deployment
from modelhost.server.serving.router import Router
from modelhost.server.store import deployments
from modelhost.server.store.database import Database
from modelhost.v1 import service_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason


class ServiceMethods:
    """Handlers of the Service methods."""

    def __init__(self, database: Database, router: Router) -> None:
        self._database = database
        self._router = router

    async def get_service(self, call: Call, request: pb.GetServiceRequest) -> pb.Service:
        """Show one."""
        service_id = names.parse(request.name, names.SERVICES)
        found = await self._database.run(lambda tx: deployments.by_service(tx, service_id))
        if found is None or found.service_created is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_SERVICE_NOT_FOUND,
                "there is no prediction service {service}; it exists once its deployment has been RUNNING",
                service=service_id,
            )
        return self._shown(found)

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
