import json
import time

import grpc
import pytest

from modelhost.client import Client, ModelHostError, Prediction, Unreachable
from modelhost.v1.data_source_pb2 import ListDataSourcesRequest
from modelhost.v1.deployment_pb2 import GetDeploymentRequest, WatchDeploymentRequest
from modelhost.v1.log_pb2 import LOG_KIND_RUN, LogEntry, TailLogRequest
from tests.unit.client.fake_server import TOKEN, running


def test_a_prediction_has_the_result_and_the_revision(server, client):
    server.model = lambda parameters: json.dumps({"score": 0.25})
    assert client.predict("churn", {"age": 41}) == Prediction({"score": 0.25}, 3)


def test_parameters_arrive_exactly_as_json(server, client):
    client.predict("churn", {"id": 2**60 + 1, "name": "Zoë", "rate": 0.1})
    [request] = server.requests("Predict")
    assert request.service == "churn"
    assert request.parameters_json == '{"id":1152921504606846977,"name":"Zoë","rate":0.1}'


def test_a_call_can_be_named(client):
    assert client.predict("churn", 1, request_id="order-4711").request_id == "order-4711"
    assert client.predict("churn", 1).request_id == ""


@pytest.mark.parametrize("name", ["", "two words", "Zoë", "line\n", "x" * 65])
def test_a_name_that_no_server_takes_is_refused_before_it_is_sent(server, client, name):
    with pytest.raises(ValueError, match="is no request id: it has 1 to 64 printable ASCII characters, no blanks"):
        client.predict("churn", 1, request_id=name)
    assert server.requests("Predict") == []


class Array:
    """Looks like NumPy's."""

    def tolist(self) -> list[int]:
        return [1, 2]


def test_arrays_are_sent_as_lists(client):
    assert client.predict("churn", {"rows": Array()}).result == {"rows": [1, 2]}


def test_what_json_cannot_hold_is_refused_before_it_is_sent(server, client):
    with pytest.raises(TypeError, match="cannot hold a object"):
        client.predict("churn", object())
    with pytest.raises(ValueError, match="not JSON compliant"):
        client.predict("churn", float("nan"))
    assert server.requests("Predict") == []


def test_messages_larger_than_grpcs_own_limit_pass_both_ways(client):
    text = "x" * 5_000_000
    assert client.predict("churn", text).result == text


def test_a_message_over_the_clients_limit_is_an_error_that_no_waiting_helps(server):
    with Client(server.address, TOKEN, max_message_bytes=1000) as client, pytest.raises(ModelHostError) as caught:
        client.predict("churn", "x" * 2000)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert type(caught.value) is ModelHostError


def test_a_call_has_the_clients_timeout_unless_it_brings_its_own(server):
    with Client(server.address, TOKEN, timeout=3000) as client:
        client.predict("churn", 1)
        assert server.deadline == pytest.approx(3000, abs=500)
        client.predict("churn", 1, timeout=1000)
        assert server.deadline == pytest.approx(1000, abs=500)


def test_every_method_can_be_called_through_the_stubs(client):
    assert list(client.admin.ListDataSources(ListDataSourcesRequest()).data_sources) == []


def test_the_stubs_calls_carry_metadata_besides_the_token(client):
    answer, call = client.admin.ListDataSources.with_call(ListDataSourcesRequest(), metadata=(("x-trace", "1"),))
    assert list(answer.data_sources) == []
    assert call.code() is grpc.StatusCode.OK


def test_a_call_can_be_begun_and_awaited_later(client):
    assert list(client.admin.ListDataSources.future(ListDataSourcesRequest()).result().data_sources) == []


def test_a_stream_raises_our_errors(client):
    with pytest.raises(ModelHostError, match="there is no deployment nope"):
        list(client.admin.WatchDeployment(WatchDeploymentRequest(name="nope")))


def test_a_cancelled_stream_just_ends(server, client):
    server.add_deployment("churn")
    server.run_log = [LogEntry(text="one")]
    stream = client.admin.TailLog(TailLogRequest(deployment="churn", kind=LOG_KIND_RUN))
    assert next(stream).entries[0].text == "one"
    stream.cancel()
    assert list(stream) == []


def test_calls_of_a_closed_client_fail(server):
    client = Client(server.address, TOKEN)
    client.close()
    with pytest.raises(ValueError, match="closed"):
        client.admin.GetDeployment(GetDeploymentRequest(name="churn"))


def test_a_server_that_comes_back_is_reached_again(server, client):
    port = int(server.address.rpartition(":")[2])
    client.predict("churn", 1)
    server.stop()
    with pytest.raises(Unreachable):
        client.predict("churn", 1)
    with running(port=port):
        deadline = time.monotonic() + 30
        while True:
            try:
                assert client.predict("churn", 1).revision == 3
            except Unreachable:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                break


def test_the_environments_proxy_is_not_used_for_this_host(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(server.address, TOKEN) as client:
        assert client.predict("churn", 1).result == 1
