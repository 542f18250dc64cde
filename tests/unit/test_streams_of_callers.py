"""A stream goes on for as long as its caller would be let in anew, and no longer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from google.protobuf.struct_pb2 import Value

from modelhost.server.access.accounts import Accounts
from modelhost.server.access.gate import Gate
from modelhost.server.access.operators import Operators, digest_of
from modelhost.server.access.tokens import Tokens
from modelhost.server.api.call import Call
from modelhost.server.api.methods import Access, Dispatcher, ServerStream
from modelhost.server.api.status import CallFailed, Code
from modelhost.server.control.changes import ACCESS, Changes
from modelhost.server.identities import Operator, Role

PATH = "/modelhost.v1.Admin/WatchNumbers"
BEGIN = 1_000_000.0


class Numbers:
    """A stream of numbers for admins; `now` is the time, and `ada` the operator who watches."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.sent: asyncio.Queue[int] = asyncio.Queue()
        self.ada = Operator(
            uid="1", id="ada", role=Role.ADMIN, description="", digest=digest_of("mha_ada"), disabled=False, version=1,
            created=BEGIN, updated=BEGIN, token_created=BEGIN, expires=BEGIN + 60, last_used=None,
        )  # fmt: skip
        self._operators = Operators("mha_built_in")
        self._changes = Changes()
        accounts, tokens = Accounts(), Tokens(lambda: b"key", lifetime=60)
        method = ServerStream(PATH, Access.OPERATOR, Role.ADMIN, Value, self._watch)
        self._dispatcher = Dispatcher(
            [method],
            Gate(self._operators, accounts, tokens, clock=lambda: self.now),
            asyncio.Event(),
            {},
            lets_anonymous_in=lambda: False,
            watch_access=lambda: self._changes.watch(ACCESS),
        )
        self.put()

    def put(self, **changes: object) -> None:
        self.ada = replace(self.ada, **changes)  # type: ignore[arg-type]
        self._operators.put(self.ada)
        self._changes.notify(ACCESS)

    def open(self) -> AsyncIterator[bytes]:
        call = Call(PATH, {"authorization": "Bearer mha_ada"}, lambda: "ipv4:127.0.0.1:1", None)
        method = self._dispatcher.methods[PATH]
        assert isinstance(method, ServerStream)
        return self._dispatcher.server_stream(method, call, b"")

    async def _watch(self, call: Call, request: Value) -> AsyncIterator[Value]:
        while True:
            yield Value(number_value=await self.sent.get())


async def refusal_of(stream: AsyncIterator[bytes]) -> tuple[Code, str]:
    with pytest.raises(CallFailed) as caught:
        await anext(stream)
    return caught.value.status.code, caught.value.status.reason


async def test_nothing_is_told_any_more_once_the_token_has_expired() -> None:
    numbers = Numbers()
    stream = numbers.open()
    numbers.sent.put_nowait(1)
    assert await anext(stream)

    numbers.now = BEGIN + 60
    numbers.sent.put_nowait(2)

    assert await refusal_of(stream) == (Code.UNAUTHENTICATED, "TOKEN_EXPIRED")


@pytest.mark.parametrize("waits", [True, False])
async def test_an_operator_whose_role_is_taken_away_is_told_so_and_nothing_else(waits: bool) -> None:
    numbers = Numbers()
    stream = numbers.open()
    numbers.sent.put_nowait(1)
    assert await anext(stream)

    if not waits:
        numbers.sent.put_nowait(2)
    numbers.put(role=Role.DEPLOYER)

    assert await refusal_of(stream) == (Code.PERMISSION_DENIED, "ROLE_REQUIRED")


async def test_a_change_that_leaves_the_role_leaves_the_stream() -> None:
    numbers = Numbers()
    stream = numbers.open()

    for number in range(3):
        numbers.put(description=f"change {number}", expires=None)
        numbers.sent.put_nowait(number)
        assert Value.FromString(await anext(stream)).number_value == number
