"""Worker processes: started on one thread that lives as long as the server, watched by pidfd, ended as a group.

Linux ties PR_SET_PDEATHSIG to the *thread* that started a child, hence the thread. A process's group is killed before
its leader is reaped: until then the kernel cannot give the number to anybody else.
"""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from modelhost.envs.process import end_group
from modelhost.runtimes import LAUNCH
from modelhost.server.serving.finish import finish

OPEN_FILES = 4096  # a worker's
MOST_OPEN_FILES = 65_536  # the server's: some thousand workers; old programs that builds run close as many one by one


def leave_no_cores() -> None:
    """Have no core be dumped of this process, nor of those that it starts: there are secrets in its memory."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def raise_open_files() -> None:
    """Let this process open as many files as its hard limit allows, within reason: each worker takes a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # some sandboxes let nobody
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Process:
    """A started process, leader of its own session and group. `exited` is resolved with its exit code, once."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._popen = popen
        self._pidfd = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; of no effect once it has been reaped."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def end(self, grace: float) -> None:
        """TERM to the group, KILL after `grace` seconds; returns when it is reaped."""
        self.signal(signal.SIGTERM)
        await asyncio.wait([self.exited], timeout=grace)
        self.signal(signal.SIGKILL)
        await asyncio.shield(self.exited)

    def _reap(self) -> None:
        self.signal(signal.SIGKILL)  # what it leaves behind
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.exited.set_result(self._popen.wait())


def _discard(popen: subprocess.Popen[bytes]) -> None:
    """End a process that nobody wants any more, and close its pipes now, not when they are collected."""
    end_group(popen)
    for pipe in (popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()


def describe_exit(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


class Spawner:
    """Starts processes through the launcher, never forking the server itself in Python code."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "spawner")
        self._running: set[Process] = set()
        self._ended = asyncio.Event()

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        link: socket.socket,
        prepared: Sequence[str] = (),
        on_output: Callable[[IO[bytes], IO[bytes]], None],
    ) -> Process:
        """Start `argv` with `link` inherited; `on_output` gets the reading ends of its stdout and stderr to keep.

        `prepared` are more words for the launcher: what keeps it from others, and what it is found by.
        Cancelling leaves nothing behind. Raises `OSError`.
        """
        if self._ended.is_set():
            raise OSError("the server is ending")
        prepare = [f"parent={os.getpid()}", f"link={link.fileno()}", f"open_files={OPEN_FILES}", *prepared]
        started = asyncio.wrap_future(
            self._thread.submit(
                subprocess.Popen,
                [*LAUNCH, *prepare, "--", *argv],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(link.fileno(),),
                start_new_session=True,
            )
        )
        try:
            # To the end: until then the caller must keep `link` open, or another file may get its number.
            popen = await finish(started)
            process = Process(popen)
        except (asyncio.CancelledError, OSError):
            if started.exception() is None:
                await finish(asyncio.to_thread(_discard, started.result()))
            raise
        assert popen.stdout is not None
        assert popen.stderr is not None
        on_output(popen.stdout, popen.stderr)
        self._running.add(process)
        process.exited.add_done_callback(lambda _: self._running.discard(process))
        if self._ended.is_set():
            process.signal(signal.SIGKILL)
        return process

    def kill_all(self) -> None:
        """Kill every process, and start no more."""
        self._ended.set()
        for process in self._running:
            process.signal(signal.SIGKILL)

    def close(self) -> None:
        """End the thread. All processes must have ended: the kernel kills those that are left."""
        self._thread.shutdown()
