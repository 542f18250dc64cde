"""The door that is always there: grpc.aio on the server's event loop. Messages stay bytes; `api.methods` parses."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from modelhost.server.api.call import Call
from modelhost.server.api.methods import BidiStream, Dispatcher, ServerStream, Unary
from modelhost.server.api.status import CallFailed

STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

LIBRARYS_LOG = "grpc._cython.cygrpc"

Context = Any  # grpc.aio.ServicerContext[bytes, bytes]; the stubs do not know it as generic at run time


class GrpcioDoor:
    """Listens on `address` (`host:port`); `message_limit` in bytes, both ways."""

    def __init__(self, dispatcher: Dispatcher, address: str, *, message_limit: int) -> None:
        logging.getLogger(LIBRARYS_LOG).addFilter(_has_no_metadata)
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", message_limit),
                ("grpc.max_send_message_length", message_limit),
                ("grpc.so_reuseport", 0),  # a second server on the port is refused, not given half of the calls
            ]
        )
        self._server.add_generic_rpc_handlers((_Handlers(dispatcher),))
        try:
            self._port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {_refusal(address) or error}") from error

    @property
    def port(self) -> int:
        """The port that was bound."""
        return self._port

    async def start(self) -> None:
        """Begin to accept calls."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, let those under way finish for `grace` seconds, end the rest."""
        await self._server.stop(grace)


def _has_no_metadata(record: logging.LogRecord) -> bool:
    """False for what grpcio says of metadata that is no text: it says all of it, and there may be a token in it."""
    return not str(record.msg).startswith("Invalid encoding")


def _refusal(address: str) -> str:
    """What the system says to that address, which gRPC keeps to itself."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(ValueError):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.create_server((host.strip("[]"), int(port)), family=family).close()
        except OSError as error:
            return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return ""


class _Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a path."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._handlers = {path: _handler(dispatcher, method, path) for path, method in dispatcher.methods.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """grpcio: the handler of a call, or None, which makes it UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)


def _handler(dispatcher: Dispatcher, method: Any, path: str) -> Any:
    match method:
        case Unary():

            async def unary(data: bytes, context: Context) -> bytes | None:
                try:
                    return await dispatcher.unary(method, _call(path, context), data)
                except CallFailed as failed:
                    await _abort(context, failed)
                    return None

            return grpc.unary_unary_rpc_method_handler(unary)
        case ServerStream():

            async def stream(data: bytes, context: Context) -> AsyncIterator[bytes]:
                try:
                    async for response in dispatcher.server_stream(method, _call(path, context), data):
                        yield response
                except CallFailed as failed:
                    await _abort(context, failed)

            return grpc.unary_stream_rpc_method_handler(stream)
        case BidiStream():

            async def bidi(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
                try:
                    async for response in dispatcher.bidi_stream(method, _call(path, context), requests):
                        yield response
                except CallFailed as failed:
                    await _abort(context, failed)

            return grpc.stream_stream_rpc_method_handler(bidi)
    raise TypeError(f"no way to serve a {type(method).__name__}")


def _call(path: str, context: Context) -> Call:
    remaining = context.time_remaining()
    return Call(
        method=path,
        metadata=dict(context.invocation_metadata() or ()),
        peer=context.peer(),
        deadline=None if remaining is None else asyncio.get_running_loop().time() + remaining,
    )


async def _abort(context: Context, failed: CallFailed) -> None:
    status = failed.status
    abort: Callable[..., Awaitable[None]] = context.abort
    await abort(
        STATUS_CODES[status.code], status.message, trailing_metadata=(("grpc-status-details-bin", status.details),)
    )
