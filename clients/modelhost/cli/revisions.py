"""Revisions of a deployment in words: a table of them, or one with all that it is made of."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from modelhost.cli import api
from modelhost.cli.connection import Session
from modelhost.cli.output import Cell, Output
from modelhost.cli.paging import whole
from modelhost.cli.render import elapsed, moment, reason_name, revision_state, short, size, source_words, styled

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp


def list_revisions(session: Session, name: str) -> None:
    """List all revisions that are kept, newest first."""
    deployment = session.admin.GetDeployment(api.GetDeploymentRequest(name=name))
    answer = whole(session.admin.ListRevisions, api.ListRevisionsRequest(parent=deployment.name))
    if session.as_json:
        session.out.document(answer)
    else:
        revisions_table(session.out, deployment, answer.revisions)


def revisions_table(out: Output, deployment: "api.Deployment", revisions: "Iterable[api.Revision]") -> None:
    """Print what revisions there are, which one answers calls and which one is to."""
    marks = {deployment.target_revision: ["target"]}
    marks.setdefault(deployment.active_revision, []).insert(0, "active")
    rows = [
        (
            str(revision.number),
            _state(revision),
            ", ".join(marks.get(revision.number, ())),
            revision.commit[:10],
            revision.source.ref,
            moment(revision.create_time),
        )
        for revision in revisions
    ]
    out.table(["REVISION", "STATE", "IS", "COMMIT", "REF", "MADE"], rows)


def _state(revision: "api.Revision") -> Cell:
    state = revision_state(revision)
    return styled(f"{state} ({reason_name(revision.failure)})" if revision.HasField("failure") else state)


def show_revision(session: Session, name: str, number: int) -> None:
    """Show what a revision is made of."""
    request = api.GetRevisionRequest(name=f"deployments/{short(name)}/revisions/{number}")
    revision = session.admin.GetRevision(request)
    if session.as_json:
        session.out.document(revision)
        return
    session.out.details(
        [
            *revision_rows(revision),
            ("source", source_words(revision.source, revision.commit)),
            ("commit", revision.commit),
            ("files digest", revision.snapshot_digest),
            ("made", moment(revision.create_time)),
            ("ready", _took(revision.create_time, revision.ready_time)),
            *failure_rows(revision.failure),
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


def revision_rows(revision: "api.Revision") -> list[tuple[str, Cell]]:
    """Return what is in force, which is known once a revision is fetched."""
    if not revision.number:
        return []
    settings = revision.settings if revision.HasField("settings") else revision.requested_settings
    limits, batching = settings.limits, settings.batching
    return [
        ("revision", f"{revision.number}, {revision_state(revision)}"),
        ("runtime", short(settings.runtime)),
        ("runs", ":".join(part for part in (settings.main_file, settings.function) if part)),
        ("working dir", settings.working_dir),
        ("import paths", ", ".join(settings.import_paths)),
        ("variables", ", ".join(f"{key}={value}" for key, value in sorted(settings.env.items()))),
        ("secrets", ", ".join(f"{key}=***" for key in settings.secret_env_names)),
        ("call timeout", elapsed(limits.call_timeout.ToSeconds()) if limits.HasField("call_timeout") else ""),
        ("load timeout", elapsed(limits.load_timeout.ToSeconds()) if limits.HasField("load_timeout") else ""),
        ("queue size", str(limits.queue_size or "")),
        ("memory", size(limits.memory_bytes) if limits.memory_bytes else ""),
        ("exchanged after calls", str(limits.recycle_after_calls or "")),
        ("exchanged at", size(limits.recycle_memory_bytes) if limits.recycle_memory_bytes else ""),
        ("batches", f"of up to {batching.max_size} calls" if batching.max_size > 1 else ""),
        ("batch dimension", "the first" if batching.batch_dimension else ""),
        ("takes", ", ".join(map(_tensor, settings.inputs))),
        ("returns", ", ".join(map(_tensor, settings.outputs))),
        ("environment", revision.environment_digest),
    ]


def _tensor(spec: "api.TensorSpec") -> str:
    return f"{spec.name} {spec.datatype} {list(spec.shape)}"


def failure_rows(failure: "api.Failure") -> list[tuple[str, Cell]]:
    """Return why something failed; nothing if it did not."""
    if not failure.message:
        return []
    where = f"revision {failure.revision}" + (f", {failure.step}" if failure.step else "")
    return [
        ("failure", (f"{reason_name(failure)} ({where}, {moment(failure.time)})", "red")),
        ("message", failure.message),
        ("hint", failure.hint),
    ]


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
