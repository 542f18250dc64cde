"""The gate: who a call is from, by its metadata. No SQL, no disk; a token that was seen before costs one look-up."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from modelhost.server.access.accounts import Accounts
from modelhost.server.access.callers import NOBODY, Caller, expired, unauthenticated
from modelhost.server.access.operators import LiveOperator, Operators, digest_of
from modelhost.server.access.tokens import BadToken, ExpiredToken, Tokens

API_KEY_PREFIX: Final = "mhk_"
SCHEME: Final = "bearer "
MOST_KNOWN = 10_000  # tokens that are remembered; then all are forgotten, and read anew


class Gate:
    """Knows callers by their credentials. On the event loop only."""

    def __init__(
        self, operators: Operators, accounts: Accounts, tokens: Tokens, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._operators = operators
        self._accounts = accounts
        self._tokens = tokens
        self._clock = clock
        self._known: dict[str | bytes, Caller] = {}

    def caller(self, metadata: Mapping[str, str | bytes]) -> Caller:
        """Who it is; `NOBODY` where there are no credentials at all.

        Raises `Unauthenticated` for those that are wrong: the same words whatever is wrong, but for those whose time is
        over.
        """
        header = metadata.get("authorization")
        if header is None:
            return NOBODY
        now = self._clock()
        caller = self._known.get(header)
        if caller is None or not caller.works(now):
            self._known.pop(header, None)
            caller = self._identify(header, now)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[header] = caller
        caller.used(now)
        return caller

    def forget(self) -> None:
        """Look at every token anew, as after a change of the key that signs them."""
        self._known.clear()

    def _identify(self, header: str | bytes, now: float) -> Caller:
        if not isinstance(header, str) or header[: len(SCHEME)].lower() != SCHEME:
            raise unauthenticated()
        token = header[len(SCHEME) :].strip()
        if (operator := self._operators.find(token)) is not None:
            return self._operator(operator, now)
        if token.startswith(API_KEY_PREFIX):
            return self._holder_of_api_key(token, now)
        return self._bearer(token, now)

    def _operator(self, operator: LiveOperator, now: float) -> Caller:
        if operator.disabled:
            raise unauthenticated()
        if not operator.works(now):
            raise expired()
        return Caller(operator.name, role=operator.role, key=operator)

    def _holder_of_api_key(self, token: str, now: float) -> Caller:
        key = self._accounts.with_api_key(digest_of(token))
        if key is None or key.account.disabled:
            raise unauthenticated()
        if not key.works(now):
            raise expired()
        return Caller(key.account.name, grants=key.account.grants, key=key)

    def _bearer(self, token: str, now: float) -> Caller:
        try:
            claims = self._tokens.read(token)
        except BadToken:
            raise unauthenticated() from None
        except ExpiredToken:
            raise expired() from None
        key = self._accounts.key(claims.account_uid, claims.key_id)
        if key is None or key.account.disabled:
            raise unauthenticated()
        if not key.works(now):
            raise expired()
        return Caller(key.account.name, grants=key.account.grants, key=key, ends=claims.expires)
