"""`modelhost show`: all there is to know of a deployment, or of one of its revisions."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import DeploymentName
from modelhost.cli.connection import Session
from modelhost.cli.errors import usage
from modelhost.cli.flags import verb
from modelhost.cli.output import Cell
from modelhost.cli.render import (
    deployment_state,
    elapsed,
    moment,
    reason_name,
    revision_state,
    short,
    size,
    source_words,
    styled,
)
from modelhost.cli.streams import received

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

_NEWEST = 5


@verb
def show(
    session: Session,
    name: DeploymentName,
    revision: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Show this revision, with its files.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Print each change as it happens, until Ctrl-C.")
    ] = False,
) -> None:
    """Show where a deployment stands, or what a revision is made of.

    With --json, a deployment is {"deployment": …, "revision": …}, the latter being the one that it runs or should run;
    with --watch, one such object a line.

    Examples:
      modelhost show churn
      modelhost show churn --revision 2
      modelhost show churn --watch
    """
    if watch and revision:
        raise usage("--watch is for the deployment; leave --revision out")
    if watch:
        _watch(session, name)
    elif revision:
        _show_revision(session, name, revision)
    else:
        _show_deployment(session, name)


def _watch(session: Session, name: str) -> None:
    seen = ""
    for answer in received(session.admin.WatchDeployment, api.WatchDeploymentRequest(name=name)):
        if session.as_json:
            session.out.json_line(answer)
            continue
        words = _in_one_line(answer.deployment, answer.revision)
        if words != seen:
            state = styled(deployment_state(answer.deployment))
            session.out.line(f"{_now()}  {words}", style=state[1] if isinstance(state, tuple) else "")
            seen = words
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
        parts.append(f"{deployment.observed.live_workers} live workers")
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
    workers = f"{observed.live_workers} live, {observed.restarts} restarts since the server started"
    calls = f"{observed.running_calls} running, {observed.queued_calls} waiting"
    is_running = deployment.state == api.Deployment.STATE_RUNNING
    session.out.details(
        [
            ("name", (short(deployment.name), "bold")),
            ("description", deployment.description),
            ("state", styled(deployment_state(deployment))),
            ("service", short(deployment.service)),
            *_revision_rows(revision),
            ("source", source_words(deployment.source, revision.commit)),
            ("workers", workers if is_running else ""),
            ("calls", calls if is_running else ""),
            ("created", moment(deployment.create_time)),
            ("changed", moment(deployment.update_time)),
            *_failure_rows(deployment.failure),
        ]
    )
    _list_revisions(session, deployment)


def _revision_rows(revision: "api.Revision") -> list[tuple[str, Cell]]:
    """Return what is in force, which is known once a revision is fetched."""
    if not revision.number:
        return []
    settings = revision.settings if revision.HasField("settings") else revision.requested_settings
    limits = settings.limits
    return [
        ("revision", f"{revision.number}, {revision_state(revision)}"),
        ("runtime", short(settings.runtime)),
        ("runs", ":".join(part for part in (settings.main_file, settings.function) if part)),
        ("working dir", settings.working_dir),
        ("import paths", ", ".join(settings.import_paths)),
        ("variables", ", ".join(f"{key}={value}" for key, value in sorted(settings.env.items()))),
        ("call timeout", elapsed(limits.call_timeout.ToSeconds()) if limits.HasField("call_timeout") else ""),
        ("load timeout", elapsed(limits.load_timeout.ToSeconds()) if limits.HasField("load_timeout") else ""),
        ("queue size", str(limits.queue_size or "")),
        ("environment", revision.environment_digest),
    ]


def _failure_rows(failure: "api.Failure") -> list[tuple[str, Cell]]:
    if not failure.message:
        return []
    where = f"revision {failure.revision}" + (f", {failure.step}" if failure.step else "")
    return [
        ("failure", (f"{reason_name(failure)} ({where}, {moment(failure.time)})", "red")),
        ("message", failure.message),
        ("hint", failure.hint),
    ]


def _list_revisions(session: Session, deployment: "api.Deployment") -> None:
    answer = session.admin.ListRevisions(api.ListRevisionsRequest(parent=deployment.name, page_size=_NEWEST))
    if len(answer.revisions) < 2:
        return
    rows = [
        (
            str(revision.number),
            styled(revision_state(revision)),
            ", ".join(f"{r.weight} %" for r in deployment.routes if r.revision == revision.number),
            revision.commit[:10],
            revision.source.ref,
            moment(revision.create_time),
        )
        for revision in answer.revisions
    ]
    session.out.line()
    session.out.table(["REVISION", "STATE", "CALLS", "COMMIT", "REF", "MADE"], rows)


def _show_revision(session: Session, name: str, number: int) -> None:
    request = api.GetRevisionRequest(name=f"deployments/{short(name)}/revisions/{number}")
    revision = session.admin.GetRevision(request)
    if session.as_json:
        session.out.document(revision)
        return
    session.out.details(
        [
            *_revision_rows(revision),
            ("source", source_words(revision.source, revision.commit)),
            ("commit", revision.commit),
            ("files digest", revision.snapshot_digest),
            ("made", moment(revision.create_time)),
            ("ready", _took(revision.create_time, revision.ready_time)),
            *_failure_rows(revision.failure),
        ]
    )
    if revision.files:
        session.out.line()
        rows = [
            (size(file.size), file.sha256[:12], file.path + (f" -> {file.link_target}" if file.link_target else ""))
            for file in revision.files
        ]
        session.out.table(["SIZE", "SHA-256", "FILE"], rows)
    if revision.environment:
        _list_packages(session, revision.environment)


def _took(begin: "Timestamp", end: "Timestamp") -> str:
    if not end.seconds:
        return ""
    return f"{moment(end)}, after {elapsed((end.ToNanoseconds() - begin.ToNanoseconds()) / 1e9)}"


def _list_packages(session: Session, environment: str) -> None:
    try:
        found = session.admin.GetEnvironment(api.GetEnvironmentRequest(name=environment))
    except api.NotFound:  # collected since
        return
    if found.lock:
        session.out.line()
        session.out.table(["PACKAGE"], [[package] for package in found.lock])
