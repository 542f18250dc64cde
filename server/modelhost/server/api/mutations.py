"""Changes: one transaction each, answered once per request id (https://google.aip.dev/155)."""

import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from modelhost.server.api.call import Call
from modelhost.server.errors import InvalidRequest
from modelhost.server.store import requests
from modelhost.server.store.database import Database, Transaction
from modelhost.server.store.requests import Answered
from modelhost.v1.error_reason_pb2 import ErrorReason

M = TypeVar("M", bound=Message)


class _OnlyChecked(Exception):
    """Rolls a transaction back that was only to be tried."""

    def __init__(self, response: bytes) -> None:
        self.response = response


class Mutations:
    """Runs transactions that change something and make a response."""

    def __init__(self, database: Database, fingerprint: Callable[[bytes], str]) -> None:
        """`fingerprint` tells bodies apart without giving away what they hold: there may be secrets in them."""
        self._database = database
        self._fingerprint = fingerprint

    async def run(
        self,
        call: Call,
        request: Any,
        kind: type[M],
        transaction: Callable[[Transaction], M],
        *,
        validate_only: bool = False,
    ) -> M:
        """Run the transaction, or return what it answered before under the request's id. Raises `InvalidRequest`."""
        request_id = request.request_id
        if request_id:
            _check_uuid(request_id)
        body = self._fingerprint(_body(request))

        def once(tx: Transaction) -> M:
            answered = requests.recall(tx, request_id) if request_id else None
            if answered is None:
                response = transaction(tx)
                if validate_only:
                    raise _OnlyChecked(response.SerializeToString())
                if request_id:
                    requests.remember(
                        tx, request_id, Answered(call.method, body, response.SerializeToString()), time.time()
                    )
                return response
            if (answered.method, answered.body) != (call.method, body):
                raise InvalidRequest(
                    "request_id",
                    "request_id {request_id} was used for another request",
                    reason=ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
                    request_id=request_id,
                )
            return kind.FromString(answered.response)

        try:
            return await self._database.run(once)
        except _OnlyChecked as checked:
            return kind.FromString(checked.response)


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
