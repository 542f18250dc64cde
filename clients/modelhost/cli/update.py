"""`modelhost update`: it changes what it names and leaves the rest."""

from collections.abc import Iterable
from typing import Annotated

import typer

from modelhost.cli import api, variables
from modelhost.cli.arguments import DeploymentName, Description, NoWait, Quiet, ValidateOnly, Workers
from modelhost.cli.bring_up import bring_up, finish
from modelhost.cli.connection import Session
from modelhost.cli.errors import usage
from modelhost.cli.flags import verb
from modelhost.cli.render import deployment_state, short
from modelhost.cli.wish import SettingsFlags, SourceFlags, mask_of

_SECRETS = {"secret_env", "secret_env_names"}


@verb
def update(
    session: Session,
    source: SourceFlags,
    settings: SettingsFlags,
    name: DeploymentName,
    *,
    description: Description = None,
    workers: Workers = None,
    reset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING", help="Take it from modelhost.toml again: `function`, `env` …; may be repeated."
        ),
    ] = None,
    unset_env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Remove an environment variable; may be repeated.")
    ] = None,
    unset_secret_env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Remove a secret one; may be repeated.")
    ] = None,
    no_wait: NoWait = False,
    validate_only: ValidateOnly = False,
    quiet: Quiet = False,
) -> None:
    """Change settings or source of a deployment, leave the rest.

    A branch is resolved to its newest commit again, also if nothing else is named. A running deployment is followed
    until it runs as changed; the old revision serves until the new one is loaded. One that failed is started again, one
    that is stopped stays so. Environment variables that are not named stay as they are.

    Examples:
      modelhost update churn
      modelhost update churn --ref v1.3
      modelhost update churn --call-timeout 5m --env MODE=fast --unset-env DEBUG
      modelhost update churn --secret-env DB_PASSWORD
      modelhost update churn --reset function
    """
    new_source, source_paths = source.given()
    new_settings, settings_paths = settings.given()
    wish = api.Deployment(name=f"deployments/{short(name)}", source=new_source, settings=new_settings)
    reset_paths = [_setting(one) for one in reset or ()]
    before = session.admin.GetDeployment(api.GetDeploymentRequest(name=name))
    if unset_env or "env" in settings_paths:
        settings_paths.append("env")
        current = {} if "env" in reset_paths else dict(before.settings.env)
        _change_env(wish, current, unset_env or ())
        wish.etag = before.etag  # what others have set meanwhile must not be lost
    if unset_secret_env:
        settings_paths.append("secret_env")
        given, names = wish.settings.secret_env, before.settings.secret_env_names
        given.update(dict.fromkeys(variables.removed(unset_secret_env, names, given, "--unset-secret-env"), ""))
    paths = [f"source.{path}" for path in source_paths]
    paths += [f"settings.{path}" for path in dict.fromkeys([*settings_paths, *reset_paths])]
    if description is not None:
        wish.description = description
        paths.append("description")
    if workers is not None:
        wish.workers = workers
        paths.append("workers")
    if not paths:
        wish.source.CopyFrom(before.source)
        paths.append("source")
    deployment = session.admin.UpdateDeployment(
        api.UpdateDeploymentRequest(deployment=wish, update_mask=mask_of(paths), validate_only=validate_only)
    )
    if validate_only:
        finish(session, deployment, f"{short(name)} can be updated; nothing was changed")
    elif deployment.target_revision == before.target_revision or deployment.state == api.Deployment.STATE_STOPPED:
        finish(session, deployment, f"{short(name)} updated, {deployment_state(deployment)}")
    else:
        bring_up(session, deployment, done="updated", wait=not no_wait, quiet=quiet)


def _setting(name: str) -> str:
    """Return the path of a setting within the settings: `limits.call_timeout` of `call-timeout`."""
    path = name.replace("-", "_")
    settings = [field for field in api.ModelSettings.DESCRIPTOR.fields_by_name if field not in _SECRETS]
    limits = list(api.Limits.DESCRIPTOR.fields_by_name)
    if path not in settings and path not in limits:
        raise usage(f"--reset: there is no setting {name!r}", f"it is one of {', '.join([*settings, *limits])}")
    return f"limits.{path}" if path in limits else path


def _change_env(wish: "api.Deployment", current: dict[str, str], unset: Iterable[str]) -> None:
    """Have the wish name every variable, for a map is replaced as a whole."""
    env = wish.settings.env
    gone = variables.removed(unset, current, env, "--unset-env")
    env.update({name: value for name, value in current.items() if name not in env and name not in gone})
