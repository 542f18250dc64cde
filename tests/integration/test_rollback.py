"""Every version is kept for a while, and can be run again."""

import shutil
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from modelhost.server.errors import reason_name
from modelhost.v1 import data_source_pb2, deployment_pb2
from tests.git_repos import Repo
from tests.integration.environments.workshop import make_wheel
from tests.revisions import Revision, collect, diff, model, revisions, rollback
from tests.running import Deployment, RunningServer, eventually, reason_of


def test_a_rollback_runs_the_same_revision_again_with_its_settings(server: RunningServer, two: str) -> None:
    before = revisions(server, two)

    rolled = rollback(server, two, 1)

    assert server.predict(two, 0) == "one"
    assert (rolled.active_revision, rolled.target_revision) == (1, 1)
    assert rolled.update_state == Deployment.UPDATE_STATE_DONE
    assert dict(rolled.settings.env) == {"WORD": "first"}
    assert rolled.source.ref == ""
    assert revisions(server, two) == before  # nothing was made, nothing changed
    assert rollback(server, two, 2).active_revision == 2
    assert server.predict(two, 0) == "two"


def test_an_update_after_a_rollback_goes_on_from_there(server: RunningServer, two: str) -> None:
    rollback(server, two, 1)

    updated = server.update(two, unbox=True)

    assert updated.active_revision == 3
    assert dict(updated.settings.env) == {"WORD": "first"}
    assert server.predict(two, 0) == "two"  # of the default branch, whose head it is now


def test_a_rollback_to_what_runs_changes_nothing(server: RunningServer, two: str) -> None:
    rolled = rollback(server, two, 2)

    assert (rolled.state, rolled.active_revision) == (Deployment.STATE_RUNNING, 2)
    assert rolled.observed.restarts == 0


def test_a_rollback_ends_an_update_under_way(server: RunningServer, repo: Repo, two: str, shared: Path) -> None:
    gate = shared / "gate"
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n".encode()
    repo.commit({"main.py": waits + model("three")})
    server.update(two, wait=False, unbox=True)
    eventually(lambda: revisions(server, two)[3].state == Revision.STATE_LOADING)

    rolled = rollback(server, two, 2)

    assert (rolled.active_revision, rolled.target_revision) == (2, 2)
    eventually(lambda: revisions(server, two)[3].state == Revision.STATE_FAILED)
    assert reason_name(revisions(server, two)[3].failure.reason) == "REVISION_SUPERSEDED"
    gate.touch()
    assert rollback(server, two, 3).active_revision == 3  # it can be had all the same
    assert server.predict(two, 0) == "three"


def test_a_stopped_deployment_is_started_with_the_revision(server: RunningServer, two: str) -> None:
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=two))
    server.wait(two, Deployment.STATE_STOPPED)

    assert rollback(server, two, 1).active_revision == 1
    assert server.predict(two, 0) == "one"
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=two))
    server.wait(two, Deployment.STATE_STOPPED)
    assert server.start(two).active_revision == 1  # it stays where it was rolled back to


def test_a_failed_deployment_is_started_with_the_revision(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": model("good")})
    server.deploy(name, source)
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    server.wait(name, Deployment.STATE_STOPPED)
    repo.commit({"main.py": b"import nothing_of_that_name\n"})
    server.update(name, unbox=True)
    assert server.start(name).state == Deployment.STATE_FAILED

    rolled = rollback(server, name, 1)

    assert rolled.state == Deployment.STATE_RUNNING
    assert not rolled.HasField("failure")
    assert server.predict(name, 0) == "good"


def test_a_rollback_to_a_revision_that_fails_leaves_what_runs(server: RunningServer, repo: Repo, two: str) -> None:
    repo.commit({"main.py": b"def predict(parameters)\n"})
    assert server.update(two, unbox=True).update_state == Deployment.UPDATE_STATE_FAILED

    rolled = rollback(server, two, 3)

    assert rolled.update_state == Deployment.UPDATE_STATE_FAILED
    assert rolled.active_revision == 2
    assert rolled.failure.revision == 3
    assert server.predict(two, 0) == "two"


def test_a_rollback_fetches_files_anew_that_are_damaged(server: RunningServer, repo: Repo, two: str) -> None:
    (server.state_dir / "snapshots" / revisions(server, two)[1].snapshot_digest / "files" / "main.py").unlink()

    assert rollback(server, two, 1).active_revision == 1

    assert server.predict(two, 0) == "one"


def test_a_rollback_builds_an_environment_anew_that_is_gone(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": model("one"), "requirements.txt": b"six==1.16.0\n"})
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.deploy("churn", "models")
        environment = revisions(server, "churn")[1].environment.removeprefix("environments/")
        repo.commit({"main.py": model("two")})
        server.update("churn", unbox=True)
        shutil.rmtree(tmp_path / "state" / "environments" / environment[:32])

        assert rollback(server, "churn", 1).active_revision == 1

        assert server.predict("churn", 0) == "one"
        assert (tmp_path / "state" / "environments" / environment[:32] / "manifest.json").exists()
        assert reason_of(lambda: diff(server, "churn", 2)) == ""


def test_an_environment_that_is_gone_is_built_of_the_packages_that_were_locked_for_the_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    make_wheel(index, "tiny", "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    repo = Repo(tmp_path / "repo")
    repo.commit(
        {"main.py": b"import tiny\ndef predict(parameters):\n    return tiny.version\n", "requirements.txt": b"tiny"}
    )
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.deploy("churn", "models")
        before = revisions(server, "churn")[1]
        folder = tmp_path / "state" / "environments" / before.environment.removeprefix("environments/")[:32]
        make_wheel(index, "tiny", "2.0")
        shutil.rmtree(folder)
        server.update("churn", unbox=True)
        assert server.predict("churn", 0) == "2.0", "an update resolves anew"

        rollback(server, "churn", 1)

        assert server.predict("churn", 0) == "1.0"
        again = revisions(server, "churn")[1]
        assert again.environment_digest == before.environment_digest
        assert again.environment != before.environment, "the spec's own place is that of the newer one"
        assert rollback(server, "churn", 2).active_revision == 2
        assert server.predict("churn", 0) == "2.0"
        assert {change.name: (change.before, change.after) for change in diff(server, "churn", 2, 1).packages} == {
            "tiny": ("1.0", "2.0")
        }


def test_a_locked_package_that_is_gone_is_told_and_an_update_resolves_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    make_wheel(index, "tiny", "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    repo = Repo(tmp_path / "repo")
    repo.commit(
        {"main.py": b"import tiny\ndef predict(parameters):\n    return tiny.version\n", "requirements.txt": b"tiny"}
    )
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.deploy("churn", "models")
        server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name="churn"))
        server.wait("churn", Deployment.STATE_STOPPED)
        shutil.rmtree(tmp_path / "state" / "environments")
        (index / "tiny-1.0-py2.py3-none-any.whl").unlink()
        make_wheel(index, "tiny", "2.0")

        failed = server.start("churn")

        assert failed.state == Deployment.STATE_FAILED
        assert reason_name(failed.failure.reason) == "REQUIREMENT_NOT_FOUND"
        assert "tiny==1.0" in failed.failure.message
        assert "`modelhost update churn` makes a new revision" in failed.failure.hint
        server.update("churn", unbox=True)
        assert server.start("churn").state == Deployment.STATE_RUNNING
        assert server.predict("churn", 0) == "2.0"


def test_what_a_server_before_this_one_did_not_lock_is_locked_by_what_is_on_disk(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": model("one")})
    database = tmp_path / "state" / "modelhost.db"

    def locks(statement: str = "SELECT digest, packages FROM environment_locks") -> list[tuple[str, str]]:
        with closing(apsw.Connection(str(database))) as connection:  # sqlite3 would undo the locks of this process
            return list(connection.execute(statement))

    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.deploy("churn", "models")
        server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name="churn"))
        server.wait("churn", Deployment.STATE_STOPPED)
        before = locks()
        assert [digest for digest, _ in before] == [revisions(server, "churn")[1].environment_digest]
        assert "pip==" in before[0][1]
    locks("DELETE FROM environment_locks")

    with RunningServer(tmp_path / "state") as server:
        assert locks() == before

        server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name="churn", force=True))
        eventually(lambda: reason_of(lambda: server.get("churn")) == "DEPLOYMENT_NOT_FOUND")
        collect(server)
        assert locks() == []


def test_what_is_lost_cannot_be_compared(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": model("one")})
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.deploy("churn", "models")
        repo.commit({"main.py": model("two")})
        server.update("churn", unbox=True)
        shutil.rmtree(tmp_path / "state" / "snapshots" / revisions(server, "churn")[1].snapshot_digest)

        assert reason_of(lambda: diff(server, "churn", 2)) == "STATE_CONFLICT"


def test_a_data_source_stays_while_a_kept_revision_needs_it(
    server: RunningServer, repo: Repo, two: str, tmp_path: Path
) -> None:
    elsewhere = Repo(tmp_path / "elsewhere")
    elsewhere.commit({"main.py": model("elsewhere")})
    server.add_source(f"{two}-2", elsewhere)
    request = deployment_pb2.UpdateDeploymentRequest(
        deployment=Deployment(name=f"deployments/{two}", source=deployment_pb2.ModelSource(data_source=f"{two}-2")),
        update_mask={"paths": ["source.data_source"]},
    )
    server.client.admin.UpdateDeployment(request)
    eventually(lambda: server.predict(two, 0) == "elsewhere")

    forget = data_source_pb2.DeleteDataSourceRequest(name=two)  # the first one has the deployment's name
    assert reason_of(lambda: server.client.admin.DeleteDataSource(forget)) == "DATA_SOURCE_IN_USE"

    assert rollback(server, two, 1).active_revision == 1
    assert server.predict(two, 0) == "one"


def test_after_a_failed_update_a_stop_and_a_start_bring_back_what_served(
    server: RunningServer, repo: Repo, two: str
) -> None:
    repo.commit({"main.py": b"def predict(parameters)\n"})
    assert server.update(two, env={"WORD": "bad"}).update_state == Deployment.UPDATE_STATE_FAILED
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=two))
    server.wait(two, Deployment.STATE_STOPPED)

    started = server.start(two)

    assert (started.state, started.active_revision) == (Deployment.STATE_RUNNING, 2)
    assert dict(started.settings.env) == {"WORD": "second"}
    assert server.predict(two, 0) == "two"


def test_after_a_failed_update_and_the_end_of_its_workers_a_start_brings_back_what_served(
    server: RunningServer, repo: Repo, source: str, name: str, shared: Path
) -> None:
    lives = shared / "lives"
    lives.touch()
    dies = f"import os\nif not os.path.exists({str(lives)!r}):\n    os._exit(1)\n"
    repo.commit({"main.py": f"{dies}def predict(p):\n    if p:\n        os._exit(1)\n    return 'good'\n".encode()})
    server.deploy(name, source)
    repo.commit({"main.py": b"def predict(parameters)\n"})
    assert server.update(name, env={"WORD": "bad"}).update_state == Deployment.UPDATE_STATE_FAILED
    lives.unlink()
    assert reason_of(lambda: server.predict(name, 1)) == "WORKER_DIED"
    server.wait(name, Deployment.STATE_FAILED)
    lives.touch()

    started = server.start(name)

    assert (started.state, started.active_revision) == (Deployment.STATE_RUNNING, 1)
    assert not started.settings.env
    assert server.predict(name, 0) == "good"


def test_the_build_log_is_that_of_what_failed_last(server: RunningServer, repo: Repo, two: str) -> None:
    repo.commit({"main.py": b"raise ValueError('the third')\n"})
    server.update(two, unbox=True)
    assert "the third" in server.build_log(two)
    rollback(server, two, 1)
    assert "the third" not in server.build_log(two)
    (failed,) = [rollback(server, two, 3)]

    assert failed.failure.revision == 3
    assert server.build_log(two) == server.build_log(two, 3)


def test_what_is_no_revision_is_refused(server: RunningServer, two: str) -> None:
    assert reason_of(lambda: rollback(server, two, 9)) == "REVISION_NOT_FOUND"
    assert reason_of(lambda: rollback(server, two, 0)) == "FIELD_INVALID"
    assert reason_of(lambda: rollback(server, "nobody", 1)) == "DEPLOYMENT_NOT_FOUND"
    request = deployment_pb2.RollbackDeploymentRequest(name=two, revision=1, etag="0")
    assert reason_of(lambda: server.client.admin.RollbackDeployment(request)) == "ETAG_MISMATCH"
