"""Other servers that do the same work, each in a virtualenv of its own below build/peers, at its own best settings.

What cannot be installed or does not answer is `NotHere`, with a reason: it is reported, never made up.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checking import WrongAnswer, check
from benchmarks.processes import Cpu, cpu_of, end
from benchmarks.work import Work

CACHE = Path(__file__).parents[2] / "build" / "peers"
SCRIPTS = Path(__file__).parent / "servers"
DEBIANS_PYTHON = Path("/usr/bin/python3")
INSTALL_SECONDS = 900
START_SECONDS = 180
BETWEEN_TRIES = 0.5
SHOWN_LINES = 3


class NotHere(Exception):
    """A peer that cannot be measured on this host."""


@dataclass(frozen=True)
class Peer:
    """A server that somebody might have taken instead.

    `requirements` are what its virtualenv holds, the first one the peer itself; none where the system has it. Two of
    one kind share a `virtualenv`. `options` are for its script, `headers` are sent with each call. `front` names the
    process that takes calls, if that is not the one that the script becomes. One that `listens_everywhere` cannot be
    told to keep to loopback.
    """

    name: str
    title: str
    script: str
    works: tuple[Work, ...]
    settings: str
    requirements: tuple[str, ...] = ()
    virtualenv: str = ""
    options: tuple[str, ...] = ()
    front: str = ""
    headers: tuple[str, ...] = ()
    listens_everywhere: bool = False

    @property
    def home(self) -> Path:
        """Its virtualenv."""
        return CACHE / (self.virtualenv or self.name)

    def install(self) -> str:
        """Have it there; returns its version and those that matter beside it. Raises `NotHere`."""
        if not self.requirements:
            return _version_in_r(self.name)
        done = self.home / ".made"
        wanted = "\n".join(self.requirements)
        if not done.exists() or done.read_text() != wanted:
            self._make()
            done.write_text(wanted)
        return self._versions()

    def start(self) -> "RunningPeer":
        """Start it and wait until it gives right answers. Raises `NotHere`."""
        return RunningPeer(self)

    def command(self, port: int, folder: Path) -> list[str]:
        """What is run."""
        program = [str(self.home / "bin" / "python")] if self.requirements else ["Rscript", "--vanilla"]
        return [*program, str(SCRIPTS / self.script), str(port), str(folder), *self.options]

    def _make(self) -> None:
        python = DEBIANS_PYTHON if DEBIANS_PYTHON.exists() else Path(sys.executable)
        shutil.rmtree(self.home, ignore_errors=True)
        print(f"installing {self.title}", file=sys.stderr, flush=True)
        _run([str(python), "-m", "venv", str(self.home)])
        _run([str(self.home / "bin" / "pip"), "install", "-q", *self.requirements])

    def _versions(self) -> str:
        names = {requirement.split("[")[0].split("=")[0].split("<")[0] for requirement in self.requirements}
        listed = _run([str(self.home / "bin" / "pip"), "list", "--format=freeze"])
        own = self.requirements[0].split("[")[0]
        found = dict(line.split("==") for line in listed.splitlines() if "==" in line)
        shown = [own, *sorted((names | {"grpcio", "numpy", "uvloop"}) - {own})]
        return ", ".join(f"{name} {found[name]}" for name in shown if name in found)


class RunningPeer:
    """A `Server`, with a folder of its own whose path is short, for sockets lie below it."""

    def __init__(self, peer: Peer) -> None:
        self.name = peer.name
        self.headers = peer.headers
        self.works: Mapping[str, Work] = {work.name: work for work in peer.works}
        self._front = peer.front
        self._folder = tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        port = _free_port()
        self.address = f"127.0.0.1:{port}"
        self._log = folder / "log"
        surroundings = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                peer.command(port, folder), env=surroundings, cwd=folder, text=True, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            self._wait(peer.works[0])
        except BaseException:
            self.close()
            raise

    def _wait(self, work: Work) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                check(self.address, work, self.headers, calls=1)
            except WrongAnswer as error:
                problem = str(error)
            else:
                return
            if self._process.poll() is not None:
                raise NotHere(f"it ended with exit code {self._process.returncode}: {self._last_lines()}")
            if time.monotonic() > deadline:
                raise NotHere(f"no right answer in {START_SECONDS} s ({problem}): {self._last_lines()}")
            time.sleep(BETWEEN_TRIES)

    def cpu(self) -> Cpu:
        """CPU seconds so far."""
        return cpu_of(self._process.pid, self._front)

    def close(self) -> None:
        """End it and all that it had started."""
        end(self._process)
        self._folder.cleanup()

    def _last_lines(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-SHOWN_LINES:]) or "it has said nothing"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _version_in_r(package: str) -> str:
    if shutil.which("Rscript") is None:
        raise NotHere("this host has no R")
    said = _run(["Rscript", "--vanilla", "-e", f"cat(R.version.string, as.character(packageVersion('{package}')))"])
    version, _, own = said.rpartition(" ")
    return f"{package} {own}, {version}"


def _run(command: list[str]) -> str:
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHere(str(error)) from None
    if ended.returncode:
        lines = [line for line in ended.stderr.strip().splitlines() if not line.startswith("WARNING")]
        raise NotHere(f"{Path(command[0]).name} failed: {' / '.join(lines[-SHOWN_LINES:])}")
    return ended.stdout
