"""What the fake server knows of access: accounts with keys, tokens, grants, operators, the audit and usage."""

import hashlib
import hmac
import time
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from modelhost.v1.access_pb2 import ROLE_VIEWER
from modelhost.v1.audit_pb2 import AuditEvent, ListAuditEventsResponse
from modelhost.v1.operator_pb2 import (
    DeleteOperatorResponse,
    ListOperatorsResponse,
    Operator,
    RotateSecretKeyResponse,
)
from modelhost.v1.predict_pb2 import IssueTokenResponse
from modelhost.v1.service_account_pb2 import (
    ApiKey,
    DeleteApiKeyResponse,
    DeleteServiceAccountResponse,
    Grant,
    GrantLimits,
    ListGrantsResponse,
    ListServiceAccountsResponse,
    RevokeServiceResponse,
    SecretKey,
    ServiceAccount,
)
from modelhost.v1.service_pb2 import ListServicesResponse, Service
from modelhost.v1.usage_pb2 import ServiceUsage
from tests.unit.client.fake_answers import Code, abort, last_part, page

NOW = 1_795_860_000  # 2026-11-28 10:00:00 UTC
DAY = 24 * 3600


class FakeAccess:
    """A part of `FakeServer`."""

    deployments: dict[str, Any]

    def __init__(self) -> None:
        self.accounts: dict[str, ServiceAccount] = {}
        self.secrets: dict[str, str] = {}
        """Secret keys by access key."""
        self.grants: dict[tuple[str, str], Grant] = {}
        self.operators: dict[str, Operator] = {}
        self.events: list[AuditEvent] = []
        self.open_services: set[str] = set()
        self.usage = ServiceUsage(service="services/svc-churn", deployment="deployments/churn")
        self.tokens: set[str] = set()
        """Those of service accounts that work."""
        self.life = 7200.0
        """How long a token lives, in seconds."""
        self.nonces: set[str] = set()

    def add_account(self, name: str, **fields: Any) -> ServiceAccount:
        """Have an account there, whose secret key is `secret of NAME`."""
        account = ServiceAccount(
            name=f"serviceAccounts/{name}",
            access_key=f"ak-{name}",
            secret_keys=[SecretKey(id="1", create_time=Timestamp(seconds=NOW - DAY))],
            create_time=Timestamp(seconds=NOW - DAY),
            **fields,
        )
        self.accounts[name] = account
        self.secrets[account.access_key] = f"secret-of-{name}"
        return account

    def add_operator(self, name: str, **fields: Any) -> Operator:
        """Have an operator there."""
        fields = {"role": ROLE_VIEWER, "create_time": Timestamp(seconds=NOW), **fields}
        self.operators[name] = Operator(name=f"operators/{name}", **fields)
        return self.operators[name]

    def add_grant(self, account: str, deployment: str, **limits: Any) -> Grant:
        """Have a grant there."""
        grant = Grant(
            name=f"serviceAccounts/{account}/grants/svc-{deployment}",
            service_account=f"serviceAccounts/{account}",
            service=f"services/svc-{deployment}",
            deployment=f"deployments/{deployment}",
            limits=GrantLimits(**limits),
            requests_today=17,
            create_time=Timestamp(seconds=NOW),
        )
        self.grants[account, f"svc-{deployment}"] = grant
        return grant

    # Accounts

    def CreateServiceAccount(self, request, context):
        name = request.service_account_id
        account = self.add_account(name, description=request.service_account.description)
        self._set_end(account.secret_keys[0], request, "secret_lifetime")
        return _with(account, secret_key=self.secrets[account.access_key])

    def GetServiceAccount(self, request, context):
        return self._account(request.name, context)

    def ListServiceAccounts(self, request, context):
        return page(ListServiceAccountsResponse, "service_accounts", list(self.accounts.values()), request)

    def UpdateServiceAccount(self, request, context):
        account = self._account(request.service_account.name, context)
        for path in request.update_mask.paths:
            setattr(account, path, getattr(request.service_account, path))
        return account

    def DeleteServiceAccount(self, request, context):
        del self.accounts[last_part(self._account(request.name, context).name)]
        return DeleteServiceAccountResponse()

    def RotateServiceAccountSecret(self, request, context):
        account = self._account(request.name, context)
        overlap = request.overlap if request.HasField("overlap") else Duration(seconds=DAY)
        former = list(account.secret_keys) if overlap.seconds else []
        for key in former:
            key.expire_time.FromSeconds(NOW + overlap.seconds)
        new = SecretKey(id=str(len(account.secret_keys) + 1), create_time=Timestamp(seconds=NOW))
        self._set_end(new, request, "secret_lifetime")
        del account.secret_keys[:]
        account.secret_keys.extend([new, *former])
        self.secrets[account.access_key] += "-rotated"
        return _with(account, secret_key=self.secrets[account.access_key])

    def CreateApiKey(self, request, context):
        account = self._account(request.service_account, context)
        name = f"{account.name}/apiKeys/{len(account.api_keys) + 1}"
        key = ApiKey(name=name, description=request.description, create_time=Timestamp(seconds=NOW))
        self._set_end(key, request, "lifetime")
        account.api_keys.insert(0, key)
        return _with(key, key=f"key-of-{last_part(account.name)}")

    def DeleteApiKey(self, request, context):
        account = self._account(request.name.rpartition("/apiKeys/")[0], context)
        kept = [key for key in account.api_keys if key.name != request.name]
        if len(kept) == len(account.api_keys):
            abort(context, Code.NOT_FOUND, f"there is no API key {request.name}", "API_KEY_NOT_FOUND")
        del account.api_keys[:]
        account.api_keys.extend(kept)
        return DeleteApiKeyResponse()

    def _account(self, name: str, context: grpc.ServicerContext) -> ServiceAccount:
        if last_part(name) not in self.accounts:
            text = f"there is no service account {last_part(name)}"
            abort(context, Code.NOT_FOUND, text, "SERVICE_ACCOUNT_NOT_FOUND")
        return self.accounts[last_part(name)]

    @staticmethod
    def _set_end(key: Any, request: Any, field: str) -> None:
        if request.HasField(field):
            key.expire_time.FromSeconds(NOW + getattr(request, field).seconds)

    def IssueToken(self, request, context):
        secret = self.secrets.get(request.access_key, "")
        text = f"modelhost-v1\n{request.access_key}\n{request.timestamp}\n{request.nonce}"
        right = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        account = next((a for a in self.accounts.values() if a.access_key == request.access_key), None)
        if request.signature != right or request.nonce in self.nonces or not account or account.disabled:
            abort(context, Code.UNAUTHENTICATED, "credentials are missing or unknown", "UNAUTHENTICATED")
        self.nonces.add(request.nonce)
        token = f"token-{len(self.nonces)}-of-{last_part(account.name)}"
        self.tokens.add(token)
        end = Timestamp()
        end.FromNanoseconds(time.time_ns() + int(self.life * 1e9))
        return IssueTokenResponse(token=token, expire_time=end)

    # Grants and services

    def GrantService(self, request, context):
        account, service = self._account(request.service_account, context), self._service(request.service, context)
        grant = self.add_grant(last_part(account.name), last_part(service.deployment))
        grant.limits.CopyFrom(request.limits)
        return grant

    def RevokeService(self, request, context):
        account, service = self._account(request.service_account, context), self._service(request.service, context)
        key = last_part(account.name), last_part(service.name)
        if key not in self.grants:
            abort(context, Code.NOT_FOUND, f"{key[0]} was not granted {key[1]}", "GRANT_NOT_FOUND")
        del self.grants[key]
        return RevokeServiceResponse()

    def ListGrants(self, request, context):
        services = {name: service.name for name, service in self._services().items()}
        found = [
            grant
            for grant in self.grants.values()
            if last_part(request.service_account) in {"", last_part(grant.service_account)}
            and services.get(request.service, request.service) in {"", grant.service, last_part(grant.service)}
        ]
        return page(ListGrantsResponse, "grants", found, request)

    def _services(self) -> dict[str, Service]:
        return {
            name: Service(
                name=deployment.service,
                deployment=deployment.name,
                serving=bool(deployment.active_revision),
                revision=deployment.active_revision,
                open=deployment.service in self.open_services,
                create_time=Timestamp(seconds=NOW),
            )
            for name, deployment in self.deployments.items()
        }

    def _service(self, name: str, context: grpc.ServicerContext) -> Service:
        services = self._services()
        for deployment, service in services.items():
            if name in {deployment, service.name, last_part(service.name)}:
                return service
        abort(context, Code.NOT_FOUND, f"there is no prediction service {name}", "SERVICE_NOT_FOUND")
        raise AssertionError

    def GetService(self, request, context):
        if request.name in self.deployments:
            abort(context, Code.NOT_FOUND, f"there is no prediction service {request.name}", "SERVICE_NOT_FOUND")
        return self._service(request.name, context)

    def ListServices(self, request, context):
        return page(ListServicesResponse, "services", list(self._services().values()), request)

    def OpenService(self, request, context):
        self.open_services.add(self._service(request.name, context).name)
        return self._service(request.name, context)

    def CloseService(self, request, context):
        self.open_services.discard(self._service(request.name, context).name)
        return self._service(request.name, context)

    def GetServiceUsage(self, request, context):
        return self.usage

    # Operators

    def CreateOperator(self, request, context):
        wanted = request.operator
        operator = self.add_operator(request.operator_id, role=wanted.role, description=wanted.description)
        operator.token_create_time.FromSeconds(NOW)
        self._set_end(operator, request, "token_lifetime")
        return _with(operator, token=f"token-of-{request.operator_id}")

    def GetOperator(self, request, context):
        return self._operator(request.name, context)

    def ListOperators(self, request, context):
        return page(ListOperatorsResponse, "operators", list(self.operators.values()), request)

    def UpdateOperator(self, request, context):
        operator = self._operator(request.operator.name, context)
        for path in request.update_mask.paths:
            setattr(operator, path, getattr(request.operator, path))
        return operator

    def RotateOperatorToken(self, request, context):
        operator = self._operator(request.name, context)
        self._set_end(operator, request, "token_lifetime")
        return _with(operator, token="another-token")

    def DeleteOperator(self, request, context):
        del self.operators[last_part(self._operator(request.name, context).name)]
        return DeleteOperatorResponse()

    def _operator(self, name: str, context: grpc.ServicerContext) -> Operator:
        if last_part(name) not in self.operators:
            abort(context, Code.NOT_FOUND, f"there is no operator {last_part(name)}", "OPERATOR_NOT_FOUND")
        return self.operators[last_part(name)]

    def ListAuditEvents(self, request, context):
        return page(ListAuditEventsResponse, "audit_events", self.events[::-1], request)

    def RotateSecretKey(self, request, context):
        return RotateSecretKeyResponse(resealed=5)


def _with(message: Any, **fields: str) -> Any:
    """Return a copy that has a secret besides."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy
