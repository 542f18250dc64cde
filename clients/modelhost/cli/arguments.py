"""Arguments that several verbs share."""

from typing import Annotated

import typer

from modelhost.cli.completion import complete_deployment

DeploymentName = Annotated[
    str, typer.Argument(metavar="NAME", help="The deployment.", autocompletion=complete_deployment)
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
