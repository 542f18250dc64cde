"""The HTTP listener that Prometheus scrapes: one page, on threads of its own, so that it answers when the loop is busy.

It answers anybody who can connect, and takes nothing from anybody: no body of a request is read.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import structlog

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_SECONDS = 10.0  # of silence, after which a connection is closed
CONNECTIONS = 16  # at a time; more are closed at once

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class MetricsListener:
    """Listens on `address` (`host:port`; port 0 takes a free one), and answers with what `exposition` returns.

    Raises `OSError` where it cannot listen.
    """

    def __init__(self, address: str, exposition: Callable[[], bytes]) -> None:
        host, _, port = address.rpartition(":")
        try:
            self._server = _Server(host.strip("[]"), int(port), exposition)
        except OSError as error:
            problem = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
            raise OSError(f"cannot listen on {address} for metrics: {problem}") from error
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more, and give the port back."""
        if self._thread.is_alive():
            self._server.wake()
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    allow_reuse_address = True  # so that a server that follows another one gets its port at once
    daemon_threads = True
    request_queue_size = 128  # not the 5 of old: who finds no place waits for a second, for TCP to try again

    def __init__(self, host: str, port: int, exposition: Callable[[], bytes]) -> None:
        self.exposition = exposition
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        super().__init__(address, _Request)  # type: ignore[arg-type]

    def wake(self) -> None:
        """Have `serve_forever` look up at once, which it otherwise does twice a second."""
        self.socket.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """socketserver: answer a connection, or close it where there are too many."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread to be had
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """socketserver: answer a connection, on its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """socketserver: a connection failed; most often the other side has closed it."""
        log.debug("a connection for metrics failed", peer=str(client_address), error=repr(sys.exception()))


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS
    server_version = "ModelHost"
    sys_version = ""

    def do_GET(self) -> None:
        """http.server: answer a GET."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """http.server: answer a HEAD."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"there is only {PATH} here")
            return
        try:
            body = self.server.exposition()
        except Exception:
            log.exception("metrics cannot be told")
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """http.server: a request was answered; nobody needs to read that."""
