"""The real `modelhost` command, as a person types it into a shell on the server's host."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.daemon import MODELHOST, Daemon

PATIENCE = 120.0
# Where tests run in the background, a shell may have had Ctrl-C ignored, which commands inherit. The command itself
# undoes that: a function that Popen ran in the fork could meet gRPC's own fork handlers there.
HEARING_CTRL_C = """
import signal, sys
from modelhost.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it printed to stdout."""
        return self.out.splitlines()

    @property
    def document(self) -> Any:
        """Stdout, if it is one JSON document and nothing else."""
        return json.loads(self.out)


class Command:
    """Runs `modelhost …` in a folder, with the variables of the daemon's user and those given here."""

    def __init__(self, daemon: Daemon, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self.daemon = daemon
        self.folder = folder
        self.variables = {
            **{name: daemon.environment[name] for name in ("HOME", "LANG", "PATH", "XDG_RUNTIME_DIR")},
            "MODELHOST_ADDRESS": daemon.address,
            "COLUMNS": "120",
            **(variables or {}),
        }

    def __call__(self, line: str, *more: str, stdin: str = "") -> Answer:
        """Run a command line, `"list --json"`; `more` are words with blanks in them. It may fail."""
        done = subprocess.run(
            [MODELHOST, *shlex.split(line), *more], cwd=self.folder, env=self.variables, input=stdin,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert "/modelhost/cli/" not in done.stderr, done.stderr  # a traceback of its own, not of a model
        return Answer(done.returncode, done.stdout, done.stderr)

    def ok(self, line: str, *more: str, stdin: str = "") -> Answer:
        """Run one that must succeed."""
        answer = self(line, *more, stdin=stdin)
        assert answer.code == 0, answer
        return answer

    def within(self, folder: Path) -> "Command":
        """The same in another folder."""
        return Command(self.daemon, folder, self.variables)

    def having(self, **variables: str) -> "Command":
        """The same with more variables."""
        return Command(self.daemon, self.folder, {**self.variables, **variables})

    def paste(self, line: str) -> str:
        """Have a shell run a line that was shown to be copied; returns what it prints."""
        path = f"{MODELHOST.parent}{os.pathsep}{self.variables['PATH']}"
        done = subprocess.run(
            ["sh", "-c", line], cwd=self.folder, env={**self.variables, "PATH": path}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def begin(self, line: str) -> "Following":
        """Start one that goes on until it is interrupted."""
        process = subprocess.Popen(
            [sys.executable, "-c", HEARING_CTRL_C, *shlex.split(line)], cwd=self.folder, env=self.variables,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return Following(process)

    def on_a_terminal(self, line: str) -> Answer:
        """Run one with all its streams on a terminal; `out` is everything that the terminal was sent."""
        controller, terminal = pty.openpty()
        process = subprocess.Popen(
            [MODELHOST, *shlex.split(line)], cwd=self.folder, env={**self.variables, "TERM": "xterm-256color"},
            stdin=terminal, stdout=terminal, stderr=terminal,
        )  # fmt: skip
        os.close(terminal)
        shown = b""
        with suppress(OSError), open(controller, "rb", buffering=0) as screen:  # EIO: nobody has it open any more
            while data := screen.read(65536):
                shown += data
        return Answer(process.wait(PATIENCE), shown.decode(), "")


class Following:
    """A command that runs until Ctrl-C. A context manager that ends it at the latest."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def read_until(self, text: str) -> str:
        """Read lines until one has the text; returns that one."""
        assert self._process.stdout is not None
        seen = []
        for line in self._process.stdout:
            if text in line:
                return line.rstrip("\n")
            seen.append(line)
        raise AssertionError(f"it ended without {text!r}: {seen}")

    def interrupt(self) -> Answer:
        """Ctrl-C; returns how it ended."""
        self._process.send_signal(signal.SIGINT)
        out, err = self._process.communicate(timeout=PATIENCE)
        return Answer(self._process.returncode, out, err)

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
