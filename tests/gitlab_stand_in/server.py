"""HTTP on a port: requests in, answers out, whatever is wrong with them."""

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.gitlab_stand_in.answers import Answer
from tests.gitlab_stand_in.requests import Request

Handle = Callable[[Request], Answer]
IDLE_SECONDS = 60.0


class Listener:
    """A server on a port of its own; a context manager. What goes wrong in the server itself is added to `errors`."""

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        handle: Handle,
        tls: ssl.SSLContext | None,
        errors: list[BaseException],
    ) -> None:
        self._server = _Server((host, port), name, handle, tls, errors)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name=f"stand-in {name}")
        scheme = "https" if tls else "http"
        self.port = int(self._server.server_address[1])
        self.url = f"{scheme}://{host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.close_all()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined by server_close
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        name: str,
        handle: Handle,
        tls: ssl.SSLContext | None,
        errors: list[BaseException],
    ) -> None:
        super().__init__(address, _Handler)
        self.name, self.handle, self.tls, self.errors = name, handle, tls, errors
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a client that is slow to shake hands must not hold up the others."""
        connection: socket.socket = request
        connection.settimeout(IDLE_SECONDS)
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open.add(connection)
        try:
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            _Handler(connection, client_address, self)
        except OSError:
            pass  # the client went away, or did not like the certificate
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            self.errors.append(error)

    def close_all(self) -> None:
        """End connections that clients keep open."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "nginx", ""
    server: _Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(self.command, path, query, self.headers, self.rfile.read(length))
        request.host = self.server.name
        answer = self.server.handle(request)
        request.status = answer.status
        self._send(answer)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _send(self, answer: Answer) -> None:
        if answer.status == 0:
            self.close_connection = True
            return
        self.send_response(answer.status, responses.get(answer.status, "Unknown"))
        length = answer.length
        if length is None and isinstance(answer.body, bytes):
            length = len(answer.body)
        for name, value in (("Content-Type", answer.content_type), *answer.headers):
            # Headers are bytes: GitLab sends file names in UTF-8, http.server knows only Latin-1.
            self.send_header(name, value.encode().decode("latin-1"))
        self.send_header(*(("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(answer, length)

    def _send_body(self, answer: Answer, length: int | None) -> None:
        sent = 0
        pieces = iter([answer.body]) if isinstance(answer.body, bytes) else answer.body
        try:
            for piece in filter(None, pieces):
                self.wfile.write(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
                sent += len(piece)
        finally:
            if isinstance(pieces, Generator):
                pieces.close()  # ends the processes that it reads from
        if length is None and not answer.broken:
            self.wfile.write(b"0\r\n\r\n")
        if answer.broken or (length is not None and sent < length):
            self.close_connection = True
