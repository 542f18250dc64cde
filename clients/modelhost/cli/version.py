"""`modelhost version`: which version of the command this is."""

import platform
from typing import Annotated

import typer

from modelhost.cli.output import Output


def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")] = False,
) -> None:
    """Print the version of this command."""
    # Read from the file, not the installed metadata: it is right in an editable install, too.
    from modelhost.client._version import __version__

    out = Output(as_json=as_json)
    if as_json:
        out.document({"version": __version__, "python": platform.python_version()})
    else:
        out.line(f"modelhost {__version__}, Python {platform.python_version()}")
