"""A worker at the end of a link, for tests: starts one under any interpreter and speaks PROTOCOL.md with it.

with WorkerProcess([python, PYTHON_WORKER]) as worker:
    assert worker.load(root=folder).type == "loaded"
    assert worker.call({"x": 1}).value == 2
"""

import json
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

_PREFIX = struct.Struct("<IQ")


class Failure(dict[str, Any]):
    """How a call of a batch failed: `reason`, `exception`, `message`, `traceback`."""


@dataclass(frozen=True)
class Frame:
    """What the worker sent: `frame.type`, `frame["reason"]`, the body as bytes and, decoded from JSON, as `value`."""

    header: dict[str, Any]
    body: bytes

    def __getitem__(self, name: str) -> Any:
        return self.header[name]

    @property
    def type(self) -> str:
        return self.header["type"]

    @property
    def value(self) -> Any:
        assert self.type == "result", self.header
        return json.loads(self.body)

    @property
    def parts(self) -> list[Any]:
        """Of a batch: the results of its calls, decoded; for one that failed, its failure as `Failure`."""
        assert self.type == "result", self.header
        assert sum(self["sizes"]) == len(self.body)
        ends = list(accumulate(self["sizes"]))
        parts = [json.loads(self.body[end - size : end]) for size, end in zip(self["sizes"], ends, strict=True)]
        return [Failure(part) if number in self["failed"] else part for number, part in enumerate(parts)]

    @property
    def tensors(self) -> list[tuple[str, str, list[int], bytes]]:
        """Name, datatype, shape, elements of each."""
        assert self.type == "result", self.header
        found, start = [], 0
        for one in self.header["tensors"]:
            found.append((one["name"], one["datatype"], one["shape"], self.body[start : start + one["size"]]))
            start += one["size"]
        assert start == len(self.body)
        return found


class LinkEnded(Exception):
    """The worker closed the link or died instead of answering; its exit code and its stderr are the message."""


class Stream:
    """A call whose items come one by one."""

    def __init__(self, worker: "WorkerProcess", call: int) -> None:
        self._worker = worker
        self._call = call

    def read(self) -> Frame:
        """The next item, or how it has ended."""
        frame = self._worker.read()
        assert frame["id"] == self._call, frame.header
        return frame

    def take(self, count: int) -> list[Any]:
        """The next items."""
        frames = [self.read() for _ in range(count)]
        assert [frame.type for frame in frames] == ["item"] * count, frames[-1].header
        return [json.loads(frame.body) for frame in frames]

    def rest(self) -> tuple[list[Any], Frame]:
        """All items that still come, and how it ends."""
        items = []
        while (frame := self.read()).type == "item":
            items.append(json.loads(frame.body))
        return items, frame

    def more(self, items: int, size: int = 0) -> None:
        """Makes room."""
        self._worker.send({"type": "more", "id": self._call, "items": items, "bytes": size})

    def cancel(self) -> None:
        """Wants no more of it."""
        self._worker.send({"type": "cancel", "id": self._call})


class WorkerProcess:
    """A running worker, greeted and killed by the context manager; stdout and stderr are kept in files.

    `{link}` in a word of `argv` stands for the link's descriptor.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        protocol: int = 1,
        timeout: float = 30.0,
    ) -> None:
        self._argv = [str(word) for word in argv]
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": tempfile.gettempdir(),
            "LANG": "C.UTF-8",
            "PYTHONIOENCODING": "utf-8",
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        self._cwd = cwd
        self._protocol = protocol
        self._timeout = timeout
        self._calls = 0
        self.token = secrets.token_hex(16)

    def __enter__(self) -> Self:
        self.link, theirs = socket.socketpair()
        self.link.settimeout(self._timeout)
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        with theirs:
            link = {"MODELHOST_LINK": f"fd:{theirs.fileno()}", "MODELHOST_LINK_TOKEN": self.token}
            self.process = subprocess.Popen(
                [word.replace("{link}", str(theirs.fileno())) for word in self._argv],
                env={**self._env, **link},
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        try:
            self.hello = self.read()
            self.send({"type": "welcome", "protocol": self._protocol, "features": []})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()
        # The whole group: a model may have left children behind. The worker is not reaped before, so that the
        # number cannot be anyone else's.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._out.close()
        self._err.close()

    # ---- the conversation

    def load(self, **fields: Any) -> Frame:
        """Sends LOAD; `root` is needed, the rest has the defaults of a Python model."""
        defaults = {"main_file": "main.py", "function": "predict", "working_dir": ".", "import_paths": []}
        fields["root"] = str(fields["root"])
        self.loaded = self._ask({"type": "load", **defaults, "text": "unicode", "unbox": False, **fields})
        return self.loaded

    def call(self, parameters: Any) -> Frame:
        return self.call_raw(json.dumps(parameters).encode())

    def call_raw(self, body: bytes) -> Frame:
        return self._ask({"type": "call"}, body)

    def call_batch(self, parameters: Sequence[Any]) -> Frame:
        return self.call_batch_raw([json.dumps(each).encode() for each in parameters])

    def call_batch_raw(self, bodies: Sequence[bytes]) -> Frame:
        return self._ask({"type": "call", "sizes": [len(body) for body in bodies]}, b"".join(bodies))

    def stream(self, parameters: Any, *, items: int = 1 << 30, size: int = 1 << 30) -> "Stream":
        """Sends a call that is a stream, with room for so many items and bytes."""
        self._calls += 1
        header = {"type": "call", "id": self._calls, "stream": {"items": items, "bytes": size}}
        self.send(header, json.dumps(parameters).encode())
        return Stream(self, self._calls)

    def infer(
        self, *tensors: tuple[str, str, list[int], bytes], parameters: Any = None, outputs: Sequence[str] = ()
    ) -> Frame:
        """A call with tensors: name, datatype, shape, elements."""
        described = [
            {"name": name, "datatype": datatype, "shape": shape, "size": len(data)}
            for name, datatype, shape, data in tensors
        ]
        more = {**({"parameters": parameters} if parameters else {}), **({"outputs": outputs} if outputs else {})}
        return self._ask({"type": "call", "tensors": described, **more}, b"".join(tensor[3] for tensor in tensors))

    def ping(self) -> Frame:
        self.send({"type": "ping"})
        return self.read()

    def stop(self) -> int:
        """Sends STOP; the exit code."""
        self.send({"type": "stop"})
        return self.wait()

    def hang_up(self) -> int:
        """Ends the stream, as a dying server does; the exit code."""
        self.link.shutdown(socket.SHUT_WR)
        return self.wait()

    def wait(self) -> int:
        """The exit code, or -N after signal N. Leaves the process to be reaped by `__exit__`."""
        pidfd = os.pidfd_open(self.process.pid)
        try:
            ended, _, _ = select.select([pidfd], [], [], self._timeout)
        finally:
            os.close(pidfd)
        assert ended, f"the worker does not end; stderr: {self.stderr}"
        status = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        assert status is not None
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    # ---- what the worker and its model wrote

    @property
    def stdout(self) -> str:
        return self._text(self._out.fileno())

    @property
    def stderr(self) -> str:
        return self._text(self._err.fileno())

    def stdout_with(self, text: str) -> str:
        """stdout as soon as `text` is in it."""
        deadline = time.monotonic() + self._timeout
        while text not in self.stdout:
            assert time.monotonic() < deadline, f"{text!r} never came; stdout: {self.stdout!r}"
            time.sleep(0.01)
        return self.stdout

    @staticmethod
    def _text(descriptor: int) -> str:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    # ---- frames

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        self.send_all([header], body)

    def send_all(self, headers: Sequence[dict[str, Any]], body: bytes = b"") -> None:
        """Sends messages that come together; the body is the first one's."""
        frames = b""
        for header in headers:
            encoded = json.dumps(header).encode()
            frames += _PREFIX.pack(len(encoded), len(body)) + encoded + body
            body = b""
        self.link.sendall(frames)

    def read(self) -> Frame:
        header_length, body_length = _PREFIX.unpack(self._receive(_PREFIX.size))
        header = json.loads(self._receive(header_length))
        return Frame(header, self._receive(body_length))

    def _ask(self, header: dict[str, Any], body: bytes = b"") -> Frame:
        self._calls += 1
        self.send({**header, "id": self._calls}, body)
        answer = self.read()
        assert answer["id"] == self._calls, answer.header
        return answer

    def _receive(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            try:
                chunk = self.link.recv(min(length - len(received), 1 << 20))
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise LinkEnded(f"exit code {self.wait()}; stderr: {self.stderr}")
            received += chunk
        return bytes(received)
