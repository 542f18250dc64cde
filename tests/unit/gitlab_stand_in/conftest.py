"""A stand-in per test, and the real python-gitlab to talk to it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gitlab as python_gitlab
import pytest

from tests.gitlab_stand_in import GitLab, Project

FILES = {
    "main.py": b"def predict(parameters):\n    return 1\n",
    "lib/data set/\u00fc \U0001f600.bin": bytes(range(256)),
    "lib/notes.txt": b"",
    ".hidden": b"x",
}

Connect = Callable[..., python_gitlab.Gitlab]


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


@pytest.fixture
def project(gitlab: GitLab) -> Project:
    """One with a commit."""
    made = gitlab.project("energy/forecasting/turbine")
    made.repo.commit(FILES)
    return made


@pytest.fixture
def connect(gitlab: GitLab) -> Iterator[Connect]:
    """Makes clients; with a token that may read everything unless it is given another."""
    with ExitStack() as clients:

        def make(token: str | None = None, **options: Any) -> python_gitlab.Gitlab:
            options = {"private_token": gitlab.token() if token is None else token, **options}
            return clients.enter_context(python_gitlab.Gitlab(gitlab.url, **options))

        yield make


@pytest.fixture
def client(connect: Connect) -> python_gitlab.Gitlab:
    return connect()


@pytest.fixture
def remote(client: python_gitlab.Gitlab, project: Project) -> Any:
    """The project as python-gitlab knows it."""
    return client.projects.get(project.id)
