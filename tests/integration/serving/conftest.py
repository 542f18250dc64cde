"""A stage for pools, on the loop that the server runs on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.integration.serving.stage import Gate, Stage


@pytest.hookimpl(optionalhook=True)  # pytest-asyncio before 1.4 does not know it, and takes asyncio's loop
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Fails the test if it leaves a process, a directory, a descriptor, a task or an exception that nobody saw."""
    stage = Stage(tmp_path)
    yield stage
    await stage.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")
