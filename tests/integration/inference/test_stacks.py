"""Tensor calls of several callers go to a model as one, on every runtime, and each caller has its own rows back."""

import struct
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from modelhost.inference import open_inference_pb2 as pb
from tests.checks import Gate
from tests.git_repos import Repo
from tests.inference import InferenceClient, infer_request, raw_outputs
from tests.integration.inference.conftest import NUMPY
from tests.running import RunningServer, eventually

PYTHON = b"""
import os, time

def predict(tensors):
    while not os.path.exists(tensors.parameters.get("until", "/")):
        time.sleep(0.005)
    return {"y": [sum(row) + 1000 * len(tensors["x"]) for row in tensors["x"]]}
"""
R = b"""
score <- function(tensors) {
    until <- attr(tensors, "parameters")$until
    while (!is.null(until) && !file.exists(until)) Sys.sleep(0.005)
    list(y = rowSums(tensors$x) + 1000 * nrow(tensors$x))
}
"""
DECLARED = b"""
[batching]
max_size = 8
batch_dimension = true

[[inputs]]
name = "x"
datatype = "FP64"
shape = [-1, 2]

[[outputs]]
name = "y"
datatype = "FP64"
shape = [-1]
"""


def call(client: InferenceClient, model: str, rows: list[tuple[float, float]], until: str = "") -> list[float]:
    """The sum of each row, and a thousand for each row that the model had at a time."""
    data = struct.pack(f"<{2 * len(rows)}d", *(number for row in rows for number in row))
    request = infer_request(model, ("x", "FP64", [len(rows), 2], data))
    if until:
        request.parameters["until"].CopyFrom(pb.InferParameter(string_param=until))
    ((_, _, shape, answer),) = raw_outputs(client.call("ModelInfer", request))
    assert shape == [len(rows)]
    return list(struct.unpack(f"<{len(rows)}d", answer))


@pytest.mark.parametrize("runtime", ["python2.7", "python3.6", "numpy", "r"])
def test_callers_who_wait_are_run_together_and_each_has_its_own_rows(
    server: RunningServer, inference: InferenceClient, repo: Repo, source: str, name: str, shared: Path, runtime: str
) -> None:
    repo.commit(
        {"main.R" if runtime == "r" else "main.py": R if runtime == "r" else PYTHON, "modelhost.toml": DECLARED}
    )
    more = {"tensors": 2, "requirements": [NUMPY]} if runtime == "numpy" else {}
    where = {"numpy": "python3.6", "r": server.runtime_of_r()}.get(runtime, runtime)
    server.deploy(name, source, runtime=where, **more)
    gate = Gate(shared / "gate")
    crowds = [[(1.0, 2.0)], [(3.0, 4.0), (5.0, 6.0)], [(7.0, 8.0)]]

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(call, inference, name, [(0.0, 0.5)], str(gate.path))
        eventually(lambda: server.get(name).observed.running_calls == 1)
        waiting: list[Future[list[float]]] = []
        for number, rows in enumerate(crowds, 1):
            waiting.append(threads.submit(call, inference, name, rows))
            eventually(lambda number=number: server.get(name).observed.queued_calls == number)
        gate.open()

        assert first.result() == [1000.5]
        assert [each.result() for each in waiting] == [[4003.0], [4007.0, 4011.0], [4015.0]]
