"""`modelhost operator` and `modelhost rekey`: who looks after the server."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import Expires, OperatorName
from modelhost.cli.confirm import Yes, confirm
from modelhost.cli.connection import Session
from modelhost.cli.errors import usage
from modelhost.cli.flags import verb
from modelhost.cli.paging import whole
from modelhost.cli.quantities import duration
from modelhost.cli.render import enabled_state, moment, plural, short, styled
from modelhost.cli.shown_once import place_for_secret
from modelhost.cli.wish import mask_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelhost.v1.access_pb2 import Role


class RoleName(Enum):
    """What an operator may do; each includes those before it."""

    VIEWER = "viewer"
    DEPLOYER = "deployer"
    ADMIN = "admin"


# Not --token-file, which says where the token is that the command itself shows to the server.
NewTokenFile = Annotated[
    Path | None,
    typer.Option("--new-token-file", metavar="FILE", help="Write its token to this new file instead of showing it."),
]


@verb
def add(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it: letters, digits, `_`, `-`.")],
    *,
    role: Annotated[RoleName, typer.Option("--role", help="What it may do. See above.")],
    description: Annotated[str, typer.Option(help="What people should know about it.")] = "",
    expires: Expires = None,
    new_token_file: NewTokenFile = None,
) -> None:
    """Let somebody else look after the server, with a token and a role of their own.

    A viewer sees everything but secrets. A deployer besides deploys, starts, stops and calls models. An admin besides
    decides who may do and call what, and reads the audit. The token is shown this once and never again.

    Examples:
      modelhost operator add ada --role deployer --description "Ada, team forecasting"
      modelhost operator add ci --role deployer --expires 90d --new-token-file ci.token
    """
    request = api.CreateOperatorRequest(operator_id=name)
    request.operator.role, request.operator.description = _role(role), description
    if expires is not None:
        request.token_lifetime.FromTimedelta(duration(expires, "--expires"))
    with place_for_secret(session, new_token_file) as place:
        created = session.admin.CreateOperator(request)
        if not session.as_json:
            session.out.line(f"operator {short(created.name)} added: {_role_word(created)}")
        place.tell("token", created, "token")
    if session.as_json:
        session.out.document(created)
    session.out.note("the command takes it with --token-file FILE, or in MODELHOST_TOKEN")


def _role(name: RoleName) -> "Role.ValueType":
    return api.Role.Value(f"ROLE_{name.name}")


def _role_word(operator: "api.Operator") -> str:
    return api.Role.Name(operator.role).removeprefix("ROLE_").lower()


@verb
def list_(session: Session) -> None:
    """List the operators. `admin`, whose token is the server's admin.token, is always there.

    Examples:
      modelhost operator list
    """
    answer = whole(session.admin.ListOperators, api.ListOperatorsRequest())
    if session.as_json:
        session.out.document(answer)
        return
    rows = [
        (
            short(operator.name),
            _role_word(operator),
            styled(enabled_state(operator)),
            moment(operator.expire_time),
            moment(operator.last_use_time),
            operator.description,
        )
        for operator in answer.operators
    ]
    session.out.table(
        ["OPERATOR", "ROLE", "STATE", "EXPIRES", "LAST USED", "DESCRIPTION"],
        rows,
        empty="none",
    )
    _warn(session, answer.operators)


def _warn(session: Session, operators: "Iterable[api.Operator]") -> None:
    for operator in operators:
        for warning in operator.warnings:
            session.out.warn(f"{short(operator.name)}: {warning}")


@verb
def show(session: Session, name: OperatorName) -> None:
    """Show an operator: role, and when its token was made, ends and was last used.

    Examples:
      modelhost operator show ada
    """
    operator = session.admin.GetOperator(api.GetOperatorRequest(name=name))
    if session.as_json:
        session.out.document(operator)
        return
    session.out.details(
        [
            ("operator", (short(operator.name), "bold")),
            ("description", operator.description),
            ("role", _role_word(operator)),
            ("state", styled(enabled_state(operator))),
            ("created", moment(operator.create_time)),
            ("changed", moment(operator.update_time)),
            ("token made", moment(operator.token_create_time)),
            ("expires", moment(operator.expire_time) or "never"),
            ("last used", moment(operator.last_use_time) or "never"),
        ]
    )
    _warn(session, [operator])


@verb
def update(
    session: Session,
    name: OperatorName,
    *,
    role: Annotated[RoleName | None, typer.Option("--role", help="What it may do.")] = None,
    description: Annotated[str | None, typer.Option(help="What people should know about it.")] = None,
    disable: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Whether its token does not work for now.")
    ] = None,
) -> None:
    """Change an operator, leave the rest as it is. It holds from the next call on.

    Examples:
      modelhost operator update ada --role admin
      modelhost operator update ci --disable
    """
    wanted, paths = api.Operator(name=f"operators/{short(name)}"), []
    if role is not None:
        wanted.role = _role(role)
        paths.append("role")
    if description is not None:
        wanted.description = description
        paths.append("description")
    if disable is not None:
        wanted.disabled = disable
        paths.append("disabled")
    if not paths:
        raise usage("there is nothing to change", "`modelhost operator update --help` shows what can be changed")
    changed = session.admin.UpdateOperator(api.UpdateOperatorRequest(operator=wanted, update_mask=mask_of(paths)))
    if session.as_json:
        session.out.document(changed)
    else:
        session.out.line(f"operator {short(changed.name)} updated: {_role_word(changed)}, {enabled_state(changed)}")


@verb
def rotate(
    session: Session, name: OperatorName, *, expires: Expires = None, new_token_file: NewTokenFile = None
) -> None:
    """Give an operator a new token; the former one stops working at once. It is shown this once and never again.

    Examples:
      modelhost operator rotate ada
      modelhost operator rotate ci --expires 90d --new-token-file ci.token
    """
    request = api.RotateOperatorTokenRequest(name=name)
    if expires is not None:
        request.token_lifetime.FromTimedelta(duration(expires, "--expires"))
    with place_for_secret(session, new_token_file) as place:
        changed = session.admin.RotateOperatorToken(request)
        if not session.as_json:
            session.out.line(f"operator {short(changed.name)} has a new token")
        place.tell("token", changed, "token")
    if session.as_json:
        session.out.document(changed)


@verb
def delete(session: Session, name: OperatorName, yes: Yes = False) -> None:
    """Delete an operator; its token stops working at once. Asks first on a terminal.

    Examples:
      modelhost operator delete ada
    """
    confirm(f"delete the operator {short(name)}?", yes)
    answer = session.admin.DeleteOperator(api.DeleteOperatorRequest(name=name))
    if session.as_json:
        session.out.document(answer)
    else:
        session.out.line(f"operator {short(name)} deleted")


@verb
def rekey(session: Session, yes: Yes = False) -> None:
    """Make the server a new `secret.key`, and seal all that it keeps secret with it. Asks first on a terminal.

    Do so when others may have seen `secret.key`. Bearer tokens that were issued before stop working at once.
    Applications with the Python client get new ones by themselves, others call IssueToken again. Secret keys stay.

    Examples:
      modelhost rekey
      modelhost rekey --yes
    """
    confirm("make a new secret.key? The tokens that applications have stop working; they have to get new ones", yes)
    answer = session.admin.RotateSecretKey(api.RotateSecretKeyRequest())
    if session.as_json:
        session.out.document(answer)
        return
    session.out.line(f"there is a new secret.key: {plural(answer.resealed, 'stored secret')} sealed anew")
    session.out.note("tokens that were issued before have stopped working; the Python client gets new ones by itself")
