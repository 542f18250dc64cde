"""From a service's descriptor and the objects that implement it to its methods."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from modelhost.server.api.methods import Access, BidiStream, Method, ServerStream, Unary
from modelhost.server.identities import Role
from modelhost.v1 import access_pb2


def bind(
    service: ServiceDescriptor,
    access: Access,
    *implementations: object,
    name: str = "",
    for_anyone: Collection[str] = (),
    for_operators: Mapping[str, Role] | None = None,
    requests: Mapping[str, Callable[[], Any]] | None = None,
) -> list[Method]:
    """Find each rpc's handler by its name in snake case. Raises `LookupError` for an rpc that nobody implements.

    `name` is the full name to serve it under, where that is not the descriptor's. The rpcs in `for_anyone` are open to
    everybody, and those in `for_operators` to operators of that role, whatever `access` the others have. `requests`
    makes what an rpc's requests are read into, where that is not the library's own class.
    """

    roles = for_operators or {}

    def of(rpc: MethodDescriptor) -> Access:
        if rpc.name in roles:
            return Access.OPERATOR
        return Access.ANYONE if rpc.name in for_anyone else access

    return [
        _bind(
            rpc,
            name or service.full_name,
            of(rpc),
            roles.get(rpc.name) or required_role(rpc),
            (requests or {}).get(rpc.name) or GetMessageClass(rpc.input_type),
            implementations,
        )
        for rpc in service.methods
    ]


def required_role(rpc: MethodDescriptor) -> Role | None:
    """The role that the API says is required for a method; None where it says none."""
    number = int(rpc.GetOptions().Extensions[access_pb2.required_role])
    return Role(number) if number else None


def _bind(
    rpc: MethodDescriptor,
    service: str,
    access: Access,
    role: Role | None,
    request: Callable[[], Any],
    implementations: Sequence[object],
) -> Method:
    attribute = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", rpc.name).lower()
    handlers = [getattr(item, attribute) for item in implementations if hasattr(item, attribute)]
    if len(handlers) != 1:
        raise LookupError(f"{len(handlers)} implementations of {service}/{rpc.name}")
    kind: type[Any] = ServerStream if rpc.server_streaming else Unary
    if rpc.client_streaming:
        kind = BidiStream
    if access is Access.OPERATOR and role is None:
        raise LookupError(f"{service}/{rpc.name} does not say which role it requires")
    method: Method = kind(f"/{service}/{rpc.name}", access, role, request, handlers[0])
    return method
