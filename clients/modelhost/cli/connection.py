"""Where the server is, and what it takes to be let in."""

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from modelhost.cli import api
from modelhost.cli.errors import CommandError, ExitCode, usage
from modelhost.cli.output import Output

if TYPE_CHECKING:
    from modelhost.client.client import Admin
    from modelhost.client.local import LocalServer

DEFAULT_ADDRESS = "127.0.0.1:8470"
TOKEN_VARIABLE = "MODELHOST_TOKEN"  # noqa: S105 - a name

_PANEL = "Connection"
_EXPIRED = "TOKEN_EXPIRED"


@dataclass
class Session:
    """A verb's options for the connection, and what comes of them; the connection is made when first used."""

    address: Annotated[
        str,
        typer.Option(
            "--address",
            envvar="MODELHOST_ADDRESS",
            metavar="HOST:PORT",
            help="Where the server is; begin it with https:// for TLS.",
            rich_help_panel=_PANEL,
        ),
    ] = DEFAULT_ADDRESS
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            envvar="MODELHOST_TOKEN_FILE",
            metavar="FILE",
            help=f"File with the token. Else {TOKEN_VARIABLE} is the token; else that of your own server on this host.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file",
            envvar="MODELHOST_CA_FILE",
            metavar="FILE",
            help="Certificates (PEM) of the authorities to trust; turns TLS on. Your own server's is found.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    client_cert: Annotated[
        Path | None,
        typer.Option(
            "--client-cert",
            envvar="MODELHOST_CLIENT_CERT",
            metavar="FILE",
            help="Your certificate (PEM), for a server that wants one of its clients.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    client_key: Annotated[
        Path | None,
        typer.Option(
            "--client-key", envvar="MODELHOST_CLIENT_KEY", metavar="FILE", help="Its key.", rich_help_panel=_PANEL
        ),
    ] = None
    max_message_bytes: Annotated[
        int,
        typer.Option(
            "--max-message-bytes",
            envvar="MODELHOST_MAX_MESSAGE_BYTES",
            metavar="BYTES",
            help="Largest request and response; the server has a limit of its own.",
            min=1024,
            rich_help_panel=_PANEL,
        ),
    ] = 64 * 1024 * 1024
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")] = False

    @cached_property
    def out(self) -> Output:
        """Where the verb's words go."""
        return Output(as_json=self.as_json)

    @cached_property
    def client(self) -> "api.Client":
        """The connection."""
        try:
            token = self._token()
        except PermissionError as error:
            raise CommandError(
                f"the token is not safe to use: {error}", ExitCode.NOT_AUTHENTICATED, "give it with --token-file"
            ) from error
        return self.connect(token)

    def connect(self, token: str | None) -> "api.Client":
        """Return another connection with another token; whoever asks for it closes it."""
        if (self.client_cert is None) != (self.client_key is None):
            raise usage("--client-cert and --client-key go together: a certificate and its key")
        roots, server_name = self._trusted()
        try:
            return api.Client(
                self.address,
                token,
                root_certificates=roots,
                client_certificate=(
                    (_read(self.client_cert), _read(self.client_key)) if self.client_cert and self.client_key else None
                ),
                server_name=server_name,
                max_message_bytes=self.max_message_bytes,
            )
        except ValueError as error:
            raise usage(str(error)) from error

    @property
    def admin(self) -> "Admin":
        """The methods for operators."""
        return self.client.admin

    def _token(self) -> str | None:
        if self.token_file:
            return _read(self.token_file).decode().strip()
        if (given := os.environ.get(TOKEN_VARIABLE)) is not None:
            if not (token := given.strip()):  # as of `$(cat …)` that has failed: not to be let in as somebody else
                raise usage(f"{TOKEN_VARIABLE} is set, and empty", "give it a token, or unset it")
            return token
        with suppress(FileNotFoundError):
            server = self._own_server()
            return server.token() if server else None
        return None

    def _trusted(self) -> "tuple[bytes | None, str]":
        """Whom to trust, and the name to look for: as told; else of your own server on this host what it published."""
        if self.ca_file:
            return _read(self.ca_file), ""
        server = None
        with suppress(PermissionError):  # nobody's to trust, then
            server = self._own_server() if "://" not in self.address else None
        if server is None or server.tls is None:
            return None, ""
        try:
            return server.tls.root_certificates(), server.tls.name
        except OSError as error:
            raise usage(
                f"the server at {self.address} speaks TLS, and its certificate is not safe to use: {error}",
                "begin the address with https://, and name its authority with --ca-file",
            ) from error

    def _own_server(self) -> "LocalServer | None":
        from modelhost.client.local import find_server

        try:
            return find_server(self.address)
        except ValueError as error:
            raise usage(str(error)) from error

    def _explain(self, error: "api.AccessDenied") -> CommandError:
        if self.token_file:
            which = f"the token in {self.token_file}"
        elif os.environ.get(TOKEN_VARIABLE):
            which = f"the token in {TOKEN_VARIABLE}"
        else:
            which = "the token that it published for this host" if self._token() else ""
        hint = (
            "the admin token is `admin.token` in the server's state directory, `modelhost account token` gets an"
            f" application's; give it with --token-file FILE, or in {TOKEN_VARIABLE}"
        )
        if not which:
            what = f"the server at {self.address} wants a token, and none was found"
        elif error.reason == _EXPIRED:
            what = f"{which} has expired"
            hint = "`modelhost account token` gets another, `modelhost operator rotate` an operator's"
        else:
            what = f"the server at {self.address} does not take {which}"
        return CommandError(
            what,
            ExitCode.NOT_AUTHENTICATED,
            hint,
            reason=error.reason,
            grpc_code=error.code.name,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "client" not in self.__dict__:
            return
        self.client.close()
        if isinstance(error, api.AccessDenied):
            raise self._explain(error) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise usage(f"cannot read {path}: {error.strerror}") from error
