"""`modelhost deploy`: from a wish to a running model.

It says the whole wish: what its command line and `modelhost.toml` leave out is as the file among the deployed files, or
the default, says.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from modelhost.cli import api, modelfile
from modelhost.cli.arguments import Description, NoWait, Quiet, ValidateOnly, Workers
from modelhost.cli.bring_up import bring_up, finish
from modelhost.cli.connection import Session
from modelhost.cli.errors import usage
from modelhost.cli.flags import verb
from modelhost.cli.render import deployment_state
from modelhost.cli.wish import SettingsFlags, SourceFlags, mask_of


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
    description: Description = None,
    workers: Workers = None,
    no_start: Annotated[bool, typer.Option("--no-start", help="Only create or change it.")] = False,
    no_wait: NoWait = False,
    validate_only: ValidateOnly = False,
    quiet: Quiet = False,
) -> None:
    """Host a model, or update a hosted one, and follow until it runs.

    The files come from the data source, at a commit; never from DIR. A modelhost.toml in DIR says which: its `name`,
    `description` and `[source]` are read here, and options override them. Its other settings are read by the server,
    from the commit.

    If the deployment exists, it is updated: what was set before and is not set now is reset, but for secret variables,
    which stay. While it runs, the old revision serves until the new one is loaded.

    With --json, one JSON object a line, the last one being {"deployment": …}.

    Examples:
      modelhost deploy
      modelhost deploy models/churn --ref v1.2
      modelhost deploy --name churn --source models --runtime python3.6
      modelhost deploy --secret-env DB_PASSWORD --secret-env API_KEY=@api.key
    """
    file = modelfile.read(model_dir)
    if file:
        name = name or file.name
        description = file.description if description is None else description
    wanted = _with_file(session, model_dir, file, source)
    if not name or not wanted.source:
        raise _incomplete(model_dir, file, name)
    wish = api.Deployment(name=f"deployments/{name}", description=description or "", workers=workers or 0)
    wish.source.CopyFrom(wanted.given()[0])
    wish.settings.CopyFrom(settings.given()[0])
    deployment, done = _create_or_update(session, name, wish, validate_only=validate_only)
    if validate_only:
        finish(session, deployment, f"{name} can be {done}; nothing was changed")
        return
    if no_start:
        finish(session, deployment, f"{name} {done}, {deployment_state(deployment)}")
        return
    bring_up(session, deployment, done=done, wait=not no_wait, quiet=quiet)


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
        if field.name not in {"secret_env_names", *(kept.name for kept, _ in wish.settings.ListFields())}
    ]
    if dropped:
        session.out.note(f"was set before and is not set now: {', '.join(dropped)}; `modelhost update` would keep it")
    paths = [
        "source",
        "settings",
        *(["description"] if wish.description else []),
        *(["workers"] if wish.workers else []),
    ]
    change = api.UpdateDeploymentRequest(deployment=wish, update_mask=mask_of(paths), validate_only=validate_only)
    return session.admin.UpdateDeployment(change), "updated"
