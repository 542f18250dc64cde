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
    request: Annotated[
        str | None, typer.Option("--request", metavar="ID", help="Run log: only what this call wrote.")
    ] = None,
    last: Annotated[int | None, typer.Option("--last", "-n", metavar="N", min=0, help="Only the last N lines.")] = None,
) -> None:
    """Print what a deployment's workers, or its build, wrote.

    Without --build or --run, it is the run log while the deployment runs, else that of its last build. A line of the
    build log has time, step and text; one of the run log has time, revision, worker, stream, the call that it belongs
    to, and text. With --json, one JSON object a line.

    Examples:
      modelhost logs churn
      modelhost logs churn --build --revision 2
      modelhost logs churn --run --last 100 -f
      modelhost logs churn --run --request order-4711
    """
    if build and run:
        raise usage("--build and --run exclude each other")
    if build and request:
        raise usage("--request is for the run log: no call is under way in a build")
    kind = api.LOG_KIND_BUILD if build else api.LOG_KIND_RUN if run or request else _likely_kind(session, name)
    entries: Iterable[api.LogEntry]
    if follow:
        entries = _tail(
            session,
            api.TailLogRequest(
                deployment=name, kind=kind, revision=revision or 0, request_id=request or "", last_lines=last
            ),
        )
    else:
        entries = _read(
            session,
            api.ReadLogRequest(
                deployment=name, kind=kind, revision=revision or 0, request_id=request or "", page_size=_PAGE
            ),
        )
        entries = entries if last is None else deque(entries, maxlen=last)
    in_words = _run_line if kind == api.LOG_KIND_RUN else _build_line
    found = False
    for entry in entries:
        found = True
        if session.as_json:
            session.out.json_line(entry)
        else:
            style = "bold" if entry.stream == api.LogEntry.STREAM_SERVER else ""
            session.out.line(in_words(entry), style=style)
    if request and not found and not follow and last != 0:
        session.out.note(
            f"no line of the run log belongs to request {request}; it wrote nothing, was called with --debug, or its "
            "lines are no longer kept"
        )


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


def _read(session: Session, request: "api.ReadLogRequest") -> "Iterator[api.LogEntry]":
    while True:
        page = session.admin.ReadLog(request)
        yield from page.entries
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _tail(session: Session, request: "api.TailLogRequest") -> "Iterator[api.LogEntry]":
    for answer in received(session.admin.TailLog, request):
        yield from answer.entries


def _build_line(entry: "api.LogEntry") -> str:
    return f"{moment(entry.time)}  {entry.step:<9}  {entry.text}"


def _run_line(entry: "api.LogEntry") -> str:
    stream = api.LogEntry.Stream.Name(entry.stream).removeprefix("STREAM_").lower()
    worker, call = entry.worker or "-", entry.request_id or "-"
    return f"{moment(entry.time)}  {entry.revision}  {worker:<12}  {stream:<6}  {call:<10}  {entry.text}"
