"""`modelhost scale`: another number of workers, while they serve."""

from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import DeploymentName, NoWait
from modelhost.cli.bring_up import finish
from modelhost.cli.connection import Session
from modelhost.cli.errors import CommandError, ExitCode
from modelhost.cli.flags import verb
from modelhost.cli.follow import interruptible
from modelhost.cli.render import deployment_state, reason_name, short
from modelhost.cli.streams import received
from modelhost.cli.wish import mask_of


@verb
def scale(
    session: Session,
    name: DeploymentName,
    workers: Annotated[int, typer.Argument(metavar="N", help="How many workers, 1 to 64.", min=1, max=64)],
    no_wait: NoWait = False,
) -> None:
    """Serve a deployment with another number of workers. No call fails, and no revision is made.

    Each worker has one call at a time. New ones load the model beside the others; those that are too many finish
    their calls first. Where the host has not the memory that they declare, the number stays as it was.

    Examples:
      modelhost scale churn 4
      modelhost scale churn 1 --no-wait
    """
    wish = api.Deployment(name=f"deployments/{short(name)}", workers=workers)
    deployment = session.admin.UpdateDeployment(
        api.UpdateDeploymentRequest(deployment=wish, update_mask=mask_of(["workers"]))
    )
    if not no_wait:
        deployment = _wait_until_scaled(session, deployment)
    observed = deployment.observed
    seen = f", {observed.live_workers} live" if deployment.state == api.Deployment.STATE_RUNNING else ""
    words = "1 worker" if workers == 1 else f"{workers} workers"
    finish(session, deployment, f"{short(name)}: {words}{seen}, {deployment_state(deployment)}")


def _wait_until_scaled(session: Session, deployment: "api.Deployment") -> "api.Deployment":
    wanted = deployment.workers
    with interruptible(short(deployment.name)):
        for answer in received(session.admin.WatchDeployment, api.WatchDeploymentRequest(name=deployment.name)):
            deployment = answer.deployment
            if deployment.workers != wanted and deployment.HasField("failure"):
                raise _refused(deployment, wanted)
            there = deployment.observed.live_workers == wanted and not deployment.observed.starting_workers
            if there or deployment.workers != wanted or deployment.state != api.Deployment.STATE_RUNNING:
                break
    return deployment


def _refused(deployment: "api.Deployment", wanted: int) -> CommandError:
    failure = deployment.failure
    return CommandError(
        f"{short(deployment.name)} cannot have {wanted} workers and stays with {deployment.workers}: {failure.message}",
        ExitCode.FAILED,
        failure.hint,
        reason=reason_name(failure),
    )
