"""`modelhost list`, `start`, `stop`, `rollback` and `delete`."""

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import DeploymentName, NoWait, Quiet, RevisionNumber
from modelhost.cli.bring_up import announce, finish
from modelhost.cli.confirm import Yes, confirm
from modelhost.cli.connection import Session
from modelhost.cli.errors import CommandError, ExitCode
from modelhost.cli.flags import verb
from modelhost.cli.follow import following_on, interruptible
from modelhost.cli.output import Cell
from modelhost.cli.paging import whole
from modelhost.cli.progress import follow_to_end
from modelhost.cli.render import deployment_state, moment, reason_name, short, source_words, styled
from modelhost.cli.streams import received


@verb
def list_(session: Session) -> None:
    """List the deployments.

    Examples:
      modelhost list
      modelhost list --json | jq -r '.deployments[] | select(.state == "STATE_FAILED") | .name'
    """
    answer = whole(session.admin.ListDeployments, api.ListDeploymentsRequest())
    if session.as_json:
        session.out.document(answer)
        return
    rows = [
        (
            short(deployment.name),
            _state(deployment),
            str(deployment.active_revision or ""),
            str(deployment.observed.live_workers or ""),
            short(deployment.service),
            source_words(deployment.source),
            moment(deployment.update_time),
        )
        for deployment in answer.deployments
    ]
    session.out.table(
        ["NAME", "STATE", "REVISION", "WORKERS", "SERVICE", "SOURCE", "CHANGED"],
        rows,
        empty="no deployments yet: `modelhost deploy --help` shows how to make one",
    )


def _state(deployment: "api.Deployment") -> Cell:
    state = deployment_state(deployment)
    return styled(f"{state} ({reason_name(deployment.failure)})" if deployment.HasField("failure") else state)


@verb
def start(session: Session, name: DeploymentName, no_wait: NoWait = False, quiet: Quiet = False) -> None:
    """Start a deployment, and follow until it runs.

    It starts with its newest revision, or the one rolled back to, also after a failure.

    Examples:
      modelhost start churn
      modelhost start churn --no-wait
    """
    deployment = session.admin.StartDeployment(api.StartDeploymentRequest(name=name))
    if no_wait or deployment.state == api.Deployment.STATE_RUNNING:
        finish(session, deployment, f"{short(deployment.name)}: {deployment_state(deployment)}")
    else:
        since = deployment.update_time
        announce(session, follow_to_end(session, deployment, since=since, quiet=quiet), since=since)


@verb
def stop(session: Session, name: DeploymentName, no_wait: NoWait = False) -> None:
    """Stop a deployment, once the calls under way are finished.

    It keeps its service id and can be started again.

    Examples:
      modelhost stop churn
    """
    deployment = session.admin.StopDeployment(api.StopDeploymentRequest(name=name))
    if not no_wait:
        deployment = _wait_until_stopped(session, deployment)
    finish(session, deployment, f"{short(deployment.name)}: {deployment_state(deployment)}")


def _wait_until_stopped(session: Session, deployment: "api.Deployment") -> "api.Deployment":
    name = short(deployment.name)
    with interruptible(name), _busy(session, f"{name}: calls under way are being finished"):
        for answer in received(session.admin.WatchDeployment, api.WatchDeploymentRequest(name=deployment.name)):
            deployment = answer.deployment
            if deployment.state != api.Deployment.STATE_STOPPING:
                break
    if deployment.state != api.Deployment.STATE_STOPPED:
        raise CommandError(f"{name} was not left stopped: it is {deployment_state(deployment)}", ExitCode.REFUSED)
    return deployment


@verb
def rollback(
    session: Session, name: DeploymentName, revision: RevisionNumber, no_wait: NoWait = False, quiet: Quiet = False
) -> None:
    """Run an earlier revision again: its files, settings, secrets and packages. Follow until it runs.

    While the deployment runs, the present revision serves until the other is loaded; it goes on serving if that fails.
    A deployment that is stopped or has failed is started with it. `modelhost show NAME --revisions` lists the
    revisions, `modelhost diff` compares them.

    Examples:
      modelhost rollback churn 3
      modelhost rollback churn 3 --no-wait
    """
    deployment = session.admin.RollbackDeployment(api.RollbackDeploymentRequest(name=name, revision=revision))
    deployment_id, since = short(deployment.name), deployment.update_time
    if no_wait:
        finish(session, deployment, f"{deployment_id} goes for revision {revision}, {deployment_state(deployment)}")
        session.out.note(f"follow on with {following_on(deployment_id)}")
    else:
        announce(session, follow_to_end(session, deployment, since=since, quiet=quiet), since=since)


@verb
def delete(
    session: Session,
    name: DeploymentName,
    force: Annotated[bool, typer.Option("--force", help="Even if it runs: it is stopped first.")] = False,
    yes: Yes = False,
    no_wait: NoWait = False,
) -> None:
    """Delete a deployment with its revisions and logs.

    What is in the data source stays as it is. Asks first on a terminal.

    Examples:
      modelhost delete churn
      modelhost delete churn --force --yes
    """
    confirm(f"delete {short(name)} with its revisions and logs?", yes)
    deployment = session.admin.DeleteDeployment(api.DeleteDeploymentRequest(name=name, force=force))
    if not no_wait:
        _wait_until_gone(session, deployment)
    finish(session, deployment, f"{short(deployment.name)} {'is being deleted' if no_wait else 'deleted'}")


def _wait_until_gone(session: Session, deployment: "api.Deployment") -> None:
    name = short(deployment.name)
    with interruptible(name), _busy(session, f"{name}: its workers are being ended"):
        try:
            for answer in received(session.admin.WatchDeployment, api.WatchDeploymentRequest(name=deployment.name)):
                if answer.deployment.uid != deployment.uid:  # somebody was quick to use the name again
                    break
        except api.NotFound:
            pass


def _busy(session: Session, what: str) -> AbstractContextManager[object]:
    return session.out.console.status(what) if session.out.is_terminal else nullcontext()
