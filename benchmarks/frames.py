"""What is sent, as bytes: gRPC's framing, and messages of the Open Inference Protocol.

The messages are described here once more, with those of their fields that benchmarks need, so that every peer gets the
same bytes whatever stubs it has, and none of the stubs of ModelHost is taken at its own word.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

INFER = "inference.GRPCInferenceService/ModelInfer"
LIVE = "inference.GRPCInferenceService/ServerLive"
PREFIX_BYTES = 5

_Field = descriptor_pb2.FieldDescriptorProto
_TENSOR_FIELDS = (
    ("name", 1, _Field.TYPE_STRING, False),
    ("datatype", 2, _Field.TYPE_STRING, False),
    ("shape", 3, _Field.TYPE_INT64, True),
    ("contents", 5, "Contents", False),
)
_MESSAGES: dict[str, tuple[tuple[str, int, Any, bool], ...]] = {
    "Contents": (("fp64_contents", 7, _Field.TYPE_DOUBLE, True),),
    "Tensor": _TENSOR_FIELDS,
    "Request": (
        ("model_name", 1, _Field.TYPE_STRING, False),
        ("inputs", 5, "Tensor", True),
        ("raw_input_contents", 7, _Field.TYPE_BYTES, True),
    ),
    "Response": (
        ("outputs", 5, "Tensor", True),
        ("raw_output_contents", 6, _Field.TYPE_BYTES, True),
    ),
}


def _classes() -> dict[str, Any]:
    """Message classes in a pool of their own: the default one may know a package `inference` by then."""
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".bench.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{name}")) for name in _MESSAGES}


_CLASSES = _classes()


def frame(message: Message | bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length, itself."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def infer_request(model: str, tensor: str, shape: tuple[int, ...], raw: bytes) -> bytes:
    """ModelInferRequest with one tensor of float64, raw and little-endian."""
    request = _CLASSES["Request"](model_name=model, raw_input_contents=[raw])
    request.inputs.add(name=tensor, datatype="FP64", shape=shape)
    return bytes(request.SerializeToString())


def infer_response(raw: bytes) -> tuple[list[int], list[float]]:
    """Shape and values of the one tensor of float64 in a ModelInferResponse, raw or not.

    Raises `ValueError` where it has another one.
    """
    response = _CLASSES["Response"].FromString(raw)
    (tensor,) = response.outputs
    if tensor.datatype != "FP64":
        raise ValueError(f"the answer is of {tensor.datatype}, not FP64")
    if response.raw_output_contents:
        (data,) = response.raw_output_contents
        return list(tensor.shape), list(memoryview(bytearray(data)).cast("d"))
    return list(tensor.shape), list(tensor.contents.fp64_contents)
