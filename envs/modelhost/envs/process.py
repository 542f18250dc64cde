"""Run a command as one step of a longer job: its lines are reported as they come, and it can be cancelled.

Commands run on the calling thread, which may not be the event loop's. Each is the leader of a new session, so that
ending it ends what it started, and is always waited for. A command is over when its leader is, whoever still holds its
pipes; its end is seen through a pidfd.
"""

import contextlib
import fcntl
import os
import select
import selectors
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from modelhost.envs.marked import give_tag, tag_of

TAIL_LINES = 200
LINE_LIMIT = 8 * 1024  # bytes of a line that are kept
STDOUT_LIMIT = 8 * 1024 * 1024  # bytes of stdout that are returned where its lines were reported anyway
CHUNK = 64 * 1024
POLL_SECONDS = 0.1  # between looks at cancellation and the time
TERM_GRACE_SECONDS = 3.0


class Stream(StrEnum):
    """What wrote a line."""

    SERVER = "server"  # ModelHost itself
    STDOUT = "stdout"
    STDERR = "stderr"


class Cancelled(Exception):
    """The job was cancelled; whatever it was doing has ended."""


class CommandFailed(Exception):
    """A command exited with a code other than 0, was ended by a signal, or took too long.

    Carries what a person needs to run it again: `argv`, `exit_code` (negative: the signal), `timed_out`, and the last
    lines of its `output`, both streams in the order they came.
    """

    def __init__(self, argv: Sequence[str], exit_code: int, output: Sequence[str], *, timed_out: bool = False) -> None:
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.output = tuple(output)
        self.timed_out = timed_out
        how = "took too long" if timed_out else f"ended with {exit_code}"
        super().__init__(f"{Path(argv[0]).name} {how}: {self.last_line or 'no output'}")

    @property
    def last_line(self) -> str:
        """The last line with something in it: mostly the one that says what went wrong."""
        return next((line.strip() for line in reversed(self.output) if line.strip()), "")


@dataclass(frozen=True)
class Completed:
    """What a command that succeeded left: its stdout, undecoded.

    The whole of it with `quiet`; otherwise, since its lines were reported, no more than the first 8 MiB.
    """

    stdout: bytes


def _ignore(stream: Stream, line: str) -> None:
    """Report to nobody."""


class Job:
    """A piece of work that can be cancelled from another thread and that says what it does, line by line.

    `emit` is called on the thread that does the work. `marker` is put into the environment of every command, so that
    what a killed server left behind can be found by it; `tag`, which follows from it, is for what has no environment.
    """

    def __init__(
        self, emit: Callable[[Stream, str], None] = _ignore, *, marker: Mapping[str, str] | None = None
    ) -> None:
        self.marker: Mapping[str, str] = dict(marker or {})
        self.tag = tag_of(self.marker, "")
        self._first = self.marker
        self._emit = emit
        self._cancel = threading.Event()

    def say(self, line: str) -> None:
        """Report a line of our own."""
        self._emit(Stream.SERVER, line)

    def report(self, stream: Stream, line: str) -> None:
        """Report a line that somebody else wrote."""
        self._emit(stream, line)

    def marked(self, marker: Mapping[str, str]) -> "Job":
        """Return this job, cancelled and reported as one, with more in the environment of its commands."""
        job = Job(self._emit, marker={**self.marker, **marker})
        job._first = self._first
        job.tag = tag_of(self._first, "\0".join(job.marker.values()))
        job._cancel = self._cancel
        return job

    def cancel(self) -> None:
        """End the job at its next check; a command under way is ended within moments. From any thread."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for the end."""
        return self._cancel.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if somebody asked for the end."""
        if self._cancel.is_set():
            raise Cancelled

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        timeout: float,
        stdin: bytes | None = None,
        quiet: bool = False,
    ) -> Completed:
        """Run `argv` to its end, within `timeout` seconds, and report its lines.

        `env` is the whole environment. With `quiet`, only stderr is reported and stdout is only returned. What the
        command left running in its process group is killed.

        Raises `CommandFailed`, `Cancelled`, and `OSError` where the program cannot be started.
        """
        self.check()
        process = subprocess.Popen(
            argv,
            env={**env, **self.marker},
            cwd=cwd,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        output = _Output(self._emit, quiet)
        give_tag(process.pid, self.tag)
        timed_out = False
        try:
            self._follow(process, stdin or b"", output, time.monotonic() + timeout)
        except _TookTooLong:
            timed_out = True
        finally:
            exit_code = end_group(process)
        if timed_out or exit_code != 0:
            raise CommandFailed(argv, exit_code, output.tail, timed_out=timed_out)
        return Completed(bytes(output.stdout))

    def _follow(self, process: subprocess.Popen[bytes], stdin: bytes, output: "_Output", deadline: float) -> None:
        """Carry the bytes between us and a command until it has ended."""
        unsent = memoryview(stdin)
        with selectors.DefaultSelector() as selector, _end_of(process) as end:
            selector.register(end, selectors.EVENT_READ)
            for pipe, stream in ((process.stdout, Stream.STDOUT), (process.stderr, Stream.STDERR)):
                assert pipe is not None
                selector.register(pipe, selectors.EVENT_READ, stream)
            if process.stdin is not None:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE)
            ended = False
            while not ended:
                self.check()
                if time.monotonic() > deadline:
                    raise _TookTooLong
                for key, _ in selector.select(POLL_SECONDS):
                    if key.fd == end:
                        ended = True
                    elif process.stdin is not None and key.fileobj is process.stdin:
                        unsent = _feed(key.fd, unsent)
                        if not unsent:
                            selector.unregister(key.fileobj)
                            process.stdin.close()
                    elif data := os.read(key.fd, CHUNK):
                        output.add(key.data, data)
                    else:
                        selector.unregister(key.fileobj)
            # A child that outlives the command may hold the pipes for ever, and write: take what is there, no more.
            for key in list(selector.get_map().values()):
                if key.data is not None and (there := _bytes_waiting(key.fd)):
                    output.add(key.data, os.read(key.fd, there))
        output.close()


class _TookTooLong(Exception):
    """The time of a command is up."""


class _Output:
    """What a command writes, as lines; floods and endless lines cost no more memory than the limits say."""

    def __init__(self, emit: Callable[[Stream, str], None], quiet: bool) -> None:
        self.stdout = bytearray()
        self.tail: list[str] = []
        self._emit = emit
        self._quiet = quiet
        self._pending = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}

    def add(self, stream: Stream, data: bytes) -> None:
        if stream is Stream.STDOUT:
            if self._quiet:
                self.stdout += data
                return
            self.stdout += data[: STDOUT_LIMIT - len(self.stdout)]
        pending = self._pending[stream]
        *ends, rest = data.split(b"\n")
        for end in ends:
            pending += end[: LINE_LIMIT - len(pending)]
            self._report(stream)
        pending += rest[: LINE_LIMIT - len(pending)]

    def close(self) -> None:
        """Report what is left: a last line without its end."""
        for stream, pending in self._pending.items():
            if pending:
                self._report(stream)

    def _report(self, stream: Stream) -> None:
        raw = bytes(self._pending[stream]).rstrip(b"\r")
        self._pending[stream].clear()
        line = raw.rpartition(b"\r")[2].decode("utf-8", "replace")  # of a progress bar, what was left standing
        self.tail.append(line)
        del self.tail[:-TAIL_LINES]
        self._emit(stream, line)


def _feed(pipe: int, data: memoryview) -> memoryview:
    """Write some of a command's input; return what is left of it, nothing where the command stopped reading."""
    try:
        return data[os.write(pipe, data[:CHUNK]) :] if data else data
    except BrokenPipeError:
        return data[:0]


def _bytes_waiting(pipe: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


@contextlib.contextmanager
def _end_of(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """Open a descriptor that is readable once a process has ended; the process stays to be waited for."""
    pidfd = os.pidfd_open(process.pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def end_group(process: subprocess.Popen[bytes]) -> int:
    """End a session's leader and all of its group: TERM, a grace, KILL. Always waits; returns the exit code."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError), _end_of(process) as end:
            ended = select.poll()
            ended.register(end, select.POLLIN)
            if not ended.poll(0):
                _signal_group(process.pid, signal.SIGTERM)
                ended.poll(TERM_GRACE_SECONDS * 1000)
    # The leader and what it left behind. Before it is waited for: until then nobody else can get its number.
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # input that was still to be flushed
                pipe.close()
    return process.returncode


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
