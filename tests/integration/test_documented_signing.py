"""What the guide to access shows applications gets them in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from modelhost.client import Client
from modelhost.v1 import predict_pb2, service_account_pb2
from tests.documented_signing import run
from tests.running import RunningServer, reason_of


@pytest.fixture
def account(server: RunningServer, name: str) -> service_account_pb2.ServiceAccount:
    return server.client.admin.CreateServiceAccount(
        service_account_pb2.CreateServiceAccountRequest(service_account_id=name)
    )


@pytest.fixture
def request_for_a_token(account: service_account_pb2.ServiceAccount, tmp_path: Path) -> predict_pb2.IssueTokenRequest:
    printed = run("python", tmp_path, account.access_key, account.secret_key)
    return json_format.Parse(printed, predict_pb2.IssueTokenRequest())


@pytest.fixture
def nobody(server: RunningServer) -> Iterator[Client]:
    with server.connect(None) as client:
        yield client


def test_the_guides_signature_gets_a_token_that_calls_what_was_granted(
    server: RunningServer, two: str, name: str, nobody: Client, request_for_a_token: predict_pb2.IssueTokenRequest
) -> None:
    answer = nobody.predict_stub.IssueToken(request_for_a_token)

    with server.connect(answer.token) as application:
        assert reason_of(lambda: application.predict(two, 0)) == "SERVICE_NOT_FOUND"
        server.client.admin.GrantService(service_account_pb2.GrantServiceRequest(service_account=name, service=two))
        assert application.predict(two, 0).result == "two"


def test_the_guides_signature_is_good_for_one_token(
    nobody: Client, request_for_a_token: predict_pb2.IssueTokenRequest
) -> None:
    nobody.predict_stub.IssueToken(request_for_a_token)

    assert reason_of(lambda: nobody.predict_stub.IssueToken(request_for_a_token)) == "UNAUTHENTICATED"
