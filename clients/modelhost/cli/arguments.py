"""Arguments that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

from modelhost.cli.completion import (
    complete_account,
    complete_deployment,
    complete_operator,
    complete_revision,
    complete_service,
)

DeploymentName = Annotated[
    str, typer.Argument(metavar="NAME", help="The deployment.", autocompletion=complete_deployment)
]
RevisionNumber = Annotated[
    int, typer.Argument(metavar="REVISION", min=1, help="Its number.", autocompletion=complete_revision)
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
SourceName = Annotated[str, typer.Argument(metavar="NAME", help="The data source.")]
Project = Annotated[
    str, typer.Option(metavar="PATH", help="Path of the project within the data source; in a GitLab, or its number.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only how it ends; where it fails, the last lines.")]
Description = Annotated[str | None, typer.Option(help="What people should know about it.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="How many workers serve it side by side; 1 at first.", min=1, max=64),
]
ValidateOnly = Annotated[
    bool,
    typer.Option("--validate-only", help="Change nothing, only check; also that project, ref and paths are there."),
]
AccountName = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="The service account.", autocompletion=complete_account)
]
ServiceName = Annotated[
    str,
    typer.Argument(metavar="SERVICE", help="The service, or its deployment.", autocompletion=complete_service),
]
OperatorName = Annotated[str, typer.Argument(metavar="NAME", help="The operator.", autocompletion=complete_operator)]
Expires = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="How long it works: 12h, 90d; without end if it is not said."),
]
SecretFile = Annotated[
    Path | None,
    typer.Option("--secret-file", metavar="FILE", help="Write the secret key to this new file instead of showing it."),
]
