"""What workers print: one thread drains the pipes of all of them, always, so that no model ever blocks on a print."""

import os
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

READ_BYTES = 65536
LINE_LIMIT = 8 * 1024

# Gets the lines that were read, without their ends; an empty list once, at the end.
Sink = Callable[[list[bytes]], None]


class _Pipe:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > LINE_LIMIT:
            lines.append(self.rest)
            self.rest = b""
        if lines:
            self.sink(lines)

    def finish(self) -> None:
        if self.rest:
            self.sink([self.rest])
        self.sink([])


class OutputPump:
    """Reads pipes on a thread of its own and gives each one's lines to its sink, which is called on that thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._new: list[tuple[int, Sink]] = []
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="output", daemon=True)
        self._thread.start()

    def add(self, descriptor: int, sink: Sink) -> None:
        """Drain a pipe to its end; it is ours to close from now on."""
        os.set_blocking(descriptor, False)
        with self._lock:
            self._new.append((descriptor, sink))
        self._wake_writer.send(b"+")

    def close(self) -> None:
        """Read what is there and end the thread."""
        with self._lock:
            self._closing = True
        self._wake_writer.send(b"-")
        self._thread.join()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _drain(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if isinstance(key.data, _Pipe):
                    self._read(key.fd, key.data)
                else:
                    with suppress(BlockingIOError):
                        self._wake_reader.recv(READ_BYTES)
            with self._lock:
                new, self._new = self._new, []
                closing = self._closing
            for descriptor, sink in new:
                self._selector.register(descriptor, selectors.EVENT_READ, _Pipe(sink))
            if closing:
                for key in list(self._selector.get_map().values()):
                    if isinstance(key.data, _Pipe):
                        self._read(key.fd, key.data)
                        if key.fd in self._selector.get_map():
                            self._end(key.fd, key.data)
                return

    def _read(self, descriptor: int, pipe: _Pipe) -> None:
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            pipe.feed(data)
        else:
            self._end(descriptor, pipe)

    def _end(self, descriptor: int, pipe: _Pipe) -> None:
        pipe.finish()
        self._selector.unregister(descriptor)
        os.close(descriptor)
