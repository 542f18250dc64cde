"""Triton's Python backend with the sum: `python triton_sum.py PORT FOLDER`, in a virtualenv with `nvidia-pytriton`.

The wheel carries tritonserver; the backend wants the stub of this Python beside it. One instance on the CPU, batches
made by Triton without waiting, gRPC alone, no metrics.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytriton

MODEL = """
import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            numbers = pb_utils.get_input_tensor_by_name(request, "numbers").as_numpy()
            output = pb_utils.Tensor("sum", numbers.sum(axis=-1, keepdims=True))
            responses.append(pb_utils.InferenceResponse([output]))
        return responses
"""
CONFIG = """
name: "sum"
backend: "python"
max_batch_size: 128
input [{ name: "numbers" data_type: TYPE_FP64 dims: [-1] }]
output [{ name: "sum" data_type: TYPE_FP64 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
dynamic_batching {}
"""

if __name__ == "__main__":
    port, folder = sys.argv[1], Path(sys.argv[2])
    carried = Path(pytriton.__file__).parent / "tritonserver"
    backends = folder / "backends"
    shutil.copytree(carried / "backends", backends)
    stub = f"{sys.version_info[0]}.{sys.version_info[1]}/triton_python_backend_stub"
    shutil.copy(carried / "python_backend_stubs" / stub, backends / "python")
    version = folder / "models" / "sum" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    packages = sysconfig.get_path("purelib")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(Path(packages) / "nvidia_pytriton.libs"),
        "PYTHONPATH": packages,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    server = str(carried / "bin" / "tritonserver")
    options = (f"--model-repository={folder / 'models'}", f"--backend-directory={backends}")
    listen = ("--grpc-address=127.0.0.1", f"--grpc-port={port}", "--allow-http=false", "--allow-metrics=false")
    os.execve(server, [server, *options, *listen], environment)
