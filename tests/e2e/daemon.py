"""The real server as a process of its own, in the manner of etcd's `EtcdProcess`: start, stop, kill, start again.

    daemon = Daemon(tmp_path / "host").start()
    before = daemon.kill()                        # SIGKILL; what it had running, for `alive`
    daemon.start()                                # on the same state

Its surroundings are its own: PATH and HOME are bare, so that it finds the interpreters that it is given and no others,
which are many to ask on some machines, and what it publishes for the `modelhost` command lies in its folder.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelhost.client import Client
from modelhost.client.local import Tls
from modelhost.server.statedir import MARKER, StateDir
from tests.local_hosts import LOCAL_HOSTS
from tests.running import eventually

MODELHOST = Path(sys.executable).with_name("modelhost")
START_SECONDS = 60.0
STOP_SECONDS = 60.0
CALL_SECONDS = 120.0
LOG_SHOWN = 20_000  # characters, from the end


@dataclass(frozen=True)
class Process:
    """A process that was seen once. Its number may be another's by now, hence the time it was started at."""

    pid: int
    started: str
    command: str

    @property
    def alive(self) -> bool:
        """Whether it still does anything; a zombie does not."""
        state, _, started = _stat(self.pid)
        return state not in ("", "Z", "X") and started == self.started


def alive(processes: Iterable[Process]) -> list[Process]:
    """Those of them that still run."""
    return [process for process in processes if process.alive]


class Daemon:
    """`modelhost serve` on `folder / "state"`; `options` are more of its command line, `prefix` is what executes it."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.log = folder / "server.log"
        self.options = options
        self.prefix = prefix
        self.listen = "127.0.0.1:0"
        self.environment = {**surroundings(folder), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None
        self._clients: list[Client] = []

    # -- its life --------------------------------------------------------------------------------------------------

    def start(self) -> "Daemon":
        """Start it, and wait until it takes calls."""
        process = self.begin()

        def serving() -> bool:
            assert process.poll() is None, f"the server ended with exit code {process.returncode}:\n{self.log_text()}"
            return bool(self._published())

        eventually(serving, seconds=START_SECONDS)
        return self

    def begin(self) -> "subprocess.Popen[bytes]":
        """Start it, and wait for nothing."""
        assert self._process is None, "it runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip
        return self._process

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, as a service manager does or, with SIGINT, a terminal: the whole group gets it then."""
        process = self._running()
        if number is signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        code = self._running().wait(STOP_SECONDS)
        self._forget()
        return code

    def kill(self) -> set[Process]:
        """SIGKILL. Returns the processes that it had, wherever these are by then."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)  # so that it starts nothing between the look and the end
        before = self.processes()
        process.kill()
        process.wait(STOP_SECONDS)
        self._forget()
        return before | self.processes()

    def restart(self) -> set[Process]:
        """Kill it, and start another one on its state. Returns what the first one had running."""
        before = self.kill()
        self.start()
        return before

    def close(self) -> None:
        """End it if it runs, and whatever carries its mark; for after a test."""
        for client in self._clients:
            client.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.stop()
        if self._process is not None:
            self.kill()
        while left := alive(self.processes()):
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [
            *self.prefix,
            str(MODELHOST),
            "serve",
            "--state-dir",
            str(self.state_dir),
            "--listen",
            self.listen,
            *self.options,
        ]

    def refused(self) -> "subprocess.CompletedProcess[str]":
        """Start one that is expected to end at once; returns how it did and what it said."""
        return subprocess.run(
            self.command, env=self.environment, capture_output=True, text=True, timeout=START_SECONDS, check=False
        )

    # -- what is known of it from its state --------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def address(self) -> str:
        """`host:port`, from what it has published for this user's commands."""
        return str(self._published()["address"])

    @property
    def token(self) -> str:
        return (self.state_dir / "admin.token").read_text().strip()

    @property
    def client(self) -> Client:
        """A client with the admin token; a new one after a restart."""
        if self._client is None:
            tls: Any = self._published().get("tls")
            trust = Tls(Path(tls["certificate"]), tls["name"]) if tls else None
            self._client = Client(
                self.address,
                self.token,
                timeout=CALL_SECONDS,
                root_certificates=trust.root_certificates() if trust else None,
                server_name=trust.name if trust else "",
            )
            self._clients.append(self._client)
        return self._client

    def log_text(self) -> str:
        """What it has written to stdout and stderr, all starts of it."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def processes(self) -> set[Process]:
        """All processes that it started, and those that these started, in whatever group, alive at the moment."""
        if not self.state_dir.is_dir():
            return set()
        mark = b"=".join(map(os.fsencode, (MARKER, StateDir(self.state_dir).marker[MARKER])))
        ours = {self._process.pid} if self._process is not None else set()
        found: set[Process] = set()
        while True:
            more = {process for process in all_processes() if _parent(process) in ours or mark in _variables(process)}
            if more <= found:
                return found
            found |= more
            ours |= {process.pid for process in more}

    def _published(self) -> dict[str, object]:
        for file in Path(self.environment["XDG_RUNTIME_DIR"]).glob("modelhost/*.json"):
            with suppress(OSError, ValueError):
                entry: dict[str, object] = json.loads(file.read_text())
                if self._process is not None and entry["pid"] == self._process.pid:
                    return entry
        return {}

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "it does not run"
        return self._process

    def _forget(self) -> None:
        self._process = self._client = None  # the client stays open: a call under way is to see how the server ends it


def surroundings(folder: Path) -> dict[str, str]:
    """Environment variables of a user who has nothing but what every host has, and a home in `folder`."""
    home, runtime = folder / "home", folder / "run"
    for each in (folder, home, runtime):
        each.mkdir(mode=0o700, exist_ok=True)
    git = shutil.which("git")
    assert git is not None, "the tests need git"
    return {
        "PATH": os.pathsep.join(dict.fromkeys([str(Path(git).parent), "/usr/bin", "/bin"])),
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "LANG": "C.UTF-8",
        "MODELHOST_GIT_HOSTS": " ".join(LOCAL_HOSTS),
    }


def python(version: str) -> Path:
    """An interpreter of that version. They are what the project is for: none is a failure."""
    found = find_python(version)
    if found is None:
        pytest.fail(f"no Python {version} below ~/.pyenv or on PATH; `pyenv install {version}` builds it")
    return found


def find_python(version: str) -> Path | None:
    """An interpreter of that version, from pyenv or PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True):
        return path
    # pyenv's shims are there for versions that are not
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if not folder.endswith("/shims")]
    found = shutil.which(f"python{version}", path=os.pathsep.join(folders))
    return Path(found) if found else None


def all_processes() -> Iterable[Process]:
    """What runs on this host, but for this process."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            state, _, started = _stat(int(name))
            if state not in ("", "Z", "X"):
                with suppress(OSError):
                    words = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ")
                    yield Process(int(name), started, words.decode(errors="replace").strip())


def processes_of(users: range) -> set[Process]:
    """All processes of those users, whatever their environment and whoever their parents."""
    found = set()
    for process in all_processes():
        with suppress(OSError, ValueError):
            status = Path("/proc", str(process.pid), "status").read_bytes()
            uids = map(int, status.partition(b"\nUid:")[2].partition(b"\n")[0].split())
            if any(uid in users for uid in uids):
                found.add(process)
    return found


def _parent(process: Process) -> int:
    return int(_stat(process.pid)[1] or 0)


def _variables(process: Process) -> list[bytes]:
    with suppress(OSError):
        return Path("/proc", str(process.pid), "environ").read_bytes().split(b"\0")
    return []


def _stat(pid: int) -> tuple[str, str, str]:
    """State, parent and time of start of a process; empty if there is none."""
    with suppress(OSError):
        words = Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
        return words[0], words[1], words[19]
    return "", "", ""
