"""`modelhost diff`: what is different between two revisions."""

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import DeploymentName
from modelhost.cli.completion import complete_revision
from modelhost.cli.connection import Session
from modelhost.cli.errors import CommandError, ExitCode
from modelhost.cli.flags import verb
from modelhost.cli.output import Cell, Output
from modelhost.cli.render import short

_STYLES = {"+": "green", "-": "red", "@": "cyan"}
_COMMIT_DIGITS = 12


@verb
def diff(
    session: Session,
    name: DeploymentName,
    revision: Annotated[
        int | None,
        typer.Argument(
            metavar="REVISION", min=1, help="Its number; else the newest.", autocompletion=complete_revision
        ),
    ] = None,
    base: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Compare with this one; else with the one before.")
    ] = None,
    stat: Annotated[bool, typer.Option("--stat", help="Of files only the names, and how many lines changed.")] = False,
) -> None:
    """Show what is different between two revisions: commit, settings, packages and files.

    Files that are no text, or long, are only named. Of secret variables it is said whether they were set anew.

    Examples:
      modelhost diff churn
      modelhost diff churn 5 --base 3
      modelhost diff churn --stat
    """
    number = revision or _newest(session, name)
    found = session.admin.DiffRevisions(
        api.DiffRevisionsRequest(name=f"deployments/{short(name)}/revisions/{number}", base_revision=base or 0)
    )
    if session.as_json:
        session.out.document(found)
        return
    if found.base_revision == found.revision:
        session.out.line(f"{short(name)}: revision {found.revision} has no other to be compared with")
        return
    values = list(_values(found))
    if not values and not found.files:
        session.out.line(f"{short(name)}: no difference between revisions {found.base_revision} and {found.revision}")
        return
    session.out.line(f"{short(name)}: revision {found.base_revision} → {found.revision}", style="bold")
    if values:
        session.out.line()
        session.out.table(["CHANGED", "BEFORE", "AFTER"], values)
    _show_files(session.out, found.files, stat=stat)


def _newest(session: Session, name: str) -> int:
    answer = session.admin.ListRevisions(api.ListRevisionsRequest(parent=name, page_size=1))
    if not answer.revisions:
        raise CommandError(f"{short(name)} has no revisions", ExitCode.NOT_FOUND)
    return answer.revisions[0].number


def _values(found: "api.DiffRevisionsResponse") -> Iterator[tuple[str, Cell, Cell]]:
    if found.HasField("commit"):
        before, after = found.commit.before[:_COMMIT_DIGITS], found.commit.after[:_COMMIT_DIGITS]
        yield "commit", (before, "red"), (after, "green")
    for kind, changes in (("setting", found.settings), ("package", found.packages)):
        for change in changes:
            yield f"{kind} {change.name}", (change.before, "red"), (change.after, "green")


def _show_files(out: Output, files: "Iterable[api.FileChange]", *, stat: bool) -> None:
    """Name the files, with --stat all of them, else those that have no difference in text; then show the others'."""
    named = [file for file in files if stat or not file.unified_diff]
    if named:
        out.line()
        out.table(["FILE", "LINES", "PATH"], [(_what_happened(file), _counts(file), file.path) for file in named])
    for file in files:
        if file.unified_diff and not stat:
            out.line()
            for number, line in enumerate(file.unified_diff.removesuffix("\n").split("\n")):
                out.line(line, style="bold" if number < 2 else _STYLES.get(line[:1], ""))


def _what_happened(file: "api.FileChange") -> str:
    if not file.before_sha256:
        return "added"
    return "changed" if file.after_sha256 else "removed"


def _counts(file: "api.FileChange") -> str:
    """Return how many lines came and went: `+3 -1`; nothing for what is no text."""
    lines = file.unified_diff.split("\n")[2:]
    came, went = (sum(line.startswith(mark) for line in lines) for mark in "+-")
    return f"+{came} -{went}" if file.unified_diff else ""
