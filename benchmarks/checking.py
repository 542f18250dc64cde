"""The slower pass: calls whose status and values are looked at, which a load generator does not."""

import http.client
from collections.abc import Callable

import grpc

from benchmarks.work import Work

CALLS = 100
DEADLINE_SECONDS = 60.0
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class WrongAnswer(Exception):
    """A call failed, or its answer is not the right one."""


def check(address: str, work: Work, headers: tuple[str, ...], calls: int = CALLS) -> int:
    """Make so many calls, each body at least once; returns the bytes of the shortest answer. Raises `WrongAnswer`."""
    answers = []
    with _Caller(address, work, headers) as call:
        for number in range(max(calls, len(work.bodies))):
            answer = call(work.bodies[number % len(work.bodies)])
            if not work.is_right(answer):
                raise WrongAnswer(f"{work.name}: the server at {address} answered {answer[:200]!r}")
            answers.append(len(answer))
    return min(answers)


class _Caller:
    """`with _Caller(…) as call: call(body)`; raises `WrongAnswer`."""

    def __init__(self, address: str, work: Work, headers: tuple[str, ...]) -> None:
        self._address = address
        self._work = work
        self._metadata = [(name, value) for name, value in (header.split(": ", 1) for header in headers)]

    def __enter__(self) -> Callable[[bytes], bytes]:
        if self._work.http1:
            self._connection = http.client.HTTPConnection(self._address, timeout=DEADLINE_SECONDS)
            return self._post
        self._channel = grpc.insecure_channel(self._address, options=_UNLIMITED)
        self._method: Callable[..., bytes] = self._channel.unary_unary(f"/{self._work.method}")
        return self._call

    def __exit__(self, *_: object) -> None:
        if self._work.http1:
            self._connection.close()
        else:
            self._channel.close()

    def _call(self, body: bytes) -> bytes:
        try:
            return self._method(body, timeout=DEADLINE_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise WrongAnswer(f"{self._work.name}: {error.code().name}: {error.details()}") from None

    def _post(self, body: bytes) -> bytes:
        try:
            self._connection.request("POST", f"/{self._work.method}", body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise WrongAnswer(f"{self._work.name}: {error}") from None
        if response.status != http.HTTPStatus.OK:
            raise WrongAnswer(f"{self._work.name}: status {response.status}: {answer[:200]!r}")
        return answer
