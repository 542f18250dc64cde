"""`modelhost account`: the applications that call models. Their keys are in account_keys.py."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import AccountName, Expires, SecretFile
from modelhost.cli.confirm import Yes, confirm
from modelhost.cli.connection import Session
from modelhost.cli.flags import verb
from modelhost.cli.grants import grants_table
from modelhost.cli.output import to_dict
from modelhost.cli.paging import whole
from modelhost.cli.quantities import duration
from modelhost.cli.render import earliest, enabled_state, moment, short, styled
from modelhost.cli.shown_once import place_for_secret
from modelhost.cli.wish import mask_of

if TYPE_CHECKING:
    from collections.abc import Iterable


@verb
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="ACCOUNT", help="What to call it: letters, digits, `_`, `-`.")],
    *,
    description: Annotated[str, typer.Option(help="What people should know about it.")] = "",
    expires: Expires = None,
    secret_file: SecretFile = None,
) -> None:
    """Create a service account for an application. It may call nothing until it is granted something.

    It has an access key, which is public, and a secret key, with which the application gets its tokens. The secret key
    is shown this once and never again; --secret-file writes it to a file of your own instead.

    Examples:
      modelhost account create shop --description "the shop's checkout"
      modelhost account create shop --expires 90d --secret-file shop.secret
      modelhost account create shop --json | jq -r .secret_key
    """
    request = api.CreateServiceAccountRequest(service_account_id=name)
    request.service_account.description = description
    if expires is not None:
        request.secret_lifetime.FromTimedelta(duration(expires, "--expires"))
    with place_for_secret(session, secret_file) as place:
        created = session.admin.CreateServiceAccount(request)
        if not session.as_json:
            session.out.line(f"service account {short(created.name)} created")
            session.out.line(f"access key  {created.access_key}")
        place.tell("secret key", created, "secret_key")
    if session.as_json:
        session.out.document(created)
    session.out.note(f"`modelhost grant {short(created.name)} SERVICE` lets it call a service")


@verb
def list_(session: Session) -> None:
    """List the service accounts, with the key that expires first, and what they should be warned of.

    Examples:
      modelhost account list
      modelhost account list --json | jq -r '.service_accounts[] | select(.last_use_time == null) | .name'
    """
    answer = whole(session.admin.ListServiceAccounts, api.ListServiceAccountsRequest())
    if session.as_json:
        session.out.document(answer)
        return
    grants = whole(session.admin.ListGrants, api.ListGrantsRequest()).grants
    rows = [
        (
            short(account.name),
            styled(enabled_state(account)),
            _keys_in_short(account),
            _first_expiry(account),
            moment(account.last_use_time),
            str(sum(grant.service_account == account.name for grant in grants)),
            account.description,
        )
        for account in answer.service_accounts
    ]
    session.out.table(
        ["ACCOUNT", "STATE", "KEYS", "FIRST EXPIRY", "LAST USED", "GRANTS", "DESCRIPTION"],
        rows,
        empty="no service accounts yet: `modelhost account create ACCOUNT`",
    )
    _warn(session, answer.service_accounts)


def _keys_in_short(account: "api.ServiceAccount") -> str:
    parts = [f"{len(account.secret_keys)} secret"]
    if account.api_keys:
        parts.append(f"{len(account.api_keys)} API")
    return ", ".join(parts)


def _first_expiry(account: "api.ServiceAccount") -> str:
    ends = [key.expire_time for key in account.secret_keys] + [key.expire_time for key in account.api_keys]
    return earliest(ends)


def _warn(session: Session, accounts: "Iterable[api.ServiceAccount]") -> None:
    for account in accounts:
        for warning in account.warnings:
            session.out.warn(f"{short(account.name)}: {warning}")


@verb
def show(session: Session, name: AccountName) -> None:
    """Show a service account: its keys, when they end and were last used, and what it may call.

    With --json, {"service_account": …, "grants": […]}.

    Examples:
      modelhost account show shop
    """
    account = session.admin.GetServiceAccount(api.GetServiceAccountRequest(name=name))
    grants = whole(session.admin.ListGrants, api.ListGrantsRequest(service_account=account.name)).grants
    if session.as_json:
        session.out.document({"service_account": to_dict(account), "grants": [to_dict(grant) for grant in grants]})
        return
    session.out.details(
        [
            ("account", (short(account.name), "bold")),
            ("description", account.description),
            ("state", styled(enabled_state(account))),
            ("access key", account.access_key),
            ("created", moment(account.create_time)),
            ("changed", moment(account.update_time)),
            ("last used", moment(account.last_use_time) or "never"),
        ]
    )
    session.out.line()
    session.out.table(
        ["KEY", "ID", "CREATED", "EXPIRES", "LAST USED", "DESCRIPTION"],
        [
            *(("secret key", key.id, *_times(key), "") for key in account.secret_keys),
            *(("API key", short(key.name), *_times(key), key.description) for key in account.api_keys),
        ],
        empty="it has no key that works: `modelhost account rotate` makes one",
    )
    session.out.line()
    grants_table(session.out, grants, empty=f"it may call nothing: `modelhost grant {short(account.name)} SERVICE`")
    _warn(session, [account])


def _times(key: "api.SecretKey | api.ApiKey") -> tuple[str, str, str]:
    return moment(key.create_time), moment(key.expire_time) or "never", moment(key.last_use_time) or "never"


@verb
def disable(session: Session, name: AccountName) -> None:
    """Let a service account in nowhere, whatever it was granted. Its tokens and keys stop working at once.

    Examples:
      modelhost account disable shop
    """
    _set_disabled(session, name, disabled=True)


@verb
def enable(session: Session, name: AccountName) -> None:
    """Let a service account in again that was disabled.

    Examples:
      modelhost account enable shop
    """
    _set_disabled(session, name, disabled=False)


def _set_disabled(session: Session, name: str, *, disabled: bool) -> None:
    account = api.ServiceAccount(name=f"serviceAccounts/{short(name)}", disabled=disabled)
    changed = session.admin.UpdateServiceAccount(
        api.UpdateServiceAccountRequest(service_account=account, update_mask=mask_of(["disabled"]))
    )
    if session.as_json:
        session.out.document(changed)
    else:
        session.out.line(f"service account {short(changed.name)} {enabled_state(changed)}")


@verb
def delete(session: Session, name: AccountName, yes: Yes = False) -> None:
    """Delete a service account with its keys and grants. Asks first on a terminal.

    What it has called stays in the statistics. To keep it out for a while, disable it.

    Examples:
      modelhost account delete shop
      modelhost account delete shop --yes
    """
    confirm(f"delete {short(name)} with its keys and grants?", yes)
    answer = session.admin.DeleteServiceAccount(api.DeleteServiceAccountRequest(name=name))
    if session.as_json:
        session.out.document(answer)
    else:
        session.out.line(f"service account {short(name)} deleted")
