"""The runtimes of this host, as the server remembers them."""

import asyncio
import sys
from pathlib import Path

import pytest

from modelhost.server.control.runtimes import Runtimes
from modelhost.server.errors import NotFound
from tests.running import eventually

OWN = f"python{sys.version_info.major}.{sys.version_info.minor}"


async def test_who_needs_a_python_does_not_wait_for_what_an_r_says_of_itself(tmp_path: Path) -> None:
    asked, gate = tmp_path / "asked", tmp_path / "gate"
    slow = tmp_path / "R"
    slow.write_text(f"#!/bin/sh\ntouch {asked}\nwhile [ ! -e {gate} ]; do sleep 0.02; done\nexit 1\n")
    slow.chmod(0o755)
    runtimes = Runtimes([Path(sys.executable), slow])
    waiting = asyncio.create_task(runtimes.get("r9.9"))
    await asyncio.to_thread(eventually, asked.exists)

    found = await runtimes.get(OWN)

    assert found.name == OWN
    assert not waiting.done()
    gate.touch()
    with pytest.raises(NotFound) as caught:
        await waiting
    assert OWN in caught.value.message


async def test_a_runtime_that_there_is_none_of_is_answered_with_those_there_are() -> None:
    runtimes = Runtimes([Path(sys.executable)])

    with pytest.raises(NotFound) as caught:
        await runtimes.get("python1.5")

    assert caught.value.message == "this host has no runtime python1.5; it has: " + ", ".join(
        interpreter.name for interpreter in await runtimes.all()
    )
