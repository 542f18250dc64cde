"""What an application with `tritonclient` does: `python programs.py FUNCTION ARGUMENT…` prints what a function returns.

Runs in an environment with that client and NumPy, where nothing of ModelHost is but the messages.
"""

import asyncio
import json
import queue
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

WAIT_SECONDS = 60
DTYPES = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip


def given(name, datatype, array):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array)


def connected(address, token):
    return triton.InferenceServerClient(address), {"authorization": "Bearer " + token}


def infer(address, token, model):
    client, headers = connected(address, token)
    array = np.arange(6, dtype="float64").reshape(2, 3)
    result = client.infer(
        model,
        [given("FP64", "FP64", array)],
        outputs=[triton.InferRequestedOutput("FP64")],
        request_id="call 7",
        headers=headers,
    )
    response = result.get_response()
    return {
        "equal": bool(np.array_equal(result.as_numpy("FP64"), array)),
        "id": response.id,
        "model": response.model_name,
        "version": response.model_version,
    }


def every_datatype(address, token, model):
    """The datatypes that come back as they went."""
    client, headers = connected(address, token)
    arrays = {name: np.array([[0, 1, 2], [3, 100, 1]]).astype(dtype) for name, dtype in DTYPES.items()}
    arrays["BYTES"] = np.array([[b"", b"one", b"\xff"], ["ä".encode(), b"5", b"6"]], dtype=object)
    arrays["BF16"] = np.array([[0, 1, 2], [3, 100, 1]], dtype=ml_dtypes.bfloat16)
    back = []
    for name, array in arrays.items():
        tensor = given(name, name, array)
        result = client.infer(model, [tensor], outputs=[triton.InferRequestedOutput(name)], headers=headers)
        returned = result.as_numpy(name)
        if np.array_equal(returned, array) and returned.dtype == array.dtype:
            back.append(name)
    return sorted(back)


def async_infer(address, token, model, count):
    client, headers = connected(address, token)
    answers = queue.Queue()
    for number in range(int(count)):
        client.async_infer(
            model,
            [given("INT32", "INT32", np.array([[number]], "int32"))],
            lambda result, error: answers.put(error or int(result.as_numpy("INT32")[0, 0])),
            outputs=[triton.InferRequestedOutput("INT32")],
            headers=headers,
        )
    return sorted(answers.get(timeout=WAIT_SECONDS) for _ in range(int(count)))


def asyncio_infer(address, token, model, count):
    headers = {"authorization": "Bearer " + token}

    async def all_of_them():
        async with triton_aio.InferenceServerClient(address) as client:

            async def one(number):
                tensor = given("INT32", "INT32", np.array([[number]], "int32"))
                wanted = [triton_aio.InferRequestedOutput("INT32")]
                result = await client.infer(model, [tensor], outputs=wanted, headers=headers)
                return int(result.as_numpy("INT32")[0, 0])

            return await asyncio.gather(*(one(number) for number in range(int(count))))

    return asyncio.run(all_of_them())


def with_parameters(address, token, model):
    client, headers = connected(address, token)
    result = client.infer(model, [], parameters={"word": "yes", "n": 3, "flag": True}, headers=headers)
    return json.loads(result.as_numpy("output")[0])


def metadata(address, token, model):
    client, headers = connected(address, token)
    return {
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata(model, headers=headers, as_json=True),
    }


def readiness(address, token, *models):
    client, headers = connected(address, token)

    def is_ready(model):
        name, _, version = model.partition("/")
        try:
            return client.is_model_ready(name, version, headers=headers)
        except InferenceServerException as error:
            return error.status()

    return [client.is_server_live(), client.is_server_ready(), *map(is_ready, models)]


def repository(address, token, model):
    """What is seen of a model before it is unloaded, after that, and after it is loaded again."""
    client, headers = connected(address, token)
    seen = []

    def look():
        index = client.get_model_repository_index(headers=headers, as_json=True)["models"]
        seen.append([next(one for one in index if one["name"] == model), client.is_model_ready(model, headers=headers)])

    look()
    client.unload_model(model, headers=headers)
    look()
    client.load_model(model, headers=headers)
    look()
    return seen


def failure(address, token, model):
    client, headers = connected(address, token)
    try:
        client.infer(model, [given("x", "FP64", np.zeros(1))], headers=headers)
    except InferenceServerException as error:
        return [error.status(), error.message()]


def differing_messages():
    """Fields of our messages that are not as the client's, beside which ours are loaded in this process."""
    from modelhost.inference import open_inference_pb2

    found = []

    def compare(ours, theirs):
        for field in ours.fields:
            other = theirs.fields_by_name.get(field.name)
            if other is None or (field.number, field.type, field.is_repeated) != (
                other.number,
                other.type,
                other.is_repeated,
            ):
                found.append(field.full_name)
        for nested in ours.nested_types:
            compare(nested, theirs.nested_types_by_name[nested.name])

    messages = open_inference_pb2.DESCRIPTOR.message_types_by_name
    for name, message in messages.items():
        compare(message, service_pb2.DESCRIPTOR.message_types_by_name[name])
    for rpc in open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        other = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[rpc.name]
        if (rpc.input_type.full_name, rpc.output_type.full_name) != (
            other.input_type.full_name,
            other.output_type.full_name,
        ):
            found.append(rpc.full_name)
    return {"messages": len(messages), "differing": found}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
