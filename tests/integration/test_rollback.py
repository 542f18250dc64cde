"""Every version is kept, can be compared with another and run again; old ones go, and with them what only they used."""

import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelhost.server.control import reconciler
from modelhost.server.errors import reason_name
from modelhost.v1 import data_source_pb2, deployment_pb2, log_pb2, runtime_pb2
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually, reason_of, shared_folder

Revision = deployment_pb2.Revision


def model(word: str) -> bytes:
    return f"def predict(parameters):\n    return {word!r}\n".encode()


def rollback(server: RunningServer, name: str, number: int, *, wait: bool = True) -> Deployment:
    request = deployment_pb2.RollbackDeploymentRequest(name=name, revision=number)
    server.client.admin.RollbackDeployment(request)
    if wait:
        eventually(lambda: is_settled(server.get(name)), seconds=60)
    return server.get(name)


def is_settled(deployment: Deployment) -> bool:
    updating = deployment.update_state == Deployment.UPDATE_STATE_IN_PROGRESS
    return deployment.state in (Deployment.STATE_RUNNING, Deployment.STATE_FAILED) and not updating


def revisions(server: RunningServer, name: str) -> dict[int, Revision]:
    request = deployment_pb2.ListRevisionsRequest(parent=name, page_size=1000)
    return {one.number: one for one in server.client.admin.ListRevisions(request).revisions}


@pytest.fixture
def two(server: RunningServer, repo: Repo, source: str, name: str) -> str:
    """A deployment that runs its second revision."""
    repo.commit({"main.py": model("one")})
    server.deploy(name, source, env={"WORD": "first"})
    repo.commit({"main.py": model("two")})
    server.update(name, ref="main", env={"WORD": "second"})
    assert server.predict(name, 0) == "two"
    return name


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


# ---- many updates, and what is kept


def test_50_updates_at_once_end_with_the_last_and_no_call_fails(server: RunningServer, repo: Repo, two: str) -> None:
    workers = len(list((server.state_dir / "workers").iterdir()))
    stop = threading.Event()
    answers: list[object] = []

    def call() -> None:
        while not stop.is_set():
            answers.append(server.predict(two, 0))

    with ThreadPoolExecutor(12) as threads:
        calling = threads.submit(call)
        updates = [threads.submit(server.update, two, wait=False, env={"NUMBER": str(n)}) for n in range(50)]
        for update in updates:
            update.result()
        eventually(lambda: server.get(two).update_state != Deployment.UPDATE_STATE_IN_PROGRESS, seconds=120)
        stop.set()
        calling.result()

    deployment = server.get(two)
    assert deployment.active_revision == deployment.target_revision == 52
    assert set(answers) == {"two"}
    kept = revisions(server, two)
    assert max(kept) == 52
    eventually(
        lambda: {one.state for one in revisions(server, two).values()} <= {Revision.STATE_READY, Revision.STATE_FAILED}
    )
    failed = [one for one in revisions(server, two).values() if one.state == Revision.STATE_FAILED]
    assert {reason_name(one.failure.reason) for one in failed} <= {"REVISION_SUPERSEDED"}
    for one in failed:
        (taker,) = re.findall(r"revision (\d+) took the place", one.failure.message)
        assert int(taker) > one.number
    eventually(lambda: len(list((server.state_dir / "workers").iterdir())) <= workers)


def test_50_updates_of_which_few_are_kept_go_without_a_pause(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": model("one")})
    with RunningServer(tmp_path / "state", kept_revisions=1) as server, ThreadPoolExecutor(8) as threads:
        server.add_source("models", repo)
        server.deploy("churn", "models")

        updates = [threads.submit(server.update, "churn", wait=False, env={"N": str(n)}) for n in range(50)]
        for update in updates:
            update.result()
        # Within less than the pause after a fault of the reconciler.
        eventually(lambda: server.get("churn").active_revision == 51, seconds=reconciler.RETRY_SECONDS - 1)


def test_old_revisions_go_with_their_logs_but_never_what_runs(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": model("good")})
    with RunningServer(tmp_path / "state", kept_revisions=2) as server:
        server.add_source("models", repo)
        server.deploy("churn", "models")
        repo.commit({"main.py": b"1/0\n"})
        for _ in range(4):
            failed = server.update("churn", unbox=True)
            assert failed.update_state == Deployment.UPDATE_STATE_FAILED

        assert sorted(revisions(server, "churn")) == [1, 4, 5]
        assert failed.active_revision == 1
        assert reason_of(lambda: server.build_log("churn", 2)) == "REVISION_NOT_FOUND"
        logs = server.state_dir / "logs" / failed.uid
        assert sorted(path.name.split("-")[1] for path in logs.glob("build-*")) == ["1", "4", "5"]
        assert reason_of(lambda: rollback(server, "churn", 3)) == "REVISION_NOT_FOUND"
        assert server.predict("churn", 0) == "good"


def collect(server: RunningServer, *, only_say: bool = False) -> runtime_pb2.CollectEnvironmentsResponse:
    request = runtime_pb2.CollectEnvironmentsRequest(validate_only=only_say)
    return server.client.admin.CollectEnvironments(request)


def snapshots(server: RunningServer) -> set[str]:
    return {path.name for path in (server.state_dir / "snapshots").iterdir()}


def test_what_nothing_names_is_collected_and_nothing_else(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": model("one")})
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.deploy("stays", "models")
        kept = snapshots(server)
        repo.commit({"main.py": model("two"), "requirements.txt": b"six==1.16.0\n"})
        server.deploy("goes", "models")
        [environment] = [
            one for one in server.client.admin.ListEnvironments(runtime_pb2.ListEnvironmentsRequest()).environments
            if list(one.used_by) == ["deployments/goes/revisions/1"]
        ]  # fmt: skip
        gone = snapshots(server) - kept
        assert collect(server) == runtime_pb2.CollectEnvironmentsResponse()

        server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name="goes", force=True))
        eventually(lambda: reason_of(lambda: server.get("goes")) == "DEPLOYMENT_NOT_FOUND")
        said = collect(server, only_say=True)
        assert snapshots(server) == kept | gone
        done = collect(server)

        assert said == done
        assert list(done.environments) == [environment.name]
        assert set(done.snapshots) == gone
        assert done.freed_bytes >= environment.size_bytes
        assert snapshots(server) == kept
        assert server.predict("stays", 0) == "one"
        server.deploy("goes", "models")  # and it can be had again
        assert server.predict("goes", 0) == "two"


def test_what_was_kept_of_a_data_source_goes_with_it(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": model("one")})
    with RunningServer(tmp_path / "state") as server:
        for source in ("stays", "goes"):
            server.add_source(source, repo)
            server.client.admin.ListFiles(data_source_pb2.ListFilesRequest(data_source=source))
        caches = tmp_path / "state" / "cache" / "sources"
        assert len(list(caches.iterdir())) == 2

        server.client.admin.DeleteDataSource(data_source_pb2.DeleteDataSourceRequest(name="goes"))
        collect(server, only_say=True)
        assert len(list(caches.iterdir())) == 2
        collect(server)

        assert len(list(caches.iterdir())) == 1
        server.deploy("churn", "stays")


@pytest.mark.parametrize("step", ["provision", "load"])
def test_a_build_under_way_keeps_what_it_needs(tmp_path: Path, step: str) -> None:
    """Files and environment that are there, that no revision names, and that a build has just begun to use."""
    repo = Repo(tmp_path / "repo")
    gate = shared_folder(tmp_path / "shared") / "gate"
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n".encode()
    setup = waits + b"from setuptools import setup\nsetup(name='slow', version='1.0')\n"
    files = {"main.py": model("late"), "requirements.txt": b"./slow\n", "slow/setup.py": setup}
    if step == "load":
        files = {"main.py": waits + model("late")}
    repo.commit(files)
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.create("late", "models")
        server.client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name="late"))
        state = Revision.STATE_PROVISIONING if step == "provision" else Revision.STATE_LOADING
        eventually(lambda: revisions(server, "late")[1].state == state)

        collected = collect(server)

        assert not collected.snapshots
        assert not collected.environments
        gate.touch()
        ended = server.wait("late", Deployment.STATE_RUNNING, Deployment.STATE_FAILED)
        assert ended.state == Deployment.STATE_RUNNING, server.build_log("late")


def test_a_pool_that_finishes_its_calls_keeps_what_it_runs_on(tmp_path: Path) -> None:
    """Its revision is retired meanwhile, so nothing names its files and its environment."""
    repo = Repo(tmp_path / "repo")
    gate = shared_folder(tmp_path / "shared") / "gate"
    wait = f"    while p and not os.path.exists({str(gate)!r}):\n        time.sleep(0.01)\n"
    slow = f"import os, time\ndef predict(p):\n{wait}    import six\n    return 'old'\n"
    repo.commit({"main.py": slow.encode(), "requirements.txt": b"six==1.16.0\n"})
    with RunningServer(tmp_path / "state", kept_revisions=1) as server, ThreadPoolExecutor(1) as threads:
        server.add_source("models", repo)
        server.deploy("churn", "models")
        call = threads.submit(server.predict, "churn", 1)
        eventually(lambda: server.get("churn").observed.running_calls == 1)
        for word in ("two", "three"):
            repo.commit({"main.py": model(word)})
            server.update("churn", unbox=True)
        assert 1 not in revisions(server, "churn")

        assert not collect(server).environments
        gate.touch()
        assert call.result() == "old"
        eventually(lambda: collect(server).environments)


# ---- what is different


def diff(server: RunningServer, name: str, number: int, base: int = 0) -> deployment_pb2.DiffRevisionsResponse:
    request = deployment_pb2.DiffRevisionsRequest(name=f"deployments/{name}/revisions/{number}", base_revision=base)
    return server.client.admin.DiffRevisions(request)


def test_a_diff_shows_files_settings_and_packages(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    first = repo.commit(
        {"main.py": model("one"), "gone.txt": b"x\n", "data.bin": b"\0\1", "requirements.txt": b"six==1.15.0\n"}
    )
    server.deploy(name, source)
    second = repo.commit(
        {
            "main.py": b"def score(parameters):\n    return 'two'\n",
            "data.bin": b"\0\2",
            "new ü.txt": b"no end",
            "requirements.txt": b"six==1.16.0\n",
        }
    )
    server.update(name, function="score", env={"LEVEL": "high"})

    found = diff(server, name, 2)

    assert (found.base_revision, found.revision) == (1, 2)
    assert (found.commit.before, found.commit.after) == (first, second)
    files = {one.path: one for one in found.files}
    assert sorted(files) == ["data.bin", "gone.txt", "main.py", "new ü.txt", "requirements.txt"]
    assert files["main.py"].unified_diff == (
        "--- a/main.py\n+++ b/main.py\n@@ -1,2 +1,2 @@\n"
        "-def predict(parameters):\n-    return 'one'\n+def score(parameters):\n+    return 'two'\n"
    )
    assert files["data.bin"].unified_diff == ""
    assert files["data.bin"].before_sha256 != files["data.bin"].after_sha256
    assert files["gone.txt"].after_sha256 == ""
    assert files["new ü.txt"].before_sha256 == ""
    assert files["new ü.txt"].unified_diff.endswith("+no end\n\\ No newline at end of file\n")
    settings = {one.name: (one.before, one.after) for one in found.settings}
    assert settings == {"function": ("predict", "score"), "env.LEVEL": ("", "high")}
    assert [(one.name, one.before, one.after) for one in found.packages] == [("six", "1.15.0", "1.16.0")]


def test_only_newlines_end_a_line_of_a_diff(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.py": model("one") + b"# a form feed \x0c in a line\r\n"})
    server.deploy(name, source)
    repo.commit({"main.py": model("one") + b"# another form feed \x0c in a line\r\n"})
    server.update(name, unbox=True)

    unified = diff(server, name, 2).files[0].unified_diff
    assert "-# a form feed \x0c in a line\r\n+# another" in unified
    assert "No newline" not in unified


def test_a_diff_of_large_tables_is_given_in_time(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    rows = "".join(f"{n % 7},{n % 11}\n" for n in range(50_000))
    repo.commit({"main.py": model("one"), "data.csv": rows.encode()})
    server.deploy(name, source)
    repo.commit({"main.py": model("one"), "data.csv": ("0,0\n" + rows[:-8] + "9,9\n").encode()})
    server.update(name, unbox=True)

    found = {one.path: one.unified_diff for one in diff(server, name, 2).files}

    assert found["data.csv"] == (
        "--- a/data.csv\n+++ b/data.csv\n@@ -1,4 +1,5 @@\n 0,0\n+0,0\n 1,1\n 2,2\n 3,3\n"
        "@@ -49996,5 +49997,4 @@\n 1,0\n 2,1\n 3,2\n-4,3\n-5,4\n+9,9\n"
    )


def test_a_diff_with_itself_is_empty_and_can_go_backwards(server: RunningServer, two: str) -> None:
    assert diff(server, two, 1) == deployment_pb2.DiffRevisionsResponse(base_revision=1, revision=1)
    backwards = diff(server, two, 1, base=2)
    assert (backwards.base_revision, backwards.revision) == (2, 1)
    assert "-    return 'two'\n+    return 'one'\n" in backwards.files[0].unified_diff


def test_a_diff_of_what_was_never_fetched_has_the_settings_that_were_asked_for(server: RunningServer, two: str) -> None:
    server.update(two, ref="no-such-branch")

    found = diff(server, two, 3)

    assert not found.files
    assert [(one.name, one.before, one.after) for one in found.settings] == [("ref", "main", "no-such-branch")]
    assert reason_of(lambda: diff(server, two, 8)) == "REVISION_NOT_FOUND"
    assert reason_of(lambda: diff(server, two, 3, base=8)) == "REVISION_NOT_FOUND"


def test_a_run_log_tells_revisions_apart(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    for word in ("one", "two"):
        repo.commit({"main.py": f"print({word!r})\n".encode() + model(word)})
        if word == "one":
            server.deploy(name, source)
        else:
            server.update(name, unbox=True)

    def lines(revision: int) -> list[str]:
        request = log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_RUN, revision=revision)
        return [entry.text for entry in server.client.admin.ReadLog(request).entries]

    eventually(lambda: (lines(1), lines(2)) == (["one"], ["two"]))
