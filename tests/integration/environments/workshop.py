"""Models to build environments for, the jobs that do it, and what is seen of them."""

import base64
import hashlib
import os
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from modelhost.envs import (
    Environment,
    EnvironmentSpec,
    EnvironmentStore,
    Interpreter,
    Job,
    Language,
    Stream,
    read_requirements,
)

PYTHONS = ["python2.7", "python3.6", "python3.13"]
WAIT = 120.0  # seconds; only a hang reaches it


def make_wheel(folder: Path, name: str, version: str, requires: str = "", size: int = 0) -> None:
    """Write the smallest wheel there is (PEP 427): one module of `size` bytes or more, for every Python."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f"version = '{version}'\n" + "#" * size,
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py2-none-any\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py2.py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
            record += f"{path},sha256={digest},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


def make_r_package(folder: Path, r: Interpreter, name: str, version: str, fields: str = "", **files: str) -> None:
    """Build a source package into a folder; it exports a function of its name that returns its version."""
    source = folder / "source" / name
    contents = {
        "DESCRIPTION": f"Package: {name}\nVersion: {version}\nTitle: Test\nDescription: For tests.\nLicense: GPL-3\n"
        f"Author: Tests\nMaintainer: Tests <tests@example.com>\n{fields}",
        "NAMESPACE": f"export({name})\n",
        "R/code.R": f"{name} <- function() '{version}'\n",
        **{path.replace("__", "/").replace("_", "."): text for path, text in files.items()},
    }
    for path, text in contents.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    for script in source.glob("configure"):
        script.chmod(0o755)
    subprocess.run([r.path, "CMD", "build", source], cwd=folder, check=True, capture_output=True)
    shutil.rmtree(folder / "source")


def write_index(folder: Path, r: Interpreter) -> None:
    """Have a folder of source packages be what a repository is."""
    code = "tools::write_PACKAGES('.', type = 'source')"
    subprocess.run([r.path, "--vanilla", "--slave", "-e", code], cwd=folder, check=True, capture_output=True)


class Log:
    """A job that remembers what it was told, and lets a test wait for a line."""

    def __init__(self) -> None:
        self.lines: list[tuple[Stream, str]] = []
        self._changed = threading.Condition()
        self.job = Job(self._emit)

    def _emit(self, stream: Stream, line: str) -> None:
        with self._changed:
            self.lines.append((stream, line))
            self._changed.notify_all()

    @property
    def said(self) -> list[str]:
        return [line for stream, line in self.lines if stream is Stream.SERVER]

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def wait_for(self, words: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: words in self.text, WAIT), f"no {words!r} in:\n{self.text}"


def spec_of(store: EnvironmentStore, interpreter: Interpreter, model: Path, *lines: str) -> EnvironmentSpec:
    return store.specify(interpreter, read_requirements(interpreter, model, inline=lines))


def run(environment: Environment, code: str) -> str:
    """Run code in an environment, as a worker is: with nothing of the server's but the PATH."""
    if environment.interpreter.language is Language.R:
        argv: list[str | Path] = [environment.interpreter.path, "--slave", "-e", code]
    else:
        argv = [environment.python, "-c", code]
    variables = {"PATH": os.environ["PATH"], **environment.variables}
    return subprocess.run(argv, env=variables, check=True, capture_output=True, text=True, cwd="/").stdout.strip()


def left_on_disk(store: EnvironmentStore) -> list[str]:
    """What lies in the store, empty folders for locks left out."""
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.name != ".locks")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
