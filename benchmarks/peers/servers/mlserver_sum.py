"""MLServer with the sum: `python mlserver_sum.py PORT FOLDER [plain]`, in a virtualenv with `mlserver`.

One parallel worker, no debug mode (which would log each request), no metrics; adaptive batching, which costs a single
caller a millisecond and gives many half as much again. With `plain` there is none, as it is where nobody sets it.
"""

import json
import os
import socket
import sys
from pathlib import Path

MODEL = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Sum(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        numbers = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("sum", numbers.sum(axis=1, keepdims=True))
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    settings = {
        "host": "127.0.0.1",
        "http_port": free_port(),
        "grpc_port": int(sys.argv[1]),
        "grpc_max_message_length": 64 * 1024 * 1024,
        "parallel_workers": 1,
        "debug": False,
        "metrics_endpoint": None,
    }
    batching = {} if sys.argv[3:] == ["plain"] else {"max_batch_size": 32, "max_batch_time": 0.001}
    model = {"name": "sum", "implementation": "sum_model.Sum", **batching}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "sum_model.py").write_text(MODEL)
    os.chdir(folder)
    mlserver = str(Path(sys.executable).with_name("mlserver"))
    os.execv(mlserver, [mlserver, "start", str(folder)])
