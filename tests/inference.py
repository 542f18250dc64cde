"""Open Inference calls in tests, with our own messages: `tritonclient` has tests of its own."""

from collections.abc import Sequence
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from modelhost.inference import open_inference_pb2 as pb
from tests.checks import check_status

SERVICE: Any = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
Tensor = tuple[str, str, Sequence[int], Any]  # name, datatype, shape, elements: bytes, or a dict of typed contents


class InferenceFailed(Exception):
    """A call was refused, in the way in which every refusal is promised to be; `str()` is what people are told."""

    def __init__(self, error: grpc.RpcError) -> None:
        status = check_status(error)
        super().__init__(status.message)
        self.code: str = error.code().name
        info = next(detail for detail in status.details if detail.Is(ErrorInfo.DESCRIPTOR))
        self.info = ErrorInfo.FromString(info.value)
        self.reason = self.info.reason
        fields = [BadRequest.FromString(each.value) for each in status.details if each.Is(BadRequest.DESCRIPTOR)]
        self.field = fields[0].field_violations[0].field if fields else ""


class InferenceClient:
    """Calls the methods of the protocol. A context manager."""

    def __init__(self, address: str, token: str | None) -> None:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(address, options=unlimited)
        self._metadata = [("authorization", f"Bearer {token}")] if token else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, method: str, request: Message | None = None, **fields: Any) -> Any:
        """Call a method. Raises `InferenceFailed`."""
        rpc = SERVICE.methods_by_name[method]
        call: Any = self._channel.unary_unary(
            f"/{SERVICE.full_name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(rpc.output_type).FromString,
        )
        request = request if request is not None else GetMessageClass(rpc.input_type)(**fields)
        try:
            return call(request, metadata=self._metadata, timeout=60)
        except grpc.RpcError as error:
            raise InferenceFailed(error) from error

    def infer(self, model: str, *tensors: Tensor, outputs: Sequence[str] = (), **fields: Any) -> pb.ModelInferResponse:
        """Call a model."""
        return self.call("ModelInfer", infer_request(model, *tensors, outputs=outputs, **fields))


def infer_request(model: str, *tensors: Tensor, outputs: Sequence[str] = (), **fields: Any) -> pb.ModelInferRequest:
    """A request; tensors whose elements are bytes are raw."""
    request = pb.ModelInferRequest(model_name=model, outputs=[{"name": name} for name in outputs], **fields)
    for name, datatype, shape, elements in tensors:
        if isinstance(elements, bytes):
            request.inputs.add(name=name, datatype=datatype, shape=shape)
            request.raw_input_contents.append(elements)
        else:
            request.inputs.add(name=name, datatype=datatype, shape=shape, contents=elements)
    return request


def raw_outputs(response: pb.ModelInferResponse) -> list[Tensor]:
    """The tensors of a raw answer."""
    assert len(response.raw_output_contents) == len(response.outputs)
    assert not any(one.HasField("contents") for one in response.outputs)
    return [
        (one.name, one.datatype, list(one.shape), data)
        for one, data in zip(response.outputs, response.raw_output_contents, strict=True)
    ]


def typed_outputs(response: pb.ModelInferResponse) -> list[Tensor]:
    """The tensors of a typed answer."""
    assert not response.raw_output_contents
    return [
        (one.name, one.datatype, list(one.shape), {each.name: list(value) for each, value in one.contents.ListFields()})
        for one in response.outputs
    ]
