"""What one listener serves: some of the services, and health and reflection, which tell of these and no others."""

from collections.abc import Callable, Mapping
from itertools import chain

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from modelhost.inference import open_inference_pb2
from modelhost.server.api import reflection
from modelhost.server.api.binding import bind
from modelhost.server.api.health import HealthMethods
from modelhost.server.api.methods import Access, Method

HEALTH: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]


def listener_methods(
    services: Mapping[str, list[Method]], health_of: Callable[[set[str]], HealthMethods]
) -> list[Method]:
    """All methods; `services` are those of the host by full name, `health_of` makes the health of services."""
    names = [*services, HEALTH.full_name]
    reflected = reflection.ReflectionMethods(
        [*names, reflection.SERVICE.full_name, reflection.V1_NAME], [open_inference_pb2.DESCRIPTOR.pool]
    )
    return [
        *chain.from_iterable(services.values()),
        *bind(HEALTH, Access.ANYONE, health_of(set(names))),
        *bind(reflection.SERVICE, Access.ANYONE, reflected),
        *bind(reflection.SERVICE, Access.ANYONE, reflected, name=reflection.V1_NAME),
    ]
