"""PyTriton with the sum: `python pytriton_sum.py PORT FOLDER`, in a virtualenv with `nvidia-pytriton`.

Batches made by Triton without waiting, which is its default; gRPC, and HTTP on loopback, which PyTriton itself needs.
"""

import socket
import sys

import numpy
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


@batch
def add_up(numbers: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """PyTriton: answer a batch."""
    return {"sum": numbers.sum(axis=1, keepdims=True)}


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=int(sys.argv[1]),
        http_address="127.0.0.1",
        http_port=free_port(),
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="sum",
            infer_func=add_up,
            inputs=[Tensor(name="numbers", dtype=numpy.float64, shape=(-1,))],
            outputs=[Tensor(name="sum", dtype=numpy.float64, shape=(1,))],
            config=ModelConfig(max_batch_size=128),
        )
        triton.serve()
