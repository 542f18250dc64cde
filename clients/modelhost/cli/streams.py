"""Streams of answers, read by threads of their own.

Ctrl-C arrives in the main thread, wherever that is. In the midst of gRPC's opening or reading a stream it leaves half
a call, for whose end the closing of the connection, and even Python's own end, wait for ever (measured with grpcio
1.85). So the main thread waits for a queue, and nothing else.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class End:
    """A stream has ended, maybe with an error."""

    error: Exception | None


class Streams:
    """Any number of streams, read as one. Leaving the context cancels them.

    With `ahead`, no more answers than that are read before they are asked for: the server is held up by a slow reader.
    """

    def __init__(self, ahead: int = 0) -> None:
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)
        self._calls: list[Any] = []
        self._is_left = False

    def open(self, key: str, method: Callable[[Any], Any], request: Any) -> None:
        """Read the answers of a method under this key."""
        threading.Thread(target=self._read, args=(key, method, request), daemon=True).start()

    def next(self, timeout: float | None = None) -> tuple[str, Any]:
        """Return the next answer of any stream, or its End, with its key. Raises queue.Empty."""
        return self._queue.get(timeout=timeout)

    def _read(self, key: str, method: Callable[[Any], Any], request: Any) -> None:
        error = None
        try:
            call = method(request)
            self._calls.append(call)
            if self._is_left:
                call.cancel()
            for answer in call:
                self._queue.put((key, answer))
        except Exception as caught:  # whichever it is, it belongs to the main thread
            error = caught
        self._queue.put((key, End(error)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_left = True
        for call in list(self._calls):
            call.cancel()


def received(method: Callable[[Any], Any], request: Any, *, ahead: int = 0) -> Iterator[Any]:
    """Yield the answers of one stream; raises what it ends with."""
    with Streams(ahead) as streams:
        streams.open("", method, request)
        while not isinstance(answer := streams.next()[1], End):
            yield answer
        if answer.error:
            raise answer.error
