"""The record of every change: who made it, to what, from where, and what is different since."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from modelhost.server.api.call import Call
from modelhost.server.identities import AuditEvent
from modelhost.server.store import audit
from modelhost.server.store.database import Transaction

_NO_NEWS = ("updateTime", "observed", "lastUseTime", "warnings")  # differ at every moment, or after every change


@dataclass(frozen=True)
class Subject:
    """What a change is made to: its resource name, and how it is seen, without secrets; None where it is not there."""

    name: str
    look: Callable[[Transaction], Message | None]


class Auditor:
    """Stores events with the changes that they are of, and has `tell` called with each once it is on disk."""

    def __init__(self, tell: Callable[[AuditEvent], None], *, clock: Callable[[], float] = time.time) -> None:
        self._tell = tell
        self._clock = clock

    def record(self, tx: Transaction, call: Call, resource: str, before: Message | None, after: Message | None) -> None:
        """Store an event, in the transaction of its change."""
        is_change = before is not None and after is not None
        earlier, later = _plain(before, whole=is_change), _plain(after, whole=is_change)
        if earlier is not None and later is not None:
            earlier, later = difference(earlier, later)
        event = audit.insert(
            tx,
            AuditEvent(
                number=0,
                time=round(self._clock() * 1000) / 1000,  # as the API has it: events are asked for by their times
                operator=call.caller.name,
                method=call.method.lstrip("/"),
                resource=resource,
                peer=" as ".join((call.peer, *call.identities[:1])),
                request_id=call.request_id,
                before=_json(earlier),
                after=_json(later),
            ),
        )
        tx.after_commit(lambda: self._tell(event))


def difference(before: dict[str, Any], after: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of two objects, what is in one of them alone or differs, at any depth of objects; lists are taken whole."""
    earlier, later = {}, {}
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            old, new = difference(old, new)
        if name in before:
            earlier[name] = old
        if name in after:
            later[name] = new
    return earlier, later


def _plain(message: Message | None, *, whole: bool) -> dict[str, Any] | None:
    """A resource as JSON has it; the `whole` of it with what is not set, so that what was set or unset is seen."""
    if message is None:
        return None
    plain: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=whole)
    return {name: value for name, value in plain.items() if name not in _NO_NEWS}


def _json(plain: dict[str, Any] | None) -> str:
    if plain is None:
        return ""
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
