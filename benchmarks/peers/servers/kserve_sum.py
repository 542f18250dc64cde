"""KServe's model server with the sum: `python kserve_sum.py PORT FOLDER`, in a virtualenv with `kserve`.

uvloop, no line per request, no latencies logged, one process, in which the model runs too.
"""

import asyncio
import logging
import sys
from typing import Any

import numpy
import uvloop
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Sum(Model):
    """The sum of the first tensor."""

    def __init__(self) -> None:
        super().__init__("sum")
        self.ready = True

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """KServe: answer a request."""
        output = InferOutput("sum", [1], "FP64")
        output.set_data_from_numpy(numpy.array([payload.inputs[0].as_numpy().sum()]), binary_data=True)
        return InferResponse(payload.id, "sum", [output])


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())  # it looks for one before it runs its own
    logging.getLogger("kserve").setLevel(logging.WARNING)
    server = ModelServer(
        grpc_port=int(sys.argv[1]),
        workers=1,
        event_loop="uvloop",
        enable_docs_url=False,
        enable_latency_logging=False,
    )
    logging.getLogger("kserve").setLevel(logging.WARNING)  # the constructor sets it too
    server.start([Sum()])
