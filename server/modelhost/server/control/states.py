"""The state machines: one table each, and the one function each that changes a state. Nothing else writes it."""

from dataclasses import replace

from modelhost.server.errors import Conflict
from modelhost.server.resources import Deployment, DeploymentState, Revision, RevisionState, UpdateState
from modelhost.v1.error_reason_pb2 import ErrorReason

_D = DeploymentState
_R = RevisionState

DEPLOYMENT_TRANSITIONS = {
    _D.STOPPED: {_D.STARTING, _D.DELETING},
    _D.STARTING: {_D.RUNNING, _D.FAILED, _D.STOPPING, _D.DELETING},
    _D.RUNNING: {_D.FAILED, _D.STOPPING, _D.DELETING},  # FAILED: its workers die again and again, or cannot be loaded
    _D.FAILED: {_D.STARTING, _D.STOPPED, _D.DELETING},
    _D.STOPPING: {_D.STOPPED, _D.DELETING},
    _D.DELETING: set[_D](),
}

REVISION_TRANSITIONS = {
    _R.PENDING: {_R.FETCHING, _R.FAILED},
    _R.FETCHING: {_R.PROVISIONING, _R.FAILED, _R.PENDING},  # PENDING: stopped half-way, to be begun again
    _R.PROVISIONING: {_R.LOADING, _R.FAILED, _R.PENDING},
    _R.LOADING: {_R.READY, _R.FAILED, _R.PENDING},
    _R.READY: set[_R](),
    _R.FAILED: {_R.PENDING},
}


def move(deployment: Deployment, state: DeploymentState) -> Deployment:
    """Return the deployment in its new state. Raises `Conflict` STATE_CONFLICT where the table has no such way."""
    if state not in DEPLOYMENT_TRANSITIONS[deployment.state]:
        allowed = sorted(start for start, ends in DEPLOYMENT_TRANSITIONS.items() if state in ends)
        raise Conflict(
            ErrorReason.ERROR_REASON_STATE_CONFLICT,
            "deployment {deployment} is {state} and cannot become {wanted}; it can when it is {allowed}",
            deployment=deployment.id,
            state=deployment.state.upper(),
            wanted=state.upper(),
            allowed=" or ".join(name.upper() for name in allowed),
        )
    return replace(deployment, state=state)


def revision_to_build(deployment: Deployment, *, loaded: bool) -> int:
    """The number of the revision to build and route next; 0 if there is none. `loaded` is whether one is routed.

    After a restart of the server that is what ran before, whatever else is wished: it is served again soonest.
    """
    updating = deployment.update_state is UpdateState.IN_PROGRESS
    match deployment.state:
        case DeploymentState.STARTING:
            return deployment.target
        case DeploymentState.RUNNING if not loaded:
            return deployment.active or deployment.target
        case DeploymentState.RUNNING if updating:
            return deployment.target
        case _:
            return 0


def advance(revision: Revision, state: RevisionState) -> Revision:
    """Return the revision in its new state. A transition that the table lacks is a fault of the server."""
    if state not in REVISION_TRANSITIONS[revision.state]:
        raise RuntimeError(f"revision {revision.number} cannot go from {revision.state} to {state}")
    return replace(revision, state=state)
