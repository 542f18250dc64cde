"""The deployments of a run, their files at each revision, and what a right answer is."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "models" / "chaos"
CALL_TIMEOUT_SECONDS = 3
MEMORY_LIMIT = 160 << 20
PYTHON_POISONS = ("exit", "segfault", "loop", "stubborn", "fall", "raise", "leave")
STREAM_POISONS = ("exit", "segfault", "loop", "raise", "idle")  # in a stream; "idle" is the caller, who takes no items
R_POISONS = ("exit", "segfault", "quit", "loop", "fall", "raise", "leave")


@dataclass(frozen=True)
class Model:
    """One deployment of a run. `language` is that of its runtime's id: `python2.7`, `python3.6`, `r`."""

    name: str
    language: str
    poisons: tuple[str, ...]
    memory: int = 0

    @property
    def streams(self) -> bool:
        """Whether it is a generator when it is asked for items; R has none."""
        return self.language != "r"

    def files(self, constant: int) -> dict[str, bytes]:
        """What is committed for the revision that answers with `constant`."""
        main = "main.R" if self.language == "r" else "main.py"
        return {main: (FOLDER / main).read_bytes(), "constant": b"%d\n" % constant}


CHECKED = (
    Model("python27", "python2.7", PYTHON_POISONS),
    Model("python36", "python3.6", PYTHON_POISONS),
    Model("r", "r", R_POISONS),
)
ABUSED = (
    Model("poisoned", "python3.6", PYTHON_POISONS),
    Model("leaking", "python2.7", ("grow",), memory=MEMORY_LIMIT),
)
MODELS = {model.name: model for model in (*CHECKED, *ABUSED)}


def parameters(chance: random.Random, number: int, **more: Any) -> dict[str, Any]:
    """Parameters that no other call has."""
    return {"x": chance.randrange(10**9), "echo": f"{number} 'ünique' \\ {chance.random()}", **more}


def items_of(sent: dict[str, Any]) -> int:
    """How many items a stream has: what is no generator gives one."""
    return int(sent.get("items", 1))


def fault_of(sent: dict[str, Any], answer: Any, index: int = 0) -> str:
    """What is wrong with an answer, whatever revision gave it; empty if nothing is. `index` is that of an item."""
    streams = "items" in sent
    fields = {"constant", "echo", "value", "pid", "opened", *(("index", "filling") if streams else ())}
    if not isinstance(answer, dict) or set(answer) != fields:
        return "it is no answer of this model"
    if answer["echo"] != sent["echo"]:
        return f"it is the answer to another call: {answer['echo']!r}"
    if answer["value"] != _value(sent["x"], answer["constant"]):
        return "the value is not what the model computes"
    if answer["opened"] != streams:
        return "a stream that was there before has not been closed in the model"
    if streams and answer["index"] != index:
        return f"it is item {answer['index']}, and {index} should come"
    if index >= min(items_of(sent), sent.get("at", index + 1)):
        return "it is one more than the model makes"
    if streams and answer["filling"] != chr(ord("a") + index % 26) * sent["size"]:
        return "it is not what the model fills an item with"
    return ""


def _value(x: int | list[int], constant: int) -> int | list[int]:
    return [each * 31 + constant for each in x] if isinstance(x, list) else x * 31 + constant
