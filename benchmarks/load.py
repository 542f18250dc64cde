"""Load from h2load (Debian's nghttp2-client), which costs the machine far less than a Python client.

It knows nothing of gRPC: what it sends is framed beforehand, and of what comes back only the size is looked at. Whoever
measures with it checks answers in another pass (`checking.py`). It is used in closed loops alone: at a given rate it
sends in bursts (`--rps`) or falls behind (`--timing-script-file`), without telling; see `replay.py`.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.frames import PREFIX_BYTES

_RATE = re.compile(r"finished in [\d.]+[mu]?s, ([\d.]+) req/s")
_DONE = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_DATA = re.compile(r"\((\d+)\) data$", re.MULTILINE)
CUT_OFF = 0.99  # of the bytes of all answers: the last ones may be under way when the time is over


@dataclass(frozen=True)
class Shape:
    """So many connections with so many calls under way on each."""

    connections: int
    streams: int


@dataclass(frozen=True)
class Target:
    """A method of a server and what it is sent, with the headers that it needs besides those of gRPC.

    `answer_bytes` are those of the smallest right answer, 0 where that is not known. With `http1` the body is sent as
    it is to a server that speaks no gRPC.
    """

    address: str
    method: str
    body: Path
    headers: tuple[str, ...] = ()
    answer_bytes: int = 0
    http1: bool = False


@dataclass(frozen=True)
class Load:
    """What a server did under load: answers per second, how many, and how long each took, in seconds and in order."""

    rate: float
    calls: int
    seconds: tuple[float, ...]

    def percentile(self, percent: float) -> float:
        """Seconds within which so many of a hundred calls were answered."""
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * percent / 100))]


def throughput(target: Target, shape: Shape, seconds: float) -> float:
    """Calls per second in a closed loop. Raises `RuntimeError` where any of them was not answered."""
    return closed_loop(target, shape, seconds).rate


def closed_loop(target: Target, shape: Shape, seconds: float) -> Load:
    """Have so many calls under way all the time. Raises `RuntimeError` where any of them was not answered."""
    with tempfile.TemporaryDirectory(prefix="modelhost-load-") as folder:
        log = Path(folder) / "log"
        command = [
            *("h2load", "-D", f"{round(seconds * 1000)}ms", "--warm-up-time=0", f"--log-file={log}"),
            *("-c", str(shape.connections), "-m", str(shape.streams), "-d", str(target.body)),
            *_headers(target),
            f"http://{target.address}/{target.method}",
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
        lines = log.read_text() if log.exists() else ""
    if ended.returncode:
        raise RuntimeError(f"h2load failed:\n{ended.stdout}{ended.stderr}")
    return parse(ended.stdout, lines, 0 if target.http1 else target.answer_bytes)


def parse(output: str, log: str, answer_bytes: int) -> Load:
    """What h2load prints and logs, as a value. Raises `RuntimeError` where a call was not answered, or with too little.

    An error of gRPC has status 200 and no message, so it shows in the bytes of all answers.
    """
    rate, done, data = _RATE.search(output), _DONE.search(output), _DATA.search(output)
    if not rate or not done or not data or any(int(count) for count in done.groups()[2:]):
        raise RuntimeError(f"h2load did not have all calls answered:\n{output}")
    calls = int(done[2])
    if answer_bytes and int(data[1]) < CUT_OFF * calls * (PREFIX_BYTES + answer_bytes):
        raise RuntimeError(f"{calls} answers have only {data[1]} bytes: not all are the right ones\n{output}")
    rows = [line.split("\t") for line in log.splitlines()]
    if not calls or any(row[1] != "200" for row in rows):
        raise RuntimeError(f"h2load had no answers, or others than 200:\n{output}")
    return Load(float(rate[1]), calls, tuple(sorted(int(row[2]) / 1e6 for row in rows)))


def _headers(target: Target) -> list[str]:
    own = ("content-type: application/json",) if target.http1 else ("content-type: application/grpc", "te: trailers")
    protocol = ["--h1"] if target.http1 else []
    return protocol + [part for header in (*own, *target.headers) for part in ("-H", header)]


def need_h2load() -> bool:
    """Say what is missing, if it is."""
    if shutil.which("h2load"):
        return True
    print("no h2load: `apt-get install nghttp2-client` has it", file=sys.stderr)
    return False
