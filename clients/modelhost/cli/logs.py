"""`modelhost logs`: what a build, or the workers, wrote."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import DeploymentName
from modelhost.cli.connection import Session
from modelhost.cli.errors import usage
from modelhost.cli.flags import verb
from modelhost.cli.output import Output
from modelhost.cli.render import moment
from modelhost.cli.streams import received

if TYPE_CHECKING:
    from modelhost.v1.log_pb2 import LogKind

_PAGE = 10_000


@verb
def logs(
    session: Session,
    name: DeploymentName,
    *,
    build: Annotated[bool, typer.Option("--build", help="How a revision was fetched, provisioned and loaded.")] = False,
    run: Annotated[bool, typer.Option("--run", help="What the workers wrote to stdout and stderr.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    revision: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of this revision; else the newest build, or every run.")
    ] = None,
    last: Annotated[int | None, typer.Option("--last", "-n", metavar="N", min=0, help="Only the last N lines.")] = None,
) -> None:
    """Print what a deployment's workers, or its build, wrote.

    Without --build or --run, it is the run log while the deployment runs, else that of its last build. With --json, one
    JSON object a line.

    Examples:
      modelhost logs churn
      modelhost logs churn --build --revision 2
      modelhost logs churn --run --last 100 -f
    """
    if build and run:
        raise usage("--build and --run exclude each other")
    kind = api.LOG_KIND_BUILD if build else api.LOG_KIND_RUN if run else _likely_kind(session, name)
    entries: Iterable[api.LogEntry]
    if follow:
        entries = _tail(session, name, kind, revision or 0, last)
    else:
        entries = _read(session, name, kind, revision or 0)
        entries = entries if last is None else deque(entries, maxlen=last)
    for entry in entries:
        if session.as_json:
            session.out.json_line(entry)
        else:
            print_entry(session.out, entry)


def _likely_kind(session: Session, name: str) -> "LogKind.ValueType":
    deployment = session.admin.GetDeployment(api.GetDeploymentRequest(name=name))
    if (
        deployment.state == api.Deployment.STATE_RUNNING
        and deployment.update_state != api.Deployment.UPDATE_STATE_FAILED
    ):
        session.out.note("the run log; --build prints how it was built")
        return api.LOG_KIND_RUN
    session.out.note("the build log; --run prints what its workers wrote")
    return api.LOG_KIND_BUILD


def _read(session: Session, name: str, kind: "LogKind.ValueType", revision: int) -> "Iterator[api.LogEntry]":
    request = api.ReadLogRequest(deployment=name, kind=kind, revision=revision, page_size=_PAGE)
    while True:
        page = session.admin.ReadLog(request)
        yield from page.entries
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _tail(
    session: Session, name: str, kind: "LogKind.ValueType", revision: int, last: int | None
) -> "Iterator[api.LogEntry]":
    request = api.TailLogRequest(deployment=name, kind=kind, revision=revision, last_lines=last)
    for answer in received(session.admin.TailLog, request):
        yield from answer.entries


def print_entry(out: Output, entry: "api.LogEntry") -> None:
    """Print a line of a log; what a terminal shows differently is only its colour."""
    origin = entry.step or entry.worker
    style = "bold" if entry.stream == api.LogEntry.STREAM_SERVER else ""
    out.line(f"{moment(entry.time)}  {origin:<9}  {entry.text}", style=style)
