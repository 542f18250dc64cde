"""`modelhost deploy` and `modelhost update`: from a wish to a running model.

`deploy` says the whole wish: what its command line and `modelhost.toml` leave out is as the file among the deployed
files, or the default, says. `update` changes what it names and leaves the rest.
"""

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelhost.cli import api, modelfile
from modelhost.cli.arguments import DeploymentName, NoWait
from modelhost.cli.connection import DEFAULT_ADDRESS, Session
from modelhost.cli.errors import usage
from modelhost.cli.flags import verb
from modelhost.cli.follow import Sighting, following_on
from modelhost.cli.output import to_dict
from modelhost.cli.progress import follow_to_end
from modelhost.cli.render import deployment_state, elapsed, short
from modelhost.cli.wish import SettingsFlags, SourceFlags

if TYPE_CHECKING:
    from google.protobuf.field_mask_pb2 import FieldMask

_Description = Annotated[str | None, typer.Option(help="What people should know about it.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only how it ends; where it fails, the last lines.")]
_ValidateOnly = Annotated[
    bool,
    typer.Option("--validate-only", help="Change nothing, only check; also that project, ref and paths are there."),
]


@verb
def deploy(
    session: Session,
    source: SourceFlags,
    settings: SettingsFlags,
    model_dir: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where modelhost.toml is.", exists=True, file_okay=False)
    ] = Path(),
    *,
    name: Annotated[str | None, typer.Option(help="What to call it; else as modelhost.toml says.")] = None,
    description: _Description = None,
    no_start: Annotated[bool, typer.Option("--no-start", help="Only create or change it.")] = False,
    no_wait: NoWait = False,
    validate_only: _ValidateOnly = False,
    quiet: _Quiet = False,
) -> None:
    """Host a model, or update a hosted one, and follow until it runs.

    The files come from the data source, at a commit; never from DIR. A modelhost.toml in DIR says which: its `name`,
    `description` and `[source]` are read here, and options override them. Its other settings are read by the server,
    from the commit.

    If the deployment exists, it is updated: what was set before and is not set now is reset. While it runs, the old
    revision serves until the new one is loaded.

    With --json, one JSON object a line, the last one being {"deployment": …}.

    Examples:
      modelhost deploy
      modelhost deploy models/churn --ref v1.2
      modelhost deploy --name churn --source models --runtime python3.6
    """
    file = modelfile.read(model_dir)
    if file:
        name = name or file.name
        description = file.description if description is None else description
    wanted = _with_file(session, model_dir, file, source)
    if not name or not wanted.source:
        raise _incomplete(model_dir, file, name)
    wish = api.Deployment(name=f"deployments/{name}", description=description or "")
    wish.source.CopyFrom(wanted.given()[0])
    wish.settings.CopyFrom(settings.given()[0])
    deployment, done = _create_or_update(session, name, wish, validate_only=validate_only)
    if validate_only:
        finish(session, deployment, f"{name} can be {done}; nothing was changed")
        return
    if no_start:
        finish(session, deployment, f"{name} {done}, {deployment_state(deployment)}")
        return
    _bring_up(session, deployment, done=done, wait=not no_wait, quiet=quiet)


@verb
def update(
    session: Session,
    source: SourceFlags,
    settings: SettingsFlags,
    name: DeploymentName,
    *,
    description: _Description = None,
    reset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING", help="Take it from modelhost.toml again: `function`, `env` …; may be repeated."
        ),
    ] = None,
    no_wait: NoWait = False,
    validate_only: _ValidateOnly = False,
    quiet: _Quiet = False,
) -> None:
    """Change settings or source of a deployment, leave the rest.

    A branch is resolved to its newest commit again, also if nothing else is named. A running deployment is followed
    until it runs as changed; the old revision serves until the new one is loaded. One that failed is started again, one
    that is stopped stays so.

    Examples:
      modelhost update churn
      modelhost update churn --ref v1.3
      modelhost update churn --call-timeout 5m --env MODE=fast
      modelhost update churn --reset function
    """
    new_source, source_paths = source.given()
    new_settings, settings_paths = settings.given()
    wish = api.Deployment(name=f"deployments/{short(name)}", source=new_source, settings=new_settings)
    paths = [f"source.{path}" for path in source_paths]
    paths += [f"settings.{path}" for path in dict.fromkeys([*settings_paths, *map(_setting, reset or ())])]
    if description is not None:
        wish.description = description
        paths.append("description")
    before = session.admin.GetDeployment(api.GetDeploymentRequest(name=name))
    if not paths:
        wish.source.CopyFrom(before.source)
        paths.append("source")
    deployment = session.admin.UpdateDeployment(
        api.UpdateDeploymentRequest(deployment=wish, update_mask=_mask(paths), validate_only=validate_only)
    )
    if validate_only:
        finish(session, deployment, f"{short(name)} can be updated; nothing was changed")
    elif deployment.target_revision == before.target_revision or deployment.state == api.Deployment.STATE_STOPPED:
        finish(session, deployment, f"{short(name)} updated, {deployment_state(deployment)}")
    else:
        _bring_up(session, deployment, done="updated", wait=not no_wait, quiet=quiet)


def _setting(name: str) -> str:
    """Return the path of a setting within the settings: `limits.call_timeout` of `call-timeout`."""
    path = name.replace("-", "_")
    settings, limits = api.ModelSettings.DESCRIPTOR.fields_by_name, api.Limits.DESCRIPTOR.fields_by_name
    if path not in settings and path not in limits:
        raise usage(f"--reset: there is no setting {name!r}", f"it is one of {', '.join([*settings, *limits])}")
    return f"limits.{path}" if path in limits else path


def _with_file(session: Session, directory: Path, file: modelfile.ModelFile | None, flags: SourceFlags) -> SourceFlags:
    """Return the flags, and for those not given what the file says, or Git."""
    if not file:
        return flags
    merged = SourceFlags(
        source=flags.source or file.source.source,
        project=file.source.project if flags.project is None else flags.project,
        ref=file.source.ref if flags.ref is None else flags.ref,
        directory=file.source.directory if flags.directory is None else flags.directory,
        path=file.source.path if flags.path is None else flags.path,
    )
    git = modelfile.git_state(directory)
    if not git:
        return merged
    if git.uncommitted:
        names = ", ".join(path or "all of it" for path in git.uncommitted[:3])
        more = f" and {len(git.uncommitted) - 3} more" if len(git.uncommitted) > 3 else ""
        session.out.warn(f"not committed, so not what is deployed: {names}{more}")
    if merged.directory is None and git.prefix:
        session.out.note(
            f"the model's root is {git.prefix}, where {modelfile.FILE_NAME} lies; --directory sets another"
        )
        return replace(merged, directory=git.prefix)
    return merged


def _incomplete(directory: Path, file: modelfile.ModelFile | None, name: str | None) -> Exception:
    missing = "--source" if name else "--name"
    where = f"{file.path} does not say it" if file else f"there is no {directory / modelfile.FILE_NAME}"
    key = 'data_source = "…" in [source]' if name else 'name = "…"'
    return usage(f"{missing} is missing, and {where}", f"give {missing}, or write {key} into {modelfile.FILE_NAME}")


def _create_or_update(
    session: Session, name: str, wish: "api.Deployment", *, validate_only: bool
) -> "tuple[api.Deployment, str]":
    """Return the deployment as it is stored, and whether it was `created` or `updated`."""
    try:
        existing = session.admin.GetDeployment(api.GetDeploymentRequest(name=name))
    except api.NotFound:
        request = api.CreateDeploymentRequest(deployment_id=name, deployment=wish, validate_only=validate_only)
        request.deployment.ClearField("name")
        return session.admin.CreateDeployment(request), "created"
    dropped = [
        field.name
        for field, _ in existing.settings.ListFields()
        if field.name not in {kept.name for kept, _ in wish.settings.ListFields()}
    ]
    if dropped:
        session.out.note(f"was set before and is not set now: {', '.join(dropped)}; `modelhost update` would keep it")
    paths = ["source", "settings", *(["description"] if wish.description else [])]
    change = api.UpdateDeploymentRequest(deployment=wish, update_mask=_mask(paths), validate_only=validate_only)
    return session.admin.UpdateDeployment(change), "updated"


def _bring_up(session: Session, deployment: "api.Deployment", *, done: str, wait: bool, quiet: bool) -> None:
    name = short(deployment.name)
    since = None
    if not _is_up(deployment):
        deployment = session.admin.StartDeployment(api.StartDeploymentRequest(name=deployment.name))
        since = deployment.update_time
    if not wait:
        finish(session, deployment, f"{name} {done}, {deployment_state(deployment)}")
        session.out.note(f"follow on with {following_on(name)}")
        return
    announce(session, follow_to_end(session, deployment, since=since, quiet=quiet))


def _is_up(deployment: "api.Deployment") -> bool:
    return deployment.state in {api.Deployment.STATE_STARTING, api.Deployment.STATE_RUNNING}


def _mask(paths: list[str]) -> "FieldMask":
    from google.protobuf.field_mask_pb2 import FieldMask

    return FieldMask(paths=paths)


def finish(session: Session, deployment: "api.Deployment", sentence: str) -> None:
    """Print the deployment as the last JSON line, or a sentence."""
    if session.as_json:
        session.out.json_line({"deployment": to_dict(deployment)})
    else:
        session.out.line(sentence)


def announce(session: Session, last: Sighting) -> None:
    """Say that it runs, and how to call it."""
    deployment, revision = last.deployment, last.revision
    if session.as_json:
        session.out.json_line({"deployment": to_dict(deployment)})
        return
    name = short(deployment.name)
    facts = [f"revision {deployment.active_revision}"]
    if revision.commit:
        facts.append(f"commit {revision.commit[:10]}")
    if revision.HasField("ready_time"):
        took = revision.ready_time.ToNanoseconds() - revision.create_time.ToNanoseconds()
        facts.append(f"built in {elapsed(took / 1e9)}")
    session.out.line(f"{name} is running: {', '.join(facts)}", style="green")
    session.out.line(f"service {short(deployment.service)}")
    default = os.environ.get("MODELHOST_ADDRESS") or DEFAULT_ADDRESS
    address = "" if session.address == default else f" --address {session.address}"
    example = revision.settings.test_call.parameters_json or "{}"
    session.out.line()
    session.out.line(f"  modelhost predict {name} {shlex.quote(example)}{address}")
