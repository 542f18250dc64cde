"""The client for asyncio: the same, awaited."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import grpc
import grpc.aio

from modelhost.client import errors, transport
from modelhost.client.address import DEFAULT_ADDRESS, Address
from modelhost.client.client import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TIMEOUT
from modelhost.client.prediction import AsyncPredictionStream, Prediction, request_for
from modelhost.client.signing import ServiceAccountKey
from modelhost.client.tokens import AsyncTokens, check_one
from modelhost.v1.admin_pb2_grpc import AdminStub
from modelhost.v1.predict_pb2 import IssueTokenRequest, IssueTokenResponse
from modelhost.v1.predict_pb2_grpc import PredictStub

if TYPE_CHECKING:
    from modelhost.v1.admin_pb2_grpc import AdminAsyncStub
    from modelhost.v1.predict_pb2_grpc import PredictAsyncStub


class AsyncClient:
    """`Client` for asyncio, made and used within one event loop: `async with AsyncClient(…) as client: …`."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        token: str | None = None,
        *,
        account: ServiceAccountKey | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        root_certificates: bytes | None = None,
        client_certificate: tuple[bytes, bytes] | None = None,
        server_name: str = "",
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        check_one(token, account)
        to = transport.endpoint(
            address,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            server_name=server_name,
            max_message_bytes=max_message_bytes,
        )
        self._channel = (
            grpc.aio.secure_channel(to.address.target, to.credentials, to.options)
            if to.credentials
            else grpc.aio.insecure_channel(to.address.target, to.options)
        )
        calls = cast(grpc.aio.Channel, _AsyncCalls(self._channel, to.address, token, timeout))
        if account:
            tokens = AsyncTokens(account, _issuing(PredictStub(calls)))
            calls = cast(grpc.aio.Channel, _AsyncCalls(self._channel, to.address, None, timeout, tokens))
        self.admin: AdminAsyncStub = AdminStub(calls)
        """Every method of `modelhost.v1.Admin`, awaited; streams are iterated with `async for`."""
        self.predict_stub: PredictAsyncStub = PredictStub(calls)
        """Every method of `modelhost.v1.Predict`, awaited."""

    async def predict(
        self, service: str, parameters: Any, *, timeout: float | None = None, request_id: str | None = None
    ) -> Prediction:
        """Call a model, as `Client.predict` does."""
        request, name = request_for(service, parameters), transport.identification(request_id)
        return Prediction.of(await self.predict_stub.Predict(request, timeout=timeout, metadata=name))

    def predict_stream(
        self, service: str, parameters: Any, *, timeout: float | None = None, request_id: str | None = None
    ) -> AsyncPredictionStream:
        """Call a model, as `Client.predict_stream` does, and have what it yields with `async for`."""
        request, name = request_for(service, parameters), transport.identification(request_id)
        answers: Any = self.predict_stub.PredictStream(request, timeout=timeout, metadata=name)
        return AsyncPredictionStream(answers)

    async def close(self) -> None:
        """End the connection, and with it the calls under way."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _issuing(stub: "PredictAsyncStub") -> Callable[[IssueTokenRequest, float | None], Awaitable[IssueTokenResponse]]:
    async def issue(request: IssueTokenRequest, timeout: float | None) -> IssueTokenResponse:
        return await stub.IssueToken(request, timeout=timeout)

    return issue


class _AsyncCalls:
    """What `transport.Calls` is, for asyncio."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: Address,
        token: str | None,
        timeout: float | None,
        tokens: AsyncTokens | None = None,
    ) -> None:
        self._channel = channel
        self._address = address
        self._metadata = transport.authorisation(token)
        self._timeout = timeout
        self._tokens = tokens

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        inner: Any = self._channel.unary_unary(method, *args, **kwargs)
        if self._tokens:
            return self._unary_unary_of_account(inner, self._tokens)

        async def call(
            request: Any, timeout: float | None = None, metadata: transport.Metadata | None = None, **rest: Any
        ) -> Any:
            limit = self._timeout if timeout is None else timeout
            try:
                return await inner(request, timeout=limit, metadata=(*self._metadata, *(metadata or ())), **rest)
            except grpc.aio.AioRpcError as error:
                raise self._translated(error) from error

        return call

    def _unary_unary_of_account(self, inner: Any, tokens: AsyncTokens) -> Callable[..., Any]:
        async def call(
            request: Any, timeout: float | None = None, metadata: transport.Metadata | None = None, **rest: Any
        ) -> Any:
            end = transport.end_of(self._timeout if timeout is None else timeout)
            token, more = await tokens.get(transport.left(end)), metadata or ()
            try:
                return await inner(request, timeout=transport.left(end), metadata=(*token.metadata, *more), **rest)
            except grpc.aio.AioRpcError as error:
                if not transport.is_refusal(error):
                    raise self._translated(error) from error
            token = await tokens.instead_of(token, transport.left(end))
            try:
                return await inner(request, timeout=transport.left(end), metadata=(*token.metadata, *more), **rest)
            except grpc.aio.AioRpcError as error:
                raise self._translated(error) from error

        return call

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., AsyncIterator[Any]]:
        inner: Any = self._channel.unary_stream(method, *args, **kwargs)

        async def call(
            request: Any, timeout: float | None = None, metadata: transport.Metadata | None = None, **rest: Any
        ) -> AsyncIterator[Any]:
            end, more = transport.end_of(timeout), metadata or ()
            patience = self._timeout if timeout is None else timeout
            token = await self._tokens.get(patience) if self._tokens else None
            may_repeat = token is not None
            while True:
                own = token.metadata if token else self._metadata
                stream = inner(request, timeout=transport.left(end), metadata=(*own, *more), **rest)
                try:
                    async for message in stream:
                        may_repeat = False
                        yield message
                    return
                except grpc.aio.AioRpcError as error:
                    if not (may_repeat and transport.is_refusal(error)):
                        raise self._translated(error) from error
                finally:
                    stream.cancel()
                may_repeat = False
                if self._tokens and token:
                    token = await self._tokens.instead_of(token, patience if end is None else transport.left(end))

        return call

    def _translated(self, error: grpc.aio.AioRpcError) -> errors.ModelHostError:
        return errors.from_call(cast(errors.FailedCall, error), self._address.target, tls=self._address.tls)
