"""The peers that ModelHost is compared with."""

import struct

from benchmarks.peers.peer import Peer
from benchmarks.work import NUMBERS, Work, doubles, http_lm, large_tensor, tensor_sum


def _ray_sum() -> Work:
    """The sum as the messages of servers/sum.proto, which have numbers and sum as their field 1."""
    packed = doubles(NUMBERS)
    body = b"\x0a" + bytes((len(packed) & 0x7F | 0x80, len(packed) >> 7)) + packed
    return Work("sum", "bench.Adder/Add", (body,), lambda answer: answer == b"\x09" + struct.pack("<d", sum(NUMBERS)))


MLSERVER = ("mlserver", "uvloop<0.22")
RAY = ("ray[serve]", "grpcio-tools")

PEERS = (
    Peer(
        "triton",
        "Triton's Python backend",
        "triton_sum.py",
        (tensor_sum(batch=True), large_tensor(1, batch=True)),
        "one instance on the CPU, dynamic batching without delay, gRPC alone, no metrics",
        ("nvidia-pytriton",),
    ),
    Peer(
        "pytriton",
        "PyTriton",
        "pytriton_sum.py",
        (tensor_sum(batch=True), large_tensor(1, batch=True)),
        "one inference callable, dynamic batching without delay (its default), no metrics",
        ("nvidia-pytriton",),
        front="tritonserver",
    ),
    Peer(
        "kserve",
        "KServe's model server",
        "kserve_sum.py",
        (tensor_sum(),),
        "uvloop, one process with the model in it, logs from warnings on, no latency logging",
        ("kserve",),
        listens_everywhere=True,
    ),
    Peer(
        "mlserver",
        "MLServer",
        "mlserver_sum.py",
        (tensor_sum(batch=True),),
        "one parallel worker, adaptive batching within a millisecond, debug off, no metrics",
        MLSERVER,
    ),
    Peer(
        "mlserver_plain",
        "MLServer as it comes",
        "mlserver_sum.py",
        (tensor_sum(batch=True),),
        "one parallel worker, debug off, no metrics",
        MLSERVER,
        virtualenv="mlserver",
        options=("plain",),
    ),
    Peer(
        "ray_serve",
        "Ray Serve's gRPC",
        "ray_sum.py",
        (_ray_sum(),),
        "one replica, RAY_SERVE_ENABLE_HA_PROXY, RAY_SERVE_THROUGHPUT_OPTIMIZED, no access log, no dashboard",
        RAY,
        front="haproxy",
        headers=("application: sum",),
        listens_everywhere=True,
    ),
    Peer(
        "ray_plain",
        "Ray Serve's gRPC as it comes",
        "ray_sum.py",
        (_ray_sum(),),
        "one replica behind Ray's own proxy, no access log, no dashboard",
        RAY,
        virtualenv="ray_serve",
        options=("plain",),
        front="ray::ProxyActor",
        headers=("application: sum",),
        listens_everywhere=True,
    ),
    Peer(
        "plumber",
        "plumber",
        "plumber_lm.R",
        (http_lm(),),
        "the same lm, loaded once; HTTP/1.1 and JSON; no docs page",
    ),
)
