"""Operators: whoever has the admin token, made at the server's first start."""

import hmac
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from modelhost.server.errors import Unauthenticated
from modelhost.server.private import read_or_make
from modelhost.v1.error_reason_pb2 import ErrorReason

TOKEN_PREFIX = "mha_"  # noqa: S105 - tells people and secret scanners what it is
SCHEME = "bearer "


class Operators:
    """Checks admin tokens. Keeps only the token's digest."""

    def __init__(self, token: str) -> None:
        self._digest = sha256(token.encode()).digest()

    @classmethod
    def from_file(cls, path: Path) -> "Operators":
        """Read the token, or make one, readable by the server's user alone.

        Raises `OSError`, and `ValueError` for a file without a token: with an empty one everybody would be let in.
        """
        token = read_or_make(path, lambda: TOKEN_PREFIX + secrets.token_urlsafe(32))
        if not token:
            raise ValueError(f"there is no token in {path}; remove the file to have one made")
        return cls(token)

    def check(self, metadata: Mapping[str, str | bytes]) -> None:
        """Raise `Unauthenticated` unless the metadata carries the token; the same words whatever is wrong."""
        value = metadata.get("authorization", "")
        text = value if isinstance(value, str) else ""
        given = text[len(SCHEME) :].strip() if text[: len(SCHEME)].lower() == SCHEME else ""
        if not hmac.compare_digest(sha256(given.encode("utf-8", "replace")).digest(), self._digest):
            raise Unauthenticated(
                ErrorReason.ERROR_REASON_UNAUTHENTICATED,
                "the call needs `authorization: Bearer <token>` metadata with a token that this server knows",
            )
