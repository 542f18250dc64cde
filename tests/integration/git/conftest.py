"""A repository, a source that is this repository, and places that hold it by every transport."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelhost.server.sources.git.source import GitSource
from tests.git_repos import Repo
from tests.git_web import PASSWORD, Web, serving
from tests.integration.git.files import Log
from tests.local_hosts import LOCAL


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "places" / "group" / "model.git")


@pytest.fixture
def source(repo: Repo, tmp_path: Path) -> GitSource:
    return GitSource(repo.url, tmp_path / "cache", LOCAL)


@contextlib.contextmanager
def git_daemon(base: Path) -> Iterator[str]:
    """A git:// server on loopback; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all"]
    with subprocess.Popen([*command, f"--base-path={base}", str(base)], stderr=subprocess.DEVNULL) as daemon:
        try:
            _until(lambda: socket.create_connection(("127.0.0.1", port)).close())
            yield f"git://127.0.0.1:{port}"
        finally:
            daemon.terminate()


def _until(attempt: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            attempt()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


@pytest.fixture(params=["path", "file", "git", "http"])
def place(request: pytest.FixtureRequest, repo: Repo) -> Iterator[str]:
    """The folder with the project `group/model.git`, by each transport."""
    base = repo.path.parent.parent
    match request.param:
        case "path":
            yield str(base)
        case "file":
            yield base.as_uri()
        case "git":
            with git_daemon(base) as url:
                yield url
        case _:
            with serving(Web(base)) as web:
                yield web.url(f"ada:{PASSWORD}@")
