"""From a commit to a prediction, and on: start, stop, update, fail, delete."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from modelhost.client import ModelHostError
from modelhost.server.control import actor
from modelhost.v1 import deployment_pb2, service_pb2
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually, reason_of

PYTHON = b"def predict(parameters):\n    return {'sum': sum(parameters)}\n"
R = b"score <- function(parameters) list(sum = sum(parameters))\n"


def test_a_new_deployment_is_stopped_and_has_a_service_id_that_no_service_stands_behind(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PYTHON})

    created = server.create(name, source)

    assert created.state == Deployment.STATE_STOPPED
    assert created.service.startswith("services/svc-")
    assert created.target_revision == 1
    with pytest.raises(ModelHostError) as caught:
        server.client.admin.GetService(service_pb2.GetServiceRequest(name=created.service))
    assert caught.value.reason == "SERVICE_NOT_FOUND"


@pytest.mark.parametrize(
    ("runtime", "file", "text"),
    [("python2.7", "main.py", PYTHON), ("python3.6", "main.py", PYTHON), ("r", "main.R", R)],
)
def test_a_started_deployment_answers_through_its_service(
    server: RunningServer, repo: Repo, source: str, name: str, runtime: str, file: str, text: bytes
) -> None:
    commit = repo.commit({file: text})

    runtime = server.runtime_of_r() if runtime == "r" else runtime
    deployment = server.deploy(name, source, runtime=runtime, ref="main", unbox=True)

    service = deployment.service.removeprefix("services/")
    assert server.predict(service, [1, 2, 3.5]) == {"sum": 6.5}
    assert server.predict(name, [1, 2]) == {"sum": 3}
    shown = server.client.admin.GetService(service_pb2.GetServiceRequest(name=deployment.service))
    assert shown.serving
    assert shown.deployment == f"deployments/{name}"
    revision = server.client.admin.GetRevision(
        deployment_pb2.GetRevisionRequest(name=f"deployments/{name}/revisions/1")
    )
    assert revision.commit == commit
    assert revision.state == deployment_pb2.Revision.STATE_READY
    assert [item.path for item in revision.files] == [file]


def test_a_stopped_deployment_keeps_its_service_id_and_starts_again(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PYTHON})
    service = server.deploy(name, source).service

    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    server.wait(name, Deployment.STATE_STOPPED)

    with pytest.raises(ModelHostError) as caught:
        server.predict(name, [1])
    assert caught.value.reason == "SERVICE_NOT_RUNNING"
    again = server.start(name)
    assert again.service == service
    assert server.predict(name, [1]) == {"sum": 1}


def test_to_start_a_revision_again_changes_nothing_of_it(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PYTHON})
    server.deploy(name, source)
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    server.wait(name, Deployment.STATE_STOPPED)

    with closing(apsw.Connection(str(server.state_dir / "modelhost.db"))) as database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON revisions BEGIN SELECT RAISE(ABORT, 'a revision is changed'); END"
        )
        try:
            assert server.start(name).state == Deployment.STATE_RUNNING
        finally:
            database.execute("DROP TRIGGER refuse")
    assert server.predict(name, [1]) == {"sum": 1}


def test_the_old_revision_serves_until_the_new_one_has_loaded(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": b"def predict(p):\n    return 'old'\n"})
    server.deploy(name, source, ref="main")
    repo.commit({"main.py": b"import time\ntime.sleep(0.3)\ndef predict(p):\n    return 'new'\n"})

    server.update(name, ref="main", wait=False)
    seen = {server.predict(name, 0)}
    eventually(lambda: seen.add(server.predict(name, 0)) or "new" in seen)

    assert seen == {"old", "new"}
    deployment = server.get(name)
    assert deployment.active_revision == 2
    assert deployment.update_state == Deployment.UPDATE_STATE_DONE


def test_a_call_under_way_when_an_update_goes_live_is_still_answered(
    server: RunningServer, repo: Repo, source: str, name: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "STOP_GRACE_SECONDS", 0.05)  # of a stop; an update has the call's own time
    waits = b"import os\nimport time\ndef predict(path):\n    while not os.path.exists(path):\n"
    waits += b"        time.sleep(0.01)\n    return 'old'\n"
    repo.commit({"main.py": waits})
    server.deploy(name, source, ref="main")
    repo.commit({"main.py": b"def predict(p):\n    return 'new'\n"})

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(server.predict, name, str(shared / "go"))
        eventually(lambda: server.get(name).observed.running_calls == 1)
        server.update(name, ref="main")
        assert server.predict(name, 0) == "new"
        (shared / "go").touch()

        assert answer.result() == "old"


def test_a_failed_update_leaves_the_old_revision_serving_and_says_why(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": b"def predict(p):\n    return 'old'\n"})
    server.deploy(name, source, ref="main")

    deployment = server.update(name, function="missing")

    assert deployment.state == Deployment.STATE_RUNNING
    assert deployment.update_state == Deployment.UPDATE_STATE_FAILED
    assert deployment.active_revision == 1
    assert "it defines: predict" in deployment.failure.message
    assert server.predict(name, 0) == "old"


def test_start_after_a_failure_takes_the_newest_revision(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PYTHON})
    server.create(name, source, function="missing")
    assert server.start(name).state == Deployment.STATE_FAILED

    server.update(name, function="predict")
    deployment = server.start(name)

    assert deployment.state == Deployment.STATE_RUNNING
    assert deployment.active_revision == 2
    assert not deployment.HasField("failure")


def test_a_deleted_deployment_is_gone_with_its_service_and_its_name_is_free(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PYTHON})
    first = server.deploy(name, source)

    with pytest.raises(ModelHostError) as refused:
        server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name))
    assert refused.value.reason == "STATE_CONFLICT"
    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))

    eventually(lambda: reason_of(lambda: server.get(name)) == "DEPLOYMENT_NOT_FOUND")
    assert reason_of(lambda: server.predict(first.service.removeprefix("services/"), [])) == "SERVICE_NOT_FOUND"
    assert server.create(name, source).service != first.service
