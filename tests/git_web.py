"""Repositories over HTTP, behind a password."""

import base64
import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

PASSWORD = "correct-horse-battery"


class Web(http.server.ThreadingHTTPServer):
    """Repositories as plain files ("dumb HTTP"), for those who know the password; or a redirect to another place.

    With `adds_suffix` a path without `.git` is redirected to the one with it, as GitLab does. `hosts` are those that
    were asked for, one a request.
    """

    def __init__(
        self, directory: Path, redirect: str = "", *, host: str = "127.0.0.1", adds_suffix: bool = False
    ) -> None:
        self.hosts: list[str] = []
        self.authorizations: list[str] = []
        self.seen_in_arguments = False

        class Handler(http.server.SimpleHTTPRequestHandler):
            server: Web

            def do_GET(self) -> None:
                self.server.hosts.append(self.headers.get("Host", ""))
                self.server.seen_in_arguments |= any(PASSWORD in line for line in _command_lines())
                lacks_suffix = adds_suffix and ".git/" not in self.path
                if redirect or lacks_suffix:
                    path = self.path.replace("/info/", ".git/info/") if lacks_suffix else self.path
                    self.send_response(302)
                    self.send_header("Location", redirect + path)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                given = self.headers.get("Authorization", "")
                self.server.authorizations.append(given)
                if given == "Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode():
                    super().do_GET()
                    return
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="models"')
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__((host, 0), lambda *given: Handler(*given, directory=str(directory)))

    def url(self, userinfo: str = "") -> str:
        return f"http://{userinfo}{self.server_address[0]}:{self.server_address[1]}"


@contextlib.contextmanager
def serving(web: Web) -> Iterator[Web]:
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield web
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes().decode(errors="replace")
