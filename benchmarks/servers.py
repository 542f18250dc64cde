"""Servers under measurement: something that listens, the work that it can do, and the processes that this costs."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from benchmarks.checking import check
from benchmarks.frames import frame
from benchmarks.load import Target
from benchmarks.processes import Cpu, cpu_of, end
from benchmarks.work import Work

ROOT = Path(__file__).parents[1]


class Server(Protocol):
    """A server that runs. `works` is what it can be asked, by name; `headers` are needed with each call."""

    name: str
    address: str
    works: Mapping[str, Work]
    headers: tuple[str, ...]

    def cpu(self) -> Cpu:
        """CPU seconds so far."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Ceiling:
    """What no Python gRPC server can be faster than: one that sends back the bytes that it gets (`echo.py`)."""

    name: str = "ceiling"
    works: Mapping[str, Work]
    headers: tuple[str, ...] = ()

    def __init__(self, works: Mapping[str, Work]) -> None:
        self.works = works
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.echo"], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._process.stdout is not None
        self.address = f"127.0.0.1:{int(self._process.stdout.readline())}"

    def cpu(self) -> Cpu:
        """CPU seconds so far."""
        return cpu_of(self._process.pid)

    def close(self) -> None:
        """End it."""
        end(self._process)


class Targets:
    """Work of servers as load generators need it: files below `folder`, and answers that were looked at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, str], tuple[Target, list[Path]]] = {}

    def prepare(self, server: Server, work: Work) -> None:
        """Check what the server answers to this work, and have it written down. Raises `WrongAnswer`."""
        answer_bytes = check(server.address, work, server.headers)
        bodies = []
        for number, body in enumerate(work.bodies):
            path = self._folder / f"{server.name}-{work.name}-{number}"
            path.write_bytes(body if work.http1 else frame(body))
            bodies.append(path)
        target = Target(server.address, work.method, bodies[0], server.headers, answer_bytes, work.http1)
        self._known[server.name, work.name] = target, bodies

    def target(self, server: Server, work: str) -> Target:
        """What a load generator is told."""
        return self._known[server.name, work][0]

    def bodies(self, server: Server, work: str) -> list[Path]:
        """Files of all bodies, framed."""
        return self._known[server.name, work][1]
