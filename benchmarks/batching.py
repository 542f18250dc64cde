"""What batches give: `make bench-batching`.

One server, each model deployed twice: with batches of up to 32 calls and without. Both are measured in turn, round
after round, with the same load; each line has the median of the rounds' ratios.

- matrix    a row through four dense layers in NumPy: what a call costs is to read the weights, once for a whole batch
- fixed     stands for a model with a fixed cost of 2 ms a call, batch or not: it sleeps
- slow      the same with 50 ms, and calls kept back up to 20 ms (`with`) or not at all (`without`): what that gives
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.frames import frame
from benchmarks.load import Shape, Target, need_h2load, throughput
from modelhost.client import AsyncClient
from modelhost.v1 import predict_pb2, service_pb2
from tests.e2e.daemon import Daemon, find_python
from tests.e2e.steps import Operator
from tests.git_repos import Repo

METHOD = "modelhost.v1.Predict/Predict"
ROUNDS = 7
SECONDS = 2
TOGETHER = 32
ROW = [number / 8 for number in range(64)]

MATRIX = b"""
import numpy

def layer(seed, rows, columns):
    return numpy.random.RandomState(seed).standard_normal((rows, columns)).astype("float32") / rows ** 0.5

LAYERS = [layer(1, 64, 2048), layer(2, 2048, 2048), layer(3, 2048, 2048), layer(4, 2048, 1)]

def through(rows):
    values = numpy.asarray(rows, "float32")
    for weights in LAYERS:
        values = numpy.tanh(values.dot(weights))
    return values[:, 0]

def predict(row):
    return float(through([row])[0])

def predict_batch(batch):
    return through(batch)
"""
SLEEPS = b"""
import time

def predict(row):
    time.sleep(%s)
    return sum(row)

def predict_batch(batch):
    time.sleep(%s)
    return [sum(row) for row in batch]
"""


@dataclass(frozen=True)
class Case:
    """A model, how it is deployed with and without what is measured, and how many calls are in flight."""

    name: str
    model: bytes
    with_it: dict[str, Any]
    without: dict[str, Any]
    in_flight: tuple[int, ...]
    requirements: list[str] = field(default_factory=list)


BATCHES = {"max_size": TOGETHER}
CASES = (
    Case("matrix", MATRIX, BATCHES, {}, (1, TOGETHER), ["numpy==1.19.5"]),
    Case("fixed", SLEEPS.replace(b"%s", b"0.002"), BATCHES, {}, (1, TOGETHER)),
    Case(
        "slow",
        SLEEPS.replace(b"%s", b"0.05"),
        {**BATCHES, "max_delay": {"nanos": 20_000_000}},
        {**BATCHES, "max_delay": {}},
        (1, TOGETHER),
    ),
)


def main() -> int:
    """Measure; returns the exit code."""
    interpreter = find_python("3.6")
    if interpreter is None:
        print("no Python 3.6: `pyenv install 3.6.15` builds one", file=sys.stderr)
        return 2
    if not need_h2load():
        return 2
    with tempfile.TemporaryDirectory(prefix="modelhost-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        daemon = Daemon(folder / "host", "--interpreter", str(interpreter), "--log-level", "warning")
        try:
            daemon.start()
            for case in CASES:
                _measure(case, _deployed(case, daemon, folder))
        finally:
            daemon.close()
    return 0


def _deployed(case: Case, daemon: Daemon, folder: Path) -> tuple[Target, Target]:
    repo = Repo(folder / f"{case.name}.git")
    repo.commit({"main.py": case.model})
    operator = Operator(daemon)
    operator.add_source(case.name, repo)
    targets = []
    for service, batching in ((f"{case.name}-with", case.with_it), (f"{case.name}-without", case.without)):
        operator.deploy(service, case.name, batching=batching, requirements=case.requirements)
        operator.admin.OpenService(service_pb2.OpenServiceRequest(name=service))
        asyncio.run(_check(daemon.address, service, case))
        body = folder / f"{service}.body"
        body.write_bytes(frame(predict_pb2.PredictRequest(service=service, parameters_json=str(ROW))))
        targets.append(Target(daemon.address, METHOD, body))
    return targets[0], targets[1]


async def _check(address: str, service: str, case: Case) -> None:
    """Have answers looked at, of many calls at once, which h2load does not."""
    rows = [[value + number for value in ROW] for number in range(2 * TOGETHER)]
    async with AsyncClient(address, None) as client:
        alone = [(await client.predict(service, row)).result for row in rows[:4]]
        answers = [each.result for each in await asyncio.gather(*(client.predict(service, row) for row in rows))]
    near: Callable[[float, float], bool] = lambda a, b: abs(a - b) <= 1e-3  # noqa: E731
    assert all(near(a, b) for a, b in zip(alone, answers, strict=False)), (alone, answers[:4])
    if case.name != "matrix":
        assert answers == [sum(row) for row in rows]


def _measure(case: Case, targets: tuple[Target, Target]) -> None:
    for in_flight in case.in_flight:
        shape = Shape(connections=min(in_flight, 4), streams=max(in_flight // 4, 1))
        for target in targets:
            throughput(target, shape, SECONDS)  # warm
        rates: list[tuple[float, float]] = []
        for number in range(ROUNDS):
            order = (0, 1) if number % 2 else (1, 0)
            found = {each: throughput(targets[each], shape, SECONDS) for each in order}
            rates.append((found[0], found[1]))
        ratio = statistics.median(with_it / without for with_it, without in rates)
        with_it, without = (statistics.median(column) for column in zip(*rates, strict=True))
        rate = f"with={with_it:.0f}/s without={without:.0f}/s ratio={ratio:.2f}"
        print(f"batching {case.name} in_flight={in_flight} {rate}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
