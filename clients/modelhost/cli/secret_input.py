"""Secrets on their way in: from a file, a variable, a pipe or the keyboard, never from the command line itself."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from modelhost.cli.errors import usage


@dataclass(frozen=True)
class SecretInput:
    """A secret that a verb needs."""

    what: str
    """As errors name it: `GitLab token`."""
    prompt: str
    """As it is asked for: `GitLab's token`."""
    flag: str
    """The option for a file with it."""
    variable: str
    """The variable with it."""

    def read(self, file: Path | None) -> str:
        """Return it: of the file, of the variable, as typed in, or from a pipe; a usage error for none."""
        if file:
            where, text = str(file), _content(file)
        elif os.environ.get(self.variable):
            where, text = self.variable, os.environ[self.variable]
        elif sys.stdin and sys.stdin.isatty():
            where, text = "what was typed", typer.prompt(f"{self.prompt} (it is not shown)", hide_input=True, err=True)
        else:
            where, text = "stdin", sys.stdin.read() if sys.stdin else ""
        if not text.strip():
            raise usage(f"there is no {self.what} in {where}", f"give it with {self.flag} FILE, or in {self.variable}")
        return str(text.strip())


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise usage(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}") from error
