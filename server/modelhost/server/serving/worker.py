"""One warm worker: a process that has loaded a model, and the link to it. One call at a time."""

import asyncio
import secrets
import shutil
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from modelhost.server.errors import DomainError, PredictionFailed, StepFailed
from modelhost.server.serving.link import Header, Link
from modelhost.server.serving.output import OutputPump
from modelhost.server.serving.process import Process, Spawner, describe_exit
from modelhost.v1.error_reason_pb2 import ErrorReason

PROTOCOL = 1
STOP_GRACE_SECONDS = 2.0
LAST_OUTPUT_SECONDS = 0.5
TAIL_LINES = 30

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that makes the workers of one revision alike.

    `prepare` fills a worker's own directory with the model's files and returns the model's root in it; it blocks.
    `load` are the fields of the LOAD message but for `root`. `on_lines` gets (worker id, stream, lines) on the output
    thread. Times in seconds, sizes in bytes.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    prepare: Callable[[Path], Path]
    load: Mapping[str, object]
    on_lines: Callable[[str, str, list[str]], None]
    load_timeout: float
    call_timeout: float
    message_limit: int


@dataclass(frozen=True)
class Loaded:
    """What a worker said of itself and of the model when it was ready."""

    version: str
    batch: bool
    warnings: tuple[str, ...] = field(default=())


class WorkerHost:
    """What all workers of a server share: where their directories lie, who starts them and who reads their output."""

    def __init__(self, directory: Path, spawner: Spawner, output: OutputPump, marker: Mapping[str, str]) -> None:
        self.directory = directory
        self.spawner = spawner
        self.output = output
        self.marker = marker


class Worker:
    """A worker process from spawn to exit. Built by `start`; gone when `exited` is done."""

    def __init__(self, host: WorkerHost, spec: WorkerSpec) -> None:
        self.id = secrets.token_hex(6)
        self.loaded = Loaded("", False)
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._host = host
        self._spec = spec
        self._directory = host.directory / self.id
        self._token = secrets.token_hex(16)
        self._process: Process | None = None
        self._link: Link | None = None
        self._hello: asyncio.Future[Header] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[tuple[Header, bytes]] | None = None
        self._serial = 0
        self._timer: asyncio.TimerHandle | None = None
        self._overran = False
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._stderr_ended = asyncio.Event()

    async def start(self) -> Loaded:
        """Spawn, shake hands, load. Raises `StepFailed`; whatever happens, a worker that is not ready is gone."""
        try:
            async with asyncio.timeout(self._spec.load_timeout):
                self.loaded = await self._load()
        except TimeoutError:
            await self.kill()
            raise StepFailed(
                ErrorReason.ERROR_REASON_LOAD_TIMED_OUT,
                "the model was not loaded within {seconds} s",
                seconds=f"{self._spec.load_timeout:g}",
            ) from None
        except (OSError, RuntimeError) as error:
            await self.kill()
            raise StepFailed(
                ErrorReason.ERROR_REASON_WORKER_DIED_LOADING, "a worker could not be started: {error}", error=error
            ) from error
        except BaseException:
            await self.kill()
            raise
        return self.loaded

    async def _load(self) -> Loaded:
        loop = asyncio.get_running_loop()
        root = await loop.run_in_executor(None, self._prepare)
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            self._link = await Link.over(ours, self._on_frame, self._on_end, body_limit=self._spec.message_limit)
            self._process = await self._host.spawner.spawn(
                self._spec.argv,
                env=self._environment(theirs.fileno()),
                cwd=self._directory,
                link=theirs,
                on_output=self._drain,
            )
        self._process.exited.add_done_callback(self._on_exit)
        hello = await self._or_death(self._hello)
        if hello.get("protocol") != PROTOCOL or not secrets.compare_digest(str(hello.get("token")), self._token):
            raise RuntimeError(f"worker {self.id} speaks protocol {hello.get('protocol')} or has a wrong token")
        self._link.send({"type": "welcome", "protocol": PROTOCOL, "features": []})
        header, _ = await self._or_death(self._ask({**self._spec.load, "type": "load", "root": str(root)}))
        if header.get("type") != "loaded":
            raise _load_failure(header)
        return Loaded(str(hello.get("version")), bool(header.get("batch")), tuple(header.get("warnings", ())))

    def call(self, parameters: bytes) -> "asyncio.Future[tuple[Header, bytes]]":
        """Send a call; the answer, or `PredictionFailed`, comes in the future, even if nobody waits for it any more."""
        self._timer = asyncio.get_running_loop().call_later(self._spec.call_timeout, self._overrun)
        return self._ask({"type": "call"}, parameters)

    async def stop(self) -> None:
        """Let it end by itself, then make it; returns when the process is reaped and its directory gone."""
        if self._link is not None and not self.exited.done():
            self._link.send({"type": "stop"})
            await asyncio.wait([self.exited], timeout=STOP_GRACE_SECONDS)
        await self.kill()

    async def kill(self) -> None:
        """End the process group; returns when the process is reaped and its directory gone."""
        if self._process is not None:
            await self._process.end(STOP_GRACE_SECONDS)
        if self._link is not None:
            self._link.close()
        await asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, self._directory, True)

    def _prepare(self) -> Path:
        for name in ("home", "tmp"):
            (self._directory / name).mkdir(mode=0o700, parents=True)
        return self._spec.prepare(self._directory)

    def _environment(self, link: int) -> dict[str, str]:
        return {
            **self._spec.env,
            **self._host.marker,
            "HOME": str(self._directory / "home"),
            "TMPDIR": str(self._directory / "tmp"),
            "MODELHOST_LINK": f"fd:{link}",
            "MODELHOST_LINK_TOKEN": self._token,
        }

    def _ask(self, header: Header, body: bytes = b"") -> "asyncio.Future[tuple[Header, bytes]]":
        assert self._link is not None  # started
        self._serial += 1
        header["id"] = self._serial
        self._answer = asyncio.get_running_loop().create_future()
        if self.exited.done():
            self._answer.set_exception(self._death())
        else:
            self._link.send(header, body)
        return self._answer

    def _on_frame(self, header: Header, body: bytes) -> None:
        if header.get("type") == "hello":
            if not self._hello.done():
                self._hello.set_result(header)
            return
        answer = self._answer
        if answer is None or header.get("id") != self._serial:
            return
        self._settle_call()
        if answer.done():
            return
        if "oversize" in header:
            answer.set_exception(_too_large(header["oversize"], self._spec.message_limit))
        elif header["type"] == "failed":
            answer.set_exception(_call_failure(header))
        else:
            answer.set_result((header, body))

    def _settle_call(self) -> None:
        self._answer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overrun(self) -> None:
        self._overran = True
        if self._process is not None:
            task = asyncio.ensure_future(self._process.end(STOP_GRACE_SECONDS))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _on_end(self, error: Exception | None) -> None:
        # A worker that has closed its link, or has broken its rules, is of no use any more; its exit tells the rest.
        if self._process is not None and not self._process.exited.done():
            if error is not None:
                log.warning("worker broke its link", worker=self.id, error=str(error))
            task = asyncio.ensure_future(self._process.end(STOP_GRACE_SECONDS))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _on_exit(self, exited: "asyncio.Future[int]") -> None:
        self.exited.set_result(describe_exit(exited.result()))
        answer = self._answer
        self._settle_call()
        if answer is not None and not answer.done():
            answer.set_exception(self._death())

    def _death(self) -> DomainError:
        if self._overran:
            return PredictionFailed(
                ErrorReason.ERROR_REASON_MODEL_TIMED_OUT,
                "the call took longer than the deployment's call_timeout of {seconds} s; its worker is replaced",
                seconds=f"{self._spec.call_timeout:g}",
            )
        return PredictionFailed(
            ErrorReason.ERROR_REASON_WORKER_DIED,
            "the worker died ({how}) while it ran this call",
            how=self.exited.result(),
        )

    async def _or_death(self, wanted: "asyncio.Future[Any]") -> Any:
        """Wait for an answer while loading, or for the process's death, whose reason is the last it wrote to stderr."""
        await asyncio.wait([wanted, self.exited], return_when=asyncio.FIRST_COMPLETED)
        if wanted.done() and not wanted.exception():
            return wanted.result()
        await asyncio.wait([self.exited])
        with suppress(TimeoutError):  # a child that got away may hold the pipe
            await asyncio.wait_for(self._stderr_ended.wait(), LAST_OUTPUT_SECONDS)
        last = next((line.strip() for line in reversed(self._tail) if line.strip()), "it wrote nothing to stderr")
        raise StepFailed(
            ErrorReason.ERROR_REASON_WORKER_DIED_LOADING,
            "the worker ended ({how}) while loading the model: {last}",
            how=self.exited.result(),
            last=last,
        )

    def _drain(self, stdout: int, stderr: int) -> None:
        loop = asyncio.get_running_loop()

        def sink(stream: str, lines: list[bytes]) -> None:
            text = [line.decode("utf-8", "replace").rstrip("\r") for line in lines]
            if stream == "stderr":
                self._tail.extend(text)
                if not lines and not loop.is_closed():
                    loop.call_soon_threadsafe(self._stderr_ended.set)
            if text:
                self._spec.on_lines(self.id, stream, text)

        self._host.output.add(stdout, lambda lines: sink("stdout", lines))
        self._host.output.add(stderr, lambda lines: sink("stderr", lines))


_LOAD_REASONS = {
    "main_file_not_found": ErrorReason.ERROR_REASON_MAIN_FILE_NOT_FOUND,
    "syntax_error": ErrorReason.ERROR_REASON_SYNTAX_ERROR,
    "import_failed": ErrorReason.ERROR_REASON_IMPORT_FAILED,
    "function_not_found": ErrorReason.ERROR_REASON_FUNCTION_NOT_FOUND,
    "setup_failed": ErrorReason.ERROR_REASON_SETUP_FAILED,
    "function_masks_base": ErrorReason.ERROR_REASON_FUNCTION_MASKS_BASE,
}


def _load_failure(header: Header) -> StepFailed:
    return StepFailed(
        _LOAD_REASONS.get(str(header.get("reason")), ErrorReason.ERROR_REASON_IMPORT_FAILED),
        "{cause}",
        details=str(header.get("traceback", "")),
        cause=header.get("message", "the worker could not load the model"),
    )


def _call_failure(header: Header) -> PredictionFailed:
    values = {"exception": header.get("exception", ""), "text": header.get("message", "")}
    traceback = str(header.get("traceback", ""))
    match header.get("reason"):
        case "parameters_invalid":
            reason, template = ErrorReason.ERROR_REASON_PARAMETERS_INVALID, "{text}"
        case "result_not_serialisable":
            reason, template = ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE, "{text}"
        case _:
            reason, template = ErrorReason.ERROR_REASON_MODEL_RAISED, "the model raised {exception}: {text}"
    return PredictionFailed(reason, template, traceback=traceback, **values)


def _too_large(size: int, limit: int) -> PredictionFailed:
    return PredictionFailed(
        ErrorReason.ERROR_REASON_RESULT_TOO_LARGE,
        "the model's result has {size} bytes; the server's message limit is {limit}",
        size=size,
        limit=limit,
    )
