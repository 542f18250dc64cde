"""`modelhost runtimes`: the interpreters of the server's host."""

from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.connection import Session
from modelhost.cli.flags import verb
from modelhost.cli.paging import whole
from modelhost.cli.render import short


@verb
def runtimes(
    session: Session,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Have the server look again at what its host has.")
    ] = False,
) -> None:
    """List the interpreters that models can be deployed for.

    Examples:
      modelhost runtimes
      modelhost runtimes --refresh
      modelhost runtimes --json | jq -r '.runtimes[] | select(.usable) | .name'
    """
    answer = whole(session.admin.ListRuntimes, api.ListRuntimesRequest(refresh=refresh))
    if session.as_json:
        session.out.document(answer)
        return
    rows = [
        (
            short(runtime.name),
            runtime.version,
            ("yes", "green") if runtime.usable else ("no", "red"),
            runtime.found_by,
            runtime.path,
        )
        for runtime in answer.runtimes
    ]
    session.out.table(
        ["RUNTIME", "VERSION", "USABLE", "FOUND BY", "PATH"],
        rows,
        empty="the server's host has neither Python nor R; install one, then `modelhost runtimes --refresh`",
    )
    for runtime in answer.runtimes:
        if runtime.problem:
            session.out.line(f"{short(runtime.name)}: {runtime.problem}")
