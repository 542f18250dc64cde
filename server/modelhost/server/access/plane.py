"""Everything of access, built: who may call what, how often, and what was used of it."""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from modelhost.server.access.account_commands import AccountCommands
from modelhost.server.access.accounts import Accounts
from modelhost.server.access.expiry import ExpiryCheck
from modelhost.server.access.gate import Gate
from modelhost.server.access.issuing import Issuer
from modelhost.server.access.ledger import Keeper
from modelhost.server.access.limits import Quotas
from modelhost.server.access.operator_commands import OperatorCommands
from modelhost.server.access.operators import Operators
from modelhost.server.access.tokens import PURPOSE, Tokens
from modelhost.server.access.usage import UsageRecorder
from modelhost.server.access.uses import Uses
from modelhost.server.store.database import Database
from modelhost.server.vault import Vault


class AccessPlane:
    """`start`, then the chores, then `close`. `changed` is called when somebody may be let in no more, or elsewhere.

    `admin_token` is the file of the operator who is always there; `token_lifetime` is in seconds. Raises `OSError`,
    `ValueError`.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        *,
        admin_token: Path,
        token_lifetime: float,
        changed: Callable[[], None],
    ) -> None:
        self._database = database
        self._changed = changed
        self._operators = operators = Operators.from_file(admin_token)
        self._accounts = accounts = Accounts()
        tokens = Tokens(lambda: vault.derived(PURPOSE), lifetime=token_lifetime)
        self.gate = Gate(operators, accounts, tokens)
        self.issuer = Issuer(database, accounts, tokens, vault)
        self.account_commands = AccountCommands(accounts, vault, changed)
        self.operator_commands = OperatorCommands(operators, changed)
        self.usage = UsageRecorder()
        ledgers = (self.usage, Quotas(accounts.grants), Uses(accounts.uses, operators.uses))
        self._keeper = Keeper(database, ledgers)

    async def start(self) -> None:
        """Know everybody who is stored, before anybody calls."""
        for account in await self._database.run(self._accounts.load):
            self._accounts.put(account)
        for operator in await self._database.run(self._operators.load):
            self._operators.put(operator)

    def chores(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What is to run until it is cancelled."""
        return self._keeper.run(), ExpiryCheck(self._database).run()

    async def close(self) -> None:
        """Store what was counted last, once no call is under way any more."""
        await self._keeper.close()

    def key_changed(self) -> None:
        """The vault has another key: the tokens that were signed before are worth nothing."""
        self.gate.forget()
        self._changed()

    def forget_service(self, deployment_uid: str) -> None:
        """A deployment is no more."""
        self._accounts.forget_service(deployment_uid)
