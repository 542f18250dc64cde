"""The obedient model, which does what its caller tells it to, on every runtime: its files, and how to tell it."""

from pathlib import Path
from typing import Any

OBEDIENT = {path.name: path.read_bytes() for path in Path(__file__).parent.glob("models/obedient/main.*")}


def do(what: str, **arguments: Any) -> dict[str, Any]:
    """Parameters that tell it what to do; `main.py` has a function `do_…` for each."""
    return {"do": what, "with": arguments}
