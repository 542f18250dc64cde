"""Values that do not go through: parameters that are no JSON, results that JSON, a Value or a message cannot hold."""

import json
import math
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value

from modelhost.v1 import predict_pb2
from tests.checks import raw_channel, refused
from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import MESSAGE_LIMIT, RunningServer


@pytest.fixture(scope="session")
def source(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    repo = Repo(tmp_path_factory.mktemp("bad-values") / "repo")
    repo.commit(OBEDIENT)
    server.add_source("bad-values", repo)
    return "bad-values"


@pytest.fixture(scope="session", params=["python2.7", "python3.6", "r"])
def on_every_runtime(server: RunningServer, source: str, request: pytest.FixtureRequest) -> str:
    """A deployment on each language's runtime."""
    runtime = server.runtime_of_r() if request.param == "r" else request.param
    name = f"bad-values-{request.param.replace('.', '')}"
    server.deploy(name, source, runtime=runtime, unbox=True)
    return name


@pytest.fixture(scope="session")
def model(server: RunningServer, source: str) -> str:
    """A deployment that does what it is told."""
    server.deploy("bad-values", source)
    return "bad-values"


@pytest.fixture
def raw(server: RunningServer) -> Iterator[grpc.Channel]:
    with raw_channel(server.address) as channel:
        yield channel


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "not JSON"), ("{'a': 1}", "not JSON"), ("[1,", "not JSON"), ("NaN", "not JSON"), ("[-Infinity]", "not JSON")],
)
def test_parameters_that_are_not_json_are_refused_on_every_runtime(
    server: RunningServer, on_every_runtime: str, text: str, says: str
) -> None:
    with refused("PARAMETERS_INVALID") as caught:
        server.client.predict_stub.Predict(predict_pb2.PredictRequest(service=on_every_runtime, parameters_json=text))

    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert says in caught.value.message


@pytest.mark.parametrize(
    "request_",
    [
        predict_pb2.PredictRequest(),
        predict_pb2.PredictRequest(parameters=Value(number_value=math.nan)),
        predict_pb2.PredictRequest(parameters=Value(number_value=-math.inf)),
        predict_pb2.PredictRequest(
            parameters={"struct_value": {"fields": {"a": {"list_value": {"values": [{"number_value": math.inf}]}}}}}
        ),
    ],
    ids=["neither kind", "NaN", "infinity", "infinity within"],
)
def test_input_that_is_missing_or_that_json_cannot_hold_is_refused(
    server: RunningServer, model: str, request_: predict_pb2.PredictRequest
) -> None:
    request = predict_pb2.PredictRequest()
    request.CopyFrom(request_)
    request.service = model

    with refused("PARAMETERS_INVALID") as caught:
        server.client.predict_stub.Predict(request)

    assert [each.subject for each in caught.value.violations] == ["parameters"]


def test_the_place_in_a_result_that_json_cannot_hold_is_told_on_every_runtime(
    server: RunningServer, on_every_runtime: str
) -> None:
    with refused("RESULT_NOT_SERIALISABLE") as caught:
        server.predict(on_every_runtime, do("return_set"))

    assert caught.value.message in (
        "result['a'][1]['b'] is a set, which JSON cannot hold",
        "result$a[[2]]$b is a function, which JSON cannot hold",
    )


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("return_infinity", "result[1] is inf, which JSON cannot hold"),
        ("return_itself", "result[0] contains itself, which JSON cannot hold"),
    ],
)
def test_a_result_that_json_cannot_hold_is_the_models_failure(
    server: RunningServer, model: str, what: str, says: str
) -> None:
    with refused("RESULT_NOT_SERIALISABLE") as caught:
        server.predict(model, do(what))

    assert caught.value.code is grpc.StatusCode.UNKNOWN
    assert caught.value.message == says


@pytest.mark.parametrize(
    "parameters",
    [do("return_digits", count=400), do("return_digits", count=5000), do("return_depth", depth=500)],
    ids=["too large", "too long", "too deep"],
)
def test_a_result_that_json_holds_and_a_value_does_not_is_told_apart(
    server: RunningServer, model: str, parameters: dict[str, Any]
) -> None:
    request = predict_pb2.PredictRequest(service=model)
    request.parameters.struct_value.update(parameters)

    with refused("RESULT_NOT_SERIALISABLE") as caught:
        server.client.predict_stub.Predict(request)

    assert "parameters_json" in caught.value.message


@pytest.mark.parametrize(
    "size", [MESSAGE_LIMIT + 1, MESSAGE_LIMIT - 2], ids=["beyond it", "beyond it with what is around it"]
)
def test_a_result_over_the_message_limit_is_refused_and_its_worker_goes_on(
    server: RunningServer, model: str, size: int
) -> None:
    worker = server.predict(model, do("nothing"))

    with refused("RESULT_TOO_LARGE") as caught:
        server.predict(model, do("return_much", size=size))

    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.metadata["limit"] in caught.value.message
    assert server.predict(model, do("nothing")) == worker


def test_a_result_that_is_over_the_limit_only_as_a_value_is_refused_too(server: RunningServer, model: str) -> None:
    count = MESSAGE_LIMIT // 11  # bytes of a number in a list of them
    parameters = do("return_zeros", count=count)
    request = predict_pb2.PredictRequest(service=model)
    request.parameters.struct_value.update(parameters)

    assert len(server.predict(model, parameters)) == count
    with refused("RESULT_TOO_LARGE"):
        server.client.predict_stub.Predict(request)


def test_a_request_over_the_message_limit_is_refused_by_grpc_itself(
    server: RunningServer, model: str, raw: grpc.Channel
) -> None:
    request = predict_pb2.PredictRequest(service=model, parameters_json='"' + "x" * 100 * 1024 * 1024 + '"')
    predict = raw.unary_unary("/modelhost.v1.Predict/Predict")

    with pytest.raises(grpc.RpcError) as caught:
        predict(request.SerializeToString(), metadata=[("authorization", f"Bearer {server.token}")])

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.predict(model, do("nothing")) > 1


def test_integral_numbers_of_a_value_reach_the_model_as_ints_as_far_as_they_are_exact(
    server: RunningServer, model: str
) -> None:
    request = predict_pb2.PredictRequest(service=model)
    numbers = [3.0, -0.0, float(2**53), -float(2**53), float(2**54), 1e300, 0.5, True, None, "3"]
    request.parameters.struct_value.update(do("tell_types", value=numbers))

    answer = server.client.predict_stub.Predict(request)

    kinds = ["int", "int", "int", "int", "float", "float", "float", "bool", "NoneType", "str"]
    assert list(answer.result.list_value) == kinds


@pytest.mark.parametrize(
    "text",
    [
        "12345678901234567890123456789", "-9007199254740993", "0.1", "1e308", "5e-324", "2.0", "-0.0",
        '"\\u0000\\ud83d\\ude00"', '{"b":1,"a":[null,true,{}]}',
    ],
)  # fmt: skip
def test_parameters_json_goes_to_the_model_and_back_exactly(server: RunningServer, model: str, text: str) -> None:
    call = f'{{"do":"echo","with":{{"value":{text}}}}}'

    answer = server.client.predict_stub.Predict(predict_pb2.PredictRequest(service=model, parameters_json=call))

    came_back, sent = json.loads(answer.result_json), json.loads(text)
    assert (repr(came_back), type(came_back)) == (repr(sent), type(sent))
    assert not answer.HasField("result")
