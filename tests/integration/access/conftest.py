"""A model that does what it is told to, and those who may call it."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.access import AccessAdmin
from tests.checks import Gate, raw_channel
from tests.git_repos import Repo
from tests.obedient import OBEDIENT
from tests.running import RunningServer

MODEL = "access-model"
OTHER = "access-other"  # of the same length, to be told from the first by nobody who may not know of it


@pytest.fixture(scope="session")
def model(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A service that accounts are let in to."""
    repo = Repo(tmp_path_factory.mktemp("access") / "repo")
    repo.commit(OBEDIENT)
    server.add_source(MODEL, repo)
    server.deploy(MODEL, MODEL)
    return MODEL


@pytest.fixture(scope="session")
def other(server: RunningServer, model: str) -> str:
    """A service that runs, too, and is granted to nobody."""
    server.deploy(OTHER, model)
    return OTHER


@pytest.fixture
def admin(server: RunningServer) -> AccessAdmin:
    return AccessAdmin(server)


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    """The wire, with a connection of the test's own."""
    with raw_channel(server.address) as channel:
        yield channel


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()
