"""A server for the clients to call."""

from collections.abc import Iterator

import pytest

from modelhost.client import Client
from tests.unit.client.fake_server import TOKEN, FakeServer, running


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as fake:
        yield fake


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.address, TOKEN) as client:
        yield client
