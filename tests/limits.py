"""What tests of an account's limits share."""

import json
import time
from collections.abc import Callable
from typing import TypeVar

import grpc

from modelhost.v1 import predict_pb2, predict_pb2_grpc
from tests.access import bearer
from tests.obedient import do
from tests.refusals import Refusal, as_refusal

DAY_SECONDS = 86_400
RARELY = 0.001  # calls per second: none is gained while a test runs
T = TypeVar("T")


def until_refused(call: Callable[[], object], most: int = 100) -> tuple[int, Refusal]:
    """Call until that is refused: how many were answered, and the refusal."""
    for answered in range(most):
        try:
            call()
        except grpc.RpcError as error:
            return answered, as_refusal(error)
    raise AssertionError(f"{most} calls were answered")


def within_a_day(deed: Callable[[], T]) -> T:
    """Do it, and once more if midnight UTC came between: it counts calls of one day."""
    day = time.time() // DAY_SECONDS
    done = deed()
    return done if time.time() // DAY_SECONDS == day else deed()


def seconds_to_midnight() -> float:
    return DAY_SECONDS - time.time() % DAY_SECONDS


def request_of(service: str, size: int) -> predict_pb2.PredictRequest:
    """A call of exactly so many bytes."""
    request = predict_pb2.PredictRequest(service=service, parameters_json=json.dumps(do("echo", value="")))
    short = size - request.ByteSize()
    request.parameters_json = json.dumps(do("echo", value="x" * short))
    request.parameters_json = json.dumps(do("echo", value="x" * (short - (request.ByteSize() - size))))
    assert request.ByteSize() == size
    return request


def send(channel: grpc.Channel, request: predict_pb2.PredictRequest, token: str) -> object:
    return predict_pb2_grpc.PredictStub(channel).Predict(request, metadata=bearer(token))
