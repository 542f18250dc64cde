"""Who calls, as it is stored: operators; service accounts, their keys, and what they were granted.

Times are seconds since the epoch. Resource ids are bare (`shop`, not `serviceAccounts/shop`); the API adds the
collections. Secrets are here only sealed by the vault, or as digests that lead nowhere.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

ANONYMOUS = "anonymous"
BUILT_IN_OPERATOR = "admin"  # whose token is the file in the state directory


class Role(IntEnum):
    """What an operator may do; each includes those before. The numbers are those of the API's `Role`."""

    VIEWER = 1
    DEPLOYER = 2
    ADMIN = 3


class CredentialKind(StrEnum):
    """What kind of key a credential is."""

    SECRET_KEY = "secret_key"  # signs to get bearer tokens; stored sealed  # noqa: S105 - a name
    API_KEY = "api_key"  # is itself the bearer token; stored as its digest


@dataclass(frozen=True)
class Credential:
    """A key of a service account. `sealed` is a secret key's, `digest` an API key's (SHA-256, hexadecimal)."""

    id: str
    account_uid: str
    kind: CredentialKind
    sealed: str
    digest: str
    description: str
    created: float
    expires: float | None
    last_used: float | None


@dataclass(frozen=True)
class ServiceAccount:
    """An application. `access_key` is public."""

    uid: str
    id: str
    description: str
    access_key: str
    disabled: bool
    version: int
    created: float
    updated: float


@dataclass(frozen=True)
class GrantLimits:
    """How much may be called; 0 is no limit. `rate` is calls per second, `burst` those that may come at once."""

    rate: float = 0.0
    burst: int = 0
    daily: int = 0
    concurrent: int = 0
    request_bytes: int = 0


@dataclass(frozen=True)
class Grant:
    """What an account may call. `day` is the day (since the epoch, UTC) that `used` calls were counted on."""

    account_uid: str
    deployment_uid: str
    limits: GrantLimits
    created: float
    updated: float
    day: int = 0
    used: int = 0


@dataclass(frozen=True)
class Operator:
    """Who looks after the server. `digest` is the token's SHA-256, hexadecimal."""

    uid: str
    id: str
    role: Role
    description: str
    digest: str
    disabled: bool
    version: int
    created: float
    updated: float
    token_created: float
    expires: float | None
    last_used: float | None


@dataclass(frozen=True)
class AuditEvent:
    """A change that an operator made. `before` and `after` are JSON of what is different, or empty."""

    number: int
    time: float
    operator: str
    method: str
    resource: str
    peer: str
    request_id: str
    before: str
    after: str
