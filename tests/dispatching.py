"""A dispatcher without a server around it: of one method, where nobody is known but whoever has the admin token."""

import asyncio
from collections.abc import Mapping
from typing import Any

from modelhost.server.access.accounts import Accounts
from modelhost.server.access.gate import Gate
from modelhost.server.access.operators import Operators
from modelhost.server.access.tokens import Tokens
from modelhost.server.api.methods import Dispatcher, Observer
from modelhost.server.control.changes import ACCESS, Changes

ADMIN_TOKEN = "mha_token"


def dispatcher_of(
    method: Any,
    observers: Mapping[str, Observer],
    operators: Operators | None = None,
    *,
    changes: Changes | None = None,
    stopping: asyncio.Event | None = None,
) -> Dispatcher:
    changes = changes or Changes()
    return Dispatcher(
        [method],
        Gate(operators or Operators(ADMIN_TOKEN), Accounts(), Tokens(lambda: b"k" * 32, lifetime=60.0)),
        stopping or asyncio.Event(),
        observers,
        lets_anonymous_in=lambda: False,
        watch_access=lambda: changes.watch(ACCESS),
    )
