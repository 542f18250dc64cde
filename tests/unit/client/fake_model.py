"""The Predict service of the server for tests: a model that answers as a test says."""

import threading
from collections.abc import Callable, Iterable

from modelhost.v1.predict_pb2 import DescribeServiceResponse, PredictResponse, PredictStreamResponse
from tests.unit.client.fake_answers import request_id_of


class FakeModel:
    """`model` makes the answer of parameters, `items` those of a stream; both JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Callable[[str], str] = lambda parameters: parameters
        self.items: Callable[[str], Iterable[str]] = lambda parameters: [parameters]
        self.made = 0  # items
        self.stream_ended = threading.Event()
        self.deadline: float | None = None

    def Predict(self, request, context):
        self.deadline = context.time_remaining()
        return PredictResponse(
            result_json=self.model(request.parameters_json), revision=3, request_id=request_id_of(context)
        )

    def PredictStream(self, request, context):
        self.deadline = context.time_remaining()
        context.add_callback(self.stream_ended.set)
        for index, item in enumerate(self.items(request.parameters_json)):
            self.made += 1
            yield PredictStreamResponse(result_json=item, revision=3, request_id=request_id_of(context), index=index)

    def DescribeService(self, request, context):
        return DescribeServiceResponse(service="svc-churn", deployment="churn", example_parameters_json='{"age": 41}')
