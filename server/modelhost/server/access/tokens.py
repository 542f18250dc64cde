"""Bearer tokens of service accounts: signed, so that they are checked without asking anybody.

JSON Web Tokens (RFC 7519) with HMAC-SHA256 under a key that is derived from `secret.key`, so that those of another
server, and those from before a change of that key, are worth nothing. Which account and which of its secret keys a
token was got with is in it; whether these still work is looked up in memory on every call.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import jwt

ALGORITHM: Final = "HS256"
AUDIENCE: Final = "modelhost.v1.Predict"
PURPOSE: Final = b"bearer tokens"  # of the key that is derived
LONGEST = 1024  # characters


class BadToken(Exception):
    """It is none of ours, or was changed."""


class ExpiredToken(Exception):
    """It was one of ours, and its time is over."""


@dataclass(frozen=True)
class Claims:
    """What a token says. `expires` in seconds since the epoch."""

    account_uid: str
    key_id: str
    expires: float


class Tokens:
    """Issues and reads tokens. `key` returns the signing key as it is now; `lifetime` is in seconds."""

    def __init__(self, key: Callable[[], bytes], *, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._lifetime = lifetime
        self._clock = clock

    def issue(self, account_uid: str, key_id: str, most: float | None) -> tuple[str, float]:
        """A token and when it expires: after its lifetime, or at `most` if that is sooner."""
        now = self._clock()
        expires = int(now + self._lifetime if most is None else min(now + self._lifetime, most))
        claims = {
            "aud": AUDIENCE,
            "sub": account_uid,
            "key": key_id,
            "iat": int(now),
            "exp": expires,
            "jti": secrets.token_hex(8),
        }
        return jwt.encode(claims, self._key(), ALGORITHM), float(expires)

    def read(self, token: str) -> Claims:
        """What is in a token that this server has signed. Raises `BadToken`, `ExpiredToken`."""
        if len(token) > LONGEST:
            raise BadToken
        try:
            claims = jwt.decode(
                token,
                self._key(),
                algorithms=[ALGORITHM],  # never what the token itself says, which may be "none"
                audience=AUDIENCE,
                options={"require": ["exp", "sub", "iat"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, ValueError):
            raise BadToken from None
        match claims:
            case {"sub": str(account_uid), "key": str(key_id), "exp": int(expires), "iat": int()}:
                if expires <= self._clock():
                    raise ExpiredToken
                return Claims(account_uid, key_id, expires)
        raise BadToken
