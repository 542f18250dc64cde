"""Every call has a name, and how it ended is told, whatever it ended with."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from structlog.contextvars import clear_contextvars, get_contextvars

from modelhost.server.access.callers import NOBODY, Caller
from modelhost.server.access.operators import Operators, digest_of
from modelhost.server.api.admission import Admission
from modelhost.server.api.call import Call
from modelhost.server.api.calling import ModelCalls
from modelhost.server.api.methods import Access, ServerStream, Unary
from modelhost.server.api.predict import PredictMethods
from modelhost.server.api.status import CallFailed, Code
from modelhost.server.errors import NotFound
from modelhost.server.identities import Operator, Role
from modelhost.server.serving.router import Router
from modelhost.v1 import predict_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.dispatching import dispatcher_of

Handler = Callable[[Call, pb.PredictRequest], Awaitable[pb.PredictResponse]]

PATH = "/modelhost.v1.Predict/Predict"
REQUEST = pb.PredictRequest(service="model", parameters_json="1")


class Told:
    """What an observer is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, call: Call, code: Code, reason: str, seconds: float, sent: int) -> None:
        assert seconds >= 0
        self.calls.append((call.size, code.name, reason, sent))


@pytest.fixture
def told() -> Told:
    clear_contextvars()
    return Told()


async def dispatch(handler: Handler, told: Told, *, data: bytes = REQUEST.SerializeToString(), **more: Any) -> bytes:
    method: Any = Unary(PATH, more.pop("access", Access.ANYONE), more.pop("role", None), pb.PredictRequest, handler)
    call = Call(
        PATH, more.pop("metadata", {}), lambda: "peer", more.pop("deadline", None), caller=more.pop("caller", NOBODY)
    )
    return await dispatcher_of(method, {PATH: told}).unary(method, call, data)


async def answer(call: Call, request: pb.PredictRequest) -> pb.PredictResponse:
    return pb.PredictResponse(request_id=call.request_id)


async def test_a_call_is_named_by_its_caller_or_here_for_the_handler_and_for_the_log(told: Told) -> None:
    given = pb.PredictResponse.FromString(await dispatch(answer, told, metadata={"x-request-id": "mine"}))
    assert given.request_id == get_contextvars()["request_id"] == "mine"

    made = pb.PredictResponse.FromString(await dispatch(answer, told, metadata={"x-request-id": "not one"}))
    assert made.request_id == get_contextvars()["request_id"] not in ("", "mine", "not one")
    size = REQUEST.ByteSize()
    assert told.calls == [(size, "OK", "", given.ByteSize()), (size, "OK", "", made.ByteSize())]


async def test_a_call_that_is_refused_is_told_with_its_reason(told: Told) -> None:
    async def refuse(call: Call, request: pb.PredictRequest) -> pb.PredictResponse:
        raise NotFound(ErrorReason.ERROR_REASON_SERVICE_NOT_FOUND, "no")

    with pytest.raises(CallFailed):
        await dispatch(refuse, told)

    assert told.calls == [(REQUEST.ByteSize(), "NOT_FOUND", "SERVICE_NOT_FOUND", 0)]


async def test_a_call_that_is_not_let_in_or_not_read_is_told(told: Told) -> None:
    with pytest.raises(CallFailed):
        await dispatch(answer, told, access=Access.CALLER)
    with pytest.raises(CallFailed):
        await dispatch(answer, told, data=b"\xff")

    assert told.calls == [
        (0, "UNAUTHENTICATED", "UNAUTHENTICATED", 0),
        (1, "INVALID_ARGUMENT", "MALFORMED_REQUEST", 0),
    ]


@pytest.mark.parametrize(
    ("seconds_left", "ended"),
    [
        (None, ("CANCELLED", "")),
        (60.0, ("CANCELLED", "")),
        (0.0, ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")),
        (-1.0, ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")),
    ],
)
async def test_a_call_whose_caller_goes_away_is_told_by_its_deadline(
    told: Told, seconds_left: float | None, ended: tuple[str, str]
) -> None:
    async def hang(call: Call, request: pb.PredictRequest) -> pb.PredictResponse:
        await asyncio.Event().wait()
        raise AssertionError

    deadline = None if seconds_left is None else asyncio.get_running_loop().time() + seconds_left
    call = asyncio.ensure_future(dispatch(hang, told, deadline=deadline))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert told.calls == [(REQUEST.ByteSize(), *ended, 0)]


async def test_a_fault_of_the_server_in_a_prediction_is_logged_with_what_it_was_about(told: Told) -> None:
    class Faulty:
        async def call(self, *_: object) -> bytes:
            raise RuntimeError("a fault")

    router = Router()
    router.add("svc-1", "model", "uid")
    pool: Any = Faulty()
    router.route("svc-1", pool, 3)
    unused: Any = None
    admission = Admission(router)
    methods = PredictMethods(
        router=router,
        admission=admission,
        calls=ModelCalls(router, admission),
        issuer=unused,
        database=unused,
        commands=unused,
        message_limit=4096,
    )
    caller = Caller("operators/admin", role=Role.ADMIN)

    with pytest.raises(CallFailed):
        await dispatch(methods.predict, told, metadata={"x-request-id": "mine"}, caller=caller)

    assert get_contextvars() == {"request_id": "mine", "deployment": "model", "revision": 3}
    assert told.calls == [(REQUEST.ByteSize(), "INTERNAL", "INTERNAL", 0)]


async def test_a_stream_ends_when_the_token_that_it_was_opened_with_does(told: Told) -> None:
    async def nothing(call: Call, request: pb.PredictRequest) -> AsyncIterator[pb.PredictResponse]:
        yield pb.PredictResponse(revision=1)
        await asyncio.Event().wait()

    method: Any = ServerStream(PATH, Access.OPERATOR, Role.VIEWER, pb.PredictRequest, nothing)
    operators = Operators("mha_admin")
    ends = time.time() + 0.3
    operators.put(Operator("o", "ann", Role.VIEWER, "", digest_of("mha_ann"), False, 1, 0.0, 0.0, 0.0, ends, None))
    call = Call(PATH, {"authorization": "Bearer mha_ann"}, lambda: "peer", None)
    seen = []

    async def follow() -> None:
        async for data in dispatcher_of(method, {}, operators).server_stream(method, call, b""):
            seen.append(pb.PredictResponse.FromString(data).revision)  # noqa: PERF401 - until it fails

    with pytest.raises(CallFailed) as caught:
        await follow()

    assert seen == [1]
    assert caught.value.status.reason == "TOKEN_EXPIRED"
