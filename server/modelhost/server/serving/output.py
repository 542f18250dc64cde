"""What workers print: one thread drains the pipes of all of them, always, so that no model ever blocks on a print."""

import fcntl
import os
import select
import selectors
import socket
import termios
import threading
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import IO

import structlog

READ_BYTES = 65536
LINE_LIMIT = 8 * 1024
RETRY_SECONDS = 0.1

# Gets the lines that were read, without their ends, whose they are, and whether the last is only a piece of a line; an
# empty list once, at the end.
Sink = Callable[[list[bytes], str, bool], None]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Outputs:
    """The pipes of one process. Each line belongs to the owner that was named last when it was written."""

    def __init__(self, pump: "OutputPump") -> None:
        self.lock = threading.Lock()
        self.owner = ""
        self.log = log.bind(**structlog.contextvars.get_contextvars())  # the pump's thread does not know whose it is
        self._pump = pump
        self._poll = select.poll()
        self._pipes: dict[int, Pipe] = {}

    def add(self, file: IO[bytes], sink: Sink) -> None:
        """Drain a pipe to its end; it is ours to close from now on."""
        os.set_blocking(file.fileno(), False)
        pipe = Pipe(self, file, sink)
        with self.lock:
            self._pipes[file.fileno()] = pipe
            self._poll.register(file, select.POLLIN)
        self._pump.drain(pipe)

    def belong_to(self, owner: str) -> None:
        """Name the owner of what is written from now on. From any thread; waits for no disk, and asks the system once.

        What is in the pipes at this moment is taken for the owner before.
        """
        with self.lock:
            for descriptor, _ in self._poll.poll(0):
                self._pipes[descriptor].take()
            self.owner = owner
            late = [pipe for pipe in self._pipes.values() if pipe.taken or pipe.rest]
        for pipe in late:
            self._pump.say(pipe.hand_on)

    def close(self, pipe: "Pipe") -> None:
        """Close a pipe that has ended."""
        with self.lock:
            del self._pipes[pipe.file.fileno()]
            self._poll.unregister(pipe.file)
            pipe.file.close()


class Pipe:
    """A pipe being drained, on the pump's thread, but for `take`. For that, `taken` and `rest` the lock is needed."""

    def __init__(self, outputs: Outputs, file: IO[bytes], sink: Sink) -> None:
        self.file = file
        self._outputs = outputs
        self._sink = sink
        self.taken: list[tuple[str, bytes]] = []  # with its owner; not yet handed on
        self.rest = b""
        self._rest_owner = ""
        self._deaf = False

    def take(self) -> None:
        """Read what is there, all of it."""
        waiting = array("i", [0])
        fcntl.ioctl(self.file.fileno(), termios.FIONREAD, waiting, True)
        if waiting[0]:
            self.taken.append((self._outputs.owner, os.read(self.file.fileno(), waiting[0])))

    def read(self) -> bool:
        """Read and hand on what is there; false at the end."""
        with self._outputs.lock:
            try:
                data = os.read(self.file.fileno(), READ_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            self.taken.append((self._outputs.owner, data))
        self.hand_on()
        return bool(data)

    def hand_on(self) -> None:
        """Give the sink the lines that were taken."""
        with self._outputs.lock:
            taken, self.taken = self.taken, []
            owner = self._outputs.owner
        for whose, data in [*taken, (owner, b"")]:
            if whose != self._rest_owner:
                self._end_line()
                self._rest_owner = whose
            *lines, self.rest = (self.rest + data).split(b"\n")
            forced = len(self.rest) > LINE_LIMIT
            if forced:
                lines.append(self.rest)
                self.rest = b""
            if lines:
                self._tell(lines, cut=forced)

    def finish(self) -> None:
        """Say that it has ended."""
        self._end_line()
        self._tell([])
        self._outputs.close(self)

    def _end_line(self) -> None:
        if self.rest:
            rest, self.rest = self.rest, b""
            self._tell([rest], cut=True)

    def _tell(self, lines: list[bytes], *, cut: bool = False) -> None:
        """A sink that fails (a full disk) loses its lines; all pipes go on being drained."""
        try:
            self._sink(lines, self._rest_owner, cut)
        except Exception as error:
            if not self._deaf:
                self._outputs.log.warning("output of a worker is lost", error=f"{type(error).__name__}: {error}")
            self._deaf = True
        else:
            self._deaf = False


class OutputPump:
    """Reads pipes on a thread of its own and gives each one's lines to its sink, which is called on that thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._new: list[Pipe] = []
        self._said: list[Callable[[], None]] = []
        self._waiting: list[Pipe] = []  # to be read
        self._closing = False
        self._failed = False  # something has, in this round
        self._failing = False  # in the round before, too: it was said
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="output", daemon=True)
        self._thread.start()

    def drain(self, pipe: Pipe) -> None:
        """Read a pipe to its end."""
        with self._lock:
            self._new.append(pipe)
        self._wake()

    def say(self, tell: Callable[[], None]) -> None:
        """Have something of our own written, by the thread that may wait for a disk."""
        with self._lock:
            self._said.append(tell)
        self._wake()

    def close(self) -> None:
        """Read what is there and end the thread."""
        with self._lock:
            self._closing = True
        self._wake()
        self._thread.join()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # while a disk is slow; what is unread already will wake it
            self._wake_writer.send(b".")

    def _drain(self) -> None:
        while not self._closing:
            self._failed = False
            try:
                self._read_and_say()
            except Exception as error:
                self._complain(error)
                time.sleep(RETRY_SECONDS)
            self._failing = self._failed
        self._take_up()
        for pipe in [*self._read_pipes(), *self._waiting]:
            self._read(pipe)
            self._end(pipe)

    def _read_and_say(self) -> None:
        for key, _ in self._selector.select(RETRY_SECONDS if self._waiting else None):
            if isinstance(key.data, Pipe):
                if not self._read(key.data):
                    self._end(key.data)
            else:
                with suppress(BlockingIOError):
                    self._wake_reader.recv(READ_BYTES)
        self._take_up()

    def _take_up(self) -> None:
        """Do what others have asked for."""
        with self._lock:
            said, self._said = self._said, []
            self._waiting += self._new
            self._new = []
        for tell in said:
            try:
                tell()
            except Exception as error:  # a full disk
                log.warning("a line for a log is lost", error=f"{type(error).__name__}: {error}")
        self._waiting = [pipe for pipe in self._waiting if not self._begin(pipe)]

    def _read_pipes(self) -> list[Pipe]:
        return [key.data for key in self._selector.get_map().values() if isinstance(key.data, Pipe)]

    def _begin(self, pipe: Pipe) -> bool:
        """Wait for what it has from now on; false where the system refuses that for now."""
        try:
            self._selector.register(pipe.file, selectors.EVENT_READ, pipe)
        except Exception as error:
            self._complain(error)
            return False
        return True

    def _read(self, pipe: Pipe) -> bool:
        try:
            return pipe.read()
        except Exception as error:
            self._complain(error)
            return False

    def _end(self, pipe: Pipe) -> None:
        try:
            with suppress(KeyError):  # it was waiting
                self._selector.unregister(pipe.file)
            pipe.finish()
        except Exception as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Say what went wrong, once; whatever it was, the other pipes are drained."""
        if not self._failing and not self._failed:
            log.error(
                "the output of workers cannot be read; it is tried again", error=f"{type(error).__name__}: {error}"
            )
        self._failed = True
