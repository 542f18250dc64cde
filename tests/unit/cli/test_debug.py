"""Calls with all that was seen of them."""

import pytest

from modelhost.v1.deployment_pb2 import DebugDeploymentResponse, Failure
from tests.unit.client.fake_server import Code, reason

TRACEBACK = 'Traceback (most recent call last):\n  File "main.py", line 2, in predict\nKeyError: 1\n'


@pytest.fixture
def churn(server):
    server.add_deployment("churn")
    server.debugged = DebugDeploymentResponse(
        result_json='{"score":0.10000000000000001}', stdout="said\nmore \x1b[7m\n", stderr="whispered\n", revision=1
    )
    for stage, microseconds in (("queue", 100), ("send", 400), ("run", 12_000), ("receive", 300)):
        getattr(server.debugged.timing, stage).FromMicroseconds(microseconds)


@pytest.fixture
def broken(server, churn):
    def broken(name):
        server.debugged.result_json, server.debugged.traceback = "", TRACEBACK
        server.debugged.failure.CopyFrom(Failure(reason=reason(name), message="it went wrong", hint="Mend it."))

    return broken


def test_the_result_alone_is_on_stdout_and_the_rest_beside_it(server, cli, churn):
    result = cli("predict", "churn", '{"age": 41}', "--debug", "--request-id", "order-1")
    assert (result.code, result.out) == (0, '{"score":0.10000000000000001}\n')
    assert result.err.splitlines() == [
        "── stdout",
        "said",
        "more ",
        "── stderr",
        "whispered",
        "── revision 1, request order-1",
        "queue 0.1 ms · send 0.4 ms · run 12.0 ms · receive 0.3 ms",
    ]
    [request] = server.requests("DebugDeployment")
    assert (request.name, request.parameters_json, request.revision) == ("churn", '{"age": 41}', 0)


def test_what_is_empty_is_left_out(server, cli, churn):
    server.debugged.stdout = server.debugged.stderr = ""
    assert cli("predict", "churn", "1", "--debug").err.splitlines()[0].startswith("── revision 1")


def test_a_revision_can_be_said_but_only_for_debug(server, cli, churn):
    assert cli("predict", "churn", "1", "--debug", "--revision", "7").code == 0
    assert server.requests("DebugDeployment")[0].revision == 7
    assert cli("predict", "churn", "1", "--revision", "7").code == 2
    assert server.requests("Predict") == []


def test_the_deployment_of_a_service_is_found(server, cli, churn):
    assert cli("predict", "svc-churn", "1", "--debug").code == 0
    assert server.requests("DebugDeployment")[0].name == "churn"


def test_a_failure_has_its_traceback_and_what_was_written_and_ends_with_the_error(cli, broken):
    broken("MODEL_RAISED")
    result = cli("predict", "churn", "1", "--debug")
    assert (result.code, result.out) == (7, "")
    lines = result.err.splitlines()
    assert lines[:4] == ["── traceback", *TRACEBACK.splitlines()]
    assert "said" in lines
    assert lines[-2:] == ["error: it went wrong", "hint: Mend it."]


@pytest.mark.parametrize(
    ("name", "code"),
    [("MODEL_RAISED", 7), ("WORKER_DIED", 7), ("MODEL_TIMED_OUT", 7), ("IMPORT_FAILED", 1), ("PARAMETERS_INVALID", 2)],
)
def test_the_exit_code_says_whose_failure_it_was(cli, broken, name, code):
    broken(name)
    assert cli("predict", "churn", "1", "--debug").code == code


def test_in_json_it_is_one_document_with_the_result_as_it_was_written(cli, churn):
    result = cli("predict", "churn", "1", "--debug", "--json", "--request-id", "a")
    assert result.out.startswith('{"result": {"score":0.10000000000000001}, ')
    assert result.err == ""
    assert result.document["stdout"] == "said\nmore \x1b[7m\n"
    assert result.document["timing"] == {
        "queue": "0.000100s",
        "send": "0.000400s",
        "run": "0.012s",
        "receive": "0.000300s",
    }
    assert (result.document["revision"], result.document["request_id"]) == (1, "a")


def test_in_json_a_failure_is_on_both_streams(cli, broken):
    broken("IMPORT_FAILED")
    result = cli("predict", "churn", "1", "--debug", "--json")
    assert (result.document["result"], result.document["traceback"]) == (None, TRACEBACK)
    assert (result.error["reason"], result.error["exit_code"]) == ("IMPORT_FAILED", 1)


class TestNamesOfCalls:
    def test_a_call_can_be_named(self, server, cli):
        result = cli("predict", "churn", "1", "--request-id", "order-1", "--json")
        assert result.document == {"result": 1, "revision": 3, "request_id": "order-1"}

    @pytest.mark.parametrize("name", ["", "two words", "Zoë", "x" * 65])
    @pytest.mark.parametrize("more", [[], ["--debug"]])
    def test_what_no_server_takes_is_refused_before_it_is_sent(self, server, cli, name, more):
        result = cli("predict", "churn", "1", "--request-id", name, *more)
        assert result.code == 2
        assert "is no request id: it has 1 to 64 printable ASCII characters, no blanks" in result.err
        assert server.calls == []

    @pytest.mark.parametrize("name", ["MODEL_RAISED", "WORKER_DIED", "MODEL_TIMED_OUT"])
    @pytest.mark.parametrize("service", ["churn", "svc-churn"])
    def test_a_failure_says_how_to_see_more_of_the_call(self, server, cli, name, service):
        server.refuse("Predict", Code.UNKNOWN, "it went wrong", name)
        result = cli("predict", service, "1", "--request-id", "order-1")
        assert result.code == 7
        hint = result.err.splitlines()[-1]
        assert hint.startswith("hint: ")
        assert "`modelhost logs churn --run --request order-1`" in hint
        assert "NAME" not in hint
