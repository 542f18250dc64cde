"""The two state machines, against the arrows of docs/architecture.md."""

from dataclasses import replace
from itertools import product

import pytest

from modelhost.server.control.states import (
    DEPLOYMENT_TRANSITIONS,
    REVISION_TRANSITIONS,
    advance,
    move,
    revision_to_build,
)
from modelhost.server.errors import Conflict
from modelhost.server.resources import (
    Deployment,
    DeploymentState,
    ModelSettings,
    ModelSource,
    Revision,
    RevisionState,
    UpdateState,
)
from modelhost.v1.error_reason_pb2 import ErrorReason

D, R = DeploymentState, RevisionState

DEPLOYMENT_ARROWS = {
    (D.STOPPED, D.STARTING),
    (D.STOPPED, D.DELETING),
    (D.STARTING, D.RUNNING),
    (D.STARTING, D.FAILED),
    (D.STARTING, D.STOPPING),
    (D.STARTING, D.DELETING),
    (D.RUNNING, D.FAILED),
    (D.RUNNING, D.STOPPING),
    (D.RUNNING, D.DELETING),
    (D.FAILED, D.STARTING),
    (D.FAILED, D.STOPPED),
    (D.FAILED, D.DELETING),
    (D.STOPPING, D.STOPPED),
    (D.STOPPING, D.DELETING),
}
REVISION_ARROWS = {
    (R.PENDING, R.FETCHING),
    (R.FETCHING, R.PROVISIONING),
    (R.PROVISIONING, R.LOADING),
    (R.LOADING, R.READY),
    *((state, R.FAILED) for state in (R.PENDING, R.FETCHING, R.PROVISIONING, R.LOADING)),
    *((state, R.PENDING) for state in (R.FETCHING, R.PROVISIONING, R.LOADING, R.FAILED)),
}

DEPLOYMENT = Deployment(
    uid="u",
    id="iris",
    service_id="svc-1",
    description="",
    source=ModelSource("models"),
    settings=ModelSettings(),
    state=D.STOPPED,
    active=0,
    target=1,
    update_state=UpdateState.NONE,
    failure=None,
    version=1,
    created=0.0,
    updated=0.0,
)
REVISION = Revision("u", 3, R.PENDING, ModelSource("models"), ModelSettings(), 0.0)


@pytest.mark.parametrize(("state", "wanted"), [*product(D, D)])
def test_a_deployment_moves_where_an_arrow_leads_and_nowhere_else(state: D, wanted: D) -> None:
    deployment = replace(DEPLOYMENT, state=state)

    if (state, wanted) in DEPLOYMENT_ARROWS:
        assert move(deployment, wanted) == replace(DEPLOYMENT, state=wanted)
    else:
        with pytest.raises(Conflict) as caught:
            move(deployment, wanted)
        assert caught.value.reason == ErrorReason.ERROR_REASON_STATE_CONFLICT


def test_a_refused_move_says_what_the_state_is_and_which_would_do() -> None:
    with pytest.raises(Conflict) as caught:
        move(replace(DEPLOYMENT, state=D.STOPPED), D.STOPPING)

    assert caught.value.values == {
        "deployment": "iris",
        "state": "STOPPED",
        "wanted": "STOPPING",
        "allowed": "RUNNING or STARTING",
    }
    assert all(value in caught.value.message for value in caught.value.values.values())


@pytest.mark.parametrize(("state", "wanted"), [*product(R, R)])
def test_a_revision_advances_where_an_arrow_leads_and_nowhere_else(state: R, wanted: R) -> None:
    revision = replace(REVISION, state=state)

    if (state, wanted) in REVISION_ARROWS:
        assert advance(revision, wanted) == replace(REVISION, state=wanted)
    else:
        with pytest.raises(RuntimeError, match=f"revision 3 cannot go from {state} to {wanted}"):
            advance(revision, wanted)


@pytest.mark.parametrize(("table", "first"), [(DEPLOYMENT_TRANSITIONS, D.STOPPED), (REVISION_TRANSITIONS, R.PENDING)])
def test_every_state_has_a_row_and_is_reached_from_the_first(table: dict[str, set[str]], first: str) -> None:
    reached, new = {first}, {first}
    while new:
        new = set().union(*(table[state] for state in new)) - reached
        reached |= new

    assert reached == set(table) == set(type(first))


def test_a_deployment_can_be_deleted_in_every_state_but_its_last() -> None:
    assert {state for state in D if D.DELETING in DEPLOYMENT_TRANSITIONS[state]} == set(D) - {D.DELETING}
    assert DEPLOYMENT_TRANSITIONS[D.DELETING] == set()


def test_states_say_of_themselves_whether_something_is_left_to_do() -> None:
    assert {state for state in D if state.is_settled} == {D.STOPPED, D.FAILED}
    assert {state for state in R if state.is_terminal} == {R.READY, R.FAILED}


@pytest.mark.parametrize(
    ("state", "update_state", "number", "building"),
    [
        (D.STARTING, UpdateState.NONE, 2, True),
        (D.STARTING, UpdateState.NONE, 1, False),  # superseded
        (D.RUNNING, UpdateState.IN_PROGRESS, 2, True),
        (D.RUNNING, UpdateState.DONE, 2, False),
        (D.RUNNING, UpdateState.FAILED, 2, False),
        (D.FAILED, UpdateState.NONE, 2, False),
        (D.STOPPED, UpdateState.IN_PROGRESS, 2, False),
    ],
)
def test_a_revision_is_being_built_while_it_is_the_target_of_a_start_or_an_update(
    state: D, update_state: UpdateState, number: int, building: bool
) -> None:
    deployment = replace(DEPLOYMENT, state=state, update_state=update_state, target=2, active=1)

    assert deployment.is_building(number) is building


NONE, IN_PROGRESS = UpdateState.NONE, UpdateState.IN_PROGRESS
FAILED, DONE = UpdateState.FAILED, UpdateState.DONE


@pytest.mark.parametrize(
    ("state", "update", "loaded", "number"),
    [
        (D.STOPPED, NONE, False, 0),
        (D.FAILED, NONE, False, 0),
        (D.STOPPING, NONE, True, 0),
        (D.DELETING, IN_PROGRESS, True, 0),
        (D.STARTING, NONE, False, 5),
        (D.RUNNING, NONE, True, 0),
        (D.RUNNING, DONE, True, 0),
        (D.RUNNING, FAILED, True, 0),
        (D.RUNNING, IN_PROGRESS, True, 5),
        (D.RUNNING, NONE, False, 3),  # after a restart of the server
        (D.RUNNING, FAILED, False, 3),
        (D.RUNNING, IN_PROGRESS, False, 3),  # first what ran, whatever was wished meanwhile
    ],
)
def test_which_revision_is_built_next(state: D, update: UpdateState, loaded: bool, number: int) -> None:
    deployment = replace(DEPLOYMENT, state=state, update_state=update, active=3, target=5)

    assert revision_to_build(deployment, loaded=loaded) == number


def test_where_nothing_was_routed_the_target_is_built() -> None:
    deployment = replace(DEPLOYMENT, state=D.RUNNING, update_state=IN_PROGRESS, active=0, target=5)

    assert revision_to_build(deployment, loaded=False) == 5
