"""Interleaved rounds: what is compared is measured side by side, again and again, for no machine is ever still.

A ratio is the median of the rounds' ratios, not a ratio of medians: within a round both sides had the same weather.
"""

import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from benchmarks.load import Load, Shape, closed_loop
from benchmarks.processes import Cpu
from benchmarks.replay import at_rate, in_turn
from benchmarks.servers import Server, Targets

LEAST_CALLS_OF_RATE = 20  # for percentiles to mean something


class How(Enum):
    """How a server is loaded: so many calls under way, all bodies in turn with 32 under way, a share of its peak."""

    ONE = "1"
    EIGHT = "8"
    MANY = "32"
    MOST = "128"
    TURN = "in turn"
    HALF = "at 50 %"
    BUSY = "at 80 %"


SHAPES = {
    How.ONE: Shape(1, 1),
    How.EIGHT: Shape(4, 2),
    How.MANY: Shape(4, 8),
    How.MOST: Shape(4, 32),
    How.TURN: Shape(4, 8),
}
HTTP1_SHAPES = {how: Shape(shape.connections * shape.streams, 1) for how, shape in SHAPES.items()}
CLOSED = (How.ONE, How.EIGHT, How.MANY, How.MOST)
LOADS = {
    "sum": (*CLOSED, How.TURN, How.HALF, How.BUSY),
    "json": (*CLOSED, How.TURN, How.HALF, How.BUSY),
    "mib1": (How.ONE, How.EIGHT),
    "mib16": (How.ONE,),
    "many": (How.TURN,),
    "lm": (How.ONE, How.EIGHT, How.MANY),
}
"""How each kind of work is loaded."""
SHARES = {How.HALF: 0.5, How.BUSY: 0.8}
Key = tuple[str, str, How]


@dataclass(frozen=True)
class Step:
    """One server, one kind of work, one load."""

    server: Server
    work: str
    how: How

    @property
    def key(self) -> Key:
        """What its samples are kept under."""
        return self.server.name, self.work, self.how


@dataclass(frozen=True)
class Sample:
    """What one segment showed; CPU is in seconds per 1,000 calls."""

    load: Load
    cpu: Cpu


class Samples:
    """What all rounds showed. A segment in which a call failed has no sample, but a problem."""

    def __init__(self) -> None:
        self._of: dict[Key, dict[int, Sample]] = defaultdict(dict)
        self.problems: list[str] = []
        self._rounds = 0

    def book(self, rounds: int) -> range:
        """Numbers for so many rounds, which no others have: a ratio is of what was measured in the same round."""
        first, self._rounds = self._rounds, self._rounds + rounds
        return range(first, self._rounds)

    def add(self, key: Key, number: int, sample: Sample) -> None:
        """Keep what a round, by its number, showed."""
        self._of[key][number] = sample

    def measured(self) -> Iterator[Key]:
        """What has samples, in the order in which it was first measured."""
        return iter(self._of)

    def rate(self, key: Key) -> float | None:
        """Median of the answers per second."""
        return self._median([sample.load.rate for sample in self._of.get(key, {}).values()])

    def milliseconds(self, key: Key, percent: float) -> float | None:
        """Median of the rounds' percentile."""
        seconds = self._median([sample.load.percentile(percent) for sample in self._of.get(key, {}).values()])
        return None if seconds is None else seconds * 1000

    def cpu(self, key: Key) -> Cpu | None:
        """Medians, in seconds per 1,000 calls."""
        costs = [sample.cpu for sample in self._of.get(key, {}).values()]
        server = self._median([cost.server for cost in costs])
        workers = self._median([cost.workers for cost in costs])
        return None if server is None or workers is None else Cpu(server, workers)

    def ratio(self, key: Key, other: Key) -> float | None:
        """Median of the rounds' ratios of answers per second; None where no round has both."""
        ours, theirs = self._of.get(key, {}), self._of.get(other, {})
        return self._median([ours[each].load.rate / theirs[each].load.rate for each in ours if each in theirs])

    def peak(self, server: str, work: str) -> float:
        """The most that was answered per second so far; 0 if nothing was measured.

        To the client that is to send at a share of it, where that was measured: it takes more CPU than h2load.
        """
        of_client = self.rate((server, work, How.TURN))
        return of_client or max((self.rate((server, work, how)) or 0 for how in SHAPES), default=0)

    @staticmethod
    def _median(values: list[float]) -> float | None:
        return statistics.median(values) if values else None


def run(groups: list[list[Step]], targets: Targets, samples: Samples, *, rounds: int, seconds: float) -> None:
    """Measure each step in each round. The steps of a group are compared: they follow each other, in turns."""
    for group in groups:
        for step in group:
            if step.how not in SHARES:
                _try(step, targets, samples, seconds / 5, number=-1)  # warm
    for done, number in enumerate(samples.book(rounds)):
        for group in groups:
            for step in group if done % 2 else reversed(group):
                _try(step, targets, samples, seconds, number)
        print(f"  round {done + 1} of {rounds}", file=sys.stderr, flush=True)


def _try(step: Step, targets: Targets, samples: Samples, seconds: float, number: int) -> None:
    try:
        before = step.server.cpu()
        load = _load(step, targets, samples, seconds)
        cost = step.server.cpu().since(before, load.calls)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        server, work, how = step.key
        if number >= 0:
            problem = f"{server} {work} {how.value}, round {number + 1}: {str(error).strip().splitlines()[0]}"
            samples.problems.append(problem)
            print(f"  {problem}", file=sys.stderr, flush=True)
    else:
        if number >= 0:
            samples.add(step.key, number, Sample(load, cost))


def _load(step: Step, targets: Targets, samples: Samples, seconds: float) -> Load:
    target = targets.target(step.server, step.work)
    if step.how is How.TURN:
        return in_turn(target, targets.bodies(step.server, step.work), SHAPES[step.how], seconds)
    if step.how in SHARES:
        rate = SHARES[step.how] * samples.peak(step.server.name, step.work)
        if rate <= 0:
            raise RuntimeError("no peak is known to take a share of")
        return at_rate(target, rate, max(seconds, LEAST_CALLS_OF_RATE / rate))
    return closed_loop(target, (HTTP1_SHAPES if target.http1 else SHAPES)[step.how], seconds)
