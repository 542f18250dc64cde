"""Calls that are not as the protocol, or the model, has it: each is told what is wrong, and reaches no model."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelhost.inference import open_inference_pb2 as pb
from tests.git_repos import Repo
from tests.inference import InferenceClient, InferenceFailed, infer_request, raw_outputs
from tests.running import RunningServer
from tests.runtimes.elements import numbers, texts

COUNTS = b"""
calls = 0
def predict(t):
    global calls
    calls += 1
    return calls
"""
DECLARES = b"""
runtime = "python3.6"

[[inputs]]
name = "x"
datatype = "FP64"
shape = [-1, 2]

[[inputs]]
name = "word"
datatype = "BYTES"
shape = [1]

[[outputs]]
name = "y"
datatype = "FP32"
shape = [-1]
"""
SUMS = b"def predict(t):\n    return {'y': [sum(row) for row in t['x']], 'more': t['word']}\n"


@pytest.fixture(scope="session")
def counter(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that counts its calls."""
    repo = Repo(tmp_path_factory.mktemp("wrong") / "repo")
    repo.commit({"main.py": COUNTS})
    server.add_source("inference-counts", repo)
    server.deploy("inference-counts", "inference-counts")
    return "inference-counts"


@pytest.fixture
def unreached(inference: InferenceClient, counter: str) -> Iterator[str]:
    """The model, which none of the test's calls may reach."""

    def count() -> int:
        return struct.unpack("<q", inference.infer(counter).raw_output_contents[0])[0]

    before = count()
    yield counter
    assert count() == before + 1


def refusal(inference: InferenceClient, request: pb.ModelInferRequest) -> InferenceFailed:
    with pytest.raises(InferenceFailed) as caught:
        inference.call("ModelInfer", request)
    return caught.value


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (("x", "FP64", [2], b"\0" * 15), "raw contents have 15 bytes; FP64 of shape [2] has 16"),
        (("x", "FP64", [2], b""), "raw contents have 0 bytes; FP64 of shape [2] has 16"),
        (("x", "FP64", [], b""), "FP64 of shape [] has 8"),
        (("x", "INT8", [2**40, 2**40], b"\0"), "has 1208925819614629174706176"),
        (("x", "FP65", [1], b"\0"), "there is no datatype 'FP65', but BOOL, INT8"),
        (("x", "", [1], b"\0"), "there is no datatype ''"),
        (("x", "fp64", [1], b"\0" * 8), "there is no datatype 'fp64'"),
        (("x", "FP64", [-1], b"\0" * 8), "its shape [-1] has a negative size"),
        (("x", "FP64", [-1, -1], b"\0" * 8), "its shape [-1, -1] has a negative size"),
        (("x", "UINT8", [1] * 33, b"\0"), "33 dimensions; at most 32"),
        (("x", "FP64", [10**9, 0], b""), "no elements, but too many rows"),
        (("", "BOOL", [1], b"\0"), "1 to 200 bytes"),
        (("ä" * 101, "BOOL", [1], b"\0"), "1 to 200 bytes"),
        (("x", "BYTES", [1], texts("a")[:-1]), "end within an element"),
        (("x", "BYTES", [1], b"\xff\xff\xff\xff"), "end within an element"),
        (("x", "BYTES", [1], b"\1\0"), "end within an element"),
        (("x", "BYTES", [2], texts("a", "b", "c")), "3 elements; BYTES of shape [2] has 2"),
        (("x", "FP64", [2], {"fp64_contents": [1]}), "fp64_contents have 1 elements; FP64 of shape [2] has 2"),
        (("x", "FP64", [1], {"fp32_contents": [1]}), "it has fp32_contents; FP64 belongs into fp64_contents"),
        (("x", "INT8", [1], {"int64_contents": [1]}), "it has int64_contents; INT8 belongs into int_contents"),
        (("x", "INT8", [1], {"int_contents": [128]}), "out of the range of INT8"),
        (("x", "UINT16", [1], {"uint_contents": [2**16]}), "out of the range of UINT16"),
        (("x", "FP16", [1], {"fp32_contents": [1]}), "FP16 has no typed contents: send raw_input_contents"),
        (("x", "BYTES", [1], {}), "bytes_contents have 0 elements"),
    ],
)
def test_a_tensor_that_is_malformed_is_named_with_what_is_wrong(
    inference: InferenceClient, unreached: str, tensor: Any, words: str
) -> None:
    failed = refusal(inference, infer_request(unreached, ("first", "BOOL", [1], _like(tensor)), tensor))

    assert (failed.code, failed.reason, failed.field) == ("INVALID_ARGUMENT", "TENSOR_INVALID", "inputs[1]")
    assert str(failed).startswith("tensor '")
    assert words in str(failed)
    assert failed.info.metadata["tensor"] == repr(tensor[0][:200])


def _like(tensor: Any) -> Any:
    """Contents of one truth value in the form that a tensor has."""
    return b"\1" if isinstance(tensor[3], bytes) else {"bool_contents": [True]}


ONE = ("x", "BOOL", [1], b"\0")


def _both() -> pb.ModelInferRequest:
    request = infer_request("", ONE)
    request.inputs[0].contents.bool_contents.append(True)
    return request


def _parameter(where: str, name: str) -> pb.ModelInferRequest:
    request = infer_request("", ONE, outputs=["output"])
    {"input": request.inputs, "output": request.outputs}[where][0].parameters[name].string_param = "region"
    return request


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (_both(), "only one of them may be used"),
        (infer_request("", ONE, ("x", "BOOL", [1], b"\1")), "tensor 'x': the call has it twice"),
        (infer_request("", ONE, raw_input_contents=[b"\0"]), "1 inputs, but 2 raw_input_contents"),
        (infer_request("", ONE, ("y", "BOOL", [1], {"bool_contents": [True]})), "2 inputs, but 1 raw_input_contents"),
        (infer_request("", raw_input_contents=[b"\0"]), "0 inputs, but 1 raw_input_contents"),
        (infer_request("", ONE, outputs=["y", "y"]), "tensor 'y': the call asks for it twice"),
        (infer_request("", ONE, outputs=[""]), "1 to 200 bytes"),
        (_parameter("input", "shared_memory_region"), "takes no tensors from shared memory"),
        (_parameter("output", "shared_memory_region"), "takes no tensors from shared memory"),
        (_parameter("output", "classification"), "makes no classifications"),
    ],
)  # fmt: skip
def test_a_request_that_is_malformed_is_refused(
    inference: InferenceClient, unreached: str, request_: pb.ModelInferRequest, words: str
) -> None:
    request_.model_name = unreached
    failed = refusal(inference, request_)

    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "TENSOR_INVALID")
    assert words in str(failed)


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"inputs": [{"name": str(n), "datatype": "BOOL", "shape": [0]} for n in range(101)]}, "FIELD_INVALID", "100"),
        ({"outputs": [{"name": str(n)} for n in range(101)]}, "FIELD_INVALID", "100"),
        ({"parameters": {"x": {"double_param": float("nan")}}}, "PARAMETERS_INVALID", "no number"),
        ({"parameters": {"x": {"string_param": "x" * 70_000}}}, "PARAMETERS_INVALID", "70001 characters"),
        ({"model_version": "one"}, "FIELD_INVALID", "must be the number of a revision"),
        ({"model_version": "0"}, "FIELD_INVALID", "must be the number of a revision"),
        ({"model_version": "9" * 300}, "FIELD_INVALID", "must be the number of a revision"),
    ],
)
def test_what_is_too_much_or_no_number_is_refused(
    inference: InferenceClient, unreached: str, fields: dict[str, Any], reason: str, words: str
) -> None:
    failed = refusal(inference, pb.ModelInferRequest(model_name=unreached, **fields))

    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", reason)
    assert words in str(failed)


def test_another_revision_than_the_active_one_is_not_there(inference: InferenceClient, unreached: str) -> None:
    failed = refusal(inference, infer_request(unreached, model_version="2"))

    assert (failed.code, failed.reason) == ("NOT_FOUND", "REVISION_NOT_FOUND")
    assert str(failed) == f"revision 2 of {unreached} is not the one that answers, which is 1; leave the version empty"
    with pytest.raises(InferenceFailed) as caught:
        inference.call("ModelMetadata", name=unreached, version="2")
    assert caught.value.reason == "REVISION_NOT_FOUND"


def test_most_that_a_call_may_bring_reaches_the_model(inference: InferenceClient, counter: str) -> None:
    """The header of the link holds it, whatever characters the names are of."""
    tensors = [(f"{n:03}" + "\1" * 197, "BOOL", [1] * 32, b"\0") for n in range(100)]
    parameters = {"x": pb.InferParameter(string_param="\1" * 65_000)}
    outputs = ["output", *(f"{n:03}" + "\2" * 197 for n in range(99))]

    request = infer_request(counter, *tensors, outputs=outputs, parameters=parameters)
    failed = refusal(inference, request)

    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "TENSOR_INVALID")
    assert "it has returned 'output'" in str(failed)
    assert raw_outputs(inference.infer(counter, *tensors, parameters=parameters))


def test_an_output_that_the_model_does_not_have_is_named(inference: InferenceClient, counter: str) -> None:
    failed = refusal(inference, infer_request(counter, outputs=["z"]))

    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "TENSOR_INVALID")
    assert str(failed) == "the model has no output 'z'; it has returned 'output'"


# ---- models that say what they take


@pytest.fixture(scope="session")
def declared(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    repo = Repo(tmp_path_factory.mktemp("declared") / "repo")
    repo.commit({"main.py": SUMS, "modelhost.toml": DECLARES})
    server.add_source("inference-declared", repo)
    server.deploy("inference-declared", "inference-declared", runtime="")
    return "inference-declared"


X = ("x", "FP64", [3, 2], numbers("d", 1, 2, 3, 4, 5, 6))
WORD = ("word", "BYTES", [1], texts("a"))


def test_a_call_as_declared_gets_what_is_declared(inference: InferenceClient, declared: str) -> None:
    y = ("y", "FP32", [3], numbers("f", 3, 7, 11))

    assert raw_outputs(inference.infer(declared, X, WORD)) == [y]
    assert raw_outputs(inference.infer(declared, WORD, X, outputs=["y"])) == [y]


def test_the_signature_is_in_the_metadata(inference: InferenceClient, declared: str, counter: str) -> None:
    metadata = inference.call("ModelMetadata", name=declared)

    assert (metadata.name, list(metadata.versions), metadata.platform) == (declared, ["1"], "modelhost_python3.6")
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [
        ("x", "FP64", [-1, 2]),
        ("word", "BYTES", [1]),
    ]
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.outputs] == [("y", "FP32", [-1])]
    undeclared = inference.call("ModelMetadata", name=counter)
    assert not undeclared.inputs
    assert not undeclared.outputs


@pytest.mark.parametrize(
    ("tensors", "outputs", "words"),
    [
        ([X], [], "tensor 'word': the model needs it, and the call does not have it"),
        ([], [], "the model needs it"),
        ([X, WORD, ("z", "BOOL", [1], b"\0")], [], "tensor 'z': the model takes 'x', 'word' and no other"),
        ([("x", "FP32", [1, 2], b"\0" * 8), WORD], [], "tensor 'x': it is declared as FP64, not FP32"),
        ([("x", "FP64", [2], b"\0" * 16), WORD], [], "declared as [-1, 2], and [2] does not fit"),
        ([("x", "FP64", [2, 3], b"\0" * 48), WORD], [], "declared as [-1, 2], and [2, 3] does not fit"),
        ([("x", "FP64", [1, 2, 1], b"\0" * 16), WORD], [], "declared as [-1, 2], and [1, 2, 1] does not fit"),
        ([X, WORD], ["more"], "tensor 'more': the model returns 'y' and no other"),
    ],
)
def test_a_call_that_is_not_as_declared_is_refused(
    inference: InferenceClient, declared: str, tensors: Any, outputs: list[str], words: str
) -> None:
    failed = refusal(inference, infer_request(declared, *tensors, outputs=outputs))

    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "TENSOR_INVALID")
    assert words in str(failed)


@pytest.mark.parametrize(
    ("source_text", "words"),
    [
        ("def predict(t):\n    return {'z': 1}\n", "declares the output 'y' and has not returned it"),
        ("def predict(t):\n    return [[1.0]]\n", "its shape is declared as [-1], and [1, 1] does not fit"),
        ("def predict(t):\n    return ['a']\n", "FP32 needs numbers"),
        ("def predict(t):\n    return [[1], [2, 3]]\n", "rows of different lengths"),
    ],
)
def test_a_result_that_is_not_as_declared_is_the_models_mistake(
    server: RunningServer, inference: InferenceClient, repo: Repo, source: str, name: str, source_text: str, words: str
) -> None:
    repo.commit({"main.py": source_text.encode()})
    server.deploy(name, source, outputs=[{"name": "y", "datatype": "FP32", "shape": [-1]}])

    failed = refusal(inference, infer_request(name))

    assert (failed.code, failed.reason) == ("UNKNOWN", "RESULT_NOT_SERIALISABLE")
    assert words in str(failed)
    assert failed.info.metadata["request_id"]


@pytest.mark.parametrize(
    ("model", "does", "reason", "said"),
    [
        ("raises", b"raise KeyError('no such turbine')", "MODEL_RAISED", "no such turbine"),
        ("yields", b"yield 1", "RESULT_NOT_SERIALISABLE", "call it with PredictStream"),
    ],
)
def test_a_model_that_does_what_it_should_not_says_what(
    server: RunningServer, inference: InferenceClient, tmp_path: Path, model: str, does: bytes, reason: str, said: str
) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": b"def predict(t):\n    " + does + b"\n"})
    server.add_source(f"inference-{model}", repo)
    server.deploy(model, f"inference-{model}")

    failed = refusal(inference, infer_request(model, ("x", "BOOL", [1], b"\0")))

    assert (failed.code, failed.reason) == ("UNKNOWN", reason)
    assert said in str(failed)


def test_an_output_that_is_declared_and_not_returned_is_refused(
    inference: InferenceClient, echo_of: Callable[[str], str]
) -> None:
    failed = refusal(inference, infer_request(echo_of("python3.6"), ("x", "BOOL", [1], b"\0")))

    assert (failed.code, failed.reason) == ("UNKNOWN", "RESULT_NOT_SERIALISABLE")


def test_a_deployment_that_wants_numpy_and_lacks_it_says_so(server: RunningServer, echo_source: str, name: str) -> None:
    server.create(name, echo_source, tensors=2)

    failure = server.start(name).failure

    assert 'tensors = "numpy"' in failure.message
    assert "add numpy to the requirements" in failure.message
