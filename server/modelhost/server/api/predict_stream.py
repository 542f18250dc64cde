"""`modelhost.v1.Predict/PredictStream`: calls whose items are sent as the model makes them."""

from collections.abc import AsyncGenerator
from functools import partial

from modelhost.server.api import names
from modelhost.server.api.admission import Admission
from modelhost.server.api.call import Call
from modelhost.server.api.calling import ModelCalls, name_call
from modelhost.server.api.predict import ENVELOPE_BYTES, check_size, parameters_of, to_value
from modelhost.server.serving.link import Received
from modelhost.server.serving.pool import Pool
from modelhost.server.serving.stream import Stream
from modelhost.v1 import predict_pb2 as pb


class PredictStreamMethods:
    """Handler of PredictStream. Nothing that it sends is larger than `message_limit` bytes."""

    def __init__(self, admission: Admission, calls: ModelCalls, message_limit: int) -> None:
        self._admission = admission
        self._calls = calls
        self._result_limit = message_limit - ENVELOPE_BYTES

    async def predict_stream(self, call: Call, request: pb.PredictRequest) -> AsyncGenerator[pb.PredictStreamResponse]:
        """Call a model once. The whole stream is one call: for the limits of its caller, and for its worker."""
        service = call.service = self._admission.find(call.caller, names.parse_service(request.service))
        call.check_still_admitted = partial(self._admission.check, call, service)
        grant = self._admission.enter(call, service)
        revision = 0
        try:
            parameters = await parameters_of(request)

            async def begin(pool: Pool, number: int) -> tuple[Stream, int]:
                return await pool.stream(parameters, call.deadline, call.request_id), number

            stream, revision = await self._calls.made(call, service, begin)
            try:
                index = 0
                while (item := await stream.next()) is not None:
                    response = await self._response(request, item)
                    response.revision, response.request_id, response.index = revision, call.request_id, index
                    index += 1
                    yield response
            finally:
                stream.close()
        except Exception as error:
            name_call(error, call, service, revision)
            raise
        finally:
            if grant is not None:
                grant.leave()

    async def _response(self, request: pb.PredictRequest, item: Received) -> pb.PredictStreamResponse:
        if request.HasField("parameters_json"):
            check_size(len(item), self._result_limit)
            return pb.PredictStreamResponse(result_json=item.decode())
        value = await to_value(item)
        check_size(value.ByteSize(), self._result_limit)
        return pb.PredictStreamResponse(result=value)
