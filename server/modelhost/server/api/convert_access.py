"""Between stored values of who calls and messages of the public API. No secret is ever in what comes of these."""

import math

from google.protobuf.duration_pb2 import Duration

from modelhost.server.access import expiry
from modelhost.server.access.account_commands import Found
from modelhost.server.api import names
from modelhost.server.api.convert import timestamp
from modelhost.server.errors import InvalidRequest
from modelhost.server.identities import AuditEvent, Credential, CredentialKind, Grant, GrantLimits, Operator, Role
from modelhost.v1 import audit_pb2, operator_pb2, service_account_pb2

SHORTEST_LIFETIME = 60.0  # seconds
LONGEST_LIFETIME = 10 * 366 * 86_400.0
MOST_CALLS = 1_000_000
SLOWEST_RATE = 0.001  # calls per second


def account(found: Found, now: float) -> service_account_pb2.ServiceAccount:
    """An account with its keys."""
    value = found.account
    keys = {kind: [each for each in found.credentials if each.kind is kind] for kind in CredentialKind}
    used = [each.last_used for each in found.credentials if each.last_used]
    return service_account_pb2.ServiceAccount(
        name=names.join(names.ACCOUNTS, value.id),
        description=value.description,
        access_key=value.access_key,
        secret_keys=[_secret_key(each) for each in keys[CredentialKind.SECRET_KEY]],
        api_keys=[api_key(value.id, each) for each in keys[CredentialKind.API_KEY]],
        disabled=value.disabled,
        create_time=timestamp(value.created),
        update_time=timestamp(value.updated),
        last_use_time=timestamp(max(used, default=None)),
        etag=str(value.version),
        warnings=expiry.of_keys(found.credentials, now),
    )


def _secret_key(value: Credential) -> service_account_pb2.SecretKey:
    return service_account_pb2.SecretKey(
        id=value.id,
        create_time=timestamp(value.created),
        expire_time=timestamp(value.expires),
        last_use_time=timestamp(value.last_used),
    )


def api_key(account_id: str, value: Credential) -> service_account_pb2.ApiKey:
    """An API key without its value."""
    return service_account_pb2.ApiKey(
        name=f"{names.ACCOUNTS}/{account_id}/{names.API_KEYS}/{value.id}",
        description=value.description,
        create_time=timestamp(value.created),
        expire_time=timestamp(value.expires),
        last_use_time=timestamp(value.last_used),
    )


def grant(value: Grant, account_id: str, service_id: str, deployment_id: str, used: int) -> service_account_pb2.Grant:
    """A grant; `used` is how many calls counted today."""
    limits = value.limits
    return service_account_pb2.Grant(
        name=grant_name(account_id, service_id),
        service_account=names.join(names.ACCOUNTS, account_id),
        service=names.join(names.SERVICES, service_id),
        deployment=names.join(names.DEPLOYMENTS, deployment_id),
        limits=service_account_pb2.GrantLimits(
            requests_per_second=limits.rate,
            burst=limits.burst,
            requests_per_day=limits.daily,
            concurrent_calls=limits.concurrent,
            request_bytes=limits.request_bytes,
        ),
        requests_today=used,
        create_time=timestamp(value.created),
        update_time=timestamp(value.updated),
    )


def grant_name(account_id: str, service_id: str) -> str:
    """`serviceAccounts/shop/grants/svc-1a2b`."""
    return f"{names.ACCOUNTS}/{account_id}/{names.GRANTS}/{service_id}"


def limits_from(message: service_account_pb2.GrantLimits) -> GrantLimits:
    """Limits of a grant. Raises `InvalidRequest`."""
    rate = message.requests_per_second
    if rate != 0 and not (math.isfinite(rate) and SLOWEST_RATE <= rate <= MOST_CALLS):
        raise InvalidRequest(
            "limits.requests_per_second",
            "{field} must be 0 for no limit, or {least} to {most} calls per second, not {rate}",
            least=SLOWEST_RATE, most=MOST_CALLS, rate=rate,
        )  # fmt: skip
    for name, most in (
        ("burst", MOST_CALLS),
        ("requests_per_day", 2**53),
        ("concurrent_calls", MOST_CALLS),
        ("request_bytes", 2**53),
    ):
        value = getattr(message, name)
        if not 0 <= value <= most:
            raise InvalidRequest(
                f"limits.{name}", "{field} must be 0 for no limit, or 1 to {most}, not {value}", most=most, value=value
            )
    if message.burst and not rate:
        raise InvalidRequest("limits.burst", "{field} belongs to requests_per_second, which is not set")
    return GrantLimits(
        rate=rate,
        burst=message.burst,
        daily=message.requests_per_day,
        concurrent=message.concurrent_calls,
        request_bytes=message.request_bytes,
    )


def operator(value: Operator, now: float) -> operator_pb2.Operator:
    """An operator without its token."""
    return operator_pb2.Operator(
        name=names.join(names.OPERATORS, value.id),
        role=int(value.role),  # type: ignore[arg-type]  # the same numbers
        description=value.description,
        disabled=value.disabled,
        create_time=timestamp(value.created or None),
        update_time=timestamp(value.updated or None),
        token_create_time=timestamp(value.token_created or None),
        expire_time=timestamp(value.expires),
        last_use_time=timestamp(value.last_used),
        etag=str(value.version),
        warnings=expiry.of_operator(value, now),
    )


def role_from(number: int, field: str) -> Role:
    """A role. Raises `InvalidRequest`."""
    try:
        return Role(number)
    except ValueError:
        raise InvalidRequest(
            field, "{field} must be one of {roles}", roles=", ".join(f"ROLE_{r.name}" for r in Role)
        ) from None


def audit_event(value: AuditEvent) -> audit_pb2.AuditEvent:
    """A change that was made."""
    return audit_pb2.AuditEvent(
        name=f"{names.AUDIT_EVENTS}/{value.number}",
        time=timestamp(value.time),
        operator=value.operator,
        method=value.method,
        resource=value.resource,
        peer=value.peer,
        request_id=value.request_id,
        before_json=value.before,
        after_json=value.after,
    )


def lifetime_from(message: Duration, *, given: bool, field: str) -> float | None:
    """How many seconds a key or token works; None for no end. Raises `InvalidRequest`."""
    if not given:
        return None
    seconds = seconds_from(message, field)
    if not SHORTEST_LIFETIME <= seconds <= LONGEST_LIFETIME:
        raise InvalidRequest(field, "{field} must be one minute to ten years, not {seconds} s", seconds=f"{seconds:g}")
    return seconds


def seconds_from(message: Duration, field: str) -> float:
    """A duration in seconds. Raises `InvalidRequest` for one that is none."""
    try:
        return message.ToMilliseconds() / 1000
    except (ValueError, OverflowError):
        raise InvalidRequest(field, "{field} is no duration") from None
