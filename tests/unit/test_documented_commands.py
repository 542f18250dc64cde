"""Every `modelhost …` that a hint, an error or a page of documentation names is one that the command takes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from modelhost.cli.main import app
from modelhost.server.catalogue import ENTRIES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [path for root in ("server", "clients") for path in sorted((ROOT / root / "modelhost").rglob("*.py"))]
IN_TEXT = re.compile(r"`(modelhost [^`]+)`")
IN_CONSOLE = re.compile(r"^(?:\$ )?(modelhost [^#\n]+)", re.MULTILINE)


def commands() -> Iterator[tuple[str, str]]:
    """Where a command is named, and the command."""
    for entry in ENTRIES:
        for line in IN_TEXT.findall(entry.cure):
            yield f"catalogue: {entry.title}", line
    for path in PAGES:
        text = path.read_text()
        for block in re.findall(r"```(?:console|sh)\n(.*?)```", text, re.DOTALL):
            for line in IN_CONSOLE.findall(block.replace("\\\n", " ")):
                yield path.name, line
        for line in IN_TEXT.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            yield path.name, " ".join(line.split())
    for path in SOURCES:
        for line in IN_TEXT.findall(re.sub(r'"\n\s+f?"', "", path.read_text())):
            yield path.name, re.sub(r"\{[^}]*\}+", "X", line)


FOUND = sorted(set(commands()))


def problem_with(line: str) -> str:
    """What the command does not know of a line; "" if it knows all."""
    command: Any = typer.main.get_command(app())
    context = typer.Context(command)
    words = shlex.split(line.partition(" | ")[0].replace("…", "X"))[1:]
    while words and hasattr(command, "get_command"):
        name = words.pop(0)
        if name.startswith("-"):
            break
        found = command.get_command(context, name)
        if found is None:
            return f"no verb {name}"
        # A verb of another package has its options once it is used.
        command = (
            found.make_context(name, [], resilient_parsing=True).command if hasattr(found, "entry_point") else found
        )
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "--version"}
    unknown = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((f"no option {flag}" for flag in unknown if flag not in known), "")


def test_there_is_something_to_look_at() -> None:
    assert {where.partition(":")[0] for where, _ in FOUND} >= {"catalogue", "README.md", "updates.md", "errors.py"}
    assert len(FOUND) > 100


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("modelhost source nope", "no verb nope"),
        ("modelhost deploy --nope", "no option --nope"),
        ("modelhost source update energy --gitlab-token-file FILE", ""),
    ],
)
def test_a_wrong_command_is_found(line: str, problem: str) -> None:
    assert problem_with(line) == problem


@pytest.mark.parametrize(("where", "line"), FOUND)
def test_a_command_that_is_named_exists(where: str, line: str) -> None:
    assert problem_with(line) == ""
