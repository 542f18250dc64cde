"""How the fake server answers: in pages, and with errors as the real one sends them."""

from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from modelhost.server.catalogue import hint_for
from modelhost.v1.error_reason_pb2 import ErrorReason

Code = grpc.StatusCode
PAGE = 2  # small, so that lists have pages


def rich_status(
    code: Code, message: str, reason: str, *details: Message, domain: str = "modelhost", **metadata: str
) -> bytes:
    """Return `grpc-status-details-bin` as the server sends it."""
    status = status_pb2.Status(code=code.value[0], message=message)
    metadata = {"name": "churn", **metadata}
    name = f"ERROR_REASON_{reason}"
    if name in ErrorReason.keys() and (hint := hint_for(ErrorReason.Value(name))):  # noqa: SIM118 - no dict
        metadata["hint"] = hint
    info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)
    for detail in (info, *details):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status.SerializeToString()


def last_part(name: str) -> str:
    return name.rpartition("/")[2]


def request_id_of(context: grpc.ServicerContext) -> str:
    return dict(context.invocation_metadata()).get("x-request-id", "")


def page(kind: type, field: str, items: list, request: Any, **extra: Any) -> Any:
    start = int(request.page_token or 0)
    more = str(start + PAGE) if start + PAGE < len(items) else ""
    return kind(**{field: items[start : start + PAGE]}, next_page_token=more, **extra)


def abort(
    context: grpc.ServicerContext, code: Code, message: str, reason: str, *details: Message, **values: str
) -> None:
    if reason:
        if request_id := request_id_of(context):
            values["request_id"] = request_id
        details_bin = rich_status(code, message, reason, *details, **values)
        context.set_trailing_metadata((("grpc-status-details-bin", details_bin),))
    context.abort(code, message)
