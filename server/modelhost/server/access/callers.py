"""Who a call is from. `Caller.works` is asked on every call, and answers from memory."""

import math
from collections.abc import Mapping
from typing import Final, Protocol

from modelhost.server.access.limits import LiveGrant
from modelhost.server.errors import Forbidden, Unauthenticated
from modelhost.server.identities import ANONYMOUS, Role
from modelhost.v1.error_reason_pb2 import ErrorReason

USE_NOTED_SECONDS = 5.0  # between two notes of the same key's use


class Key(Protocol):
    """What a caller was let in with, and may be taken from it at any moment."""

    @property
    def expires(self) -> float:
        """When it ends, if nothing happens before; in seconds since the epoch."""

    def works(self, now: float) -> bool:
        """Whether it still lets anybody in."""

    def used(self, now: float) -> None:
        """It has let somebody in."""


class Caller:
    """Who a call is from. `name` is a resource name, or `anonymous`; `role` is an operator's, None for others.

    `ends` is when it has to come with another token, in seconds since the epoch.
    """

    __slots__ = ("_key", "ends", "grants", "name", "role")

    def __init__(
        self,
        name: str,
        *,
        role: Role | None = None,
        grants: Mapping[str, LiveGrant] | None = None,
        key: Key | None = None,
        ends: float = math.inf,
    ) -> None:
        self.name = name
        self.role = role
        self.grants: Mapping[str, LiveGrant] = {} if grants is None else grants  # by deployment uid, as they are now
        self.ends = ends
        self._key = key

    @property
    def is_anonymous(self) -> bool:
        """Whether it came without any credentials."""
        return self._key is None

    def seconds_left(self, now: float) -> float | None:
        """For how long it is let in, if nothing happens before; None for ever."""
        ends = self.ends if self._key is None else min(self.ends, self._key.expires)
        return None if math.isinf(ends) else max(0.0, ends - now)

    def works(self, now: float) -> bool:
        """Whether it is still let in."""
        return now < self.ends and self._key is not None and self._key.works(now)

    def used(self, now: float) -> None:
        """It makes a call."""
        if self._key is not None:
            self._key.used(now)

    def require(self, needed: Role, method: str) -> None:
        """Raise `Forbidden` ROLE_REQUIRED unless it is an operator with that role."""
        if self.role is None:
            raise Forbidden(
                ErrorReason.ERROR_REASON_ROLE_REQUIRED,
                "{caller} is no operator, and {method} needs one with the role {needed}",
                caller=self.name,
                method=method,
                needed=needed.name.lower(),
            )
        if self.role < needed:
            raise Forbidden(
                ErrorReason.ERROR_REASON_ROLE_REQUIRED,
                "{caller} has the role {role}, and {method} needs {needed}",
                caller=self.name,
                role=self.role.name.lower(),
                method=method,
                needed=needed.name.lower(),
            )


NOBODY: Final = Caller(ANONYMOUS)


def unauthenticated() -> Unauthenticated:
    """The refusal of a call: the same words whatever is wrong."""
    return Unauthenticated(
        ErrorReason.ERROR_REASON_UNAUTHENTICATED,
        "the call needs `authorization: Bearer <token>` metadata with a token that this server knows",
    )


def expired() -> Unauthenticated:
    """The refusal of a token that this server has issued, and whose time is over."""
    return Unauthenticated(
        ErrorReason.ERROR_REASON_TOKEN_EXPIRED, "the token, or the key that it was got with, has expired; get another"
    )
