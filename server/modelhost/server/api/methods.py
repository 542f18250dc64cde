"""Methods as doors see them: a path, and bytes in and bytes out.

Parsing, access and errors are the same for every method and every door, and are done here.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, Protocol, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from modelhost.server.access.callers import unauthenticated
from modelhost.server.access.gate import Gate
from modelhost.server.api.call import Call
from modelhost.server.api.request_ids import RequestIds
from modelhost.server.api.status import CallFailed, Code, internal_error, status_of
from modelhost.server.errors import DiskFull, DomainError, InvalidRequest, Unavailable, reason_name
from modelhost.server.identities import Role
from modelhost.v1.error_reason_pb2 import ErrorReason

LAST_WORDS_SECONDS = 0.2
SAME_MOMENT_SECONDS = 0.05  # a caller whose deadline passes goes away about when the deadline passes here


class Parsable(Protocol):
    """What of a message is needed to read a request; the library's messages have it."""

    DESCRIPTOR: Any

    def ParseFromString(self, data: bytes, /) -> Any:  # noqa: N802 - as the library calls it
        """Fill it. Raises `DecodeError`."""


class Serialisable(Protocol):
    """What of a message is needed to send a response."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - as the library calls it
        """Its bytes."""


Request = TypeVar("Request", bound=Parsable)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Access(Enum):
    """Who may call a method."""

    ANYONE = auto()
    OPERATOR = auto()  # operators with the method's role
    CALLER = auto()  # whoever may use prediction services: the handler says which; anonymous callers only open ones


@dataclass(frozen=True)
class Unary(Generic[Request]):
    """A method with one request and one response."""

    path: str
    access: Access
    role: Role | None
    request: Callable[[], Request]
    handler: Callable[[Call, Request], Awaitable[Serialisable]]


@dataclass(frozen=True)
class ServerStream(Generic[Request]):
    """A method with one request and many responses."""

    path: str
    access: Access
    role: Role | None
    request: Callable[[], Request]
    handler: Callable[[Call, Request], AsyncGenerator[Message]]


@dataclass(frozen=True)
class BidiStream(Generic[Request]):
    """A method with many requests and many responses."""

    path: str
    access: Access
    role: Role | None
    request: Callable[[], Request]
    handler: Callable[[Call, AsyncIterator[Request]], AsyncGenerator[Message]]


Method = Unary[Message] | ServerStream[Message] | BidiStream[Message]


# Is told of each call how it ended, code and reason; how many seconds it took; how many bytes its responses have.
Observer = Callable[[Call, Code, str, float, int], None]


class Dispatcher:
    """Runs methods on bytes. What it raises is `CallFailed`, with a status for the door to send.

    `observers` are told of calls when they end, by path, but for those with many requests. `lets_anonymous_in` says
    whether there is anything that callers without credentials may call; `watch_access` gives an event that is set
    whenever somebody may be let in no more.
    """

    def __init__(
        self,
        methods: list[Method],
        gate: Gate,
        stopping: asyncio.Event,
        observers: Mapping[str, Observer],
        *,
        lets_anonymous_in: Callable[[], bool],
        watch_access: Callable[[], AbstractContextManager[asyncio.Event]],
    ) -> None:
        self.methods = {method.path: method for method in methods}
        self._gate = gate
        self._lets_anonymous_in = lets_anonymous_in
        self._watch_access = watch_access
        self._stopping = stopping
        self._observers = observers
        self._request_ids = RequestIds()

    async def unary(self, method: Unary[Message], call: Call, data: bytes) -> bytes:
        """Answer a call."""
        begun = time.perf_counter()
        code, reason, sent = Code.OK, "", 0
        try:
            self._admit(method, call)
            call.size = len(data)
            request = _parse(method.request, data)
            response = (await method.handler(call, request)).SerializeToString()
            sent = len(response)
            return response
        except asyncio.CancelledError:
            code, reason = _abandoned(call)
            raise
        except Exception as error:
            failed = self._failed(call, error)
            code, reason = failed.status.code, failed.status.reason
            raise failed from None
        finally:
            self._tell(method, call, code, reason, time.perf_counter() - begun, sent)

    async def server_stream(self, method: ServerStream[Message], call: Call, data: bytes) -> AsyncGenerator[bytes]:
        """Answer a call with a stream. Whoever does not take all of it closes it."""
        begun = time.perf_counter()
        code, reason, sent = Code.OK, "", 0
        try:
            self._admit(method, call)
            call.size = len(data)
            responses = self._while_serving(method, call, method.handler(call, _parse(method.request, data)))
            async with aclosing(responses):
                async for response in responses:
                    message = response.SerializeToString()
                    sent += len(message)
                    yield message
        except (asyncio.CancelledError, GeneratorExit):
            code, reason = _abandoned(call)
            raise
        except Exception as error:
            failed = self._failed(call, error)
            code, reason = failed.status.code, failed.status.reason
            raise failed from None
        finally:
            self._tell(method, call, code, reason, time.perf_counter() - begun, sent)

    async def bidi_stream(
        self, method: BidiStream[Message], call: Call, requests: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes]:
        """Answer a stream with a stream. Whoever does not take all of it closes it."""

        async def parsed() -> AsyncIterator[Message]:
            async for data in requests:
                yield _parse(method.request, data)

        try:
            self._admit(method, call)
            responses = self._while_serving(method, call, method.handler(call, parsed()))
            async with aclosing(responses):
                async for response in responses:
                    yield response.SerializeToString()
        except Exception as error:
            raise self._failed(call, error) from None

    async def _while_serving(
        self, method: Method, call: Call, responses: AsyncGenerator[Message]
    ) -> AsyncGenerator[Message]:
        """Pass responses on while the caller is let in; once the server is stopping, wait only for what comes at once.

        Who has opened a stream must not go on with it when it would not be let in any more: it is closed then, even if
        nobody asks for its next response. Streams of callers are work to be finished, and have the time that other
        calls have when the server is stopping.
        """
        stopping: asyncio.Future[Any] = (
            asyncio.get_running_loop().create_future()
            if method.access is Access.CALLER
            else asyncio.ensure_future(self._stopping.wait())
        )
        following: asyncio.Future[Message] | None = None
        closing: asyncio.Future[None] | None = None

        def close_if_idle(refused: asyncio.Future[None]) -> None:
            nonlocal closing
            if following is None and not refused.cancelled():
                closing = asyncio.ensure_future(responses.aclose())

        with self._watch_access() as changed:
            refused = asyncio.ensure_future(self._refusal(method, call, changed))
            refused.add_done_callback(close_if_idle)
            try:
                while not refused.done():
                    following = asyncio.ensure_future(anext(responses))
                    await asyncio.wait([following, stopping, refused], return_when=asyncio.FIRST_COMPLETED)
                    if refused.done():
                        break
                    if not following.done():
                        await asyncio.wait([following], timeout=LAST_WORDS_SECONDS)
                    if not following.done():
                        raise _stopping()
                    try:
                        response, following = following.result(), None
                    except StopAsyncIteration:
                        return
                    self._check_still(method, call)
                    yield response
                await refused
            finally:
                stopping.cancel()
                for begun in (refused, following, closing):
                    if begun is not None:
                        await _end(begun)
                await responses.aclose()

    async def _refusal(self, method: Method, call: Call, changed: asyncio.Event) -> None:
        """Raise as soon as the caller would not be let in any more: something has changed, or its token has expired."""
        while True:
            left = None if method.access is Access.ANYONE else call.caller.seconds_left(time.time())
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()
            changed.clear()
            self._check_still(method, call)

    def _check_still(self, method: Method, call: Call) -> None:
        """Find out whether a call that was let in would be again. Raises what ends it."""
        self._check(method, call)
        call.check_still_admitted()

    def _tell(self, method: Method, call: Call, code: Code, reason: str, seconds: float, sent: int) -> None:
        if observe := self._observers.get(method.path):
            observe(call, code, reason, seconds, sent)
        else:
            log.debug("call ended", method=call.method, code=code.name, reason=reason)

    def _admit(self, method: Method, call: Call) -> None:
        """Name the call, for what is logged from here on too, and let it pass if it may."""
        call.request_id = self._request_ids.of(call)
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        self._check(method, call)

    def _check(self, method: Method, call: Call) -> None:
        """Find out whose the call is. Raises `Unauthenticated`, `Forbidden`."""
        if method.access is Access.ANYONE:
            return
        call.caller = self._gate.caller(call.metadata)
        if method.access is Access.OPERATOR:
            if call.caller.is_anonymous:
                raise unauthenticated()
            call.caller.require(method.role or Role.ADMIN, method.path.rpartition("/")[2])
        elif call.caller.is_anonymous and not self._lets_anonymous_in():
            raise unauthenticated()

    def _failed(self, call: Call, error: Exception) -> CallFailed:
        known = error if isinstance(error, DomainError) else DiskFull.told_by(error)
        if known is not None:
            is_why = self._stopping.is_set() and known.reason == ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING
            return CallFailed(status_of(_stopping() if is_why else known))
        log.error("a call failed in the server", method=call.method, peer=call.peer, exc_info=error)
        return CallFailed(status_of(internal_error()))


async def _end(future: asyncio.Future[Any]) -> None:
    """Cancel it, and see what it has come to: the caller may go away in the moment in which it ends."""
    future.cancel()
    await asyncio.wait([future])
    if not future.cancelled():
        future.exception()


def _parse(make: Callable[[], Request], data: bytes) -> Request:
    message = make()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise InvalidRequest(
            "",
            "the request is not a {message} message",
            reason=ErrorReason.ERROR_REASON_MALFORMED_REQUEST,
            message=message.DESCRIPTOR.full_name,
        ) from None
    return message


def _abandoned(call: Call) -> tuple[Code, str]:
    """Why a caller went away: its deadline has passed, or it does not want the answer any more."""
    if call.deadline is not None and asyncio.get_running_loop().time() > call.deadline - SAME_MOMENT_SECONDS:
        return Code.DEADLINE_EXCEEDED, reason_name(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED)
    return Code.CANCELLED, ""


def _stopping() -> Unavailable:
    return Unavailable(ErrorReason.ERROR_REASON_SERVER_STOPPING, "the server is stopping; try again")
