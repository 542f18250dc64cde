"""The `modelhost` command: its verbs, and its way out.

main.py         the verbs and the exit
plugins.py      verbs of other packages: `serve`
errors.py       exit codes, errors            output.py       tables, JSON, notes
connection.py   address and token             flags.py        options shared by verbs
wish.py         flags of deploy and update    variables.py    theirs for variables and secrets
modelfile.py    modelhost.toml and Git        bring_up.py     starting, and what came of it
follow.py       what happens to a deployment  progress.py     how that looks
gitlab.py       flags for a GitLab's place, and its token
api.py          the API's messages, imported late
and a module for each verb, or family of verbs.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from modelhost.cli import (
    browse,
    deploy,
    deployments,
    diff,
    environments,
    logs,
    predict,
    runtimes,
    scale,
    show,
    sources,
    update,
    version,
)
from modelhost.cli.errors import EXIT_CODES, ExitCode, of_exception
from modelhost.cli.flags import Command, Group, help_text
from modelhost.cli.output import Output
from modelhost.cli.plugins import Verbs

_HELP = """Host models written for Python 2.7, Python 3.6 and R 3.6.

A model is deployed from Git at a commit, gets an environment of its own, and is called by gRPC or with
`modelhost predict`. On the server's own host the command finds the server and its token by itself.

Examples:
  modelhost serve
  modelhost source add models https://git.example.com/team/models.git
  modelhost deploy --name churn --source models --runtime python3.6
  modelhost predict churn '{"age": 41}'
"""
_EPILOG = "\n".join(["", "Exit codes:", *(f"  {code.value:<3}  {meaning}" for code, meaning in EXIT_CODES.items())])

_MODELS, _SETUP = "Models", "What they need"


def app() -> typer.Typer:
    """Build the command."""
    root = typer.Typer(
        cls=Verbs, rich_markup_mode="rich", no_args_is_help=True, help=help_text(_HELP), epilog=help_text(_EPILOG)
    )
    root.callback()(_root)
    for name, function in (
        ("deploy", deploy.deploy),
        ("update", update.update),
        ("list", deployments.list_),
        ("show", show.show),
        ("scale", scale.scale),
        ("start", deployments.start),
        ("stop", deployments.stop),
        ("rollback", deployments.rollback),
        ("diff", diff.diff),
        ("delete", deployments.delete),
        ("logs", logs.logs),
        ("predict", predict.predict),
    ):
        root.command(name, cls=Command, rich_help_panel=_MODELS)(function)
    source = "The places that models are deployed from."
    root.add_typer(_family(source, _SOURCE_VERBS), name="source", rich_help_panel=_SETUP)
    root.command("runtimes", cls=Command, rich_help_panel=_SETUP)(runtimes.runtimes)
    environment = "What was built on the server's host for models to run in."
    root.add_typer(_family(environment, _ENVIRONMENT_VERBS), name="environments", rich_help_panel=_SETUP)
    root.command("version", cls=Command, rich_help_panel="Other")(version.version)
    return root


_SOURCE_VERBS = {
    "add": sources.add,
    "update": sources.update,
    "test": sources.try_,
    "list": sources.list_,
    "projects": browse.projects,
    "refs": browse.refs,
    "files": browse.files,
    "cat": browse.cat,
    "delete": sources.delete,
}
_ENVIRONMENT_VERBS = {"list": environments.list_, "show": environments.show, "collect": environments.collect}


def _family(text: str, verbs: Mapping[str, Callable[..., None]]) -> typer.Typer:
    group = typer.Typer(cls=Group, rich_markup_mode="rich", no_args_is_help=True, help=text)
    for name, function in verbs.items():
        group.command(name, cls=Command)(function)
    return group


def _print_version(asked: bool) -> None:
    if asked:
        version.version()
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version of this command.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code; never raises for what a user can cause."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        answer = typer.main.get_command(app())(arguments, prog_name="modelhost", standalone_mode=False)
        return answer if isinstance(answer, int) else ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # whoever read stdout has enough; what Python still holds for it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as error:
        problem = of_exception(error)
        if problem is None:
            raise
        if problem.message:  # else the help has been shown instead
            Output(as_json="--json" in arguments).error(problem)
        return problem.code


if __name__ == "__main__":
    sys.exit(main())
