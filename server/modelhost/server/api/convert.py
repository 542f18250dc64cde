"""Between stored values and messages of the public API."""

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from modelhost.envs import Environment, Interpreter, Language
from modelhost.server.api import names
from modelhost.server.control.diff import Change, Difference
from modelhost.server.resources import (
    Deployment,
    DeploymentState,
    Failure,
    ModelSettings,
    ModelSource,
    Revision,
    RevisionState,
    TensorSpec,
    TestCall,
    UpdateState,
)
from modelhost.server.serving.pool import PoolStatus
from modelhost.server.sources.paths import shown
from modelhost.server.sources.snapshots import SnapshotFile
from modelhost.server.store.logs import LogEntry
from modelhost.v1 import deployment_pb2, log_pb2, runtime_pb2, service_pb2

_Text = deployment_pb2.ModelSettings
_TEXTS = {"unicode": _Text.TEXT_UNICODE, "bytes": _Text.TEXT_BYTES}
_TENSORS = {"lists": _Text.TENSORS_LISTS, "numpy": _Text.TENSORS_NUMPY}
_UPDATE_STATES = {
    UpdateState.NONE: deployment_pb2.Deployment.UPDATE_STATE_UNSPECIFIED,
    UpdateState.IN_PROGRESS: deployment_pb2.Deployment.UPDATE_STATE_IN_PROGRESS,
    UpdateState.FAILED: deployment_pb2.Deployment.UPDATE_STATE_FAILED,
    UpdateState.DONE: deployment_pb2.Deployment.UPDATE_STATE_DONE,
}
_LANGUAGES = {
    Language.PYTHON: runtime_pb2.Runtime.LANGUAGE_PYTHON,
    Language.R: runtime_pb2.Runtime.LANGUAGE_R,
}
_STREAMS = {
    "server": log_pb2.LogEntry.STREAM_SERVER,
    "stdout": log_pb2.LogEntry.STREAM_STDOUT,
    "stderr": log_pb2.LogEntry.STREAM_STDERR,
}


def timestamp(seconds: float | None) -> Timestamp | None:
    """Seconds since the epoch, to the millisecond."""
    if seconds is None:
        return None
    result = Timestamp()
    result.FromMilliseconds(round(seconds * 1000))
    return result


def runtime(value: Interpreter) -> runtime_pb2.Runtime:
    """A runtime."""
    return runtime_pb2.Runtime(
        name=names.join(names.RUNTIMES, value.name),
        language=_LANGUAGES[value.language],
        version=value.version,
        path=str(value.path),
        found_by=value.found_by,
        usable=value.usable,
        problem=value.problem,
    )


def environment(value: Environment, users: list[tuple[str, int]]) -> runtime_pb2.Environment:
    """An environment and the revisions that use it."""
    return runtime_pb2.Environment(
        name=names.join(names.ENVIRONMENTS, value.spec_digest),
        runtime=names.join(names.RUNTIMES, value.interpreter.name),
        runtime_version=value.interpreter.version,
        spec_digest=value.spec_digest,
        environment_digest=value.digest,
        requirements=value.requirements,
        lock=value.lock,
        size_bytes=value.size_bytes,
        create_time=timestamp(value.created),
        build_seconds=value.build_seconds,
        used_by=[revision_name(deployment_id, number) for deployment_id, number in users],
    )


def source(value: ModelSource) -> deployment_pb2.ModelSource:
    """Where a model's files come from."""
    return deployment_pb2.ModelSource(
        data_source=names.join(names.DATA_SOURCES, value.data_source),
        project=value.project,
        ref=value.ref,
        directory=value.directory,
        paths=value.paths,
    )


def source_from(message: deployment_pb2.ModelSource) -> ModelSource:
    """The same back; names are checked by the caller."""
    return ModelSource(
        data_source=message.data_source.removeprefix(f"{names.DATA_SOURCES}/"),
        project=message.project.rstrip("/"),
        ref=message.ref,
        directory=message.directory.rstrip("/"),
        paths=tuple(path.rstrip("/") for path in message.paths),
    )


def settings(value: ModelSettings) -> deployment_pb2.ModelSettings:
    """How a model is run; what is `None` is not set."""
    limits = deployment_pb2.Limits(
        queue_size=value.queue_size or 0,
        memory_bytes=value.memory or 0,
        recycle_after_calls=value.recycle_calls or 0,
        recycle_memory_bytes=value.recycle_memory or 0,
    )
    if value.call_timeout:
        limits.call_timeout.FromMilliseconds(round(value.call_timeout * 1000))
    if value.load_timeout:
        limits.load_timeout.FromMilliseconds(round(value.load_timeout * 1000))
    message = deployment_pb2.ModelSettings(
        runtime=names.join(names.RUNTIMES, value.runtime or ""),
        main_file=value.main_file or "",
        function=value.function or "",
        requirements=value.requirements or (),
        requirements_file=value.requirements_file or "",
        working_dir=value.working_dir or "",
        import_paths=value.import_paths or (),
        env=value.env or {},
        text=_TEXTS.get(value.text or "", _Text.TEXT_UNSPECIFIED),
        unbox=value.unbox,
        tensors=_TENSORS.get(value.tensors or "", _Text.TENSORS_UNSPECIFIED),
        inputs=map(_tensor, value.inputs or ()),
        outputs=map(_tensor, value.outputs or ()),
        limits=limits if limits.ByteSize() else None,
        secret_env_names=sorted(value.secret_env or ()),
    )
    if value.max_batch_size is not None:
        message.batching.max_size = value.max_batch_size
    if value.max_batch_delay is not None:
        message.batching.max_delay.FromMicroseconds(round(value.max_batch_delay * 1e6))
    if value.batch_dimension is not None:
        message.batching.batch_dimension = value.batch_dimension
    if value.test_call:
        message.test_call.parameters_json = value.test_call.parameters_json
        message.test_call.expected_json = value.test_call.expected_json
    return message


def settings_from(message: deployment_pb2.ModelSettings) -> ModelSettings:
    """The same back: what is empty is `None`. Secret values are as they came, not sealed."""
    test = message.test_call
    limits, batching = message.limits, message.batching
    return ModelSettings(
        runtime=message.runtime.removeprefix(f"{names.RUNTIMES}/") or None,
        main_file=message.main_file or None,
        function=message.function or None,
        requirements=tuple(message.requirements) or None,
        requirements_file=message.requirements_file or None,
        working_dir=message.working_dir or None,
        import_paths=tuple(message.import_paths) or None,
        env=dict(message.env) or None,
        text={number: name for name, number in _TEXTS.items()}.get(message.text),
        unbox=message.unbox if message.HasField("unbox") else None,
        tensors={number: name for name, number in _TENSORS.items()}.get(message.tensors),
        inputs=tuple(map(_tensor_from, message.inputs)) or None,
        outputs=tuple(map(_tensor_from, message.outputs)) or None,
        call_timeout=limits.call_timeout.ToMilliseconds() / 1000 if limits.HasField("call_timeout") else None,
        load_timeout=limits.load_timeout.ToMilliseconds() / 1000 if limits.HasField("load_timeout") else None,
        queue_size=limits.queue_size or None,
        memory=limits.memory_bytes or None,
        recycle_calls=limits.recycle_after_calls or None,
        recycle_memory=limits.recycle_memory_bytes or None,
        test_call=TestCall(test.parameters_json, test.expected_json) if message.HasField("test_call") else None,
        max_batch_size=batching.max_size or None,
        max_batch_delay=batching.max_delay.ToMicroseconds() / 1e6 if batching.HasField("max_delay") else None,
        batch_dimension=batching.batch_dimension if batching.HasField("batch_dimension") else None,
        secret_env=dict(message.secret_env) or None,
    )


def _tensor(value: TensorSpec) -> deployment_pb2.TensorSpec:
    return deployment_pb2.TensorSpec(name=value.name, datatype=value.datatype, shape=value.shape)


def _tensor_from(message: deployment_pb2.TensorSpec) -> TensorSpec:
    return TensorSpec(message.name, message.datatype, tuple(message.shape))


def failure(value: Failure | None) -> deployment_pb2.Failure | None:
    """Why something failed."""
    if value is None:
        return None
    return deployment_pb2.Failure(
        reason=value.reason_value,
        message=value.message,
        hint=value.hint,
        revision=value.revision,
        step=value.step,
        time=timestamp(value.time),
    )


def deployment(value: Deployment, seen: PoolStatus) -> deployment_pb2.Deployment:
    """A deployment and what is seen of its workers."""
    routes = [deployment_pb2.Route(revision=value.active, weight=100)] if value.active else []
    return deployment_pb2.Deployment(
        name=names.join(names.DEPLOYMENTS, value.id),
        uid=value.uid,
        description=value.description,
        source=source(value.source),
        settings=settings(value.settings),
        workers=value.workers,
        state=deployment_pb2.Deployment.State.Value(f"STATE_{DeploymentState(value.state).name}"),
        service=names.join(names.SERVICES, value.service_id),
        active_revision=value.active,
        target_revision=value.target,
        update_state=_UPDATE_STATES[value.update_state],
        failure=failure(value.failure),
        routes=routes,
        observed=deployment_pb2.Observed(
            live_workers=seen.live,
            queued_calls=seen.queued,
            running_calls=seen.running,
            restarts=seen.restarts,
            starting_workers=seen.starting,
        ),
        create_time=timestamp(value.created),
        update_time=timestamp(value.updated),
        etag=str(value.version),
    )


def revision_name(deployment_id: str, number: int) -> str:
    """`deployments/iris/revisions/3`."""
    return f"{names.DEPLOYMENTS}/{deployment_id}/{names.REVISIONS}/{number}"


def revision(value: Revision, deployment_id: str, files: tuple[SnapshotFile, ...] = ()) -> deployment_pb2.Revision:
    """A revision, with its files where they are asked for."""
    return deployment_pb2.Revision(
        name=revision_name(deployment_id, value.number),
        number=value.number,
        state=deployment_pb2.Revision.State.Value(f"STATE_{RevisionState(value.state).name}"),
        source=source(value.source),
        commit=value.commit,
        requested_settings=settings(value.requested),
        settings=settings(value.settings) if value.settings else None,
        snapshot_digest=value.snapshot_digest,
        environment=names.join(names.ENVIRONMENTS, value.environment),
        environment_digest=value.environment_digest,
        failure=failure(value.failure),
        files=[
            deployment_pb2.RevisionFile(
                path=shown(file.path),
                size=file.size,
                sha256=file.sha256,
                link_target=shown(file.link_target),
                executable=file.executable,
            )
            for file in files
        ],
        create_time=timestamp(value.created),
        ready_time=timestamp(value.ready),
    )


def diff(before: Revision, after: Revision, found: Difference) -> deployment_pb2.DiffRevisionsResponse:
    """What is different between two revisions."""

    def changes(values: Sequence[Change]) -> list[deployment_pb2.ValueChange]:
        return [deployment_pb2.ValueChange(name=one.name, before=one.before, after=one.after) for one in values]

    commit = deployment_pb2.ValueChange(name="commit", before=before.commit, after=after.commit)
    return deployment_pb2.DiffRevisionsResponse(
        base_revision=before.number,
        revision=after.number,
        commit=commit if before.commit != after.commit else None,
        files=[
            deployment_pb2.FileChange(
                path=shown(one.path), before_sha256=one.before, after_sha256=one.after, unified_diff=one.unified
            )
            for one in found.files
        ],
        settings=changes(found.settings),
        packages=changes(found.packages),
    )


def log_entry(value: LogEntry) -> log_pb2.LogEntry:
    """A line of a log."""
    return log_pb2.LogEntry(
        time=timestamp(value.time),
        revision=value.revision,
        step=value.step,
        stream=_STREAMS.get(value.stream, log_pb2.LogEntry.STREAM_UNSPECIFIED),
        text=value.text,
        worker=value.worker,
        seconds=value.seconds,
        request_id=value.request_id,
    )


def service(value: Deployment, seen: PoolStatus) -> service_pb2.Service:
    """The service of a deployment that has been RUNNING."""
    return service_pb2.Service(
        name=names.join(names.SERVICES, value.service_id),
        deployment=names.join(names.DEPLOYMENTS, value.id),
        serving=seen.live > 0,
        revision=value.active,
        create_time=timestamp(value.service_created),
        open=value.open,
    )
