"""What lies between the generated stubs and gRPC: the token, the deadline and our errors, on every call.

A stub only ever asks its channel for callables, so what it is given here is not a channel but `Calls`, which hands out
callables that do these three things. gRPC's own interceptors can do the same, but cost more on each call.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import grpc

from modelhost.client import errors
from modelhost.client.address import Address

if TYPE_CHECKING:
    from modelhost.client.tokens import Tokens

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Endpoint:
    """What a channel is made with, of either kind. `address` says whether TLS is spoken, however that was asked for."""

    address: Address
    credentials: grpc.ChannelCredentials | None
    options: list[tuple[str, int | str]]


def endpoint(
    address: str,
    *,
    root_certificates: bytes | None,
    client_certificate: tuple[bytes, bytes] | None,
    server_name: str,
    max_message_bytes: int,
) -> Endpoint:
    """Read a client's settings. Raises ValueError for an address that is none."""
    where = Address.parse(address)
    options: list[tuple[str, int | str]] = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # After a lost connection gRPC fails every call until its next try, up to two minutes later by default.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if where.is_loopback:
        options.append(("grpc.enable_http_proxy", 0))  # http_proxy of the environment is not for this host
    if not where.tls and root_certificates is None and client_certificate is None:
        return Endpoint(where, None, options)
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    chain, key = client_certificate or (None, None)
    credentials = grpc.ssl_channel_credentials(root_certificates, private_key=key, certificate_chain=chain)
    return Endpoint(replace(where, tls=True), credentials, options)


def authorisation(token: str | None) -> Metadata:
    """Return the metadata that carries the token."""
    return (("authorization", f"Bearer {token}"),) if token else ()


def identification(request_id: str | None) -> Metadata:
    """Return the metadata that names a call; raises ValueError for an id that no server would take."""
    if request_id is None:
        return ()
    if not re.fullmatch(r"[!-~]{1,64}", request_id):
        raise ValueError(f"{request_id!r:.80} is no request id: it has 1 to 64 printable ASCII characters, no blanks")
    return (("x-request-id", request_id),)


def rpc_error(error: grpc.RpcError, address: Address) -> errors.ModelHostError:
    """Return what a failed call raises; errors of the blocking API are calls, too."""
    return errors.from_call(cast(errors.FailedCall, error), address.target, tls=address.tls)


def is_refusal(error: grpc.RpcError) -> bool:
    """Whether a call was not let in: nothing of it has been done, so it may be repeated with another token."""
    return cast(errors.FailedCall, error).code() is grpc.StatusCode.UNAUTHENTICATED


def left(end: float | None) -> float | None:
    """Return the seconds until a time of the monotonic clock; None for no end."""
    return None if end is None else end - time.monotonic()


def end_of(timeout: float | None) -> float | None:
    """Return the time of the monotonic clock at which a call that begins now must be done."""
    return None if timeout is None else time.monotonic() + timeout


class Calls:
    """What the stubs take for their channel. `timeout` is for calls with one answer; streams have none.

    With `tokens`, calls have a service account's token instead of `token`; they are repeated once, with another one,
    where theirs is refused before there is any answer.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        address: Address,
        token: str | None,
        timeout: float | None,
        tokens: "Tokens | None" = None,
    ) -> None:
        self._channel = channel
        self._address = address
        self._metadata = authorisation(token)
        self._timeout = timeout
        self._tokens = tokens

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> "_OneAnswer":
        """Return the callable for a method with one answer."""
        inner = self._channel.unary_unary(method, *args, **kwargs)
        if self._tokens:
            return _OneAnswerToAccount(inner, self._address, self._tokens, self._timeout)
        return _OneAnswer(inner, self._address, self._metadata, self._timeout)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> "Callable[..., _Stream]":
        """Return the callable for a method with a stream of answers."""
        inner = self._channel.unary_stream(method, *args, **kwargs)

        def call(request: Any, timeout: float | None = None, metadata: Metadata = (), **rest: Any) -> _Stream:
            def begin(own: Metadata, limit: float | None) -> Any:
                return inner(request, timeout=limit, metadata=(*own, *metadata), **rest)

            if self._tokens:
                return _StreamToAccount(begin, self._address, self._tokens, timeout, self._timeout)
            return _Stream(begin(self._metadata, timeout), self._address)

        return call


class _OneAnswer:
    def __init__(self, inner: Any, address: Address, metadata: Metadata, timeout: float | None) -> None:
        self._inner = inner
        self._address = address
        self._metadata = metadata
        self._timeout = timeout

    def _arguments(self, timeout: float | None, metadata: Metadata | None) -> dict[str, Any]:
        return {
            "timeout": self._timeout if timeout is None else timeout,
            "metadata": (*self._metadata, *(metadata or ())),
        }

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **rest: Any
    ) -> Any:
        try:
            return self._inner(request, **self._arguments(timeout, metadata), **rest)
        except grpc.RpcError as error:
            raise rpc_error(error, self._address) from error

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **rest: Any
    ) -> Any:
        """Call, and return the answer with the call."""
        try:
            return self._inner.with_call(request, **self._arguments(timeout, metadata), **rest)
        except grpc.RpcError as error:
            raise rpc_error(error, self._address) from error

    def future(self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **rest: Any) -> Any:
        """Begin a call. What its `result()` raises is gRPC's own error."""
        return self._inner.future(request, **self._arguments(timeout, metadata), **rest)


class _OneAnswerToAccount(_OneAnswer):
    """The same with a service account's token, which is got, and renewed, within the call's own time."""

    def __init__(self, inner: Any, address: Address, tokens: "Tokens", timeout: float | None) -> None:
        super().__init__(inner, address, (), timeout)
        self._tokens = tokens

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **rest: Any
    ) -> Any:
        return self._with_token(self._inner, request, timeout, metadata or (), rest)

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **rest: Any
    ) -> Any:
        """Call, and return the answer with the call."""
        return self._with_token(self._inner.with_call, request, timeout, metadata or (), rest)

    def future(self, request: Any, timeout: float | None = None, metadata: Metadata | None = None, **rest: Any) -> Any:
        """Begin a call, once there is a token. It is not repeated; what its `result()` raises is gRPC's own error."""
        limit = self._timeout if timeout is None else timeout
        token = self._tokens.get(limit)
        return self._inner.future(request, timeout=limit, metadata=(*token.metadata, *(metadata or ())), **rest)

    def _with_token(
        self, call: Any, request: Any, timeout: float | None, metadata: Metadata, rest: dict[str, Any]
    ) -> Any:
        end = end_of(self._timeout if timeout is None else timeout)
        token = self._tokens.get(left(end))
        try:
            return call(request, timeout=left(end), metadata=(*token.metadata, *metadata), **rest)
        except grpc.RpcError as error:
            if not is_refusal(error):
                raise rpc_error(error, self._address) from error
        token = self._tokens.instead_of(token, left(end))
        try:
            return call(request, timeout=left(end), metadata=(*token.metadata, *metadata), **rest)
        except grpc.RpcError as error:
            raise rpc_error(error, self._address) from error


class _Stream:
    """A stream of answers. `cancel()`, from any thread, ends the iteration without an error."""

    def __init__(self, inner: Any, address: Address) -> None:
        self._inner = inner
        self._address = address
        self._cancelled = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._inner)
        except grpc.RpcError as error:
            raise self._end(error) from error

    def _end(self, error: grpc.RpcError) -> Exception:
        """Return what a failed call raises here."""
        return StopIteration() if self._cancelled else rpc_error(error, self._address)

    def cancel(self) -> bool:
        """End the call."""
        self._cancelled = True
        return bool(self._inner.cancel())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _StreamToAccount(_Stream):
    """The same with a service account's token. `patience` is how long it may take to get that, unless `timeout` is."""

    def __init__(
        self,
        begin: Callable[[Metadata, float | None], Any],
        address: Address,
        tokens: "Tokens",
        timeout: float | None,
        patience: float | None,
    ) -> None:
        self._begin = begin
        self._tokens = tokens
        self._end_time = end_of(timeout)
        self._patience = patience
        self._token = tokens.get(patience if timeout is None else timeout)
        self._may_repeat = True
        super().__init__(begin(self._token.metadata, left(self._end_time)), address)

    def __next__(self) -> Any:
        try:
            answer = next(self._inner)
        except grpc.RpcError as error:
            if self._cancelled or not self._may_repeat or not is_refusal(error):
                raise self._end(error) from error
        else:
            self._may_repeat = False
            return answer
        self._begin_again()
        return super().__next__()

    def _begin_again(self) -> None:
        self._may_repeat = False
        limit = self._patience if self._end_time is None else left(self._end_time)
        self._token = self._tokens.instead_of(self._token, limit)
        self._inner = self._begin(self._token.metadata, left(self._end_time))
        if self._cancelled:  # meanwhile
            self._inner.cancel()
