"""The door that is always there: grpc.aio on the server's event loop. Messages stay bytes; `api.methods` parses."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import grpc

from modelhost.server.api.call import Call
from modelhost.server.api.methods import BidiStream, Dispatcher, ServerStream, Unary
from modelhost.server.api.status import CallFailed
from modelhost.server.tls import Certificates, Identity
from modelhost.server.transport import Transport

STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

LIBRARYS_LOG = "grpc._cython.cygrpc"
NEVER_MS = 2**31 - 1  # so gRPC understands it
# A client that asks more often whether the server is there is sent away (too_many_pings). gRPC's own libraries let
# nobody ask more often than every ten seconds; half of that, for pings do not arrive as evenly as they are sent.
LEAST_MS_BETWEEN_PINGS = 5_000

# Of the call that the task is for. A context would make it anew for whoever asks, and that is not cheap.
_METADATA: ContextVar[Any] = ContextVar("metadata")

Context = Any  # grpc.aio.ServicerContext[bytes, bytes]; the stubs do not know it as generic at run time


class GrpcioDoor:
    """Listens on `address` (`host:port`), with TLS if there are certificates; `message_limit` in bytes, both ways."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        address: str,
        *,
        message_limit: int,
        transport: Transport,
        certificates: Certificates | None = None,
    ) -> None:
        logging.getLogger(LIBRARYS_LOG).addFilter(_has_no_metadata)
        self._server = grpc.aio.server(options=_options(message_limit, transport))
        shows_certificate = certificates is not None and certificates.files.client_ca is not None
        self._server.add_generic_rpc_handlers((_Handlers(dispatcher, shows_certificate=shows_certificate),))
        try:
            if certificates is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, _credentials(certificates))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {_refusal(address) or error}") from error
        self.address = f"{address.rpartition(':')[0]}:{port}"
        """Where it listens, with the port that was bound."""

    async def start(self) -> None:
        """Begin to accept calls."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, let those under way finish for `grace` seconds, end the rest."""
        await self._server.stop(grace)


def _options(message_limit: int, transport: Transport) -> list[tuple[str, int]]:
    """What gRPC calls these settings: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""

    def milliseconds(seconds: float | None) -> int:
        return NEVER_MS if seconds is None else min(round(seconds * 1000), NEVER_MS)

    return [
        ("grpc.max_receive_message_length", message_limit),
        ("grpc.max_send_message_length", message_limit),
        ("grpc.so_reuseport", 0),  # a second server on the port is refused, not given half of the calls
        ("grpc.keepalive_time_ms", milliseconds(transport.keepalive or None)),
        ("grpc.keepalive_timeout_ms", milliseconds(transport.keepalive_timeout)),
        ("grpc.http2.ping_timeout_ms", milliseconds(transport.keepalive_timeout)),  # a minute, else
        ("grpc.keepalive_permit_without_calls", 1),  # both ways: idle connections are asked, and may ask
        ("grpc.http2.max_pings_without_data", 0),  # no end to that
        ("grpc.http2.min_recv_ping_interval_without_data_ms", LEAST_MS_BETWEEN_PINGS),
        ("grpc.max_connection_age_ms", milliseconds(transport.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", milliseconds(transport.max_connection_age_grace)),
    ]


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """For each door its own: gRPC asks, with each new connection, whether there is something else to use."""
    given = certificates.current()

    def changed() -> Any:  # None is for "as before"; the stubs do not know that
        nonlocal given
        current = certificates.current()
        if current is given:
            return None
        given = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), changed, require_client_authentication=given.client_ca is not None
    )


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.chain)], identity.client_ca)


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

    def __init__(self, dispatcher: Dispatcher, *, shows_certificate: bool) -> None:
        self._handlers = {
            path: _handler(dispatcher, method, partial(_call, path, shows_certificate))
            for path, method in dispatcher.methods.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """grpcio: the handler of a call, or None, which makes it UNIMPLEMENTED. It is run in the same task."""
        _METADATA.set(handler_call_details.invocation_metadata)
        return self._handlers.get(handler_call_details.method)


def _handler(dispatcher: Dispatcher, method: Any, call: Callable[[Context], Call]) -> Any:
    match method:
        case Unary():

            async def unary(data: bytes, context: Context) -> bytes | None:
                try:
                    return await dispatcher.unary(method, call(context), data)
                except CallFailed as failed:
                    await _abort(context, failed)
                    return None

            return grpc.unary_unary_rpc_method_handler(unary)
        case ServerStream():

            async def stream(data: bytes, context: Context) -> None:
                await _write(dispatcher.server_stream(method, call(context), data), context)

            return grpc.unary_stream_rpc_method_handler(stream)
        case BidiStream():

            async def bidi(requests: AsyncIterator[bytes], context: Context) -> None:
                await _write(dispatcher.bidi_stream(method, call(context), requests), context)

            return grpc.stream_stream_rpc_method_handler(bidi)
    raise TypeError(f"no way to serve a {type(method).__name__}")


async def _write(responses: AsyncGenerator[bytes], context: Context) -> None:
    """Send a stream as its caller takes it, and close it, which gRPC does not do with one of a caller who went away."""
    try:
        async with contextlib.aclosing(responses):
            async for response in responses:
                await context.write(response)
    except CallFailed as failed:
        await _abort(context, failed)


def _call(path: str, shows_certificate: bool, context: Context) -> Call:
    remaining = context.time_remaining()
    return Call(
        method=path,
        metadata=dict(_METADATA.get() or ()),
        find_peer=context.peer,
        deadline=None if remaining is None else asyncio.get_running_loop().time() + remaining,
        identities=_identities(context) if shows_certificate else (),
    )


def _identities(context: Context) -> tuple[str, ...]:
    return tuple(name.decode("utf-8", "replace") for name in context.peer_identities() or ())


async def _abort(context: Context, failed: CallFailed) -> None:
    status = failed.status
    abort: Callable[..., Awaitable[None]] = context.abort
    # A deadline passes here and in gRPC's core at about the same time: there may be nobody left who could be told.
    with contextlib.suppress(grpc.aio.InternalError):
        await abort(
            STATUS_CODES[status.code], status.message, trailing_metadata=(("grpc-status-details-bin", status.details),)
        )
