"""One warm worker: the conversation with a process that has loaded a model. One call at a time."""

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from modelhost.server.errors import Conflict, DomainError, PredictionFailed, StepFailed
from modelhost.server.serving.alarm import NEVER, Alarm
from modelhost.server.serving.answers import (
    Mask,
    call_failure,
    item_timed_out,
    load_failure,
    start_failure,
    timed_out,
    too_large,
)
from modelhost.server.serving.body import STOP_GRACE_SECONDS, Body
from modelhost.server.serving.host import WorkerHost, WorkerSpec
from modelhost.server.serving.link import Head, Header, Link, Part, Received, widen
from modelhost.server.serving.stream import Stream
from modelhost.v1.error_reason_pb2 import ErrorReason

PROTOCOL = 1
STREAM, TENSORS = "stream", "tensors"
FEATURES = frozenset({STREAM, TENSORS})  # of the protocol, beyond what every worker has
LAST_MOMENT_SECONDS = 0.2

CALL = Head({"type": "call"})
CAPTURED = Head({"type": "call", "capture": True})
CALL_ANSWERS = frozenset({"result", "failed"})
LOAD_ANSWERS = frozenset({"loaded", "load_failed"})

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class Loaded:
    """What a worker said of itself and of the model when it was ready."""

    version: str
    batch: bool
    warnings: tuple[str, ...] = field(default=())
    features: frozenset[str] = frozenset()


class Asker(Protocol):
    """Who has sent a worker something, and is told what comes of it, once, as soon as it is known."""

    def answered(self, header: Header, body: Received) -> None:
        """The worker has answered."""

    def failed(self, error: BaseException) -> None:
        """There is no answer, or it is a failure: `PredictionFailed`, or `Conflict` of a worker that was let go."""


class _Waiter:
    """An asker that can be awaited."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[Header, Received]] = asyncio.get_running_loop().create_future()
        self.answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, whoever waits for it

    def answered(self, header: Header, body: Received) -> None:
        if not self.answer.done():
            self.answer.set_result((header, body))

    def failed(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Worker:
    """A worker process from spawn to exit, one of `size`. Built by `start`; gone when `kill` or `stop` has returned.

    `lost` is done as soon as it is of no use any more: it has hung up, overrun a call, or ended. `on_heavy` is
    called, perhaps often, while it uses so much memory that it should be exchanged. `calls` counts those sent to it.
    """

    def __init__(
        self,
        host: WorkerHost,
        spec: WorkerSpec,
        size: int = 1,
        on_heavy: Callable[["Worker"], None] = lambda _: None,
    ) -> None:
        self.id = secrets.token_hex(6)
        self.loaded = Loaded("", False)
        self.calls = 0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._spec = spec
        self._size = size
        self._body = Body(host, spec, self.id, lambda: on_heavy(self))
        self._token = secrets.token_hex(16)
        self._link: Link | None = None
        self._loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[Header] = self._loop.create_future()
        self._asker: Asker | None = None  # of the one thing that it is to answer
        self._expected: frozenset[str] = frozenset()
        self._late = Alarm(self._overrun)
        self._serial = 0
        self._fault = ""  # why we gave it up
        self._dismissed = False  # by us: its end is no news
        self._request_id = ""
        self._capturing = False
        self._batch = 0  # how many parts the answer is to have; 0 for one that has none
        self._count = 0  # of the calls that run
        self._stream: Stream | None = None  # that the call which runs is
        self._body.exited.add_done_callback(self._on_exit)

    @property
    def mask(self) -> Mask:
        """Takes the model's secrets out of a text."""
        return self._spec.mask

    @property
    def is_busy(self) -> bool:
        """Whether a call runs in it."""
        return self._asker is not None

    @property
    def exited(self) -> "asyncio.Future[str]":
        """Resolved with how the process ended."""
        return self._body.exited

    @property
    def cause(self) -> str:
        """Why it was lost: `timeout`, `link`, `memory`, `signal` or `exit`; once it has exited."""
        return self._fault or self._body.ended_by

    async def start(self) -> Loaded:
        """Spawn, shake hands, load. Raises `StepFailed`; whatever happens, a worker that is not ready is gone."""
        try:
            async with asyncio.timeout(self._spec.load_timeout):
                self.loaded = await self._load()
        except BaseException as error:
            await self.kill()
            if isinstance(error, StepFailed) or not isinstance(error, Exception):
                raise
            raise start_failure(error, self._spec.load_timeout) from error
        return self.loaded

    async def _load(self) -> Loaded:
        root = await self._body.prepare()
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            widen(ours)
            widen(theirs)
            self._link = await Link.over(ours, self._on_frame, self._on_end, body_limit=self._spec.message_limit)
            await self._body.spawn(theirs, self._token, self._size)
        hello = await self._or_death(self._hello)
        known = secrets.compare_digest(str(hello.get("token")).encode(), self._token.encode())
        if hello.get("protocol") != PROTOCOL or not known:
            raise RuntimeError(f"worker {self.id} speaks protocol {hello.get('protocol')} or has a wrong token")
        features = FEATURES.intersection(hello.get("features", ()))
        self._link.send({"type": "welcome", "protocol": PROTOCOL, "features": sorted(features)})
        load = {**self._spec.load, "type": "load", "root": str(root), "result_limit": self._spec.message_limit}
        loaded = _Waiter()
        self._ask(loaded, Head(load), LOAD_ANSWERS, ())
        header, _ = await self._or_death(loaded.answer)
        if header.get("type") != "loaded":
            raise load_failure(header, self._spec.mask)
        warnings = tuple(self._spec.mask(str(each)) for each in header.get("warnings", ()))
        return Loaded(str(hello.get("version")), bool(header.get("batch")), warnings, features)

    def call(
        self,
        asker: Asker,
        head: Head,
        body: Sequence[Part],
        request_id: str = "",
        *,
        capture: bool = False,
        count: int = 1,
    ) -> None:
        """Send a call, or `count` calls that are one for the model; what comes of it, the asker is told.

        What is written meanwhile belongs to `request_id`. With `capture`, which the header says too, the answer has it,
        and a call that failed in the model has an answer, too.
        """
        self.calls += count
        self._capturing, self._batch, self._count = capture, 0, count
        self._own_output(request_id)
        self._late.set(self._loop.time() + self._spec.call_timeout)
        self._ask(asker, head, CALL_ANSWERS, body)

    async def debug(self, parameters: bytes, request_id: str) -> tuple[Header, Received]:
        """Make a call of a worker that is in no pool; returns the answer with all that was seen of it."""
        waiter = _Waiter()
        self.call(waiter, CAPTURED, (parameters,), request_id, capture=True)
        return await waiter.answer

    def call_batch(self, asker: Asker, parameters: Sequence[Part], request_id: str) -> None:
        """Send several calls as one, for the model's batch function; as `call`.

        The answer's header has `sizes`, that of each one's part of the body, and `failed`, the numbers of those whose
        part is the fields of a failure. An exception is that of all of them.
        """
        self.calls += len(parameters)
        self._capturing, self._batch, self._count = False, len(parameters), len(parameters)
        self._own_output(request_id)
        sizes = [len(each) for each in parameters]
        self._late.set(self._loop.time() + self._spec.call_timeout)
        self._ask(asker, Head({**CALL.fields, "sizes": sizes}), CALL_ANSWERS, parameters)

    def stream(self, asker: Asker, head: Head, body: Sequence[Part], request_id: str = "") -> Stream:
        """Send a call as `call` does; what it returns comes item by item."""
        self.calls += 1
        self._capturing, self._batch, self._count = False, 0, 1
        self._own_output(request_id)
        self._late.set(NEVER)  # the stream sees to it
        stream = Stream(self._spec.call_timeout, self._spec.message_limit, self._tell, self._overrun)
        streams = STREAM in self.loaded.features
        self._stream = stream if streams else None
        self._ask(asker, Head({**head.fields, "stream": stream.room}) if streams else head, CALL_ANSWERS, body)
        return stream

    def _tell(self, header: Header) -> None:
        """Send what belongs to the stream under way, if the worker knows streams."""
        if STREAM in self.loaded.features and self._link is not None:
            self._link.send({**header, "id": self._serial})

    async def stop(self) -> None:
        """Let it end by itself, if it has no call, then make it; a call that it has fails at once.

        Returns, even if cancelled, when nothing of it is left.
        """
        self._dismissed |= not self.lost.done()
        try:
            if self._asker is not None:
                self._fail_call()
            elif self._link is not None and not self.exited.done():
                self._link.send({"type": "stop"})
                await asyncio.wait([self.exited], timeout=STOP_GRACE_SECONDS)
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End it; returns, even if cancelled, when the process is reaped and its directory and strays are gone."""
        self._dismissed |= not self.lost.done()
        try:
            await self._body.kill()
        finally:
            self._late.close()
            if self._link is not None:
                self._link.close()

    def note(self, text: str, request_id: str = "") -> None:
        """Put lines of our own among what it writes, for a call or for several."""
        self._body.note(text, request_id)

    def _ask(self, asker: Asker, head: Head, expected: frozenset[str], body: Sequence[Part]) -> None:
        assert self._link is not None  # started
        assert self._asker is None  # one at a time
        self._serial += 1
        self._expected = expected
        self._asker = asker
        if self.lost.done():
            self._fail_call()
        else:
            self._link.ask(head, self._serial, body)

    def _on_frame(self, header: Header, body: Received) -> None:
        kind = header.get("type")
        if kind == "hello" and not self._hello.done():
            self._hello.set_result(header)
        asker = self._asker
        if asker is None or header.get("id") != self._serial:
            return
        if kind == "item" and self._stream is not None:
            if not self._stream.put(body, header.get("oversize")):
                self._broke_link("an item that there was no room for")
            return
        if kind not in self._expected:
            self._broke_link(f"an answer of type {str(kind)[:80]!r}")
            return
        if self._batch and kind == "result" and "oversize" not in header and not _is_split(header, body, self._batch):
            self._broke_link("a batch that is not answered call by call")
            return
        self._settle_call()
        if "oversize" in header:
            asker.failed(too_large(header["oversize"], self._spec.message_limit))
        elif kind == "failed":
            request_id = self._request_id
            self._own_output("")
            failure = call_failure(header, self._spec.mask)
            self._body.note(failure.traceback, request_id)
            if self._capturing:
                asker.answered(header, b"")
            else:
                asker.failed(failure)
        else:
            asker.answered(header, body)
        if self._asker is None and self._request_id:  # else it has its next call already
            self._own_output("")

    def _own_output(self, request_id: str) -> None:
        self._request_id = request_id
        self._body.outputs.belong_to(request_id)  # what the last call wrote was out before its answer

    def _settle_call(self) -> None:
        self._asker = self._stream = None  # the alarm is left as it is: should it ring, there is no call that is late

    def _overrun(self) -> None:
        if self._asker is None:
            return
        asker, count, seconds = self._asker, self._count, self._spec.call_timeout
        what, failure = f"a batch of {count} calls" if count > 1 else "a call", timed_out(seconds, count)
        if self._stream is not None:
            what, failure = "an item", item_timed_out(seconds)
        self._settle_call()
        self._body.note(
            f"{what} took longer than {seconds:g} s: this worker is ended and replaced",
            self._request_id,
        )
        self._give_up("timeout")
        asker.failed(failure)

    def _on_end(self, error: Exception | None) -> None:
        if error is None or isinstance(error, OSError):
            self._give_up(
                "", LAST_MOMENT_SECONDS
            )  # it is ending by itself, most likely: how, it should be able to tell
        else:
            self._broke_link(str(error))

    def _broke_link(self, error: str) -> None:
        log.warning("worker broke its link", worker=self.id, error=error)
        self._give_up("link")

    def _give_up(self, fault: str, patience: float = 0) -> None:
        """Take no more of it; end the process, which may live on, in `patience` seconds."""
        self._fault = self._fault or fault
        if not self.lost.done():
            self.lost.set_result(None)
        self._body.give_up(patience)

    def _on_exit(self, exited: "asyncio.Future[str]") -> None:
        if not self._dismissed:
            in_a_call = " in a call" if self._asker else ""
            self._body.note(f"this worker ended ({exited.result()}){in_a_call}", self._request_id)
        if not self.lost.done():
            self.lost.set_result(None)
        self._fail_call()

    def _fail_call(self) -> None:
        asker = self._asker
        self._settle_call()
        if asker is not None:
            asker.failed(self._death())

    def _death(self) -> DomainError:
        if self._dismissed:
            return Conflict(
                ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING, "the deployment was stopped while this call ran"
            )
        return PredictionFailed(
            ErrorReason.ERROR_REASON_WORKER_DIED,
            "the worker died ({how}) while it ran this call",
            how=self.exited.result() if self.exited.done() else "it hung up",
        )

    async def _or_death(self, wanted: "asyncio.Future[Any]") -> Any:
        """Wait for an answer while loading, or for the process's death, whose reason is the last it wrote to stderr."""
        await asyncio.wait([wanted, self.lost], return_when=asyncio.FIRST_COMPLETED)
        if not self.lost.done() or (wanted.done() and not wanted.exception()):
            return wanted.result()
        await asyncio.wait([self.exited])
        raise StepFailed(
            ErrorReason.ERROR_REASON_WORKER_DIED_LOADING,
            "the worker ended ({how}) while loading the model: {last}",
            how=self.exited.result(),
            last=await self._body.last_words(),
        )


def _is_split(header: Header, body: Received, count: int) -> bool:
    """Whether the answer to a batch tells its parts apart."""
    sizes, failed = header.get("sizes"), header.get("failed")
    return (
        isinstance(sizes, list)
        and isinstance(failed, list)
        and len(sizes) == count
        and all(isinstance(number, int) and number >= 0 for number in [*sizes, *failed])
        and sum(sizes) == len(body)
    )
