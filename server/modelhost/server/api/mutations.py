"""Changes: one transaction each, answered once per request id (https://google.aip.dev/155), recorded in the audit.

What was answered is kept sealed for a day: there may be secrets in it, which a repeat must get, too.
"""

import time
import uuid
from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar

from google.protobuf.message import Message

from modelhost.server.api.auditing import Auditor, Subject
from modelhost.server.api.call import Call
from modelhost.server.errors import Conflict, InvalidRequest
from modelhost.server.store import requests
from modelhost.server.store.database import Database, Transaction
from modelhost.server.store.requests import Answered
from modelhost.server.vault import Vault
from modelhost.v1.error_reason_pb2 import ErrorReason

M = TypeVar("M", bound=Message)


class _OnlyChecked(Exception):
    """Rolls a transaction back that was only to be tried."""

    def __init__(self, response: bytes) -> None:
        self.response = response


class Mutations:
    """Runs transactions that change something and make a response."""

    def __init__(self, database: Database, vault: Vault, auditor: Auditor) -> None:
        self._database = database
        self._vault = vault
        self._auditor = auditor

    async def run(
        self,
        call: Call,
        request: Any,
        kind: type[M],
        transaction: Callable[[Transaction], M],
        subject: Subject,
        *,
        validate_only: bool = False,
    ) -> M:
        """Run the transaction, or return what it answered before under the request's id. Raises `InvalidRequest`."""
        request_id = getattr(request, "request_id", "")  # requests of other people's protocols have none
        if request_id:
            _check_uuid(request_id)
        # Another operator's request is another one: an answer may hold a secret, which is its caller's alone.
        body = sha256(call.caller.name.encode() + b"\0" + _body(request)).digest() if request_id else b""

        def once(tx: Transaction) -> M:
            answered = requests.recall(tx, request_id) if request_id else None
            if answered is not None:
                return kind.FromString(self._answer(answered, call, request_id, body))
            before = subject.look(tx)
            response = transaction(tx)
            if validate_only:
                raise _OnlyChecked(response.SerializeToString())
            self._auditor.record(tx, call, subject.name, before, subject.look(tx))
            if request_id:
                sealed = self._vault.close_bytes(body + response.SerializeToString(), requests.purpose(request_id))
                requests.remember(tx, request_id, Answered(call.method, sealed), time.time())
            return response

        try:
            return await self._database.run(once)
        except _OnlyChecked as checked:
            return kind.FromString(checked.response)

    def _answer(self, answered: Answered, call: Call, request_id: str, body: bytes) -> bytes:
        try:
            opened = self._vault.open_bytes(answered.sealed, requests.purpose(request_id))
        except Conflict:  # under a key that is lost: nobody can say what it was
            opened = b""
        if answered.method != call.method or opened[: len(body)] != body:
            raise InvalidRequest(
                "request_id",
                "request_id {request_id} was used for another request",
                reason=ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
                request_id=request_id,
            )
        return opened[len(body) :]


def _check_uuid(text: str) -> None:
    try:
        uuid.UUID(text)
    except ValueError:
        raise InvalidRequest("request_id", "request_id must be a UUID, not {given}", given=repr(text[:80])) from None


def _body(request: Message) -> bytes:
    body = type(request)()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return body.SerializeToString(deterministic=True)
