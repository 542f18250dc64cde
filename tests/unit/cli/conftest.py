"""A server, and the command run against it: in this process, or in one of its own with or without a terminal."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelhost.cli.main import main
from modelhost.client import local
from tests.unit.client.fake_server import TOKEN, FakeServer, running

PATIENCE = 30

# Where tests run in the background, a shell may have had Ctrl-C ignored.
COMMAND = """
import signal, sys
from modelhost.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


@dataclass(frozen=True)
class Result:
    """What the command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        [line] = self.err.splitlines()
        return json.loads(line)["error"]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as fake:
        yield fake


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the developer's own: no server found, no token, a wide terminal, a known clock."""
    for name in [name for name in os.environ if name.startswith(("MODELHOST_", "XDG_", "GIT_"))]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(local, "_SHARED", shared)
    monkeypatch.setenv("COLUMNS", "200")
    with monkeypatch.context() as clock:
        clock.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command line as it is."""

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def cli(server: FakeServer, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line against the server, with its token."""
    monkeypatch.setenv("MODELHOST_ADDRESS", server.address)
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    return run


@dataclass
class Terminal:
    """A command that believes that it talks to a person."""

    process: subprocess.Popen[bytes]
    fd: int
    shown: bytes = b""

    def wait_for(self, text: str) -> None:
        """Wait until the terminal has shown this."""
        while text.encode() not in self.shown:
            self.shown += os.read(self.fd, 65536)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def finish(self) -> tuple[int, str]:
        """Wait for the command's end; return its exit code and all that the terminal showed."""
        while True:
            try:
                part = os.read(self.fd, 65536)
            except OSError:  # the last one to hold the other end is gone
                break
            self.shown += part
        return self.process.wait(PATIENCE), self.shown.decode()


@pytest.fixture
def terminal(server: FakeServer) -> Iterator[Callable[..., Terminal]]:
    """Start a command in a terminal."""
    started: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        ours, theirs = pty.openpty()
        environ = {
            **os.environ,
            "MODELHOST_ADDRESS": server.address,
            "MODELHOST_TOKEN": TOKEN,
            "TERM": "xterm-256color",
            "COLUMNS": "120",
        }
        command = [sys.executable, "-m", "modelhost.cli.main", *arguments]
        # Its own session: what is asked for must not be asked for on the developer's terminal.
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        os.close(theirs)
        started.append(Terminal(process, ours))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()
        os.close(each.fd)


@pytest.fixture
def background(server: FakeServer) -> Callable[..., Any]:
    """Start a command in a process of its own, its output into pipes."""

    @contextmanager
    def start(*arguments: str) -> Iterator[subprocess.Popen[str]]:
        environ = {**os.environ, "MODELHOST_ADDRESS": server.address, "MODELHOST_TOKEN": TOKEN}
        command = [sys.executable, "-c", COMMAND, *arguments]
        with subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return start
