"""What is done to the server, in which order, from a seed: the same seed makes the same plan.

How far a run gets in it depends on how long the deeds take.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.models import ABUSED, CHECKED, MODELS, STREAM_POISONS

SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.2

# How often each deed is among those that are shuffled; all of them have been done before any is done once more.
DECK = {
    "kill worker": 5,
    "freeze worker": 1,
    "grow": 1,
    "poison": 5,
    "poison stream": 3,
    "update": 4,
    "roll back": 2,
    "stop": 2,
    "scale": 3,
    "cancel": 2,
    "kill server": 1,
    "kill server in update": 1,
    "end server": 1,
}
ANY = [model.name for model in (*CHECKED, *ABUSED)]
POISONED = [model.name for model in (*CHECKED, ABUSED[0])]
STREAMING = [name for name in POISONED if MODELS[name].streams]
MUTABLE = [model.name for model in CHECKED]


@dataclass(frozen=True)
class Deed:
    """One thing to do to a deployment (or the server), then wait `pause` seconds. `chance` is from 0 to 1."""

    what: str
    target: str
    chance: float
    pause: float
    poison: str = ""


def plan(seed: int) -> Iterator[Deed]:
    """All deeds, without end."""
    chance = random.Random(seed)
    names = {what: _shuffled(chance, _targets(what)) for what in DECK}
    poisons = {name: _shuffled(chance, model.poisons) for name, model in MODELS.items()}
    in_streams = _shuffled(chance, STREAM_POISONS)
    stopped: list[str] = []
    for what in _shuffled(chance, [what for what, times in DECK.items() for _ in range(times)]):
        if stopped and chance.random() < 0.5:
            yield _deed(chance, "start", stopped.pop(0))
        target = next(names[what])
        if what == "stop":
            if target in stopped:
                continue
            stopped.append(target)
        poison = {"poison": poisons[target], "poison stream": in_streams}.get(what) if target in poisons else None
        yield _deed(chance, what, target, next(poison) if poison else "")


def _targets(what: str) -> list[str]:
    match what:
        case "kill worker" | "freeze worker" | "cancel":
            return ANY
        case "poison":
            return POISONED
        case "poison stream":
            return STREAMING
        case "grow":
            return ["leaking"]
        case "update" | "roll back" | "stop" | "scale" | "kill server in update":
            return MUTABLE
        case _:
            return ["server"]


def _deed(chance: random.Random, what: str, target: str, poison: str = "") -> Deed:
    return Deed(what, target, chance.random(), chance.uniform(SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS), poison)


def _shuffled(chance: random.Random, words: list[str] | tuple[str, ...]) -> Iterator[str]:
    """All words in some order, then all in another, without end."""
    for _ in itertools.count():
        yield from chance.sample(words, len(words))
