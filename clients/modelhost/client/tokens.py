"""The bearer token of a service account: got with the first call, kept, and renewed before it ends.

A call that finds a fresh token takes no lock and asks no clock but the monotonic one. Of several that find one due,
one gets the next, and the others go on with the one there is; where there is none that works, they wait for it.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf

import grpc

from modelhost.client.errors import ModelHostError, TimedOut
from modelhost.client.signing import ServiceAccountKey, signed_request
from modelhost.client.transport import Metadata, authorisation
from modelhost.v1.predict_pb2 import IssueTokenRequest, IssueTokenResponse

_DUE = 0.8  # of its life
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Token:
    """What goes along with a call. Times are of the monotonic clock, in seconds."""

    metadata: Metadata = field(repr=False)
    due: float
    """When the next one should be got."""
    end: float
    """When it stops working."""

    def put_off(self, now: float) -> "Token":
        """Return the same, due later: should the next one not be to be had, this one still works."""
        return Token(self.metadata, now + max(_RETRY_SECONDS, (self.end - now) / 4), self.end)

    def is_same(self, other: "Token") -> bool:
        """Whether the server cannot tell them apart."""
        return self.metadata is other.metadata


_NONE = Token((), -inf, -inf)


def check_one(token: str | None, account: ServiceAccountKey | None) -> None:
    """Raise ValueError where a client is given both."""
    if token and account:
        raise ValueError("a client has either a token or a service account's keys, not both")


def token_of(request: IssueTokenRequest, answer: IssueTokenResponse, now: float) -> Token:
    """Return the token that a request was answered with just now.

    How long it lives is told by the server's clock, which the request's time was near enough to. Where our clock is so
    far ahead that the token seems to have ended before it began, a refusal tells when it has.
    """
    life = answer.expire_time.ToNanoseconds() / 1e9 - request.timestamp
    due, end = (now + _DUE * life, now + life) if life > 0 else (inf, inf)
    return Token(authorisation(answer.token), due, end)


class Tokens:
    """Those of one account, for any number of threads. `issue` asks the server; its timeout is in seconds."""

    def __init__(
        self,
        key: ServiceAccountKey,
        issue: Callable[[IssueTokenRequest, float | None], IssueTokenResponse],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key = key
        self._issue = issue
        self._clock = clock
        self._token = _NONE
        self._lock = threading.Lock()

    def get(self, timeout: float | None) -> Token:
        """Return a token that should work. Raises ModelHostError where there is none to be had in time."""
        token = self._token
        now = self._clock()
        if now < token.due:
            return token
        if now >= token.end:
            return self.instead_of(token, timeout)
        if self._lock.acquire(blocking=False):
            try:
                if self._token is token:
                    self._renew_early(timeout)
            finally:
                self._lock.release()
        return self._token

    def instead_of(self, token: Token, timeout: float | None) -> Token:
        """Return another one than this, which does not work. Raises ModelHostError where none is to be had in time."""
        if not self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            raise TimedOut("no token in time: another call is getting one", code=grpc.StatusCode.DEADLINE_EXCEEDED)
        try:
            if self._token.is_same(token):
                self._renew(timeout)
            return self._token
        finally:
            self._lock.release()

    def _renew_early(self, timeout: float | None) -> None:
        self._token = self._token.put_off(self._clock())
        with suppress(ModelHostError):
            self._renew(timeout)

    def _renew(self, timeout: float | None) -> None:
        request = signed_request(self._key)
        self._token = token_of(request, self._issue(request, timeout), self._clock())


class AsyncTokens:
    """`Tokens` for the tasks of one event loop."""

    def __init__(
        self,
        key: ServiceAccountKey,
        issue: Callable[[IssueTokenRequest, float | None], Awaitable[IssueTokenResponse]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key = key
        self._issue = issue
        self._clock = clock
        self._token = _NONE
        self._lock = asyncio.Lock()

    async def get(self, timeout: float | None) -> Token:
        """Return a token that should work. Raises ModelHostError where there is none to be had in time."""
        token = self._token
        now = self._clock()
        if now < token.due:
            return token
        if now >= token.end:
            return await self.instead_of(token, timeout)
        if not self._lock.locked():
            async with self._lock:
                await self._renew_early(timeout)
        return self._token

    async def instead_of(self, token: Token, timeout: float | None) -> Token:
        """Return another one than this, which does not work. Raises ModelHostError where none is to be had in time."""
        try:
            async with asyncio.timeout(timeout), self._lock:
                if self._token.is_same(token):
                    await self._renew(timeout)
                return self._token
        except TimeoutError:
            raise TimedOut("no token in time", code=grpc.StatusCode.DEADLINE_EXCEEDED) from None

    async def _renew_early(self, timeout: float | None) -> None:
        self._token = self._token.put_off(self._clock())
        with suppress(ModelHostError):
            await self._renew(timeout)

    async def _renew(self, timeout: float | None) -> None:
        request = signed_request(self._key)
        self._token = token_of(request, await self._issue(request, timeout), self._clock())
