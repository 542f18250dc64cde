"""The work: what is sent, and what a right answer is. Peers get the same numbers, in the form that is theirs.

`sum` is (a) of the benchmark, `json` (b), `mib1` and `mib16` (c), `lm` (d), `many` (e).
"""

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.frames import INFER, infer_request, infer_response
from modelhost.v1 import predict_pb2

NUMBERS = [number + 0.5 for number in range(30)]
CAR = {"wt": 2.62, "hp": 110}
MILES = 23.572329
MILES_TOLERANCE = 1e-3  # plumber rounds to four digits
PREDICT = "modelhost.v1.Predict/Predict"
TENSOR = "numbers"
MIB = 1024 * 1024
FLOAT_BYTES = 8
MANY = [f"sum-{number:02}" for number in range(50)]


@dataclass(frozen=True)
class Work:
    """One kind of call. `bodies` are messages without gRPC's framing, sent in turn; `is_right` looks at an answer."""

    name: str
    method: str
    bodies: tuple[bytes, ...]
    is_right: Callable[[bytes], bool]
    http1: bool = False


def doubles(numbers: list[float]) -> bytes:
    """Numbers as a raw tensor has them."""
    return struct.pack(f"<{len(numbers)}d", *numbers)


def tensor_sum(model: str = "sum", *, tensor: str = TENSOR, batch: bool = False, method: str = INFER) -> Work:
    """30 float64 in, their sum out, raw; with `batch` in a first dimension that a server makes batches along."""
    shape = (1, len(NUMBERS)) if batch else (len(NUMBERS),)
    body = infer_request(model, tensor, shape, doubles(NUMBERS))
    return Work("sum", method, (body,), _has_sum(sum(NUMBERS)))


def large_tensor(mib: int, model: str = "sum", *, batch: bool = False) -> Work:
    """Ones, so many MiB of them, in; their sum out."""
    count = mib * MIB // FLOAT_BYTES
    shape = (1, count) if batch else (count,)
    body = infer_request(model, TENSOR, shape, doubles([1.0]) * count)
    return Work(f"mib{mib}", INFER, (body,), _has_sum(count))


def json_sum() -> Work:
    """30 float64 in, their sum out, as JSON through Predict."""
    return Work("json", PREDICT, (_predict_request("sum", NUMBERS),), _is_json(sum(NUMBERS)))


def lm() -> Work:
    """One row of a data frame in, the prediction of a linear model in R out."""
    return Work("lm", PREDICT, (_predict_request("lm", [CAR]),), _is_json([MILES]))


def many() -> Work:
    """`tensor_sum` of 50 deployments in turn."""
    bodies = tuple(body for name in MANY for body in tensor_sum(name).bodies)
    return Work("many", INFER, bodies, _has_sum(sum(NUMBERS)))


def many_json() -> Work:
    """`json_sum` of 50 deployments in turn, for a server without the Open Inference Protocol."""
    return Work("many", PREDICT, tuple(_predict_request(name, NUMBERS) for name in MANY), _is_json(sum(NUMBERS)))


def http_lm() -> Work:
    """What `lm` is to a server of HTTP and JSON."""
    body = json.dumps([CAR]).encode()
    return Work("lm", "score", (body,), lambda answer: _is_close(json.loads(answer), [MILES]), http1=True)


def echo_of(work: Work) -> Work:
    """The same bytes, to a server that sends back what it gets."""
    return Work(work.name, work.method, work.bodies, lambda answer: answer in work.bodies)


def _predict_request(service: str, parameters: object) -> bytes:
    return predict_pb2.PredictRequest(service=service, parameters_json=json.dumps(parameters)).SerializeToString()


def _has_sum(expected: float) -> Callable[[bytes], bool]:
    return lambda answer: infer_response(answer)[1] == [expected]


def _is_json(expected: object) -> Callable[[bytes], bool]:
    def is_right(answer: bytes) -> bool:
        return _is_close(json.loads(predict_pb2.PredictResponse.FromString(answer).result_json), expected)

    return is_right


def _is_close(found: object, expected: object) -> bool:
    match found, expected:
        case [*_] as these, [*_] as those:
            return len(these) == len(those) and all(map(_is_close, these, those))
        case (int() | float() as one, int() | float() as other):
            return math.isclose(one, other, rel_tol=MILES_TOLERANCE if other == MILES else 0)
    return False
