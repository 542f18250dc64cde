"""Servers as processes of their own; what they logged is shown with the test that failed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import LOG_SHOWN, Daemon, python
from tests.e2e.steps import Operator
from tests.git_repos import Repo
from tests.running import shared_folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the log of every server of a failed test to its report."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Daemon):
                report.sections.append((f"log of {name}", value.log_text()[-LOG_SHOWN:]))
    return report


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that models may use."""
    return shared_folder(tmp_path / "shared")


@pytest.fixture
def make_daemon(tmp_path: Path, shared: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes servers, not started, that are ended after the test: `make_daemon("name", "--option", …)`."""
    made: list[Daemon] = []

    def make(name: str = "host", *options: str, **more: object) -> Daemon:
        made.append(Daemon(tmp_path / name, "--shared-folder", str(shared), *options, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A server with Python 3.6, running."""
    return make_daemon("host", "--interpreter", str(python("3.6"))).start()


@pytest.fixture
def operator(daemon: Daemon) -> Operator:
    """Who works with it."""
    return Operator(daemon)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "models.git")
