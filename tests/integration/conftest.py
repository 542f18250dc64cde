"""One server for all tests of a process that do not need one of their own: environments are built once."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.git_repos import Repo
from tests.revisions import model
from tests.running import RunningServer, shared_folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("server") / "state") as running:
        yield running


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo")


@pytest.fixture
def shared(server: RunningServer) -> Path:
    """A folder of the test's own that models may use."""
    return shared_folder(server.shared / secrets.token_hex(4))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for sources and deployments that no other test has."""
    text = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return f"t-{text[5:40]}-{secrets.token_hex(4)}"


@pytest.fixture
def source(server: RunningServer, repo: Repo, name: str) -> str:
    """A data source that is the test's own repository."""
    server.add_source(name, repo)
    return name


@pytest.fixture
def two(server: RunningServer, repo: Repo, source: str, name: str) -> str:
    """A deployment that runs its second revision."""
    repo.commit({"main.py": model("one")})
    server.deploy(name, source, env={"WORD": "first"})
    repo.commit({"main.py": model("two")})
    server.update(name, ref="main", env={"WORD": "second"})
    assert server.predict(name, 0) == "two"
    return name
