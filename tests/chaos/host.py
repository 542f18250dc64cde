"""The server of a run, on one port for all its lives; its workers' processes, and what a life leaves behind."""

import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import cast

import grpc

from modelhost.client import Client
from modelhost.client.client import DEFAULT_MAX_MESSAGE_BYTES
from modelhost.client.transport import Calls, endpoint
from tests.checks import leftovers
from tests.e2e.daemon import Daemon, Process, alive, all_processes, processes_of

VARIABLE = "CHAOS_DEPLOYMENT"  # in the environment of a deployment's workers: its name
FIRST_UID, RANGES, USERS = 510_000, 1000, 200  # for each run a range: what its models leave is known by it, too
CALL_SECONDS = 20.0
PORTS = range(20_000, 30_000)  # below those that the kernel gives to clients, one of which might take it in between


class Host:
    """`modelhost serve` in `folder`. `up` is set while it takes calls."""

    def __init__(self, folder: Path, interpreters: list[Path]) -> None:
        first = FIRST_UID + os.getpid() % RANGES * USERS
        self.uids = range(first, first + USERS)
        options = [f"--worker-uids={first}-{first + USERS - 1}", "--keep-revisions=1000", "--log-format=json"]
        self._daemon = Daemon(folder, *options, *(f"--interpreter={path}" for path in interpreters))
        self._daemon.listen = self.address = f"127.0.0.1:{_free_port()}"
        self.up = threading.Event()

    def start(self) -> None:
        """Start it; returns when it takes calls."""
        self._daemon.start()
        self.up.set()

    def kill(self) -> set[Process]:
        """SIGKILL it. Returns the processes that it had."""
        self.up.clear()
        before = processes_of(self.uids)
        return before | self._daemon.kill() | processes_of(self.uids)

    def restart_killed(self) -> list[str]:
        """SIGKILL it and start it again; returns what its first life has left running then."""
        before = self.kill()
        self.start()
        return [f"after SIGKILL and a restart: {process}" for process in alive(before)]

    def stop(self) -> list[str]:
        """SIGTERM it. Returns what is wrong with how it ends, and what it leaves: processes, directories of workers."""
        self.up.clear()
        code = self._daemon.stop()
        wrong = [f"SIGTERM: exit code {code}"] if code else []
        left = {f"process {process.pid}: {process.command}" for process in processes_of(self.uids)}
        return wrong + [f"after SIGTERM: {each}" for each in sorted(leftovers(self._daemon.state_dir) | left)]

    def close(self) -> None:
        """End it however that may be, and all that is left of it."""
        self._daemon.close()
        while left := processes_of(self.uids):
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def client(self, timeout: float | None = CALL_SECONDS) -> Client:
        """A new client, good for all its lives."""
        return Client(self.address, self._daemon.token, timeout=timeout)

    def narrow_calls(self) -> grpc.Channel:
        """For stubs whose callers hold the server up if they do not read: gRPC sends them no more than 64 KiB ahead."""
        return self._calls(("grpc.http2.bdp_probe", 0))

    def calls(self) -> grpc.Channel:
        """For calls of methods that `client` has no stubs of."""
        return self._calls()

    def _calls(self, *options: tuple[str, int | str]) -> grpc.Channel:
        to = endpoint(
            self.address,
            root_certificates=None,
            client_certificate=None,
            server_name="",
            max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES,
        )
        channel = grpc.insecure_channel(to.address.target, [*to.options, *options])
        return cast(grpc.Channel, Calls(channel, to.address, self._daemon.token, CALL_SECONDS))

    def workers(self, deployment: str) -> list[Process]:
        """The workers of a deployment, also those that load, by number."""
        mark = f"{VARIABLE}={deployment}".encode()
        found = []
        for process in all_processes():
            with suppress(OSError):
                if os.getsid(process.pid) == process.pid and mark in _environment(process):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    @property
    def log(self) -> Path:
        """What it has written, all its lives."""
        return self._daemon.log

    @property
    def run_logs(self) -> Path:
        """Where build logs and run logs lie."""
        return self._daemon.state_dir / "logs"


def _environment(process: Process) -> list[bytes]:
    return Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")


def _free_port() -> int:
    own = os.getpid() % len(PORTS)
    for port in (*PORTS[own:], *PORTS[:own]):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"no port from {PORTS[0]} to {PORTS[-1]} is free")
