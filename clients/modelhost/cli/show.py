"""`modelhost show`: all there is to know of a deployment, or of one of its revisions."""

from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import DeploymentName
from modelhost.cli.connection import Session
from modelhost.cli.errors import usage
from modelhost.cli.flags import verb
from modelhost.cli.render import deployment_state, moment, reason_name, revision_state, short, source_words, styled
from modelhost.cli.revisions import failure_rows, list_revisions, revision_rows, revisions_table, show_revision
from modelhost.cli.streams import received

_NEWEST = 5


@verb
def show(
    session: Session,
    name: DeploymentName,
    revision: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Show this revision, with its files.")
    ] = None,
    revisions: Annotated[bool, typer.Option("--revisions", help="List all revisions, newest first.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Print each change as it happens, until Ctrl-C.")
    ] = False,
) -> None:
    """Show where a deployment stands, or what a revision is made of.

    With --json, a deployment is {"deployment": …, "revision": …}, the latter being the one that it runs or should run;
    with --watch, one such object a line, the revision being the one that it should run.

    Examples:
      modelhost show churn
      modelhost show churn --revisions
      modelhost show churn --revision 2
      modelhost show churn --watch
    """
    if [watch, revisions, revision is not None].count(True) > 1:
        raise usage("--watch, --revisions and --revision exclude each other")
    if watch:
        _watch(session, name)
    elif revisions:
        list_revisions(session, name)
    elif revision:
        show_revision(session, name, revision)
    else:
        _show_deployment(session, name)


def _watch(session: Session, name: str) -> None:
    seen, hint = "", ""
    for answer in received(session.admin.WatchDeployment, api.WatchDeploymentRequest(name=name)):
        if session.as_json:
            session.out.json_line(answer)
            continue
        words = _in_one_line(answer.deployment, answer.revision)
        if words != seen:
            state = styled(deployment_state(answer.deployment))
            session.out.line(f"{_now()}  {words}", style=state[1] if isinstance(state, tuple) else "")
            seen = words
        if answer.deployment.failure.hint not in {"", hint}:
            session.out.line(f"{'hint:':>19}  {answer.deployment.failure.hint}")
        hint = answer.deployment.failure.hint
    if not session.as_json:
        session.out.line(f"{_now()}  deleted")


def _now() -> str:
    from datetime import datetime

    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _in_one_line(deployment: "api.Deployment", revision: "api.Revision") -> str:
    parts = [deployment_state(deployment)]
    if deployment.active_revision:
        parts.append(f"revision {deployment.active_revision} serves")
    if revision.number and revision.number != deployment.active_revision:
        parts.append(f"revision {revision.number} is {revision_state(revision)}")
    if deployment.state == api.Deployment.STATE_RUNNING:
        live = deployment.observed.live_workers
        parts.append(f"{live} live {'worker' if live == 1 else 'workers'}")
    if deployment.HasField("failure"):
        parts.append(f"{reason_name(deployment.failure)}: {deployment.failure.message}")
    return ", ".join(parts)


def _show_deployment(session: Session, name: str) -> None:
    deployment = session.admin.GetDeployment(api.GetDeploymentRequest(name=name))
    number = deployment.active_revision or deployment.target_revision
    revision = api.Revision()
    if number:
        revision = session.admin.GetRevision(api.GetRevisionRequest(name=f"{deployment.name}/revisions/{number}"))
    if session.as_json:
        session.out.document(api.WatchDeploymentResponse(deployment=deployment, revision=revision))
        return
    observed = deployment.observed
    starting = f" of {deployment.workers}, {observed.starting_workers} starting" if observed.starting_workers else ""
    workers = f"{observed.live_workers} live{starting}, {observed.restarts} restarts since it was loaded"
    calls = f"{observed.running_calls} running, {observed.queued_calls} waiting"
    is_running = deployment.state == api.Deployment.STATE_RUNNING
    session.out.details(
        [
            ("name", (short(deployment.name), "bold")),
            ("description", deployment.description),
            ("state", styled(deployment_state(deployment))),
            ("service", short(deployment.service)),
            *revision_rows(revision),
            ("source", source_words(revision.source if number else deployment.source, revision.commit)),
            ("workers", workers if is_running else str(deployment.workers)),
            ("calls", calls if is_running else ""),
            ("created", moment(deployment.create_time)),
            ("changed", moment(deployment.update_time)),
            *failure_rows(deployment.failure),
        ]
    )
    answer = session.admin.ListRevisions(api.ListRevisionsRequest(parent=deployment.name, page_size=_NEWEST))
    if len(answer.revisions) > 1:
        session.out.line()
        revisions_table(session.out, deployment, answer.revisions)
        if answer.next_page_token:
            session.out.note(f"these are the newest; `modelhost show {short(name)} --revisions` lists all")
