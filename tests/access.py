"""What tests of access do: accounts, keys, grants and operators, logins, and calls with whatever credentials.

shop = admin.account("shop", "iris", requests_per_day=10)
token = login(channel, shop)
refusal = refusal_of(lambda: predict(channel, "iris", token))
"""

import hmac
import json
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import grpc
import jwt
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelhost.server.access.tokens import PURPOSE
from modelhost.server.statedir import StateDir
from modelhost.server.vault import Vault
from modelhost.v1 import (
    access_pb2,
    admin_pb2_grpc,
    deployment_pb2,
    operator_pb2,
    predict_pb2,
    predict_pb2_grpc,
    service_account_pb2,
    service_pb2,
)
from tests.obedient import do
from tests.refusals import ended
from tests.running import RunningServer

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Account:
    """A service account with the secrets that its creation has shown."""

    id: str
    access_key: str
    secret_key: str = field(repr=False)


class AccessAdmin:
    """What an admin does about access."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server

    @property
    def _admin(self) -> Any:
        return self._server.client.admin

    def account(self, account_id: str, *services: str, **limits: Any) -> Account:
        """Create an account that may call those services; `limits` are fields of GrantLimits, for all of them."""
        made = self._admin.CreateServiceAccount(
            service_account_pb2.CreateServiceAccountRequest(service_account_id=account_id)
        )
        account = Account(account_id, made.access_key, made.secret_key)
        for service in services:
            self.grant(account, service, **limits)
        return account

    def grant(self, account: Account, service: str, **limits: Any) -> service_account_pb2.Grant:
        """Let an account call a service, or change its limits."""
        wanted = service_account_pb2.GrantLimits(**limits)
        request = service_account_pb2.GrantServiceRequest(service_account=account.id, service=service, limits=wanted)
        granted: service_account_pb2.Grant = self._admin.GrantService(request)
        return granted

    def revoke(self, account: Account, service: str) -> None:
        """Take a grant back."""
        request = service_account_pb2.RevokeServiceRequest(service_account=account.id, service=service)
        self._admin.RevokeService(request)

    def used_today(self, account: Account) -> int:
        """How many calls counted today for the only grant that it has."""
        (grant,) = self._admin.ListGrants(service_account_pb2.ListGrantsRequest(service_account=account.id)).grants
        return int(grant.requests_today)

    def api_key(self, account: Account) -> tuple[str, str]:
        """Make an API key; returns its name and the key."""
        made = self._admin.CreateApiKey(service_account_pb2.CreateApiKeyRequest(service_account=account.id))
        return made.name, made.key

    def delete_api_key(self, name: str) -> None:
        """Delete an API key."""
        self._admin.DeleteApiKey(service_account_pb2.DeleteApiKeyRequest(name=name))

    def rotate(self, account: Account, *, overlap: int) -> Account:
        """Make another secret key; those there are work for `overlap` seconds."""
        request = service_account_pb2.RotateServiceAccountSecretRequest(name=account.id, overlap={"seconds": overlap})
        return Account(account.id, account.access_key, self._admin.RotateServiceAccountSecret(request).secret_key)

    def disable(self, account: Account, *, disabled: bool = True) -> None:
        """Let an account in no more, or again."""
        wanted = service_account_pb2.ServiceAccount(name=f"serviceAccounts/{account.id}", disabled=disabled)
        mask = {"paths": ["disabled"]}
        self._admin.UpdateServiceAccount(
            service_account_pb2.UpdateServiceAccountRequest(service_account=wanted, update_mask=mask)
        )

    def delete(self, account: Account) -> None:
        """Delete an account."""
        self._admin.DeleteServiceAccount(service_account_pb2.DeleteServiceAccountRequest(name=account.id))

    def operator(self, operator_id: str, role: str) -> str:
        """Create an operator with a role, `viewer`; returns its token."""
        wanted = operator_pb2.Operator(role=role_number(role))
        request = operator_pb2.CreateOperatorRequest(operator_id=operator_id, operator=wanted)
        return str(self._admin.CreateOperator(request).token)

    def change_operator(self, operator_id: str, *, role: str = "", disabled: bool | None = None) -> None:
        """Give an operator another role, or let it in no more."""
        wanted = operator_pb2.Operator(name=f"operators/{operator_id}", disabled=bool(disabled))
        paths = [] if disabled is None else ["disabled"]
        if role:
            wanted.role = role_number(role)
            paths.append("role")
        self._admin.UpdateOperator(operator_pb2.UpdateOperatorRequest(operator=wanted, update_mask={"paths": paths}))

    def rotate_operator(self, operator_id: str) -> str:
        """Give an operator another token."""
        return str(self._admin.RotateOperatorToken(operator_pb2.RotateOperatorTokenRequest(name=operator_id)).token)

    def delete_operator(self, operator_id: str) -> None:
        """Delete an operator."""
        self._admin.DeleteOperator(operator_pb2.DeleteOperatorRequest(name=operator_id))

    def set_open(self, service: str, *, open_: bool) -> None:
        """Let everybody call a service, or only those whom it is granted."""
        if open_:
            self._admin.OpenService(service_pb2.OpenServiceRequest(name=service))
        else:
            self._admin.CloseService(service_pb2.CloseServiceRequest(name=service))


def role_number(role: str) -> "access_pb2.Role.ValueType":
    """`viewer` as the API has it."""
    return access_pb2.Role.Value(f"ROLE_{role.upper()}")


# -- logins ------------------------------------------------------------------------------------------------------------


def sign(access_key: str, secret_key: str, timestamp: int, nonce: str) -> str:
    """The signature that IssueToken asks for, made as its description says."""
    text = f"modelhost-v1\n{access_key}\n{timestamp}\n{nonce}"
    return hmac.digest(secret_key.encode(), text.encode(), "sha256").hex()


def new_nonce() -> str:
    """A nonce that nobody has used."""
    return secrets.token_hex(16)


def signed(
    account: Account, *, timestamp: int | None = None, nonce: str | None = None
) -> predict_pb2.IssueTokenRequest:
    """A request for a token that an account has signed, now and with a new nonce if nothing else is said."""
    when = int(time.time()) if timestamp is None else timestamp
    once = new_nonce() if nonce is None else nonce
    return predict_pb2.IssueTokenRequest(
        access_key=account.access_key,
        timestamp=when,
        nonce=once,
        signature=sign(account.access_key, account.secret_key, when, once),
    )


def issue(channel: grpc.Channel, request: predict_pb2.IssueTokenRequest) -> str:
    """Ask for a token."""
    return str(predict_pb2_grpc.PredictStub(channel).IssueToken(request).token)


def login(channel: grpc.Channel, account: Account) -> str:
    """Get a token."""
    return issue(channel, signed(account))


# -- calls with credentials --------------------------------------------------------------------------------------------


def bearer(token: str | None) -> Metadata:
    """The metadata of a call with that token; none with None."""
    return [] if token is None else [("authorization", f"Bearer {token}")]


def predict(channel: grpc.Channel, service: str, token: str | None, parameters: Any = None) -> Any:
    """Call a model, the obedient one with nothing to do if nothing else is said."""
    request = predict_pb2.PredictRequest(
        service=service, parameters_json=json.dumps(do("nothing") if parameters is None else parameters)
    )
    answer = predict_pb2_grpc.PredictStub(channel).Predict(request, metadata=bearer(token))
    return json.loads(answer.result_json)


def describe(channel: grpc.Channel, service: str, token: str | None) -> predict_pb2.DescribeServiceResponse:
    """Ask what a service is."""
    request = predict_pb2.DescribeServiceRequest(service=service)
    return predict_pb2_grpc.PredictStub(channel).DescribeService(request, metadata=bearer(token))


def health(channel: grpc.Channel, service: str, token: str | None) -> int:
    """Ask how a service is."""
    request = health_pb2.HealthCheckRequest(service=service)
    return int(health_pb2_grpc.HealthStub(channel).Check(request, metadata=bearer(token)).status)


def health_watch(channel: grpc.Channel, service: str, token: str | None) -> Any:
    """Be told how a service is; cancel it."""
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Watch(request, metadata=bearer(token))


def methods_of(*services: ServiceDescriptor) -> dict[str, MethodDescriptor]:
    """Methods by their paths."""
    return {f"/{service.full_name}/{rpc.name}": rpc for service in services for rpc in service.methods}


def outcome(channel: grpc.Channel, service: str, token: str) -> str:
    """`OK`, or the reason for which a call of a model is refused."""
    return ended(lambda: predict(channel, service, token))


def listed(channel: grpc.Channel, token: str) -> str:
    """`OK`, or the reason for which an operator's call is refused."""
    request = deployment_pb2.ListDeploymentsRequest(page_size=1)
    return ended(lambda: admin_pb2_grpc.AdminStub(channel).ListDeployments(request, metadata=bearer(token)))


# -- what only the server itself can do --------------------------------------------------------------------------------


def signing_key(state_dir: Path) -> bytes:
    """The key that a server signs bearer tokens with."""
    return Vault.from_file(StateDir(state_dir).secret_key).derived(PURPOSE)


def claims_of(token: str) -> dict[str, Any]:
    """What is written in a bearer token."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def in_database(state_dir: Path, *statements: tuple[str, Iterable[Any]]) -> None:
    """Change what a server that is stopped has stored: times, so that tests need not wait."""
    connection = apsw.Connection(str(StateDir(state_dir).database))
    try:
        for statement, values in statements:
            connection.execute(statement, tuple(values))
    finally:
        with suppress(apsw.Error):
            connection.close()
