"""Calls with tensors, and what is made of those that come back."""

import struct
import time
from typing import Any

import grpc

from modelhost.client.prediction import Prediction
from modelhost.inference import open_inference_pb2 as pb
from tests.chaos.callers import DEADLINE_SECONDS, LONGEST_SECONDS, Caller
from tests.chaos.causes import Outcome
from tests.chaos.judge import Call, Judge
from tests.chaos.models import parameters
from tests.inference import SERVICE, infer_request, raw_outputs, typed_outputs

METHOD = f"/{SERVICE.full_name}/ModelInfer"
SCALARS = ("constant", "echo", "pid", "opened")
_FORMATS = {"INT32": "i", "INT64": "q", "FP64": "d"}


def infer_method(calls: grpc.Channel) -> Any:
    """What calls ModelInfer, with errors of our client's."""
    return calls.unary_unary(
        METHOD,
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )


class TensorCaller(Caller):
    """Sends integers, few or many, as bytes or as a list of them."""

    def __init__(self, number: int, deployment: str, judge: Judge, seed: int, method: Any) -> None:
        super().__init__(number, deployment, judge, seed)
        self._method = method

    def _call(self) -> Outcome:
        sent = parameters(self._chance, self._own_number)
        sent["x"] = [self._chance.randrange(10**9) for _ in range(self._chance.choice((1, 7, 5000)))]
        timeout = self._chance.choice((None, DEADLINE_SECONDS))
        call = Call(self._deployment, sent, time.monotonic() + (timeout or LONGEST_SECONDS))
        return infer(self._judge, self._method, call, timeout or LONGEST_SECONDS, raw=self._chance.random() < 0.7)


def infer(judge: Judge, method: Any, call: Call, timeout: float, *, raw: bool) -> Outcome:
    """Make a call and judge its end; returns how it ended."""

    def make() -> None:
        request = request_of(call, raw=raw)
        judge.answered(call, prediction_of(request, method(request, timeout=timeout)))

    outcome = judge.made(call, make)
    judge.tally.inferred()
    return outcome


def request_of(call: Call, *, raw: bool) -> pb.ModelInferRequest:
    """What is sent."""
    x, echo = call.sent["x"], call.sent["echo"].encode()
    elements: tuple[Any, Any] = ({"int64_contents": x}, {"bytes_contents": [echo]})
    if raw:
        elements = (struct.pack(f"<{len(x)}q", *x), struct.pack("<I", len(echo)) + echo)
    tensors = ("x", "INT64", [len(x)], elements[0]), ("echo", "BYTES", [1], elements[1])
    return infer_request(call.deployment, *tensors, id=call.sent["echo"])


def prediction_of(request: pb.ModelInferRequest, response: pb.ModelInferResponse) -> Prediction:
    """What came back, as if it had been JSON; what is not as it should be has a result that is no model's."""
    outputs = raw_outputs(response) if request.raw_input_contents else typed_outputs(response)
    result: Any = {name: _elements(datatype, shape, data) for name, datatype, shape, data in outputs}
    for name in SCALARS:
        if len(result.get(name) or ()) == 1:
            (result[name],) = result[name]
    named = (response.model_name, response.id) == (request.model_name, request.id)
    return Prediction(result if named else None, int(response.model_version), response.id)


def _elements(datatype: str, shape: Any, data: Any) -> list[Any] | None:
    """The elements of a tensor with one size, None if it is another."""
    if isinstance(data, dict):
        (elements,) = data.values()
    elif datatype == "BYTES":
        elements = [data[4:]] if data[:4] == struct.pack("<I", len(data) - 4) else []
    else:
        elements = struct.unpack(f"<{shape[0]}{_FORMATS[datatype]}", data)
    if [len(elements)] != shape:
        return None
    return [each.decode() if isinstance(each, bytes) else each for each in elements]
