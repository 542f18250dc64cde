"""How connections are made and kept: the options of `modelhost serve` for that, and what they may be.

One dataclass is both, so that each option has its name, its default and its help in one place.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from modelhost.server.tls import TlsFiles

PANEL = "Connections"
# Often enough for what forgets connections that are silent: few NATs and load balancers do within four minutes, and the
# most impatient ones within one or two.
DEFAULT_KEEPALIVE = 60.0
DEFAULT_KEEPALIVE_TIMEOUT = 20.0
MOST_SECONDS = 2_147_483.0  # in milliseconds, what a C int holds: 24 days


@dataclass(frozen=True)
class Transport:
    """Times in seconds. Without `tls_cert` nothing is encrypted; an age of None is any."""

    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert",
            envvar="MODELHOST_TLS_CERT",
            metavar="FILE",
            help="The server's certificate (PEM), then those that signed it: TLS. Read again when it changes.",
            show_default="no TLS",
            rich_help_panel=PANEL,
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(
            "--tls-key",
            envvar="MODELHOST_TLS_KEY",
            metavar="FILE",
            help="Its private key (PEM, no passphrase).",
            rich_help_panel=PANEL,
        ),
    ] = None
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-client-ca",
            envvar="MODELHOST_TLS_CLIENT_CA",
            metavar="FILE",
            help="Authorities (PEM) of which every client must show a certificate: mutual TLS.",
            rich_help_panel=PANEL,
        ),
    ] = None
    keepalive: Annotated[
        float,
        typer.Option(
            "--keepalive",
            metavar="SECONDS",
            help="How long a connection may be silent before the client is asked whether it is there; 0 for ever.",
            rich_help_panel=PANEL,
        ),
    ] = DEFAULT_KEEPALIVE
    keepalive_timeout: Annotated[
        float,
        typer.Option(
            "--keepalive-timeout",
            metavar="SECONDS",
            help="How long it may take to answer that; then the connection is dead.",
            rich_help_panel=PANEL,
        ),
    ] = DEFAULT_KEEPALIVE_TIMEOUT
    max_connection_age: Annotated[
        float | None,
        typer.Option(
            "--max-connection-age",
            metavar="SECONDS",
            help="After about how long clients are to connect anew, so that load balancers can spread them.",
            show_default="never",
            rich_help_panel=PANEL,
        ),
    ] = None
    max_connection_age_grace: Annotated[
        float | None,
        typer.Option(
            "--max-connection-age-grace",
            metavar="SECONDS",
            help="How long calls on the old connection may go on then.",
            show_default="as long as they take",
            rich_help_panel=PANEL,
        ),
    ] = None

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files for TLS, with absolute paths; None where it is not spoken."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        client_ca = self.tls_client_ca.absolute() if self.tls_client_ca else None
        return TlsFiles(self.tls_cert.absolute(), self.tls_key.absolute(), client_ca)

    @property
    def tls(self) -> str:
        """In a word, for the log: `off`, `on` or `mutual`."""
        files = self.tls_files
        return "off" if files is None else "mutual" if files.client_ca else "on"

    def check(self) -> None:
        """Raise `ValueError` for what cannot be."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together: a certificate and its key")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(
                "--tls-client-ca needs --tls-cert and --tls-key: only over TLS do clients show certificates"
            )
        for flag, seconds, least in (
            ("--keepalive", self.keepalive, 0.0),
            ("--keepalive-timeout", self.keepalive_timeout, 0.001),
            ("--max-connection-age", self.max_connection_age, 0.001),
            ("--max-connection-age-grace", self.max_connection_age_grace, 0.0),
        ):
            if seconds is not None and not least <= seconds <= MOST_SECONDS:
                over = "0 or more" if least == 0 else "more than 0"
                raise ValueError(f"{flag} must be {over} seconds and at most {MOST_SECONDS:.0f}, not {seconds:g}")
