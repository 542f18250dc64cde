"""Operators, as calls find them: in memory, by the digest of their token.

One is always there: whoever has the token in the file of the state directory, made at the server's first start.
"""

import math
import secrets
from hashlib import sha256
from pathlib import Path

from modelhost.server.access.callers import USE_NOTED_SECONDS
from modelhost.server.access.uses import Use
from modelhost.server.identities import BUILT_IN_OPERATOR, Operator, Role
from modelhost.server.private import read_or_make
from modelhost.server.store import operators
from modelhost.server.store.database import Transaction

TOKEN_PREFIX = "mha_"  # noqa: S105 - tells people and secret scanners what it is


class LiveOperator:
    """An operator, and whether its token still works."""

    __slots__ = ("disabled", "expires", "name", "role", "token_created", "use")

    def __init__(self, operator_id: str, role: Role, token_created: float = 0.0) -> None:
        self.token_created = token_created
        self.name = f"operators/{operator_id}"
        self.role = role
        self.disabled = False
        self.expires = math.inf  # 0 once it is gone
        self.use = Use()

    def works(self, now: float) -> bool:
        """Whether it is let in."""
        return now < self.expires and not self.disabled

    def used(self, now: float) -> None:
        """It makes a call."""
        if now - self.use.last >= USE_NOTED_SECONDS:
            self.use.last = now


class Operators:
    """All operators. Keeps only digests of tokens. On the event loop only."""

    def __init__(self, token: str) -> None:
        self._by_digest = {digest_of(token): LiveOperator(BUILT_IN_OPERATOR, Role.ADMIN)}
        self._digests = {"": digest_of(token)}  # by uid; "" is the one who is always there

    @classmethod
    def from_file(cls, path: Path) -> "Operators":
        """Read the token of the one that is always there, or make it, readable by the server's user alone.

        Raises `OSError`, and `ValueError` for a file without a token: with an empty one everybody would be let in.
        """
        token = read_or_make(path, new_token)
        if not token:
            raise ValueError(f"there is no token in {path}; remove the file to have one made")
        return cls(token)

    def find(self, token: str) -> LiveOperator | None:
        """Whose token it is. A digest tells nothing of how near a wrong token is to a right one."""
        return self._by_digest.get(digest_of(token))

    def put(self, operator: Operator) -> None:
        """Let an operator in as it is now. Who was let in as it was before is looked at anew."""
        before = self._end(operator.uid)
        live = LiveOperator(operator.id, operator.role, operator.token_created)
        live.disabled = operator.disabled
        live.expires = math.inf if operator.expires is None else operator.expires
        if before is not None and before.token_created == operator.token_created:
            live.use = before.use
        self._digests[operator.uid] = operator.digest
        self._by_digest[operator.digest] = live

    def remove(self, uid: str) -> None:
        """Let it in no more."""
        self._end(uid)

    def _end(self, uid: str) -> LiveOperator | None:
        digest = self._digests.pop(uid, None)
        if digest is None:
            return None
        live = self._by_digest.pop(digest)
        live.expires = 0
        return live

    def last_used(self, uid: str) -> float | None:
        """When its token was last used since the start of the server. From any thread."""
        live = self._by_digest.get(self._digests.get(uid, ""))
        return (live.use.last or None) if live else None

    def load(self, tx: Transaction) -> list[Operator]:
        """All that are stored, for `put`."""
        return operators.page(tx, "", -1)

    def uses(self) -> dict[str, Use]:
        """When each was last used, by uid."""
        return {uid: self._by_digest[digest].use for uid, digest in self._digests.items()}


def new_token() -> str:
    """A token that nobody can guess."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    """What is kept of a token or an API key: 256 bits that were drawn at random need no salt."""
    return sha256(token.encode("utf-8", "replace")).hexdigest()
