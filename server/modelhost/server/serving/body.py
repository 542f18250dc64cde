"""A worker's body: its directory, its process and all that this starts: confined, drained, watched, cleared away."""

import asyncio
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

import structlog

from modelhost.envs.files import remove_tree
from modelhost.envs.marked import end_marked, tag_of
from modelhost.server.serving.confinement import Confined
from modelhost.server.serving.finish import finish
from modelhost.server.serving.host import WorkerHost, WorkerSpec
from modelhost.server.serving.output import Outputs
from modelhost.server.serving.process import Process, describe_exit
from modelhost.server.text import bytes_shown

STOP_GRACE_SECONDS = 2.0
LAST_OUTPUT_SECONDS = 0.5
TAIL_LINES = 30
CLEARING_ATTEMPTS = 3
CLEARING_PAUSE_SECONDS = 0.5
MARKER = "MODELHOST_WORKER"  # environment variable of a worker and of all that its model starts: the worker's id

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Body:
    """The process of one worker. `prepare`, `spawn`, then `kill`, after which nothing of it is left.

    `outputs` are its pipes. `exited` is resolved with how it ended, for people; `ended_by` is that for machines:
    `exit`, `signal` or `memory`.
    `on_heavy` is called, perhaps often, while it uses more than the spec's `recycle_memory`.
    """

    def __init__(self, host: WorkerHost, spec: WorkerSpec, worker_id: str, on_heavy: Callable[[], None]) -> None:
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ended_by = ""
        self._host = host
        self._spec = spec
        self._id = worker_id
        self._on_heavy = on_heavy
        self._tag = tag_of(host.marker, worker_id)
        self._directory = host.directory / worker_id
        self._prepared: asyncio.Future[Path] | None = None
        self._confined = Confined()
        self._passed = ""  # how it was over its memory, once it was
        self._process: Process | None = None
        self._ending: asyncio.Task[None] | None = None
        self._killing: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._stderr_ended = asyncio.Event()
        self.outputs = Outputs(host.output)

    async def prepare(self) -> Path:
        """Fill its directory; returns the model's root in it."""
        self._prepared = asyncio.get_running_loop().run_in_executor(self._host.threads, self._prepare)
        return await asyncio.shield(self._prepared)

    async def spawn(self, link: socket.socket, token: str, size: int) -> None:
        """Start the process, one of `size`, with its end of the link. Raises `OSError`."""
        process = self._process = await self._host.spawner.spawn(
            self._spec.argv,
            env=self._environment(link.fileno(), token, size),
            cwd=self._directory,
            link=link,
            prepared=[f"tag={self._tag}", *self._confined.words],
            on_output=self._drain,
        )
        process.exited.add_done_callback(self._on_exit)
        self._watch_memory(process)

    def give_up(self, patience: float = 0) -> None:
        """End the process, unless it ends by itself within `patience` seconds; returns at once."""
        if self._process is not None and self._ending is None:
            self._ending = asyncio.ensure_future(self._end(self._process, patience))

    async def kill(self) -> None:
        """End it; returns, even if cancelled, when the process is reaped and its directory and strays are gone."""
        if self._killing is None:  # once, whoever asks, and however many do
            self._killing = asyncio.ensure_future(self._kill())
        await finish(self._killing)

    async def last_words(self) -> str:
        """The last line that it wrote to stderr, once it has exited."""
        with suppress(TimeoutError):  # a child that got away may hold the pipe
            await asyncio.wait_for(self._stderr_ended.wait(), LAST_OUTPUT_SECONDS)
        return next((line.strip() for line in reversed(list(self._tail)) if line.strip()), "it wrote nothing to stderr")

    def note(self, text: str, request_id: str = "") -> None:
        """Put lines of our own among what the worker writes."""
        lines = text.splitlines()
        if lines:
            self._host.output.say(lambda: self._spec.on_lines(self._id, "server", lines, request_id))

    async def _end(self, process: Process, patience: float) -> None:
        await asyncio.wait([process.exited], timeout=patience)
        await process.end(STOP_GRACE_SECONDS)

    async def _kill(self) -> None:
        if self._prepared is not None:
            await asyncio.wait([self._prepared])  # a copy under way would make the directory anew
        if self._ending is not None:
            await asyncio.wait([self._ending])
        elif self._process is not None:
            await self._process.end(STOP_GRACE_SECONDS)
        await asyncio.get_running_loop().run_in_executor(self._host.threads, self._clear)

    def _clear(self) -> None:
        """Each step is tried, and tried again, whatever became of the one before."""
        for step in (self._end_strays, self._leave, self._remove):
            for left in reversed(range(CLEARING_ATTEMPTS)):
                try:
                    step()
                    break
                except OSError as error:  # too many open files, say
                    log.warning(
                        "a worker cannot be cleared away", worker=self._id, error=str(error), attempts_left=left
                    )
                    time.sleep(CLEARING_PAUSE_SECONDS if left else 0)

    def _end_strays(self) -> None:
        if self._process is not None:
            end_marked(MARKER, self._id, range(self._tag, self._tag + 1))

    def _leave(self) -> None:
        self._host.confinement.leave(self._confined)
        self._confined = Confined()  # its user may be another's from now on

    def _remove(self) -> None:
        remove_tree(self._directory)

    def _prepare(self) -> Path:
        self._directory.mkdir(mode=0o700, parents=True)
        for name in ("home", "tmp"):
            (self._directory / name).mkdir(mode=0o700)
        root = self._spec.prepare(self._directory)
        self._confined = self._host.confinement.enter(self._directory, self._spec.needs)
        return root

    def _environment(self, link: int, token: str, size: int) -> Mapping[str, str]:
        return {
            **self._spec.shared_env(size),
            **self._spec.env,
            **self._host.marker,
            MARKER: self._id,
            **dict.fromkeys(("USER", "LOGNAME"), "model"),  # its uid has no name
            "HOME": str(self._directory / "home"),
            "TMPDIR": str(self._directory / "tmp"),
            "MODELHOST_LINK": f"fd:{link}",
            "MODELHOST_LINK_TOKEN": token,
        }

    def _watch_memory(self, process: Process) -> None:
        """Tell when it should be exchanged; end it, at once, when it uses more than it may: it would go on growing."""
        loop, limit = asyncio.get_running_loop(), self._spec.memory

        def end(used: int) -> None:
            if not process.exited.done():
                self._passed = f"it used {bytes_shown(used)} of memory, and its limit is {bytes_shown(limit)}"
                process.signal(signal.SIGKILL)

        def on_loop(act: Callable[..., None], *arguments: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(act, *arguments)

        levels: dict[int, Callable[[int], None]] = {}
        if self._spec.recycle_memory:
            levels[self._spec.recycle_memory] = lambda _: on_loop(self._on_heavy)
        if limit:
            levels[limit] = lambda used: on_loop(end, used)
        if levels:
            self._host.memory.watch(process.pid, self._confined.uid, levels)
            process.exited.add_done_callback(lambda _: self._host.memory.forget(process.pid))

    def _on_exit(self, exited: "asyncio.Future[int]") -> None:
        self.ended_by = "memory" if self._passed else "signal" if exited.result() < 0 else "exit"
        self.exited.set_result(self._passed or describe_exit(exited.result()))

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
                self._spec.on_lines(self._id, stream, text, request_id)

        self.outputs.add(stdout, partial(sink, "stdout"))
        self.outputs.add(stderr, partial(sink, "stderr"))
