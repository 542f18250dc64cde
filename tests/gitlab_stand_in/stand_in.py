"""The stand-in as tests see it."""

import ssl
import threading
from contextlib import ExitStack
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from tests.gitlab_stand_in.access import authenticate
from tests.gitlab_stand_in.answers import LOGIN_PAGE, Answer, Refused, json_answer, message
from tests.gitlab_stand_in.call import Call, LfsStorage
from tests.gitlab_stand_in.certificates import Authority, Certificate
from tests.gitlab_stand_in.faults import Context, Faults
from tests.gitlab_stand_in.lfs import no_such_key
from tests.gitlab_stand_in.requests import Request
from tests.gitlab_stand_in.routes import GITLAB, STORAGE, Route
from tests.gitlab_stand_in.server import Listener
from tests.gitlab_stand_in.world import Group, Project, Token, User, World

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"


class GitLab:
    """A GitLab server with nothing on it yet; a context manager.

    `tls` gives it a certificate: a good one of its own authority (`ca_pem`) for True, or one that something is wrong
    with. `prefix` is the path below which it lies. `port` 0 is any free one.
    """

    def __init__(
        self, root: Path, *, tls: bool | Certificate = False, prefix: str = "", host: str = HERE, port: int = 0
    ) -> None:
        self.world = World(root)
        self.faults = Faults()
        self.requests: list[Request] = []
        """All that came in, in this order, on every listener; `request.host` tells which."""
        self.lfs_storage: LfsStorage = "proxied"
        """LFS objects: by GitLab itself, by its redirect to object storage, or by URLs of object storage in batches."""
        self.external_url = ""
        """What GitLab thinks its address is; change it for a GitLab that is wrong about that."""
        self._prefix = prefix.rstrip("/")
        self._host = host
        self._ports = {"gitlab": port}
        self._errors: list[BaseException] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._running = ExitStack()
        self._certificate = Certificate.GOOD if tls is True else tls or None
        self._authority = Authority(root / "tls") if self._certificate else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()
        for error in self._errors:
            raise AssertionError("the stand-in itself failed") from error

    def start(self) -> None:
        """Begin to listen; after `stop()`, where it did before."""
        self._closing.clear()
        context = self._context(self._certificate) if self._certificate else None
        storage_context = self._context(Certificate.GOOD) if self._certificate else None
        self._main = self._listen(self._host, "gitlab", context)
        self._elsewhere = self._listen(ELSEWHERE, "elsewhere", storage_context)
        self._plain = self._listen(HERE, "plain", None) if context else self._main
        self.url = self._main.url + self._prefix
        self.external_url = self.external_url or self.url

    def stop(self) -> None:
        """Be unreachable: every connection ends at once."""
        self._closing.set()
        self._running.close()

    @property
    def plain_url(self) -> str:
        """With TLS, the address at which plain HTTP is redirected to https."""
        return self._plain.url + self._prefix

    @property
    def elsewhere_url(self) -> str:
        """Another host: object storage, and where hostile redirects lead. `request.host` is `elsewhere` there."""
        return self._elsewhere.url

    storage_url = elsewhere_url

    @property
    def ca_pem(self) -> str:
        """The certificate of the authority that the server's is from."""
        assert self._authority is not None, "only with tls"
        return self._authority.pem

    @property
    def ca_file(self) -> Path:
        """The same as a file."""
        assert self._authority is not None, "only with tls"
        return self._authority.file

    def token(
        self,
        scopes: tuple[str, ...] = ("read_api", "read_repository"),
        *,
        expires: date | None = None,
        namespace: str | None = None,
        revoked: bool = False,
        guest: bool = False,
    ) -> Token:
        """A personal access token, or with `namespace` that project's or group's. It is good until the day `expires`
        begins (UTC). A guest's sees projects but not their code. `.expire()` and `.revoke()` end it.
        """
        return self.world.token(scopes, expires, namespace, revoked=revoked, guest=guest)

    def project(self, path: str, *, public: bool = False) -> Project:
        """A project with an empty repository (`.repo`), in groups that are made for it, or in a user's namespace."""
        return self.world.project(path, public=public)

    def group(self, path: str) -> Group:
        """A group, with those above it."""
        return self.world.group(path)

    def user(self, username: str) -> User:
        """A user, and with it a namespace for projects."""
        return self.world.user(username)

    def requests_to(self, pattern: str) -> list[Request]:
        """Those requests whose path as sent matches a shell pattern."""
        return [request for request in self.requests if fnmatchcase(request.path, pattern)]

    def _context(self, certificate: Certificate) -> ssl.SSLContext:
        assert self._authority is not None, "only with tls"
        return self._authority.context(certificate, {HERE, ELSEWHERE, self._host})

    def _listen(self, host: str, name: str, tls: ssl.SSLContext | None) -> Listener:
        listener = Listener(host, self._ports.get(name, 0), name, self._handle, tls, self._errors)
        self._ports[name] = listener.port
        return self._running.enter_context(listener)

    def _handle(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
        try:
            fault = self.faults.next(request)
            if fault is None:
                return self._answer(request)
            return fault.apply(Context(request, lambda: self._answer(request), self._closing.wait))
        except Exception as error:  # told at the end; the client is answered like one of a GitLab that has a mistake
            self._errors.append(error)
            return message(500, "500 Internal Server Error")

    def _answer(self, request: Request) -> Answer:
        if request.host == "plain":
            return self._to_https(request)
        path = request.path
        if request.host == "gitlab" and self._prefix:
            if not path.startswith(f"{self._prefix}/"):
                return Answer(404, b"404 page not found\n", content_type="text/plain")
            path = path.removeprefix(self._prefix)
        for route in STORAGE if request.host == "elsewhere" else GITLAB:
            parts = route.match(request.method, path)
            if parts is not None:
                return self._call(route, request, parts)
        return self._nothing_there(request, path)

    def _nothing_there(self, request: Request, path: str) -> Answer:
        if request.host == "elsewhere":
            return no_such_key()
        if path.startswith("/api/"):
            return json_answer({"error": "404 Not Found"}, 404)
        if path == "/users/sign_in":
            return LOGIN_PAGE
        # Below GitLab's root every path may be a private project's: whoever is not signed in is asked to.
        return Answer(302, b"", (("Location", f"{self.external_url}/users/sign_in"),), content_type="text/html")

    def _call(self, route: Route, request: Request, parts: dict[str, str]) -> Answer:
        try:
            token = None if route.scopes is None else authenticate(self.world, request, route.scopes)
            return route.endpoint(Call(self, request, parts, token, self._main.url))
        except Refused as refused:
            return refused.answer

    def _to_https(self, request: Request) -> Answer:
        return Answer(301, b"", (("Location", self._main.url + request.target),), content_type="text/html")
