import pytest

from modelhost.client import AsyncClient, ModelFailed, NotFound, Prediction
from modelhost.v1.data_source_pb2 import ListDataSourcesRequest
from modelhost.v1.deployment_pb2 import WatchDeploymentRequest
from modelhost.v1.log_pb2 import LOG_KIND_RUN, LogEntry, TailLogRequest
from tests.unit.client.fake_server import TOKEN, Code, FakeServer


async def test_a_prediction_is_awaited(server: FakeServer):
    async with AsyncClient(server.address, TOKEN) as client:
        assert await client.predict("churn", [1, 2]) == Prediction([1, 2], 3)


async def test_a_call_can_be_named(server: FakeServer):
    async with AsyncClient(server.address, TOKEN) as client:
        assert (await client.predict("churn", 1, request_id="order-4711")).request_id == "order-4711"
        with pytest.raises(ValueError, match="is no request id"):
            await client.predict("churn", 1, request_id="two words")


async def test_it_raises_the_same_errors(server: FakeServer):
    server.refuse("Predict", Code.UNKNOWN, "ValueError: no", "MODEL_RAISED")
    async with AsyncClient(server.address, TOKEN) as client:
        with pytest.raises(ModelFailed, match="ValueError: no"):
            await client.predict("churn", 1)
        with pytest.raises(NotFound):
            async for _ in client.admin.WatchDeployment(WatchDeploymentRequest(name="nope")):
                pass


async def test_the_stubs_are_awaited_and_iterated(server: FakeServer):
    server.add_deployment("churn")
    server.run_log = [LogEntry(text="one"), LogEntry(text="two")]
    async with AsyncClient(server.address, TOKEN) as client:
        assert list((await client.admin.ListDataSources(ListDataSourcesRequest())).data_sources) == []
        texts = []
        async for answer in client.admin.TailLog(TailLogRequest(deployment="churn", kind=LOG_KIND_RUN)):
            texts += [entry.text for entry in answer.entries]
            if len(texts) == 2:
                break
        assert texts == ["one", "two"]
