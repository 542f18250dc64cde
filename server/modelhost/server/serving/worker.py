"""One warm worker: a process that has loaded a model, and the link to it. One call at a time."""

import asyncio
import secrets
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import structlog

from modelhost.envs.files import remove_tree
from modelhost.envs.marked import end_marked
from modelhost.server.errors import Conflict, DomainError, PredictionFailed, StepFailed
from modelhost.server.serving.answers import Mask, call_failure, load_failure, start_failure, timed_out, too_large
from modelhost.server.serving.confinement import Confined, Confinement
from modelhost.server.serving.finish import finish
from modelhost.server.serving.link import Header, Link
from modelhost.server.serving.memory import MemoryWatch
from modelhost.server.serving.output import OutputPump, Outputs
from modelhost.server.serving.process import Process, Spawner, describe_exit
from modelhost.server.text import bytes_shown
from modelhost.v1.error_reason_pb2 import ErrorReason

PROTOCOL = 1
STOP_GRACE_SECONDS = 2.0
LAST_MOMENT_SECONDS = 0.2
LAST_OUTPUT_SECONDS = 0.5
TAIL_LINES = 30
FILE_THREADS = 4
MARKER = "MODELHOST_WORKER"  # environment variable of a worker and of all that its model starts: the worker's id

_CALL: Header = {"type": "call"}
CALL_ANSWERS = frozenset({"result", "failed"})
LOAD_ANSWERS = frozenset({"loaded", "load_failed"})

OnLines = Callable[[str, str, list[str], str], None]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that makes the workers of one revision alike.

    `prepare` fills a worker's own directory with the model's files and returns the model's root in it; it blocks.
    `needs` are what it reads besides that and the system's files: environment and interpreter.
    `load` are the fields of the LOAD message but for `root`. `on_lines` gets (worker id, stream, lines, id of the call
    that they belong to) on the output thread; `mask` takes the secrets out of all that is said, in lines and errors
    alike. Times in seconds, sizes in bytes; no `memory` is no limit.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    prepare: Callable[[Path], Path]
    load: Mapping[str, object]
    on_lines: OnLines
    mask: Mask
    load_timeout: float
    call_timeout: float
    message_limit: int
    needs: tuple[Path, ...] = ()
    memory: int = 0


@dataclass(frozen=True)
class Loaded:
    """What a worker said of itself and of the model when it was ready."""

    version: str
    batch: bool
    warnings: tuple[str, ...] = field(default=())


class WorkerHost:
    """What all workers of a server share: where their directories lie, who starts, confines and reads them.

    `threads` fill and empty directories: threads of their own, so that a slow Git server keeps no worker waiting.
    """

    def __init__(
        self,
        directory: Path,
        spawner: Spawner,
        output: OutputPump,
        marker: Mapping[str, str],
        confinement: Confinement,
    ) -> None:
        self.directory = directory
        self.spawner = spawner
        self.output = output
        self.marker = marker
        self.confinement = confinement
        self.memory = MemoryWatch()
        self.threads = ThreadPoolExecutor(FILE_THREADS, "worker files")

    def close(self) -> None:
        """Wait for the threads; every worker must be gone."""
        self.memory.close()
        self.threads.shutdown()


class Worker:
    """A worker process from spawn to exit. Built by `start`; gone when `kill` or `stop` has returned.

    `lost` is done as soon as it is of no use any more: it has hung up, overrun a call, or ended.
    """

    def __init__(self, host: WorkerHost, spec: WorkerSpec) -> None:
        self.id = secrets.token_hex(6)
        self.loaded = Loaded("", False)
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._host = host
        self._spec = spec
        self._directory = host.directory / self.id
        self._token = secrets.token_hex(16)
        self._prepared: asyncio.Future[Path] | None = None
        self._confined = Confined()
        self._passed = ""  # how it was over its memory, once it was
        self._process: Process | None = None
        self._link: Link | None = None
        self._hello: asyncio.Future[Header] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[tuple[Header, bytes]] | None = None
        self._expected: frozenset[str] = frozenset()
        self._serial = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._dismissed = False  # by us: its end is no news
        self._stderr_ended = asyncio.Event()
        self._outputs = Outputs(host.output)
        self._request_id = ""
        self._capturing = False

    @property
    def mask(self) -> Mask:
        """Takes the model's secrets out of a text."""
        return self._spec.mask

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
        loop = asyncio.get_running_loop()
        self._prepared = loop.run_in_executor(self._host.threads, self._prepare)
        root = await asyncio.shield(self._prepared)
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            self._link = await Link.over(ours, self._on_frame, self._on_end, body_limit=self._spec.message_limit)
            self._process = await self._host.spawner.spawn(
                self._spec.argv,
                env=self._environment(theirs.fileno()),
                cwd=self._directory,
                link=theirs,
                confined=self._confined.words,
                on_output=self._drain,
            )
        self._process.exited.add_done_callback(self._on_exit)
        if self._spec.memory:
            self._watch_memory(self._process)
        hello = await self._or_death(self._hello)
        known = secrets.compare_digest(str(hello.get("token")).encode(), self._token.encode())
        if hello.get("protocol") != PROTOCOL or not known:
            raise RuntimeError(f"worker {self.id} speaks protocol {hello.get('protocol')} or has a wrong token")
        self._link.send({"type": "welcome", "protocol": PROTOCOL, "features": []})
        header, _ = await self._or_death(
            self._ask({**self._spec.load, "type": "load", "root": str(root)}, LOAD_ANSWERS)
        )
        if header.get("type") != "loaded":
            raise load_failure(header, self._spec.mask)
        warnings = tuple(self._spec.mask(str(each)) for each in header.get("warnings", ()))
        return Loaded(str(hello.get("version")), bool(header.get("batch")), warnings)

    def call(
        self, parameters: bytes, request_id: str = "", *, capture: bool = False
    ) -> "asyncio.Future[tuple[Header, bytes]]":
        """Send a call; the answer, or `PredictionFailed`, comes in the future, even if nobody waits for it any more.

        What is written meanwhile belongs to `request_id`. With `capture` the header has it, and a call that failed in
        the model has an answer, too.
        """
        self._capturing = capture
        self._own_output(request_id)
        answer = self._ask({"type": "call", "capture": True} if capture else _CALL, CALL_ANSWERS, parameters)
        if not answer.done():
            self._timer = asyncio.get_running_loop().call_later(self._spec.call_timeout, self._overrun)
        return answer

    async def stop(self) -> None:
        """Let it end by itself, then make it; returns, even if cancelled, when nothing of it is left."""
        self._dismissed |= not self.lost.done()
        try:
            if self._link is not None and not self.exited.done():
                self._link.send({"type": "stop"})
                await asyncio.wait([self.exited], timeout=STOP_GRACE_SECONDS)
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End it; returns, even if cancelled, when the process is reaped and its directory and strays are gone."""
        self._dismissed |= not self.lost.done()
        await finish(self._kill())

    async def _kill(self) -> None:
        if self._prepared is not None:
            await asyncio.wait([self._prepared])  # a copy under way would make the directory anew
        if self._ending is not None:
            await asyncio.wait([self._ending])
        elif self._process is not None:
            await self._process.end(STOP_GRACE_SECONDS)
        if self._link is not None:
            self._link.close()
        await asyncio.get_running_loop().run_in_executor(self._host.threads, self._clear)

    def _clear(self) -> None:
        if self._process is not None:
            end_marked(MARKER, self.id)
        self._host.confinement.leave(self._confined)
        try:
            remove_tree(self._directory)
        except OSError as error:
            log.warning("the directory of a worker cannot be removed", worker=self.id, error=str(error))

    def _prepare(self) -> Path:
        self._directory.mkdir(mode=0o700, parents=True)
        for name in ("home", "tmp"):
            (self._directory / name).mkdir(mode=0o700)
        root = self._spec.prepare(self._directory)
        self._confined = self._host.confinement.enter(self._directory, self._spec.needs)
        return root

    def _environment(self, link: int) -> dict[str, str]:
        return {
            **self._spec.env,
            **self._host.marker,
            MARKER: self.id,
            **dict.fromkeys(("USER", "LOGNAME"), "model"),  # its uid has no name
            "HOME": str(self._directory / "home"),
            "TMPDIR": str(self._directory / "tmp"),
            "MODELHOST_LINK": f"fd:{link}",
            "MODELHOST_LINK_TOKEN": self._token,
        }

    def _ask(
        self, header: Header, expected: frozenset[str], body: bytes = b""
    ) -> "asyncio.Future[tuple[Header, bytes]]":
        assert self._link is not None  # started
        self._serial += 1
        self._expected = expected
        answer: asyncio.Future[tuple[Header, bytes]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, whoever waits for it
        if self.lost.done():
            answer.set_exception(self._death())
        else:
            self._answer = answer
            self._link.send({**header, "id": self._serial}, body)
        return answer

    def _on_frame(self, header: Header, body: bytes) -> None:
        kind = header.get("type")
        if kind == "hello" and not self._hello.done():
            self._hello.set_result(header)
        answer = self._answer
        if answer is None or header.get("id") != self._serial:
            return
        if kind not in self._expected:
            log.warning("worker broke its link", worker=self.id, error=f"an answer of type {str(kind)[:80]!r}")
            self._give_up()
            return
        self._settle_call()
        request_id = self._request_id
        self._own_output("")
        if "oversize" in header:
            answer.set_exception(too_large(header["oversize"], self._spec.message_limit))
        elif kind == "failed":
            failure = call_failure(header, self._spec.mask)
            self._note(failure.traceback, request_id)
            if self._capturing:
                answer.set_result((header, b""))
            else:
                answer.set_exception(failure)
        else:
            answer.set_result((header, body))

    def _own_output(self, request_id: str) -> None:
        """Name the call that output belongs to from now on: what the last one wrote was out before its answer."""
        self._request_id = request_id
        self._outputs.belong_to(request_id)

    def _watch_memory(self, process: Process) -> None:
        """End it as soon as it uses more than it may: at once, for it would go on growing while it is asked to."""
        loop, limit = asyncio.get_running_loop(), self._spec.memory

        def end(used: int) -> None:
            if not process.exited.done():
                self._passed = f"it used {bytes_shown(used)} of memory, and its limit is {bytes_shown(limit)}"
                process.signal(signal.SIGKILL)

        def on_passed(used: int) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(end, used)

        self._host.memory.watch(process.pid, self._confined.uid, limit, on_passed)
        process.exited.add_done_callback(lambda _: self._host.memory.forget(process.pid))

    def _note(self, text: str, request_id: str = "") -> None:
        """Put lines of our own among what the worker writes."""
        lines = text.splitlines()
        if lines:
            self._host.output.say(lambda: self._spec.on_lines(self.id, "server", lines, request_id))

    def _settle_call(self) -> None:
        self._answer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overrun(self) -> None:
        answer = self._answer
        self._settle_call()
        self._note(
            f"a call took longer than {self._spec.call_timeout:g} s: this worker is ended and replaced",
            self._request_id,
        )
        self._give_up()
        if answer is not None:
            answer.set_exception(timed_out(self._spec.call_timeout))

    def _on_end(self, error: Exception | None) -> None:
        if error is None or isinstance(error, OSError):
            self._give_up(LAST_MOMENT_SECONDS)  # it is ending by itself, most likely: how, it should be able to tell
            return
        log.warning("worker broke its link", worker=self.id, error=str(error))
        self._give_up()

    def _give_up(self, patience: float = 0) -> None:
        """Take no more of it; end the process, which may live on, in `patience` seconds."""
        if not self.lost.done():
            self.lost.set_result(None)
        if self._process is not None and self._ending is None:
            self._ending = asyncio.ensure_future(self._end(self._process, patience))

    async def _end(self, process: Process, patience: float) -> None:
        await asyncio.wait([process.exited], timeout=patience)
        await process.end(STOP_GRACE_SECONDS)

    def _on_exit(self, exited: "asyncio.Future[int]") -> None:
        self.exited.set_result(self._passed or describe_exit(exited.result()))
        if not self._dismissed:
            in_a_call = " in a call" if self._answer else ""
            self._note(f"this worker ended ({self.exited.result()}){in_a_call}", self._request_id)
        if not self.lost.done():
            self.lost.set_result(None)
        answer = self._answer
        self._settle_call()
        if answer is not None:
            answer.set_exception(self._death())

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
        with suppress(TimeoutError):  # a child that got away may hold the pipe
            await asyncio.wait_for(self._stderr_ended.wait(), LAST_OUTPUT_SECONDS)
        last = next((line.strip() for line in reversed(list(self._tail)) if line.strip()), "it wrote nothing to stderr")
        raise StepFailed(
            ErrorReason.ERROR_REASON_WORKER_DIED_LOADING,
            "the worker ended ({how}) while loading the model: {last}",
            how=self.exited.result(),
            last=last,
        )

    def _drain(self, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        loop = asyncio.get_running_loop()
        was_cut = dict.fromkeys(("stdout", "stderr"), False)

        def sink(stream: str, lines: list[bytes], request_id: str, cut: bool) -> None:
            text = [line.decode("utf-8", "replace").rstrip("\r") for line in lines]
            last = len(text) - 1
            text = [
                self._spec.mask(line, cut_before=was_cut[stream] and not number, cut_after=cut and number == last)
                for number, line in enumerate(text)
            ]
            was_cut[stream] = cut
            if stream == "stderr":
                self._tail.extend(text)
                if not lines:
                    with suppress(RuntimeError):  # the loop is closed
                        loop.call_soon_threadsafe(self._stderr_ended.set)
            if text:
                self._spec.on_lines(self.id, stream, text, request_id)

        self._outputs.add(stdout, partial(sink, "stdout"))
        self._outputs.add(stderr, partial(sink, "stderr"))
