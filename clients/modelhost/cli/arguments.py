"""Arguments that several verbs share."""

from typing import Annotated

import typer

from modelhost.cli.completion import complete_deployment

DeploymentName = Annotated[
    str, typer.Argument(metavar="NAME", help="The deployment.", autocompletion=complete_deployment)
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
SourceName = Annotated[str, typer.Argument(metavar="NAME", help="The data source.")]
Project = Annotated[
    str, typer.Option(metavar="PATH", help="Path of the project within the data source; in a GitLab, or its number.")
]
