"""Flags that say where a GitLab lies, and where its token comes from: never from the command line itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.errors import usage
from modelhost.cli.secret_input import SecretInput

TOKEN_VARIABLE = "MODELHOST_GITLAB_TOKEN"  # noqa: S105 - a name

_PANEL = "GitLab"


@dataclass(frozen=True)
class GitLabFlags:
    """Where it lies, beside its URL, and how it is trusted."""

    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", metavar="PATH", help="Only the projects of this group or user.", rich_help_panel=_PANEL
        ),
    ] = None
    gitlab_token_file: Annotated[
        Path | None,
        typer.Option(
            "--gitlab-token-file", metavar="FILE", help="File with GitLab's token. See above.", rich_help_panel=_PANEL
        ),
    ] = None
    gitlab_ca_file: Annotated[
        Path | None,
        typer.Option(
            "--gitlab-ca-file",
            metavar="FILE",
            help="Certificates (PEM) of the authorities to trust for GitLab, instead of the server's host's.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    insecure_skip_verify: Annotated[
        bool | None,
        typer.Option(
            "--insecure-skip-verify/--verify",
            help="Do not check GitLab's certificate: whoever is between can then read the token.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    def given(self) -> "tuple[api.GitLabLocation, list[str]]":
        """Return the message without its URL and token, and the names of the fields that were given."""
        values = {
            "namespace": self.namespace,
            "ca_certificates": _read(self.gitlab_ca_file) if self.gitlab_ca_file else None,
            "insecure_skip_verify": self.insecure_skip_verify,
        }
        chosen = {name: value for name, value in values.items() if value is not None}
        return api.GitLabLocation(**chosen), list(chosen)  # type: ignore[arg-type]  # each has its field's type

    def token(self) -> str:
        """Return GitLab's token; a usage error for none."""
        wanted = SecretInput("GitLab token", "GitLab's token", "--gitlab-token-file", TOKEN_VARIABLE)
        return wanted.read(self.gitlab_token_file)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise usage(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}") from error
