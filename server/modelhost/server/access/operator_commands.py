"""What operators wish of operators: each is one function of one transaction, in force once that is on disk."""

import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from modelhost.server.access.operators import Operators, digest_of, new_token
from modelhost.server.errors import AlreadyExists, Conflict, NotFound
from modelhost.server.identities import BUILT_IN_OPERATOR, Operator, Role
from modelhost.server.store import operators
from modelhost.server.store.database import Transaction
from modelhost.v1.error_reason_pb2 import ErrorReason


class OperatorCommands:
    """The commands. `changed` is called once a change is in force."""

    def __init__(self, live: Operators, changed: Callable[[], None], *, clock: Callable[[], float] = time.time) -> None:
        self._live = live
        self._changed = changed
        self._clock = clock

    def find(self, tx: Transaction, operator_id: str) -> Operator:
        """The operator of that id. Raises `NotFound` OPERATOR_NOT_FOUND."""
        found = operators.get(tx, operator_id)
        if found is None and operator_id == BUILT_IN_OPERATOR:
            return self.built_in()
        if found is None:
            raise NotFound(
                ErrorReason.ERROR_REASON_OPERATOR_NOT_FOUND,
                "there is no operator {operator}; `modelhost operator list` shows those there are",
                operator=operator_id,
            )
        return replace(found, last_used=self._live.last_used(found.uid) or found.last_used)

    def built_in(self) -> Operator:
        """Whoever has the server's admin.token. Of its use no more is known than since the start of the server."""
        return Operator(
            uid="",
            id=BUILT_IN_OPERATOR,
            role=Role.ADMIN,
            description="whoever has the server's admin.token",
            digest="",
            disabled=False,
            version=0,
            created=0.0,
            updated=0.0,
            token_created=0.0,
            expires=None,
            last_used=self._live.last_used(""),
        )

    def find_changeable(self, tx: Transaction, operator_id: str) -> Operator:
        """The operator of that id, for a change of it. Raises also `Conflict` for the one who is always there."""
        if operator_id == BUILT_IN_OPERATOR:
            raise Conflict(
                ErrorReason.ERROR_REASON_STATE_CONFLICT,
                "{operator} is whoever has the server's admin.token, and cannot be changed here",
                hint="Remove the file and restart the server to have another token made.",
                operator=operator_id,
            )
        return self.find(tx, operator_id)

    def create(
        self, tx: Transaction, operator_id: str, *, role: Role, description: str, disabled: bool, lifetime: float | None
    ) -> tuple[Operator, str]:
        """Store a new operator; returns its token, too. Raises `AlreadyExists`."""
        if operators.get(tx, operator_id):
            raise AlreadyExists(
                ErrorReason.ERROR_REASON_OPERATOR_EXISTS,
                "an operator {operator} exists already; `modelhost operator rotate {operator}` gives it a new token",
                operator=operator_id,
            )
        now = self._clock()
        token = new_token()
        operator = Operator(
            uid=uuid.uuid4().hex,
            id=operator_id,
            role=role,
            description=description,
            digest=digest_of(token),
            disabled=disabled,
            version=1,
            created=now,
            updated=now,
            token_created=now,
            expires=None if lifetime is None else now + lifetime,
            last_used=None,
        )
        operators.insert(tx, operator)
        self._put(tx, operator)
        return operator, token

    def update(self, tx: Transaction, operator: Operator) -> Operator:
        """Store new values of an operator: `role`, `description`, `disabled`."""
        return self._put(tx, operators.save(tx, operator, self._clock()))

    def rotate(self, tx: Transaction, operator: Operator, lifetime: float | None) -> tuple[Operator, str]:
        """Make a new token in place of the one there is."""
        now, token = self._clock(), new_token()
        changed = replace(
            operator,
            digest=digest_of(token),
            token_created=now,
            expires=None if lifetime is None else now + lifetime,
            last_used=None,
        )
        return self._put(tx, operators.save(tx, changed, now)), token

    def delete(self, tx: Transaction, operator: Operator) -> None:
        """Forget an operator."""
        operators.delete(tx, operator.uid)

        def act() -> None:
            self._live.remove(operator.uid)
            self._changed()

        tx.after_commit(act)

    def _put(self, tx: Transaction, operator: Operator) -> Operator:
        """Have it in force once it is on disk."""

        def act() -> None:
            self._live.put(operator)
            self._changed()

        tx.after_commit(act)
        return operator
