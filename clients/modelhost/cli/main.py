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
confirm.py      questions first               quantities.py   times, sizes and rates as typed
secret_input.py secrets on their way in       shown_once.py   and on their way out
and a module for each verb, or family of verbs.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from modelhost.cli import (
    account_keys,
    accounts,
    audit,
    browse,
    deploy,
    deployments,
    diff,
    environments,
    grants,
    logs,
    operators,
    predict,
    runtimes,
    scale,
    services,
    show,
    sources,
    update,
    usage,
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
  modelhost account create shop
  modelhost grant shop churn --rate 10/s
"""
_EPILOG = "\n".join(["", "Exit codes:", *(f"  {code.value:<3}  {meaning}" for code, meaning in EXIT_CODES.items())])

_MODELS, _SETUP, _ACCESS = "Models", "What they need", "Access"


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
    account = "The applications that call models, and their keys."
    root.add_typer(_family(account, _ACCOUNT_VERBS), name="account", rich_help_panel=_ACCESS)
    for name, function in (("grant", grants.grant), ("revoke", grants.revoke), ("grants", grants.grants)):
        root.command(name, cls=Command, rich_help_panel=_ACCESS)(function)
    service = "What applications call: one service for each deployment."
    root.add_typer(_family(service, _SERVICE_VERBS), name="service", rich_help_panel=_ACCESS)
    root.command("usage", cls=Command, rich_help_panel=_ACCESS)(usage.usage)
    operator = "Who looks after the server, each with a token and a role."
    root.add_typer(_family(operator, _OPERATOR_VERBS), name="operator", rich_help_panel=_ACCESS)
    root.command("audit", cls=Command, rich_help_panel=_ACCESS)(audit.audit)
    root.command("rekey", cls=Command, rich_help_panel=_ACCESS)(operators.rekey)
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
_ACCOUNT_VERBS = {
    "create": accounts.create,
    "list": accounts.list_,
    "show": accounts.show,
    "token": account_keys.token,
    "rotate": account_keys.rotate,
    "key": account_keys.key,
    "delete-key": account_keys.delete_key,
    "disable": accounts.disable,
    "enable": accounts.enable,
    "delete": accounts.delete,
}
_SERVICE_VERBS = {
    "list": services.list_,
    "show": services.show,
    "open": services.open_,
    "close": services.close,
}
_OPERATOR_VERBS = {
    "add": operators.add,
    "list": operators.list_,
    "show": operators.show,
    "update": operators.update,
    "rotate": operators.rotate,
    "delete": operators.delete,
}


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
