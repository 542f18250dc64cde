"""What scripts branch on."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo

from modelhost.cli import main as command
from modelhost.cli.errors import EXIT_CODES, ExitCode

Code = grpc.StatusCode


def test_success_is_0(cli):
    assert cli("list").code == 0


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (Code.INTERNAL, "INTERNAL", 1),
        (Code.UNAVAILABLE, "SOURCE_UNREACHABLE", 1),
        (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", 1),
        (Code.INVALID_ARGUMENT, "FIELD_INVALID", 2),
        (Code.NOT_FOUND, "DEPLOYMENT_NOT_FOUND", 3),
        (Code.ALREADY_EXISTS, "DEPLOYMENT_EXISTS", 4),
        (Code.FAILED_PRECONDITION, "SERVICE_NOT_RUNNING", 4),
        (Code.ABORTED, "ETAG_MISMATCH", 4),
        (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", 4),
        (Code.UNAVAILABLE, "SERVER_STOPPING", 5),
        (Code.UNAUTHENTICATED, "UNAUTHENTICATED", 6),
        (Code.UNAUTHENTICATED, "TOKEN_EXPIRED", 6),
        (Code.UNKNOWN, "MODEL_RAISED", 7),
        (Code.INTERNAL, "WORKER_DIED", 7),
        (Code.DEADLINE_EXCEEDED, "MODEL_TIMED_OUT", 7),
        (Code.UNKNOWN, "RESULT_NOT_SERIALISABLE", 7),
        (Code.PERMISSION_DENIED, "ROLE_REQUIRED", 8),
    ],
)
def test_each_kind_of_refusal_has_its_code(server, cli, code, reason, expected):
    server.refuse("Predict", code, "it went wrong", reason)
    assert cli("predict", "churn", "1").code == expected


def test_a_server_that_is_not_there_is_5(run):
    result = run("list", "--address", "127.0.0.1:1")
    assert result.code == 5
    assert result.err.startswith("error: no server answers at 127.0.0.1:1: connection refused\nhint: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "error: no such command 'lst'"),
        (["list", "--jsn"], "error: no such option: --jsn"),
        (["show"], "error: missing argument 'NAME'"),
        (["logs", "churn", "--last", "-1"], "error: invalid value for '--last'"),
        (["list", "--address", "host:0"], "error: 'host:0' is no address"),
    ],
)
def test_a_wrong_command_line_is_2_and_says_what_is_wrong(run, arguments, message):
    result = run(*arguments)
    assert result.code == 2
    assert message in result.err
    assert result.out == ""


def test_an_error_says_what_to_do_next(server, cli):
    server.refuse("Predict", Code.UNKNOWN, "the model raised ValueError: no", "MODEL_RAISED")
    result = cli("predict", "churn", "1")
    assert result.err.splitlines() == [
        "error: the model raised ValueError: no",
        "hint: `modelhost predict churn JSON --debug` shows the traceback and what the model printed;"
        " `modelhost logs churn --run` has it too.",
    ]


def test_an_error_names_the_fields_that_are_wrong(server, cli):
    field = BadRequest.FieldViolation(field="deployment_id", description="must begin with a letter")
    server.refuse("GetDeployment", Code.INVALID_ARGUMENT, "no", "FIELD_INVALID", BadRequest(field_violations=[field]))
    assert "  deployment_id: must begin with a letter\n" in cli("show", "1").err


def test_a_full_queue_says_when_to_try_again(server, cli):
    retry = RetryInfo(retry_delay=Duration(seconds=2))
    server.refuse("Predict", Code.RESOURCE_EXHAUSTED, "the queue is full", "QUEUE_FULL", retry)
    result = cli("predict", "churn", "1")
    assert result.code == 4
    assert "hint: try again in 2 s" in result.err


def test_with_json_an_error_is_one_json_object_on_stderr(server, cli):
    retry = RetryInfo(retry_delay=Duration(seconds=2))
    server.refuse("Predict", Code.RESOURCE_EXHAUSTED, "the queue is full", "QUEUE_FULL", retry)
    result = cli("predict", "churn", "1", "--json")
    assert result.out == ""
    assert result.error == {
        "message": "the queue is full",
        "hint": "try again in 2 s",
        "reason": "QUEUE_FULL",
        "code": "RESOURCE_EXHAUSTED",
        "metadata": {"name": "churn", "deployment": "churn"},
        "violations": [],
        "retry_after": 2.0,
        "exit_code": 4,
    }


def test_with_json_a_wrong_command_line_is_json_too(run):
    result = run("show", "--json")
    assert (result.code, result.error["exit_code"]) == (2, 2)


def test_the_help_has_the_table_of_codes(run):
    shown = " ".join([*run("--help").out.split(), ""])
    assert set(EXIT_CODES) == set(ExitCode)
    for code, meaning in EXIT_CODES.items():
        assert f" {code.value} {meaning} " in shown


def test_a_fault_of_the_command_itself_is_not_hidden(monkeypatch, run):
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command.version, "version", fail)
    with pytest.raises(ZeroDivisionError):
        run("version")


def test_who_is_not_allowed_is_told_the_role_that_it_takes(server, cli):
    metadata = {"caller": "operators/ada", "role": "viewer", "needed": "deployer", "method": "CreateDeployment"}
    server.refuse("StartDeployment", Code.PERMISSION_DENIED, "ada may not", "ROLE_REQUIRED", **metadata)
    result = cli("start", "churn")
    assert (result.code, result.err.splitlines()) == (
        8,
        [
            "error: ada may not",
            "hint: that takes the role deployer, and ada has the role viewer; who is admin may change that:"
            " `modelhost operator update ada --role deployer`",
        ],
    )
    document = cli("start", "churn", "--json").error
    assert (document["exit_code"], document["code"]) == (8, "PERMISSION_DENIED")
    assert metadata.items() <= document["metadata"].items()


def test_an_application_that_is_not_allowed_is_told_that_it_takes_an_operator(server, cli):
    metadata = {"caller": "serviceAccounts/shop", "needed": "viewer", "method": "ListDeployments"}
    server.refuse("ListDeployments", Code.PERMISSION_DENIED, "shop is no operator", "ROLE_REQUIRED", **metadata)
    result = cli("list")
    assert result.code == 8
    assert "hint: that takes the token of an operator with the role viewer: --token-file FILE" in result.err
