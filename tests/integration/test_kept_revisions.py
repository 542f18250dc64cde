"""How many revisions are kept, and what goes with those that are not."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelhost.server.control import actor
from modelhost.server.errors import reason_name
from modelhost.v1 import data_source_pb2, deployment_pb2, runtime_pb2
from tests.git_repos import Repo
from tests.revisions import Revision, collect, model, revisions, rollback, snapshots
from tests.running import Deployment, RunningServer, eventually, reason_of, shared_folder


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
        eventually(lambda: server.get("churn").active_revision == 51, seconds=actor.RETRY_SECONDS - 1)


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


# ---- what nothing names


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
