"""Calls in a pool: each waits for a worker or is in one, and somebody waits for its answer.

A call knows all that a worker is to be sent, so a worker that has ended one gets the next at once, in the same turn of
the loop, and its caller is woken up only for the answer.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from modelhost.server.serving.alarm import NEVER
from modelhost.server.serving.answers import deadline_exceeded, never_free
from modelhost.server.serving.link import Head, Header, Part, Received
from modelhost.server.serving.stream import Stream
from modelhost.server.serving.worker import Worker

T = TypeVar("T")
Free = Callable[
    [Worker, float], None
]  # is told of a worker that has ended a call, and of what the call took, in seconds


class Queued(ABC, Generic[T]):
    """What waits for a worker. `answer` is what comes of it; whoever waits for that may be cancelled and so leave.

    `longest` is how many seconds it waits for a worker where its caller has set no `deadline`, which is in the loop's
    time. `expires` is when it fails, if nothing else happens. Only those of the same `key` go to a worker together, and
    those without one by themselves. `capture` is for what `Worker.call` takes it for.
    """

    __slots__ = (
        "_begun", "_free", "_longest", "_loop", "_worker", "answer", "body", "capture", "deadline", "expires", "head",
        "key", "queued", "request_id", "sent"
    )  # fmt: skip

    def __init__(
        self,
        head: Head,
        body: Sequence[Part],
        request_id: str,
        deadline: float | None,
        longest: float,
        *,
        key: Hashable = None,
        capture: bool = False,
    ) -> None:
        self.head = head
        self.body = body
        self.request_id = request_id
        self.deadline = deadline
        self.key = key
        self.capture = capture
        self.sent = False
        self._longest = longest
        self._loop = loop = asyncio.get_running_loop()
        self.queued = loop.time()
        self.expires = self.queued + longest if deadline is None else deadline
        self.answer: asyncio.Future[T] = loop.create_future()

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.body))

    @property
    def waited(self) -> float:
        """Seconds until it was sent, once it is."""
        return self._begun - self.queued

    def wait_again(self) -> None:
        """It is back in the queue from now on."""
        self.sent = False
        self.queued = self._loop.time()
        self.expires = self.queued + self._longest if self.deadline is None else self.deadline

    @abstractmethod
    def begin(self, worker: Worker, free: Free) -> None:
        """Send it to a worker; `free` is told when that has ended it."""

    def hand_over(self, worker: Worker, free: Free) -> None:
        """It is a worker's from now on, and ends by its caller's deadline, if there is one."""
        self._worker, self._free = worker, free
        self.sent = True
        self._begun = self._loop.time()
        self.expires = NEVER if self.deadline is None else self.deadline

    def expire(self, now: float) -> bool:
        """Fail if its time is over; whether nobody waits for it any more, for whatever reason."""
        if self.expires <= now:
            if self.sent:
                error = deadline_exceeded("while the model ran")
            elif self.deadline is not None:
                error = deadline_exceeded("while it waited for a worker")
            else:
                error = never_free(self._longest)
            self.expires = NEVER
            self.fail(error)
        return self.answer.done()

    def fail(self, error: BaseException) -> None:
        """Fail; of no effect if nobody waits any more."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def leave(self) -> None:
        """Nobody waits any more: what has come of it in the same turn is seen."""
        if self.answer.done() and not self.answer.cancelled():
            self.answer.exception()

    def _over(self) -> None:
        """The worker has ended it."""
        self._free(self._worker, self._loop.time() - self._begun)


class QueuedCall(Queued[tuple[Header, Received]]):
    """A call with one answer: the header and the body of the worker's `result`, or with `capture` of its `failed`."""

    __slots__ = ()

    def begin(self, worker: Worker, free: Free) -> None:
        """Send it to a worker; `free` is told when that has ended it."""
        self.hand_over(worker, free)
        worker.call(self, self.head, self.body, self.request_id, capture=self.capture)

    def succeed(self, header: Header, body: Received) -> None:
        """Answer; of no effect if nobody waits any more."""
        if not self.answer.done():
            self.answer.set_result((header, body))

    # -- what the worker tells

    def answered(self, header: Header, body: Received) -> None:
        """The worker has a result."""
        self._free(self._worker, self._loop.time() - self._begun)  # so it has its next one before this is looked at
        if not self.answer.done():
            self.answer.set_result((header, body))

    def failed(self, error: BaseException) -> None:
        """The worker has none."""
        self._over()
        self.fail(error)


class QueuedStream(Queued[Stream]):
    """A call whose answer is a stream, which begins as soon as a worker has the call. `leave` closes it."""

    __slots__ = ("_ended",)

    def leave(self) -> None:
        """Nobody waits any more: a stream that has begun in the same turn is closed."""
        super().leave()
        if self.answer.done() and not self.answer.cancelled() and self.answer.exception() is None:
            self.answer.result().close()

    def begin(self, worker: Worker, free: Free) -> None:
        """Send it to a worker; `free` is told when that has ended it."""
        self.hand_over(worker, free)
        self.expires = NEVER  # the stream sees to it
        self._ended: asyncio.Future[tuple[Header, Received]] = self._loop.create_future()
        self._ended.add_done_callback(lambda ended: ended.exception())  # seen, whoever waits for it
        stream = worker.stream(self, self.head, self.body, self.request_id)
        stream.begin(self._ended)
        if self.deadline is not None:
            stream.end_at(self.deadline, deadline_exceeded("while the model ran"))
        self.answer.set_result(stream)

    # -- what the worker tells

    def answered(self, header: Header, body: Received) -> None:
        """The worker has said the last of the stream."""
        self._ended.set_result((header, body))
        self._over()

    def failed(self, error: BaseException) -> None:
        """The stream has failed, or the worker."""
        self._ended.set_exception(error)
        self._over()
