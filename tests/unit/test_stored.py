"""What is stored comes back."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from modelhost.server.resources import (
    DataSource,
    Deployment,
    DeploymentState,
    Failure,
    ModelSettings,
    ModelSource,
    Revision,
    RevisionState,
    SourceOptions,
    TestCall,
    UpdateState,
)
from modelhost.server.store import deployments, requests, sources
from modelhost.server.store.database import Database, Transaction
from modelhost.server.store.requests import Answered


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "modelhost.db")
    yield database
    database.close()


SOURCE = DataSource("s1", "models", "git", "https://git.example/models", "", SourceOptions(), "ours", 1, 1.5, 2.5)
DEPLOYMENT = Deployment(
    uid="u1",
    id="iris",
    service_id="svc-1",
    description="fleurs d'été",
    source=ModelSource("models", "team/iris", "main", "python", ("a.py", "b")),
    settings=ModelSettings(runtime="python3.6", requirements=(), env={"A": "b"}, test_call=TestCall("[1]", "2")),
    state=DeploymentState.RUNNING,
    active=1,
    target=2,
    update_state=UpdateState.FAILED,
    failure=Failure("IMPORT_FAILED", "no module", "add it", 2, "load", 3.5),
    version=1,
    created=1.0,
    updated=1.0,
    service_created=2.0,
)
REVISION = Revision(
    "u1", 1, RevisionState.READY, DEPLOYMENT.source, DEPLOYMENT.settings, 1.0,
    commit="c" * 40, settings=ModelSettings(main_file="main.py", queue_size=5), snapshot_digest="d" * 64,
    environment="e", environment_digest="f", runtime_version="3.6.15", failure=DEPLOYMENT.failure, ready=9.5,
)  # fmt: skip


@pytest.fixture
async def stored(database: Database) -> Database:
    """With a data source, a deployment and its revisions 1 and 2."""

    def store(tx: Transaction) -> None:
        sources.insert(tx, SOURCE)
        deployments.insert(tx, DEPLOYMENT)
        deployments.insert_revision(tx, REVISION)
        deployments.insert_revision(tx, replace(REVISION, number=2, state=RevisionState.PENDING))

    await database.run(store)
    return database


async def test_a_deployment_comes_back_as_it_was_stored(stored: Database) -> None:
    assert await stored.run(lambda tx: deployments.get(tx, "iris")) == DEPLOYMENT
    assert await stored.run(lambda tx: deployments.by_uid(tx, "u1")) == DEPLOYMENT
    assert await stored.run(lambda tx: deployments.by_service(tx, "svc-1")) == DEPLOYMENT
    assert await stored.run(lambda tx: deployments.get(tx, "rose")) is None


async def test_a_saved_deployment_has_a_new_version_and_time(stored: Database) -> None:
    changed = replace(DEPLOYMENT, state=DeploymentState.STOPPED, active=0, failure=None, service_created=None)

    saved = await stored.run(lambda tx: deployments.save(tx, changed, 7.0))

    assert saved == replace(changed, version=2, updated=7.0)
    assert await stored.run(lambda tx: deployments.get(tx, "iris")) == saved


async def test_a_revision_comes_back_as_it_was_stored_last(stored: Database) -> None:
    assert await stored.run(lambda tx: deployments.revision(tx, "u1", 1)) == REVISION

    changed = replace(REVISION, state=RevisionState.FAILED, failure=None, settings=None, ready=None)
    await stored.run(lambda tx: deployments.save_revision(tx, changed))

    assert await stored.run(lambda tx: deployments.revision(tx, "u1", 1)) == changed
    assert await stored.run(lambda tx: deployments.newest_revision(tx, "u1")) == 2


async def test_revisions_are_listed_newest_first(stored: Database) -> None:
    first = await stored.run(lambda tx: deployments.revisions_page(tx, "u1", 2**31, 1))
    second = await stored.run(lambda tx: deployments.revisions_page(tx, "u1", first[0].number, 5))

    assert ([one.number for one in first], [one.number for one in second]) == ([2], [1])


async def test_a_revision_of_a_deployment_that_is_gone_cannot_be_stored(stored: Database) -> None:
    await stored.run(lambda tx: deployments.delete(tx, "u1"))

    assert await stored.run(lambda tx: deployments.revision(tx, "u1", 1)) is None
    await stored.run(lambda tx: deployments.save_revision(tx, REVISION))
    assert await stored.run(lambda tx: deployments.revision(tx, "u1", 1)) is None
    with pytest.raises(apsw.ConstraintError):
        await stored.run(lambda tx: deployments.insert_revision(tx, REVISION))


async def test_a_data_source_cannot_go_while_a_deployment_uses_it(stored: Database) -> None:
    assert await stored.run(lambda tx: sources.used_by(tx, "models", 10)) == ["iris"]

    with pytest.raises(apsw.ConstraintError):
        await stored.run(lambda tx: sources.delete(tx, "models"))

    assert await stored.run(lambda tx: sources.get(tx, "models")) == SOURCE


async def test_what_was_fetched_is_remembered_until_its_source_goes(stored: Database) -> None:
    key = ("s1", "team/iris", "c" * 40, "{}")
    await stored.run(lambda tx: sources.remember_fetch(tx, *key, "old"))
    await stored.run(lambda tx: sources.remember_fetch(tx, *key, "new"))
    assert await stored.run(lambda tx: sources.recall_fetch(tx, *key)) == "new"

    await stored.run(lambda tx: deployments.delete(tx, "u1"))
    await stored.run(lambda tx: sources.delete(tx, "models"))

    assert await stored.run(lambda tx: sources.recall_fetch(tx, *key)) is None


@pytest.mark.parametrize("state", DeploymentState)
async def test_after_a_restart_everything_is_taken_up_that_is_not_at_rest(
    stored: Database, state: DeploymentState
) -> None:
    await stored.run(lambda tx: deployments.save(tx, replace(DEPLOYMENT, state=state), 1.0))

    found = await stored.run(deployments.unsettled)

    assert found == ([] if state in (DeploymentState.STOPPED, DeploymentState.FAILED) else ["u1"])


async def test_answers_are_remembered_for_a_day(database: Database) -> None:
    def at(time: float, request_id: str) -> Callable[[Transaction], None]:
        answer = Answered("/Create", f"sealed {request_id}")
        return lambda tx: requests.remember(tx, request_id, answer, time)

    await database.run(at(0.0, "old"))
    await database.run(at(requests.KEPT_SECONDS - 1, "young"))
    assert await database.run(lambda tx: requests.recall(tx, "old")) == Answered("/Create", "sealed old")

    await database.run(at(requests.KEPT_SECONDS + 1, "new"))

    assert await database.run(lambda tx: requests.recall(tx, "old")) is None
    assert await database.run(lambda tx: requests.recall(tx, "young")) == Answered("/Create", "sealed young")
