"""From a service's descriptor and the objects that implement it to its methods."""

import re
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from modelhost.server.api.methods import Access, BidiStream, Method, ServerStream, Unary


def bind(service: ServiceDescriptor, access: Access, *implementations: object, name: str = "") -> list[Method]:
    """Find each rpc's handler by its name in snake case. Raises `LookupError` for an rpc that nobody implements.

    `name` is the full name to serve it under, where that is not the descriptor's.
    """
    return [_bind(rpc, name or service.full_name, access, implementations) for rpc in service.methods]


def _bind(rpc: MethodDescriptor, service: str, access: Access, implementations: Sequence[object]) -> Method:
    attribute = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", rpc.name).lower()
    handlers = [getattr(item, attribute) for item in implementations if hasattr(item, attribute)]
    if len(handlers) != 1:
        raise LookupError(f"{len(handlers)} implementations of {service}/{rpc.name}")
    kind: type[Any] = ServerStream if rpc.server_streaming else Unary
    if rpc.client_streaming:
        kind = BidiStream
    method: Method = kind(f"/{service}/{rpc.name}", access, GetMessageClass(rpc.input_type), handlers[0])
    return method
