"""What workers print: one thread drains the pipes of all of them, always, so that no model ever blocks on a print."""

import os
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO

import structlog

READ_BYTES = 65536
LINE_LIMIT = 8 * 1024

# Gets the lines that were read, without their ends; an empty list once, at the end.
Sink = Callable[[list[bytes]], None]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Pipe:
    def __init__(self, file: IO[bytes], sink: Sink) -> None:
        self.file = file
        self.rest = b""
        self._sink = sink
        self._deaf = False

    def feed(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > LINE_LIMIT:
            lines.append(self.rest)
            self.rest = b""
        if lines:
            self._tell(lines)

    def finish(self) -> None:
        if self.rest:
            self._tell([self.rest])
        self._tell([])

    def _tell(self, lines: list[bytes]) -> None:
        """A sink that fails (a full disk) loses its lines; all pipes go on being drained."""
        try:
            self._sink(lines)
        except Exception as error:
            if not self._deaf:
                log.warning("output of a worker is lost", error=f"{type(error).__name__}: {error}")
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
        self._new: list[_Pipe] = []
        self._said: list[Callable[[], None]] = []
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="output", daemon=True)
        self._thread.start()

    def add(self, file: IO[bytes], sink: Sink) -> None:
        """Drain a pipe to its end; it is ours to close from now on."""
        os.set_blocking(file.fileno(), False)
        with self._lock:
            self._new.append(_Pipe(file, sink))
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
        while True:
            for key, _ in self._selector.select():
                if isinstance(key.data, _Pipe):
                    self._read(key.data)
                else:
                    with suppress(BlockingIOError):
                        self._wake_reader.recv(READ_BYTES)
            with self._lock:
                new, self._new = self._new, []
                said, self._said = self._said, []
                closing = self._closing
            for tell in said:
                try:
                    tell()
                except Exception as error:  # a full disk
                    log.warning("a line for a log is lost", error=f"{type(error).__name__}: {error}")
            for pipe in new:
                self._selector.register(pipe.file, selectors.EVENT_READ, pipe)
            if closing:
                for key in list(self._selector.get_map().values()):
                    if isinstance(key.data, _Pipe):
                        self._read(key.data)
                        if not key.data.file.closed:
                            self._end(key.data)
                return

    def _read(self, pipe: _Pipe) -> None:
        try:
            data = os.read(pipe.file.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            pipe.feed(data)
        else:
            self._end(pipe)

    def _end(self, pipe: _Pipe) -> None:
        pipe.finish()
        self._selector.unregister(pipe.file)
        pipe.file.close()
