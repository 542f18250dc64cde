"""Every datatype goes to a model and back, raw and typed, on every runtime."""

import struct
from collections.abc import Callable
from typing import Any

import pytest

from modelhost.inference import open_inference_pb2 as pb
from tests.git_repos import Repo
from tests.inference import InferenceClient, infer_request, raw_outputs, typed_outputs
from tests.running import MESSAGE_LIMIT, RunningServer
from tests.runtimes.elements import SIX, numbers, texts

TYPED: dict[str, dict[str, Any]] = {
    "BOOL": {"bool_contents": [True, False, False, True, True, False]},
    "INT8": {"int_contents": [-128, 127, 0, 1, 2, 3]},
    "INT16": {"int_contents": [-(2**15), 2**15 - 1, 0, 1, 2, 3]},
    "INT32": {"int_contents": [-(2**31), 2**31 - 1, 0, 1, 2, 3]},
    "INT64": {"int64_contents": [-(2**63), 2**63 - 1, 0, 1, 2, 3]},
    "UINT8": {"uint_contents": [0, 255, 0, 1, 2, 3]},
    "UINT16": {"uint_contents": [0, 2**16 - 1, 0, 1, 2, 3]},
    "UINT32": {"uint_contents": [0, 2**32 - 1, 0, 1, 2, 3]},
    "UINT64": {"uint64_contents": [0, 2**64 - 1, 0, 1, 2, 3]},
    "FP32": {"fp32_contents": list(struct.unpack("<6f", SIX["FP32"]))},
    "FP64": {"fp64_contents": list(struct.unpack("<6d", SIX["FP64"]))},
    "BYTES": {"bytes_contents": [b"", b"one", b"zwei", "äöü \U0001f600".encode(), b"5", b"six\nlines"]},
}
CODES = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP32": "f", "FP64": "d",
}  # fmt: skip
# R's numbers are doubles: what those do not hold does not come back.
FOR_R = {
    "INT64": ({"int64_contents": [-(2**53), 2**53, 0, 1, 2, 3]}, numbers("q", -(2**53), 2**53, 0, 1, 2, 3)),
    "UINT64": ({"uint64_contents": [0, 2**53, 0, 1, 2, 3]}, numbers("Q", 0, 2**53, 0, 1, 2, 3)),
}


@pytest.mark.parametrize("datatype", SIX)
def test_raw_contents_come_back_raw(inference: InferenceClient, echo: str, datatype: str) -> None:
    data = FOR_R[datatype][1] if echo == "echo-r" and datatype in FOR_R else SIX[datatype]
    tensor = (datatype, datatype, [2, 3], data)

    response = inference.infer(echo, tensor, outputs=[datatype], id="call 7")

    assert raw_outputs(response) == [tensor]
    assert (response.model_name, response.model_version, response.id) == (echo, "1", "call 7")


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_come_back_typed(inference: InferenceClient, echo: str, datatype: str) -> None:
    data = FOR_R[datatype][0] if echo == "echo-r" and datatype in FOR_R else TYPED[datatype]
    tensor = (datatype, datatype, [3, 2], data)

    assert typed_outputs(inference.infer(echo, tensor, outputs=[datatype])) == [tensor]


def test_raw_and_typed_contents_are_the_same_to_the_model() -> None:
    """So that the two tests above are tests of the same."""
    assert set(SIX) - set(TYPED) == {"FP16", "BF16"}
    for datatype, contents in TYPED.items():
        (values,) = contents.values()
        if datatype == "BYTES":
            assert texts(*values) == SIX[datatype]
        elif datatype == "BOOL":
            assert bytes(values) == SIX[datatype]
        else:
            assert numbers(CODES[datatype], *values) == SIX[datatype]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_what_has_no_typed_contents_is_answered_raw(
    inference: InferenceClient, echo_of: Callable[[str], str], datatype: str
) -> None:
    response = inference.infer(
        echo_of("python3.6"), (datatype, "FP32", [1, 1], {"fp32_contents": [1.5]}), outputs=[datatype]
    )

    ((_, returned, _, data),) = raw_outputs(response)
    assert (returned, data) == (datatype, {"FP16": numbers("e", 1.5), "BF16": b"\xc0\x3f"}[datatype])


def test_several_tensors_keep_their_contents_apart(inference: InferenceClient, echo: str) -> None:
    wanted = ["FP64", "BYTES", "INT32", "BOOL", "FP16"]
    tensors = [(datatype, datatype, [1, 6], SIX[datatype]) for datatype in wanted]

    assert raw_outputs(inference.infer(echo, *tensors, outputs=wanted)) == tensors
    assert raw_outputs(inference.infer(echo, *tensors[::-1], outputs=wanted)) == tensors


def test_tensors_may_be_empty(inference: InferenceClient, echo_of: Callable[[str], str]) -> None:
    tensor = ("FP64", "FP64", [0, 3], b"")

    (returned,) = raw_outputs(inference.infer(echo_of("numpy"), tensor, outputs=["FP64"]))
    assert returned == tensor
    (typed,) = typed_outputs(inference.infer(echo_of("numpy"), ("FP64", "FP64", [0, 3], {}), outputs=["FP64"]))
    assert typed == ("FP64", "FP64", [0, 3], {})


@pytest.mark.parametrize("runtime", ["python3.6", "numpy", "r"])
def test_large_tensors_come_back(inference: InferenceClient, echo_of: Callable[[str], str], runtime: str) -> None:
    rows = MESSAGE_LIMIT // 2 // 1024
    data = numbers("d", *range(128)) * rows

    (returned,) = raw_outputs(inference.infer(echo_of(runtime), ("FP64", "FP64", [rows, 128], data), outputs=["FP64"]))

    assert returned[2] == [rows, 128]
    assert returned[3] == data


@pytest.mark.parametrize("datatype", ["FP64", "BYTES"])
def test_large_typed_contents_come_back(
    inference: InferenceClient, echo_of: Callable[[str], str], datatype: str
) -> None:
    contents = (
        {"bytes_contents": [b"word %d" % number for number in range(40_000)]}
        if datatype == "BYTES"
        else {"fp64_contents": [float(number) for number in range(40_000)]}
    )
    tensor = (datatype, datatype, [200, 200], contents)

    assert typed_outputs(inference.infer(echo_of("python3.6"), tensor, outputs=[datatype])) == [tensor]


def test_a_result_over_the_message_limit_is_named(
    server: RunningServer, inference: InferenceClient, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": b"def predict(t):\n    return [0.5] * int(t['n'][0])\n"})
    server.deploy(name, source)
    fits, over = MESSAGE_LIMIT // 8 - 32, MESSAGE_LIMIT // 8 - 8

    assert len(inference.infer(name, ("n", "INT32", [1], numbers("i", fits))).raw_output_contents[0]) == 8 * fits
    for contents in (numbers("i", over), {"int_contents": [over]}):
        with pytest.raises(Exception, match="message limit") as caught:
            inference.infer(name, ("n", "INT32", [1], contents))
        assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE")


def test_what_comes_beside_the_tensors_reaches_the_model(
    server: RunningServer, inference: InferenceClient, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": b"import json\ndef predict(t):\n    return json.dumps(t.parameters, sort_keys=True)\n"})
    server.deploy(name, source)
    parameters = {
        "b": pb.InferParameter(bool_param=True),
        "d": pb.InferParameter(double_param=0.5),
        "i": pb.InferParameter(int64_param=-(2**62)),
        "s": pb.InferParameter(string_param="text"),
        "u": pb.InferParameter(uint64_param=2**64 - 1),
        "none": pb.InferParameter(),
    }

    request = infer_request(name, ("x", "BOOL", [1], b"\0"), parameters=parameters)
    ((_, datatype, shape, data),) = raw_outputs(inference.call("ModelInfer", request))

    assert (datatype, shape) == ("BYTES", [1])
    assert data[4:].decode() == (
        '{"b": true, "d": 0.5, "i": -4611686018427387904, "none": null, "s": "text", "u": 18446744073709551615}'
    )


def test_a_call_may_bring_no_tensors(
    server: RunningServer, inference: InferenceClient, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": b"def predict(t):\n    return len(t)\n"})
    server.deploy(name, source)

    assert raw_outputs(inference.infer(name)) == [("output", "INT64", [1], numbers("q", 0))]
