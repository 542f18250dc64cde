"""Methods as doors see them: a path, and bytes in and bytes out.

Parsing, access and errors are the same for every method and every door, and are done here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from modelhost.server.access.operators import Operators
from modelhost.server.api.call import Call
from modelhost.server.api.status import CallFailed, internal_error, status_of
from modelhost.server.errors import DiskFull, DomainError, InvalidRequest, Unavailable
from modelhost.v1.error_reason_pb2 import ErrorReason

LAST_WORDS_SECONDS = 0.2

Request = TypeVar("Request", bound=Message)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Access(Enum):
    """Who may call a method."""

    ANYONE = auto()
    OPERATOR = auto()  # whoever has the admin token
    CALLER = auto()  # whoever may use prediction services; for now, an operator


@dataclass(frozen=True)
class Unary(Generic[Request]):
    """A method with one request and one response."""

    path: str
    access: Access
    request: type[Request]
    handler: Callable[[Call, Request], Awaitable[Message]]


@dataclass(frozen=True)
class ServerStream(Generic[Request]):
    """A method with one request and many responses."""

    path: str
    access: Access
    request: type[Request]
    handler: Callable[[Call, Request], AsyncIterator[Message]]


@dataclass(frozen=True)
class BidiStream(Generic[Request]):
    """A method with many requests and many responses."""

    path: str
    access: Access
    request: type[Request]
    handler: Callable[[Call, AsyncIterator[Request]], AsyncIterator[Message]]


Method = Unary[Message] | ServerStream[Message] | BidiStream[Message]


class Dispatcher:
    """Runs methods on bytes. What it raises is `CallFailed`, with a status for the door to send."""

    def __init__(self, methods: list[Method], operators: Operators, stopping: asyncio.Event) -> None:
        self.methods = {method.path: method for method in methods}
        self._operators = operators
        self._stopping = stopping

    async def unary(self, method: Unary[Message], call: Call, data: bytes) -> bytes:
        """Answer a call."""
        try:
            self._admit(method, call)
            response = await method.handler(call, _parse(method.request, data))
            return response.SerializeToString()
        except Exception as error:
            raise _failed(call, error) from None

    async def server_stream(self, method: ServerStream[Message], call: Call, data: bytes) -> AsyncIterator[bytes]:
        """Answer a call with a stream."""
        try:
            self._admit(method, call)
            async for response in self._while_serving(method.handler(call, _parse(method.request, data))):
                yield response.SerializeToString()
        except Exception as error:
            raise _failed(call, error) from None

    async def bidi_stream(
        self, method: BidiStream[Message], call: Call, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Answer a stream with a stream."""

        async def parsed() -> AsyncIterator[Message]:
            async for data in requests:
                yield _parse(method.request, data)

        try:
            self._admit(method, call)
            async for response in self._while_serving(method.handler(call, parsed())):
                yield response.SerializeToString()
        except Exception as error:
            raise _failed(call, error) from None

    async def _while_serving(self, responses: AsyncIterator[Message]) -> AsyncIterator[Message]:
        """Pass responses on; once the server is stopping, wait only for what comes at once."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        following: asyncio.Future[Message] | None = None
        try:
            while True:
                following = asyncio.ensure_future(anext(responses))
                await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    await asyncio.wait([following], timeout=LAST_WORDS_SECONDS)
                if not following.done():
                    raise Unavailable(ErrorReason.ERROR_REASON_SERVER_STOPPING, "the server is stopping; try again")
                try:
                    yield following.result()
                except StopAsyncIteration:
                    return
        finally:
            stopping.cancel()
            if following is not None:
                following.cancel()
                await asyncio.wait([following])
                if not following.cancelled():
                    following.exception()  # seen: the caller went away in the moment in which it ended

    def _admit(self, method: Method, call: Call) -> None:
        if method.access is not Access.ANYONE:
            self._operators.check(call.metadata)


def _parse(kind: type[Message], data: bytes) -> Message:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise InvalidRequest(
            "",
            "the request is not a {message} message",
            reason=ErrorReason.ERROR_REASON_MALFORMED_REQUEST,
            message=kind.DESCRIPTOR.full_name,
        ) from None
    return message


def _failed(call: Call, error: Exception) -> CallFailed:
    known = error if isinstance(error, DomainError) else DiskFull.told_by(error)
    if known is not None:
        return CallFailed(status_of(known))
    log.error("a call failed in the server", method=call.method, peer=call.peer, exc_info=error)
    return CallFailed(status_of(internal_error()))
