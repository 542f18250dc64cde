import pickle

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, PreconditionFailure, RetryInfo

from modelhost.client import (
    AccessDenied,
    Busy,
    Client,
    Conflict,
    Forbidden,
    InvalidRequest,
    ModelFailed,
    ModelHostError,
    NotFound,
    TimedOut,
    Unreachable,
    Violation,
)
from modelhost.client.errors import from_call
from tests.unit.client.fake_answers import rich_status

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (Code.UNAUTHENTICATED, "UNAUTHENTICATED", AccessDenied),
        (Code.UNAUTHENTICATED, "TOKEN_EXPIRED", AccessDenied),
        (Code.PERMISSION_DENIED, "ROLE_REQUIRED", Forbidden),
        (Code.INVALID_ARGUMENT, "FIELD_INVALID", InvalidRequest),
        (Code.NOT_FOUND, "DEPLOYMENT_NOT_FOUND", NotFound),
        (Code.ALREADY_EXISTS, "DEPLOYMENT_EXISTS", Conflict),
        (Code.FAILED_PRECONDITION, "STATE_CONFLICT", Conflict),
        (Code.ABORTED, "ETAG_MISMATCH", Conflict),
        (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", Busy),
        (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", TimedOut),
        (Code.DEADLINE_EXCEEDED, "MODEL_TIMED_OUT", ModelFailed),
        (Code.UNKNOWN, "MODEL_RAISED", ModelFailed),
        (Code.INTERNAL, "WORKER_DIED", ModelFailed),
        (Code.RESOURCE_EXHAUSTED, "RESULT_TOO_LARGE", ModelFailed),
        (Code.UNAVAILABLE, "SERVER_STOPPING", Unreachable),
        (Code.UNAVAILABLE, "SOURCE_UNREACHABLE", ModelHostError),
        (Code.INTERNAL, "INTERNAL", ModelHostError),
        (Code.UNKNOWN, "A_REASON_OF_THE_FUTURE", ModelHostError),
    ],
)
def test_the_kind_of_an_error_follows_from_what_the_server_says(server, client, code, reason, kind):
    server.refuse("Predict", code, "it went wrong", reason)
    with pytest.raises(ModelHostError) as caught:
        client.predict("churn", 1)
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.reason, error.message) == (code, reason, "it went wrong")
    assert error.metadata == {"name": "churn"}
    assert str(error) == f"it went wrong ({reason})"


def test_a_hint_of_the_server_is_told_apart_from_the_values(server, client):
    server.refuse("Predict", Code.UNKNOWN, "the model raised ValueError: no", "MODEL_RAISED")
    with pytest.raises(ModelFailed) as caught:
        client.predict("churn", 1)
    assert "modelhost logs NAME --run" in caught.value.hint
    assert "hint" not in caught.value.metadata


def test_violations_name_the_fields(server, client):
    field = BadRequest.FieldViolation(field="service", description="must not be empty")
    server.refuse("Predict", Code.INVALID_ARGUMENT, "no", "FIELD_INVALID", BadRequest(field_violations=[field]))
    with pytest.raises(InvalidRequest) as caught:
        client.predict("", 1)
    assert caught.value.violations == (Violation("service", "must not be empty"),)


def test_violations_name_the_resource_whose_state_does_not_fit(server, client):
    wrong = PreconditionFailure.Violation(type="STATE", subject="deployments/churn", description="must be STOPPED")
    server.refuse("Predict", Code.FAILED_PRECONDITION, "no", "STATE_CONFLICT", PreconditionFailure(violations=[wrong]))
    with pytest.raises(Conflict) as caught:
        client.predict("churn", 1)
    assert caught.value.violations == (Violation("deployments/churn", "must be STOPPED"),)


def test_a_full_queue_says_when_to_try_again(server, client):
    retry = RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    server.refuse("Predict", Code.RESOURCE_EXHAUSTED, "the queue is full", "QUEUE_FULL", retry)
    with pytest.raises(Busy) as caught:
        client.predict("churn", 1)
    assert caught.value.retry_after == 1.5


def test_no_server_is_said_in_plain_words(server):
    with Client("127.0.0.1:1", "token") as client, pytest.raises(Unreachable) as caught:
        client.predict("churn", 1)
    assert caught.value.message == "no server answers at 127.0.0.1:1: connection refused"
    assert caught.value.reason == ""


def test_a_wrong_token_is_access_denied(server):
    with Client(server.address, "wrong") as client, pytest.raises(AccessDenied):
        client.predict("churn", 1)


def test_a_server_of_another_kind_is_recognised(server, client):
    server.refuse("Predict", Code.UNIMPLEMENTED, "Method not found!")
    with pytest.raises(
        ModelHostError, match="it is no ModelHost server, an older one, or one whose operators have an address"
    ):
        client.predict("churn", 1)


def test_a_call_that_the_servers_end_has_cut_off_can_be_tried_again(server, client):
    server.refuse("Predict", Code.CANCELLED, "CANCELLED")
    with pytest.raises(Unreachable, match="ended before it took the call; try again"):
        client.predict("churn", 1)


def test_the_callers_own_deadline_is_said_in_plain_words(server, client):
    server.model = lambda parameters: server.released.wait(5) and parameters
    with pytest.raises(TimedOut, match=r"no answer from .* in time"):
        client.predict("churn", 1, timeout=0.05)


class Failed:
    """A failed call whose details are broken, or another product's."""

    def __init__(self, details: bytes) -> None:
        self._details = details

    def code(self) -> Code:
        return Code.NOT_FOUND

    def details(self) -> str:
        return "not there"

    def trailing_metadata(self) -> list[tuple[str, str | bytes]]:
        return [("x-other", "1"), ("grpc-status-details-bin", self._details)]


def test_details_that_cannot_be_read_are_left_out():
    error = from_call(Failed(b"\xff\xff\xff"), "host:1")
    assert type(error) is NotFound
    assert (error.message, error.reason) == ("not there", "")


def test_reasons_of_other_products_are_not_taken_for_ours():
    error = from_call(Failed(rich_status(Code.NOT_FOUND, "", "MODEL_RAISED", domain="example.com")), "host:1")
    assert type(error) is NotFound
    assert error.reason == ""


def test_errors_survive_a_way_through_a_process_pool():
    error = NotFound("not there", code=Code.NOT_FOUND, reason="DEPLOYMENT_NOT_FOUND", metadata={"name": "churn"})
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy)) == (NotFound, vars(error))
