"""`modelhost account`: its keys, and the tokens that they get."""

from pathlib import Path
from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import AccountName, Expires, SecretFile
from modelhost.cli.connection import Session
from modelhost.cli.errors import CommandError, ExitCode, usage
from modelhost.cli.flags import verb
from modelhost.cli.quantities import duration
from modelhost.cli.render import moment, short
from modelhost.cli.secret_input import SecretInput
from modelhost.cli.shown_once import place_for_secret

_ACCESS_KEY = "MODELHOST_ACCESS_KEY"
_SECRET_KEY = SecretInput("secret key", "The secret key", "--secret-key-file", "MODELHOST_SECRET_KEY")


@verb
def rotate(
    session: Session,
    name: AccountName,
    *,
    overlap: Annotated[
        str | None,
        typer.Option("--overlap", metavar="TIME", help="How long the former keys still work, at most 30d; else 24h."),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="The former keys and their tokens stop working at once.")] = False,
    expires: Expires = None,
    secret_file: SecretFile = None,
) -> None:
    """Make a new secret key. The former ones work on for a day, so that the application can be given the new one.

    The access key stays. The secret key is shown this once and never again; --secret-file writes it to a file of your
    own instead. A key that others may have seen is taken away with --now.

    Examples:
      modelhost account rotate shop
      modelhost account rotate shop --overlap 7d --expires 90d --secret-file shop.secret
      modelhost account rotate shop --now
    """
    if now and overlap is not None:
        raise usage("--now and --overlap exclude each other")
    request = api.RotateServiceAccountSecretRequest(name=name)
    if now:
        request.overlap.SetInParent()
    elif overlap is not None:
        request.overlap.FromTimedelta(duration(overlap, "--overlap"))
    if expires is not None:
        request.secret_lifetime.FromTimedelta(duration(expires, "--expires"))
    with place_for_secret(session, secret_file) as place:
        changed = session.admin.RotateServiceAccountSecret(request)
        if not session.as_json:
            session.out.line(f"service account {short(changed.name)} has a new secret key")
            session.out.line(f"access key  {changed.access_key}")
        place.tell("secret key", changed, "secret_key")
    if session.as_json:
        session.out.document(changed)
        return
    former = changed.secret_keys[1:]
    if former:
        ends = max(former, key=lambda key: key.expire_time.ToNanoseconds()).expire_time
        session.out.note(f"the former key works until {moment(ends)}")
    else:
        session.out.note("no former key works any more, nor do the tokens that it got")


@verb
def key(
    session: Session,
    name: AccountName,
    *,
    description: Annotated[str, typer.Option(help="What people should know about it.")] = "",
    expires: Expires = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="Write the key to this new file instead of showing it."),
    ] = None,
) -> None:
    """Make an API key: a bearer token for tools that cannot sign, which works until it is deleted or expires.

    Whoever has it may call what the account was granted, so give it an end. It is shown this once and never again.

    Examples:
      modelhost account key shop --description "the dashboard" --expires 30d
      modelhost account key shop --key-file dashboard.key
    """
    request = api.CreateApiKeyRequest(service_account=name, description=description)
    if expires is not None:
        request.lifetime.FromTimedelta(duration(expires, "--expires"))
    with place_for_secret(session, key_file) as place:
        created = session.admin.CreateApiKey(request)
        if not session.as_json:
            session.out.line(f"API key {created.name} made")
        place.tell("API key", created, "key")
    if session.as_json:
        session.out.document(created)


@verb
def delete_key(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(metavar="KEY", help="Its name: `serviceAccounts/ACCOUNT/apiKeys/ID`, or `ACCOUNT/ID`."),
    ],
) -> None:
    """Delete an API key; it stops working at once. `modelhost account show` has the ids.

    Examples:
      modelhost account delete-key serviceAccounts/shop/apiKeys/3f9c2ab4
      modelhost account delete-key shop/3f9c2ab4
    """
    account, slash, key_id = name.partition("/")
    if slash and "/" not in key_id:
        name = f"serviceAccounts/{account}/apiKeys/{key_id}"
    answer = session.admin.DeleteApiKey(api.DeleteApiKeyRequest(name=name))
    if session.as_json:
        session.out.document(answer)
    else:
        session.out.line(f"API key {name} deleted")


@verb
def token(
    session: Session,
    *,
    access_key: Annotated[
        str | None,
        typer.Option("--access-key", envvar=_ACCESS_KEY, metavar="KEY", help="The account's access key."),
    ] = None,
    secret_key_file: Annotated[
        Path | None,
        typer.Option("--secret-key-file", metavar="FILE", help="File with its secret key. See above."),
    ] = None,
) -> None:
    """Get a token with an account's keys, as an application does, and print nothing but the token.

    The secret key is read from --secret-key-file, from MODELHOST_SECRET_KEY, from a pipe, or typed in when asked for.
    There is no option for it itself, for lists of processes show command lines. It is not sent: it signs. The Python
    client needs no such token: it takes the keys and gets its own. With --json, there is also when the token ends.

    Examples:
      export MODELHOST_ACCESS_KEY=… MODELHOST_SECRET_KEY=…
      TOKEN=$(modelhost account token)
      modelhost account token --access-key … --secret-key-file shop.secret > shop.token
    """
    if not access_key:
        raise usage("there is no access key", f"give it with --access-key KEY, or in {_ACCESS_KEY}")
    from modelhost.client.signing import signed_request

    try:
        keys = api.ServiceAccountKey(access_key.strip(), _SECRET_KEY.read(secret_key_file))
    except ValueError as error:
        raise usage(str(error)) from None  # what it came of has the key in its trace
    with session.connect(None) as client:
        try:
            answer = client.predict_stub.IssueToken(signed_request(keys))
        except api.AccessDenied as error:
            raise CommandError(
                f"the server at {session.address} gives no token for these keys",
                ExitCode.NOT_AUTHENTICATED,
                "are access key and secret key of the same account, is it enabled, has the key not expired, and is"
                " this host's clock right to within five minutes?",
                reason=error.reason,
                grpc_code=error.code.name,
            ) from error
    if session.as_json:
        session.out.document(answer)
    else:
        session.out.line(answer.token)
