"""Things that stop where a test wants them to, and go on when it says so."""

import os
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.running import eventually, shared_folder

REACH_SECONDS = 60.0
_ABANDONED_SECONDS = 600.0  # after which what waits at a gate ends by itself, should everything else have failed


class Gate:
    """A place in a program of Python 2 or 3: `code` says that it was reached, and waits there until `open`."""

    def __init__(self, path: Path) -> None:
        self._open = path.with_suffix(".open")
        self._reached = path.with_suffix(".reached")

    @property
    def code(self) -> str:
        """Lines for the program, ended by a newline."""
        return (
            "import os, time\n"
            f"open({str(self._reached)!r}, 'a').close()\n"
            f"patience = time.time() + {_ABANDONED_SECONDS}\n"
            f"while not os.path.exists({str(self._open)!r}) and time.time() < patience:\n"
            "    time.sleep(0.02)\n"
        )

    def wait_until_reached(self) -> None:
        """Wait until a program stands at the gate; each time it is reached counts once."""
        eventually(self._reached.exists, seconds=REACH_SECONDS)
        self._reached.unlink()

    def open(self) -> None:
        """Let all through, from now on."""
        self._open.touch()

    def close(self) -> None:
        """Hold whoever comes from now on."""
        self._open.unlink()


class Stray:
    """A program's child that leaves its session and group, and stays: `code` starts it, once each time it runs.

    It lets go of its parent's output, as those do that are meant to stay: else pip would wait for it. And it goes on
    writing into the folder that it was started in.
    """

    def __init__(self, path: Path) -> None:
        self._pids = shared_folder(path)

    @property
    def code(self) -> str:
        """Lines for the program, ended by a newline."""
        return (
            "import os, time\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0:\n"
            "        for descriptor in (0, 1, 2):\n"
            "            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)\n"
            f"        os.close(os.open({str(self._pids)!r} + '/%d' % os.getpid(), os.O_CREAT))\n"
            f"        end = time.time() + {_ABANDONED_SECONDS}\n"
            "        while time.time() < end:\n"
            "            for number in range(300):\n"
            "                os.close(os.open('stray-%d' % number, os.O_CREAT))\n"
            "            time.sleep(0.001)\n"
            "    os._exit(0)\n"
        )

    def wait_until_there(self) -> int:
        """Wait for the first; returns its pid."""
        return int(eventually(lambda: os.listdir(self._pids), seconds=REACH_SECONDS)[0])


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = True


class SlowGit:
    """Serves the repositories below a folder by `git://`, and holds one connection until `release`.

    Git itself speaks, as `git daemon --inetd`; all that is done here is to let it begin.
    """

    def __init__(self, base: Path) -> None:
        self._released = threading.Event()
        self._reached = threading.Event()
        self.connections = 0
        """How many there were."""
        self._hold: int | None = None
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._wait()
                _speak_git(self.request, base)

        self._server = _Server(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Of the folder."""
        return f"git://127.0.0.1:{self._server.server_address[1]}"

    def hold(self, number: int) -> None:
        """Hold the connection of that number, counted from 1, and all that come after it."""
        self._hold = self.connections + number

    def wait_until_reached(self) -> None:
        """Wait until somebody is held."""
        assert self._reached.wait(REACH_SECONDS), "nobody came"

    def release(self) -> None:
        """Let all through, from now on."""
        self._hold = None
        self._released.set()

    def _wait(self) -> None:
        self.connections += 1
        if self._hold is not None and self.connections >= self._hold:
            self._reached.set()
            self._released.wait(_ABANDONED_SECONDS)

    @contextmanager
    def running(self) -> Iterator["SlowGit"]:
        """Serve while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.release()
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _speak_git(connection: socket.socket, base: Path) -> None:
    command = ["git", "daemon", "--inetd", "--export-all", f"--base-path={base}", str(base)]
    subprocess.run(command, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL, check=False)
