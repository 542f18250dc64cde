"""`modelhost certs`."""

import shlex
import socket
from pathlib import Path
from typing import Annotated

import typer

from modelhost.server.certs.folder import Folder
from modelhost.server.certs.making import now

DEFAULT_DAYS = 365
LOOPBACK = ["localhost", "127.0.0.1", "::1"]


def certs(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where the files are kept.", show_default=True)
    ] = Path("certs"),
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME_OR_IP",
            help="A name or IP address that clients reach the server by. Repeatable.",
            show_default="this host's name, localhost, 127.0.0.1 and ::1",
        ),
    ] = None,
    client: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A client to make a certificate for, for mutual TLS. Repeatable."),
    ] = None,
    days: Annotated[int, typer.Option(help="How long certificates are valid.", min=1, max=3650)] = DEFAULT_DAYS,
    force: Annotated[
        bool, typer.Option("--force", help="Replace certificates that are there; the authority never is.")
    ] = False,
) -> None:
    """Make certificates for TLS, from a development authority of your own.

    The authority is made the first time, and kept in DIR: whoever has its key can pass for any server that trusts it. A
    server that runs takes certificates that are replaced, for new connections.

    \b
    Examples:
      modelhost certs
      modelhost certs /etc/modelhost/tls --host models.example.com --host 10.0.0.5
      modelhost certs --client alice
    """
    folder, clients = Folder(directory), list(dict.fromkeys(client or ()))
    # More clients for a server that is there need no other certificate for it.
    for_server = bool(host) or not clients or not folder.server.existing
    hosts = (host or _own_names()) if for_server else []
    try:
        written = folder.make(hosts, clients, days, now(), force=force)
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    for each in written:
        typer.echo(f"{each.files.certificate}, its key {each.files.key}: valid until {each.expires:%Y-%m-%d}")
    typer.echo("")
    for line in _next_steps(folder, hosts, clients):
        typer.echo(line)


def _own_names() -> list[str]:
    name = socket.gethostname()
    is_plain = name.isascii() and all(part and part.replace("-", "").isalnum() for part in name.split("."))
    return list(dict.fromkeys([*LOOPBACK, *([name] if is_plain else [])]))


def _next_steps(folder: Folder, hosts: list[str], clients: list[str]) -> list[str]:
    """Commands to go on with."""
    name = hosts[0] if hosts else LOOPBACK[0]
    listen = [] if name in LOOPBACK else ["--listen", "0.0.0.0:8470"]
    server = ["--tls-cert", folder.server.certificate, "--tls-key", folder.server.key]
    mutual = ["--tls-client-ca", folder.authority.certificate] if clients else []
    address = f"https://[{name}]:8470" if ":" in name else f"https://{name}:8470"
    shown: list[list[object]] = [["modelhost", "serve", *listen, *server, *mutual]]
    for client in map(folder.client, clients) if clients else [None]:
        certificate = ["--client-cert", client.certificate, "--client-key", client.key] if client else []
        shown.append(
            ["modelhost", "list", "--address", address, "--ca-file", folder.authority.certificate, *certificate]
        )
    first, *others = (shlex.join(map(str, words)) for words in shown)
    return ["Start the server with", f"  {first}", "and call it with", *(f"  {line}" for line in others)]
