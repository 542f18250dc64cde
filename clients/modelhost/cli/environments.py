"""`modelhost environments`: what was built on the server's host for models to run in."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.completion import complete_environment
from modelhost.cli.connection import Session
from modelhost.cli.errors import CommandError, ExitCode
from modelhost.cli.flags import verb
from modelhost.cli.paging import whole
from modelhost.cli.render import elapsed, moment, short, size

_DIGITS = 12


@verb
def list_(session: Session) -> None:
    """List the environments: each an interpreter and packages, shared by the revisions that ask for the same.

    Examples:
      modelhost environments list
      modelhost environments list --json | jq -r '.environments[] | select(.used_by == []) | .name'
    """
    answer = whole(session.admin.ListEnvironments, api.ListEnvironmentsRequest())
    if session.as_json:
        session.out.document(answer)
        return
    rows = [
        (
            short(environment.name)[:_DIGITS],
            _runtime(environment),
            str(len(environment.lock)),
            size(environment.size_bytes),
            "; ".join(_users(environment.used_by)),
            moment(environment.create_time),
        )
        for environment in answer.environments
    ]
    session.out.table(
        ["ENVIRONMENT", "RUNTIME", "PACKAGES", "SIZE", "USED BY", "BUILT"],
        rows,
        empty="no environments yet: the first deployment builds one",
    )


@verb
def show(
    session: Session,
    environment_id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The environment's digest, or how it begins.",
            autocompletion=complete_environment,
        ),
    ],
) -> None:
    """Show what an environment was built from, its packages, and who uses it.

    Examples:
      modelhost environments show 3f9c2ab41d07
    """
    found = _find(session, short(environment_id))
    if session.as_json:
        session.out.document(found)
        return
    session.out.details(
        [
            ("environment", (short(found.name), "bold")),
            ("runtime", _runtime(found)),
            ("size", size(found.size_bytes)),
            ("built", f"{moment(found.create_time)}, in {elapsed(found.build_seconds)}"),
            ("locked digest", found.environment_digest),
            ("used by", "; ".join(_users(found.used_by)) or "nothing: `modelhost environments collect` removes it"),
            ("asked for", ", ".join(found.requirements)),
        ]
    )
    if found.lock:
        session.out.line()
        session.out.table(["PACKAGE"], [[package] for package in found.lock])


@verb
def collect(
    session: Session,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove at once the environments, and the files of models, that no kept revision uses.

    The server does so by itself every hour, for what has been unused for a day.

    Examples:
      modelhost environments collect --dry-run
      modelhost environments collect
    """
    answer = session.admin.CollectEnvironments(api.CollectEnvironmentsRequest(validate_only=dry_run))
    if session.as_json:
        session.out.document(answer)
        return
    done = "would be removed" if dry_run else "removed"
    rows = [("environment", short(digest)[:_DIGITS]) for digest in answer.environments]
    rows += [("files", digest[:_DIGITS]) for digest in answer.snapshots]
    for what, digest in rows:
        session.out.line(f"{what:<11}  {digest}  {done}")
    if rows:
        session.out.line(f"{size(answer.freed_bytes)} {'would be freed' if dry_run else 'freed'}")
    else:
        session.out.line("nothing to remove: kept revisions use all there is")


def _find(session: Session, digest: str) -> "api.Environment":
    """Return the environment whose digest begins like this. Raises CommandError unless it is one."""
    listed = whole(session.admin.ListEnvironments, api.ListEnvironmentsRequest()).environments
    found = [environment for environment in listed if short(environment.name).startswith(digest)]
    if len(found) == 1:
        return found[0]
    many = f"{len(found)} environments begin with {digest}" if found else f"there is no environment {digest}"
    code = ExitCode.USAGE if found else ExitCode.NOT_FOUND
    raise CommandError(many, code, "`modelhost environments list` shows those there are")


def _runtime(environment: "api.Environment") -> str:
    return f"{short(environment.runtime)} ({environment.runtime_version})"


def _users(names: Iterable[str]) -> list[str]:
    """Return who uses it: `churn 1, 3` of `deployments/churn/revisions/1` and `…/3`."""
    numbers: dict[str, list[str]] = defaultdict(list)
    for name in names:
        _, deployment, _, number = name.split("/")
        numbers[deployment].append(number)
    return [f"{deployment} {', '.join(revisions)}" for deployment, revisions in numbers.items()]
