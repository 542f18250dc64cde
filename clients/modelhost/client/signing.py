"""How an application proves who it is: with the keys of its service account, which never leave it.

The secret key signs a request for a bearer token; the server knows the key and signs the same. `predict.proto` says
what is signed.
"""

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass, field
from typing import Self

from modelhost.v1.predict_pb2 import IssueTokenRequest

ACCESS_KEY_VARIABLE = "MODELHOST_ACCESS_KEY"
SECRET_KEY_VARIABLE = "MODELHOST_SECRET_KEY"  # noqa: S105 - a name

_SCHEME = "modelhost-v1"


@dataclass(frozen=True)
class ServiceAccountKey:
    """The two keys of a service account, as `modelhost account create` shows them; the secret one is in no repr."""

    access_key: str
    secret_key: str = field(repr=False)

    def __post_init__(self) -> None:
        for name, value in (("access", self.access_key), ("secret", self.secret_key)):
            if not value or value != value.strip() or not value.isascii() or not value.isprintable():
                raise ValueError(f"the {name} key is no key: it is printable ASCII, without blanks around it")

    @classmethod
    def from_env(cls) -> Self:
        """Read MODELHOST_ACCESS_KEY and MODELHOST_SECRET_KEY; raises KeyError with the name of one that is missing."""
        return cls(os.environ[ACCESS_KEY_VARIABLE].strip(), os.environ[SECRET_KEY_VARIABLE].strip())


def signed_request(key: ServiceAccountKey) -> IssueTokenRequest:
    """Return a request for a token, signed now; it can be sent once, within five minutes."""
    timestamp, nonce = int(time.time()), secrets.token_urlsafe(24)
    return IssueTokenRequest(
        access_key=key.access_key, timestamp=timestamp, nonce=nonce, signature=signature(key, timestamp, nonce)
    )


def signature(key: ServiceAccountKey, timestamp: int, nonce: str) -> str:
    """Return what proves that whoever asks at this time, with this nonce, has the secret key."""
    text = "\n".join((_SCHEME, key.access_key, str(timestamp), nonce))
    return hmac.new(key.secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()
