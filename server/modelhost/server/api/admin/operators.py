"""Operators, what they have changed, and the key that everything is sealed with."""

import time
from dataclasses import replace

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from modelhost.server.access.operator_commands import OperatorCommands
from modelhost.server.api import convert_access, masks, names, paging
from modelhost.server.api.admin.accounts import check_description
from modelhost.server.api.auditing import Subject
from modelhost.server.api.call import Call
from modelhost.server.api.mutations import Mutations
from modelhost.server.control.deployments import check_etag
from modelhost.server.errors import InvalidRequest
from modelhost.server.identities import BUILT_IN_OPERATOR, Operator
from modelhost.server.rekeying import Rekeying
from modelhost.server.store import audit, operators
from modelhost.server.store.audit import AuditFilter
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import audit_pb2
from modelhost.v1 import operator_pb2 as pb

DESCRIPTION_LIMIT = 500
MUTABLE = ("role", "description", "disabled")


class OperatorMethods:
    """Handlers of the Operator and AuditEvent methods."""

    def __init__(
        self, database: Database, commands: OperatorCommands, mutations: Mutations, rekeying: Rekeying
    ) -> None:
        self._database = database
        self._commands = commands
        self._mutations = mutations
        self._rekeying = rekeying

    async def create_operator(self, call: Call, request: pb.CreateOperatorRequest) -> pb.Operator:
        """Create one."""
        operator_id, wanted = request.operator_id, request.operator
        names.check_new_id(operator_id, "operator_id")
        if operator_id == BUILT_IN_OPERATOR:
            raise InvalidRequest("operator_id", "{given} is whoever has the server's admin.token", given=operator_id)
        check_description(wanted.description, "operator.description", DESCRIPTION_LIMIT)
        role = convert_access.role_from(wanted.role, "operator.role")
        lifetime = _lifetime(request)

        def create(tx: Transaction) -> pb.Operator:
            return _with_token(
                *self._commands.create(
                    tx, operator_id, role=role, description=wanted.description, disabled=wanted.disabled,
                    lifetime=lifetime,
                )
            )  # fmt: skip

        return await self._mutations.run(call, request, pb.Operator, create, self._subject(operator_id))

    async def get_operator(self, call: Call, request: pb.GetOperatorRequest) -> pb.Operator:
        """Show one."""
        operator_id = names.parse(request.name, names.OPERATORS)
        return await self._database.run(lambda tx: _shown(self._commands.find(tx, operator_id)))

    async def list_operators(self, call: Call, request: pb.ListOperatorsRequest) -> pb.ListOperatorsResponse:
        """List them."""
        size = paging.page_size(request.page_size)
        after = paging.key_in(request.page_token, names.OPERATORS)

        def read(tx: Transaction) -> list[Operator]:
            found = [self._commands.find(tx, each.id) for each in operators.page(tx, after, size + 1)]
            if after < BUILT_IN_OPERATOR:
                found = sorted([self._commands.built_in(), *found], key=lambda each: each.id)
            return found[: size + 1]

        found = await self._database.run(read)
        return pb.ListOperatorsResponse(
            operators=[_shown(each) for each in found[:size]],
            next_page_token=paging.cut(names.OPERATORS, [each.id for each in found], size),
        )

    async def update_operator(self, call: Call, request: pb.UpdateOperatorRequest) -> pb.Operator:
        """Change one."""
        wanted = request.operator
        operator_id = names.parse(wanted.name, names.OPERATORS, "operator.name")

        def update(tx: Transaction) -> pb.Operator:
            current = self._current(tx, operator_id, wanted.etag)
            message, _ = masks.merged(_shown(current), wanted, request.update_mask, mutable=MUTABLE, parts=())
            check_description(message.description, "operator.description", DESCRIPTION_LIMIT)
            role = convert_access.role_from(message.role, "operator.role")
            changed = replace(current, role=role, description=message.description, disabled=message.disabled)
            return _shown(self._commands.update(tx, changed))

        return await self._mutations.run(call, request, pb.Operator, update, self._subject(operator_id))

    async def rotate_operator_token(self, call: Call, request: pb.RotateOperatorTokenRequest) -> pb.Operator:
        """Make a new token."""
        operator_id, lifetime = names.parse(request.name, names.OPERATORS), _lifetime(request)

        def rotate(tx: Transaction) -> pb.Operator:
            return _with_token(*self._commands.rotate(tx, self._current(tx, operator_id, request.etag), lifetime))

        return await self._mutations.run(call, request, pb.Operator, rotate, self._subject(operator_id))

    async def delete_operator(self, call: Call, request: pb.DeleteOperatorRequest) -> pb.DeleteOperatorResponse:
        """Delete one."""
        operator_id = names.parse(request.name, names.OPERATORS)

        def delete(tx: Transaction) -> pb.DeleteOperatorResponse:
            self._commands.delete(tx, self._current(tx, operator_id, request.etag))
            return pb.DeleteOperatorResponse()

        return await self._mutations.run(call, request, pb.DeleteOperatorResponse, delete, self._subject(operator_id))

    async def list_audit_events(
        self, call: Call, request: audit_pb2.ListAuditEventsRequest
    ) -> audit_pb2.ListAuditEventsResponse:
        """List what operators have changed."""
        size = paging.page_size(request.page_size)
        wanted = AuditFilter(
            operator=names.join(names.OPERATORS, names.parse(request.operator, names.OPERATORS, "operator"))
            if request.operator
            else "",
            method=f"modelhost.v1.Admin/{request.method.rpartition('/')[2]}" if request.method else "",
            resource=request.resource.rstrip("/"),
            since=_moment(request.start_time, "start_time") if request.HasField("start_time") else None,
            until=_moment(request.end_time, "end_time") if request.HasField("end_time") else None,
        )
        listing = f"{names.AUDIT_EVENTS} {wanted}"
        before = paging.numbers_in(request.page_token, listing, 1)
        found = await self._database.run(lambda tx: audit.page(tx, wanted, before[0] if before else None, size + 1))
        return audit_pb2.ListAuditEventsResponse(
            audit_events=[convert_access.audit_event(each) for each in found[:size]],
            next_page_token=paging.cut(listing, [str(each.number) for each in found], size),
        )

    async def rotate_secret_key(self, call: Call, request: pb.RotateSecretKeyRequest) -> pb.RotateSecretKeyResponse:
        """Seal everything with a new key."""

        def rotate(tx: Transaction) -> pb.RotateSecretKeyResponse:
            return pb.RotateSecretKeyResponse(resealed=self._rekeying.change(tx))

        subject = Subject("secret.key", lambda tx: None)
        return await self._mutations.run(call, request, pb.RotateSecretKeyResponse, rotate, subject)

    def _current(self, tx: Transaction, operator_id: str, etag: str) -> Operator:
        operator = self._commands.find_changeable(tx, operator_id)
        check_etag(etag, operator.version, f"operator {operator_id}")
        return operator

    def _subject(self, operator_id: str) -> Subject:
        def look(tx: Transaction) -> Message | None:
            found = operators.get(tx, operator_id)
            return _shown(found) if found else None

        return Subject(names.join(names.OPERATORS, operator_id), look)


def _lifetime(request: pb.CreateOperatorRequest | pb.RotateOperatorTokenRequest) -> float | None:
    return convert_access.lifetime_from(
        request.token_lifetime, given=request.HasField("token_lifetime"), field="token_lifetime"
    )


def _moment(moment: Timestamp, field: str) -> float:
    """Seconds since the epoch. Raises `InvalidRequest`."""
    try:
        return moment.ToMilliseconds() / 1000
    except (ValueError, OverflowError):
        raise InvalidRequest(field, "{field} is no time") from None


def _shown(operator: Operator) -> pb.Operator:
    return convert_access.operator(operator, time.time())


def _with_token(operator: Operator, token: str) -> pb.Operator:
    message = _shown(operator)
    message.token = token
    return message
