"""The deployments of a run, their files at each revision, and what a right answer is."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "models" / "chaos"
CALL_TIMEOUT_SECONDS = 3
MEMORY_LIMIT = 160 << 20
PYTHON_POISONS = ("exit", "segfault", "loop", "stubborn", "fall", "raise", "leave")
R_POISONS = ("exit", "segfault", "quit", "loop", "fall", "raise", "leave")


@dataclass(frozen=True)
class Model:
    """One deployment of a run. `language` is that of its runtime's id: `python2.7`, `python3.6`, `r`."""

    name: str
    language: str
    poisons: tuple[str, ...]
    memory: int = 0

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


def fault_of(sent: dict[str, Any], answer: Any) -> str:
    """What is wrong with an answer, whatever revision gave it; empty if nothing is."""
    if not isinstance(answer, dict) or set(answer) != {"constant", "echo", "value", "pid"}:
        return "it is no answer of this model"
    if answer["echo"] != sent["echo"]:
        return f"it is the answer to another call: {answer['echo']!r}"
    if answer["value"] != sent["x"] * 31 + answer["constant"]:
        return "the value is not what the model computes"
    return ""
