"""Calls that h2load cannot make: many bodies in turn, and calls at a given rate whatever becomes of earlier ones.

At a rate, calls are due at random times (Poisson) that are fixed beforehand; each is sent when it is due, and its time
runs from when it was due, be it sent late or not. So a server that stalls pays for all calls that should have been made
meanwhile, and so does this client for being late. It runs in a process of its own.
"""

import gc
import json
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.frames import PREFIX_BYTES
from benchmarks.http2 import Connection
from benchmarks.load import Load, Shape, Target

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 15.0  # for the last answers
SHORTEST_SLEEP = 60e-6  # a shorter one ends too late


def in_turn(target: Target, bodies: list[Path], shape: Shape, seconds: float) -> Load:
    """Send these bodies in turn in a closed loop. Raises `RuntimeError` where any call was not answered."""
    return _run(target, bodies, shape, seconds, 0)


def at_rate(target: Target, rate: float, seconds: float, connections: int = 4) -> Load:
    """Call so many times a second. Raises `RuntimeError` where any call was not answered."""
    return _run(target, [target.body], Shape(connections, 0), seconds, rate)


def _run(target: Target, bodies: list[Path], shape: Shape, seconds: float, rate: float) -> Load:
    plan = {
        "address": target.address,
        "method": target.method,
        "headers": [header.split(": ", 1) for header in target.headers],
        "bodies": [str(body) for body in bodies],
        "answer_bytes": target.answer_bytes,
        "connections": shape.connections,
        "streams": shape.streams,
        "seconds": seconds,
        "rate": rate,
    }
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.replay"],
        input=json.dumps(plan), capture_output=True, text=True, check=False, timeout=seconds + 60, cwd=ROOT,
    )  # fmt: skip
    if ended.returncode:
        raise RuntimeError(f"calls failed: {ended.stderr.strip().splitlines()[-1]}")
    found = json.loads(ended.stdout)
    return Load(found["rate"], len(found["seconds"]), tuple(sorted(found["seconds"])))


@dataclass
class _Calls:
    """Calls under way, and the seconds that those which have ended took."""

    connections: list[Connection]
    bodies: Iterator[bytes]
    answer_bytes: int

    def __post_init__(self) -> None:
        self.begun: dict[tuple[int, int], float] = {}
        self.seconds: list[float] = []

    def begin(self, number: int, due: float) -> None:
        """Make a call on a connection."""
        self.begun[number, self.connections[number].call(next(self.bodies))] = due

    def flush(self) -> None:
        """Send."""
        for connection in self.connections:
            connection.flush()

    def wait(self, timeout: float) -> list[int]:
        """Wait for answers for some seconds; returns the connections of the calls that have ended."""
        sending = [each for each in self.connections if each.has_more_to_send]
        readable, writable, _ = select.select(self.connections, sending, [], max(timeout, 0))
        for connection in writable:
            connection.flush()
        ended = []
        for number, connection in enumerate(self.connections):
            if connection in readable:
                for stream, size in connection.receive():
                    if size < PREFIX_BYTES + self.answer_bytes:
                        raise RuntimeError(f"an answer has {size} bytes: an error, or a wrong one")
                    self.seconds.append(time.perf_counter() - self.begun.pop((number, stream)))
                    ended.append(number)
        return ended


def closed_loop(calls: _Calls, streams: int, seconds: float) -> float:
    """Have so many calls under way on each connection; returns how many a second were answered."""
    begun = time.perf_counter()
    for number in range(len(calls.connections)):
        for _ in range(streams):
            calls.begin(number, begun)
    while (now := time.perf_counter()) < begun + seconds:
        calls.flush()
        for number in calls.wait(begun + seconds - now):
            calls.begin(number, time.perf_counter())
    return len(calls.seconds) / (now - begun)


def open_loop(calls: _Calls, due: list[float], seconds: float) -> float:
    """Make calls at these seconds from now on; returns how many a second were answered until the last one was."""
    begun = time.perf_counter() + 0.01
    sent = 0
    while sent < len(due) or calls.begun:
        now = time.perf_counter()
        while sent < len(due) and begun + due[sent] <= now:
            calls.begin(sent % len(calls.connections), begun + due[sent])
            sent += 1
        calls.flush()
        pause = begun + due[sent] - now if sent < len(due) else PATIENCE_SECONDS
        calls.wait(pause if pause > SHORTEST_SLEEP else 0)
        if now > begun + seconds + PATIENCE_SECONDS:
            raise RuntimeError(f"{len(calls.begun)} calls were not answered in {PATIENCE_SECONDS:g} s")
    return len(calls.seconds) / max(time.perf_counter() - begun, seconds)


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Random times of calls that come independently of each other."""
    chance = random.Random(seed)
    times, at = [], 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        times.append(at)
    return times


def main() -> None:
    """Do what the plan on standard input says; prints the rate and the seconds of each call."""
    plan: dict[str, Any] = json.load(sys.stdin)
    headers = [(name, value) for name, value in plan["headers"]]
    connections = [Connection(plan["address"], plan["method"], headers) for _ in range(plan["connections"])]
    bodies = cycle([Path(body).read_bytes() for body in plan["bodies"]])
    calls = _Calls(connections, bodies, plan["answer_bytes"])
    for number in range(len(connections)):
        calls.begin(number, 0)
    calls.flush()
    while calls.begun:
        calls.wait(PATIENCE_SECONDS)
        calls.flush()
    calls.seconds.clear()
    gc.disable()  # so that it does not pause in the middle
    if plan["rate"]:
        rate = open_loop(calls, arrivals(plan["rate"], plan["seconds"], int(plan["rate"])), plan["seconds"])
    else:
        rate = closed_loop(calls, plan["streams"], plan["seconds"])
    for connection in connections:
        connection.close()
    json.dump({"rate": rate, "seconds": calls.seconds}, sys.stdout)


if __name__ == "__main__":
    main()
