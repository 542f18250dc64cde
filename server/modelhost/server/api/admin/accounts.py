"""Service accounts: their keys, and what they may call."""

import time
from collections.abc import Callable
from dataclasses import replace

from google.protobuf.message import Message

from modelhost.server.access.account_commands import AccountCommands, Found
from modelhost.server.api import convert_access, masks, names, paging
from modelhost.server.api.admin.services import find_service
from modelhost.server.api.auditing import Subject
from modelhost.server.api.call import Call
from modelhost.server.api.mutations import Mutations
from modelhost.server.control.deployments import check_etag
from modelhost.server.errors import InvalidRequest
from modelhost.server.identities import Grant, ServiceAccount
from modelhost.server.store import accounts
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import service_account_pb2 as pb

DESCRIPTION_LIMIT = 500
KEY_DESCRIPTION_LIMIT = 100
DEFAULT_OVERLAP = 24 * 3600.0  # seconds
LONGEST_OVERLAP = 30 * 24 * 3600.0
MUTABLE = ("description", "disabled")


class AccountMethods:
    """Handlers of the ServiceAccount, ApiKey and Grant methods."""

    def __init__(
        self, database: Database, commands: AccountCommands, mutations: Mutations, service_id: Callable[[str], str]
    ) -> None:
        """`service_id` finds a service's id by its own or by its deployment's; it raises `NotFound`."""
        self._database = database
        self._service_id = service_id
        self._commands = commands
        self._mutations = mutations

    async def create_service_account(self, call: Call, request: pb.CreateServiceAccountRequest) -> pb.ServiceAccount:
        """Create one."""
        account_id, wanted = request.service_account_id, request.service_account
        names.check_new_id(account_id, "service_account_id")
        check_description(wanted.description, "service_account.description", DESCRIPTION_LIMIT)
        lifetime = convert_access.lifetime_from(
            request.secret_lifetime, given=request.HasField("secret_lifetime"), field="secret_lifetime"
        )

        def create(tx: Transaction) -> pb.ServiceAccount:
            found, secret = self._commands.create(
                tx, account_id, description=wanted.description, disabled=wanted.disabled, lifetime=lifetime
            )
            return _with_secret(found, "" if request.validate_only else secret)

        return await self._mutations.run(
            call, request, pb.ServiceAccount, create, self._subject(account_id), validate_only=request.validate_only
        )

    async def get_service_account(self, call: Call, request: pb.GetServiceAccountRequest) -> pb.ServiceAccount:
        """Show one."""
        account_id = names.parse(request.name, names.ACCOUNTS)
        return await self._database.run(lambda tx: _shown(self._find(tx, account_id)))

    async def list_service_accounts(
        self, call: Call, request: pb.ListServiceAccountsRequest
    ) -> pb.ListServiceAccountsResponse:
        """List them."""
        size = paging.page_size(request.page_size)
        after = paging.key_in(request.page_token, names.ACCOUNTS)

        def read(tx: Transaction) -> list[Found]:
            return [self._commands.look(tx, account) for account in accounts.page(tx, after, size + 1)]

        found = await self._database.run(read)
        return pb.ListServiceAccountsResponse(
            service_accounts=[_shown(each) for each in found[:size]],
            next_page_token=paging.cut(names.ACCOUNTS, [each.account.id for each in found], size),
        )

    async def update_service_account(self, call: Call, request: pb.UpdateServiceAccountRequest) -> pb.ServiceAccount:
        """Change one."""
        wanted = request.service_account
        account_id = names.parse(wanted.name, names.ACCOUNTS, "service_account.name")

        def update(tx: Transaction) -> pb.ServiceAccount:
            current = self._current(tx, account_id, wanted.etag)
            shown = _shown(self._commands.look(tx, current))
            message, _ = masks.merged(shown, wanted, request.update_mask, mutable=MUTABLE, parts=())
            check_description(message.description, "service_account.description", DESCRIPTION_LIMIT)
            changed = replace(current, description=message.description, disabled=message.disabled)
            return _shown(self._commands.update(tx, changed))

        return await self._mutations.run(call, request, pb.ServiceAccount, update, self._subject(account_id))

    async def delete_service_account(
        self, call: Call, request: pb.DeleteServiceAccountRequest
    ) -> pb.DeleteServiceAccountResponse:
        """Delete one."""
        account_id = names.parse(request.name, names.ACCOUNTS)

        def delete(tx: Transaction) -> pb.DeleteServiceAccountResponse:
            self._commands.delete(tx, self._current(tx, account_id, request.etag))
            return pb.DeleteServiceAccountResponse()

        return await self._mutations.run(
            call, request, pb.DeleteServiceAccountResponse, delete, self._subject(account_id)
        )

    async def rotate_service_account_secret(
        self, call: Call, request: pb.RotateServiceAccountSecretRequest
    ) -> pb.ServiceAccount:
        """Make a new secret key."""
        account_id = names.parse(request.name, names.ACCOUNTS)
        lifetime = convert_access.lifetime_from(
            request.secret_lifetime, given=request.HasField("secret_lifetime"), field="secret_lifetime"
        )
        overlap = DEFAULT_OVERLAP
        if request.HasField("overlap"):
            overlap = convert_access.seconds_from(request.overlap, "overlap")
        if not 0 <= overlap <= LONGEST_OVERLAP:
            raise InvalidRequest("overlap", "{field} must be 0 to 30 days, not {seconds} s", seconds=f"{overlap:g}")

        def rotate(tx: Transaction) -> pb.ServiceAccount:
            current = self._current(tx, account_id, request.etag)
            return _with_secret(*self._commands.rotate(tx, current, overlap=overlap, lifetime=lifetime))

        return await self._mutations.run(call, request, pb.ServiceAccount, rotate, self._subject(account_id))

    async def create_api_key(self, call: Call, request: pb.CreateApiKeyRequest) -> pb.ApiKey:
        """Make an API key."""
        account_id = names.parse(request.service_account, names.ACCOUNTS, "service_account")
        check_description(request.description, "description", KEY_DESCRIPTION_LIMIT)
        lifetime = convert_access.lifetime_from(request.lifetime, given=request.HasField("lifetime"), field="lifetime")

        def create(tx: Transaction) -> pb.ApiKey:
            account = self._commands.find(tx, account_id)
            credential, key = self._commands.create_api_key(tx, account, request.description, lifetime)
            message = convert_access.api_key(account_id, credential)
            message.key = key
            return message

        return await self._mutations.run(call, request, pb.ApiKey, create, self._subject(account_id))

    async def delete_api_key(self, call: Call, request: pb.DeleteApiKeyRequest) -> pb.DeleteApiKeyResponse:
        """Delete an API key."""
        account_id, key_id = names.parse_api_key(request.name)

        def delete(tx: Transaction) -> pb.DeleteApiKeyResponse:
            self._commands.delete_api_key(tx, self._commands.find(tx, account_id), key_id)
            return pb.DeleteApiKeyResponse()

        return await self._mutations.run(call, request, pb.DeleteApiKeyResponse, delete, self._subject(account_id))

    async def grant_service(self, call: Call, request: pb.GrantServiceRequest) -> pb.Grant:
        """Let an account call a service."""
        account_id = names.parse(request.service_account, names.ACCOUNTS, "service_account")
        service = names.parse_service(request.service)
        limits = convert_access.limits_from(request.limits)

        def grant(tx: Transaction) -> pb.Grant:
            deployment = find_service(tx, service)
            account = self._commands.find(tx, account_id)
            granted = self._commands.grant(tx, account, deployment.uid, limits)
            return self._shown_grant(granted, account_id, deployment.service_id, deployment.id)

        return await self._mutations.run(call, request, pb.Grant, grant, self._grant_subject(account_id, service))

    async def revoke_service(self, call: Call, request: pb.RevokeServiceRequest) -> pb.RevokeServiceResponse:
        """Take a grant back."""
        account_id = names.parse(request.service_account, names.ACCOUNTS, "service_account")
        service = names.parse_service(request.service)

        def revoke(tx: Transaction) -> pb.RevokeServiceResponse:
            account = self._commands.find(tx, account_id)
            self._commands.revoke(tx, account, find_service(tx, service).uid, service)
            return pb.RevokeServiceResponse()

        subject = self._grant_subject(account_id, service)
        return await self._mutations.run(call, request, pb.RevokeServiceResponse, revoke, subject)

    async def list_grants(self, call: Call, request: pb.ListGrantsRequest) -> pb.ListGrantsResponse:
        """List who may call what."""
        size = paging.page_size(request.page_size)
        account_id = (
            names.parse(request.service_account, names.ACCOUNTS, "service_account") if request.service_account else ""
        )
        service = names.parse_service(request.service) if request.service else ""
        listing = f"{names.GRANTS} {account_id} {service}"
        after = tuple(paging.key_in(request.page_token, listing).split(" ")) if request.page_token else ("", "")
        if len(after) != 2:
            raise paging.invalid()

        def read(tx: Transaction) -> list[tuple[Grant, str, str, str]]:
            if account_id:
                self._commands.find(tx, account_id)
            service_id = find_service(tx, service).service_id if service else ""
            return accounts.grants_page(tx, account_id, service_id, (after[0], after[1]), size + 1)

        found = await self._database.run(read)
        return pb.ListGrantsResponse(
            grants=[self._shown_grant(*each) for each in found[:size]],
            next_page_token=paging.cut(listing, [f"{each[1]} {each[2]}" for each in found], size),
        )

    def _find(self, tx: Transaction, account_id: str) -> Found:
        return self._commands.look(tx, self._commands.find(tx, account_id))

    def _current(self, tx: Transaction, account_id: str, etag: str) -> ServiceAccount:
        account = self._commands.find(tx, account_id)
        check_etag(etag, account.version, f"service account {account_id}")
        return account

    def _subject(self, account_id: str) -> Subject:
        def look(tx: Transaction) -> Message | None:
            found = accounts.get(tx, account_id)
            return _shown(self._commands.look(tx, found)) if found else None

        return Subject(names.join(names.ACCOUNTS, account_id), look)

    def _grant_subject(self, account_id: str, service: str) -> Subject:
        """A grant, whose name has the service's id, whichever name the service was called by."""
        service_id = self._service_id(service)

        def look(tx: Transaction) -> Message | None:
            account, deployment = accounts.get(tx, account_id), find_service(tx, service)
            found = accounts.grant(tx, account.uid, deployment.uid) if account else None
            return convert_access.grant(found, account_id, service_id, deployment.id, 0) if found else None

        return Subject(convert_access.grant_name(account_id, service_id), look)

    def _shown_grant(self, grant: Grant, account_id: str, service_id: str, deployment_id: str) -> pb.Grant:
        return convert_access.grant(grant, account_id, service_id, deployment_id, self._commands.used_today(grant))


def check_description(text: str, field: str, limit: int) -> None:
    """Raise `InvalidRequest` for a description that is too long."""
    if len(text) > limit:
        raise InvalidRequest(field, "{field} has over {limit} characters", limit=limit)


def _shown(found: Found) -> pb.ServiceAccount:
    return convert_access.account(found, time.time())


def _with_secret(found: Found, secret: str) -> pb.ServiceAccount:
    message = _shown(found)
    message.secret_key = secret
    return message
