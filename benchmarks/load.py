"""Load on a gRPC method from h2load (Debian's nghttp2-client), which costs the machine far less than a Python client.

It knows nothing of gRPC: what it sends is framed here, and what comes back is not looked at. Whoever measures with it
checks answers in another pass.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

_RATE = re.compile(r"finished in [\d.]+m?s, ([\d.]+) req/s")
_DONE = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")


@dataclass(frozen=True)
class Shape:
    """So many connections with so many calls under way on each."""

    connections: int
    streams: int


@dataclass(frozen=True)
class Target:
    """A method of a server and what it is sent, with the headers that it needs besides those of gRPC."""

    address: str
    method: str
    body: Path
    headers: tuple[str, ...] = ()


def frame(message: Message) -> bytes:
    """A message as gRPC sends it: not compressed, its length, itself."""
    data = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def throughput(target: Target, shape: Shape, seconds: int) -> float:
    """Calls per second in a closed loop. Raises `RuntimeError` where any of them was not answered."""
    command = [
        *("h2load", "-D", str(seconds), "--warm-up-time=0"),
        *("-c", str(shape.connections), "-m", str(shape.streams), "-d", str(target.body)),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        *(part for header in target.headers for part in ("-H", header)),
        f"http://{target.address}/{target.method}",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    rate, done = _RATE.search(ended.stdout), _DONE.search(ended.stdout)
    if ended.returncode or not rate or not done or any(int(count) for count in done.groups()[2:]):
        raise RuntimeError(f"h2load did not have all calls answered:\n{ended.stdout}{ended.stderr}")
    return float(rate[1])


def need_h2load() -> bool:
    """Say what is missing, if it is."""
    if shutil.which("h2load"):
        return True
    print("no h2load: `apt-get install nghttp2-client` has it", file=sys.stderr)
    return False
