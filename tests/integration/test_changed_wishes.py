"""Wishes that change while they are fulfilled, and models that fail in between: what was wished last comes true."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelhost.server.control import actor
from modelhost.server.errors import reason_name
from modelhost.v1 import deployment_pb2
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually, reason_of, shared_folder

Revision = deployment_pb2.Revision

# Loads when the file GATE is there; dies when it is told to, and while it is loaded once LIVES files have been used up.
MODEL = b"""
import os, sys, time

while not os.path.exists(os.environ["GATE"]):
    time.sleep(0.005)
lives = os.environ.get("LIVES")
if lives:
    for name in sorted(os.listdir(lives)):
        os.remove(os.path.join(lives, name))
        break
    else:
        sys.stderr.write("no life is left\\n")
        sys.stderr.flush()
        os._exit(1)


def predict(parameters):
    if parameters == "die":
        os._exit(1)
    return os.environ["WORD"]
"""


class Stage:
    """A deployment whose revisions load when their gates are opened."""

    def __init__(self, server: RunningServer, source: str, name: str, folder: Path) -> None:
        self.server = server
        self.source = source
        self.name = name
        self.folder = folder
        self.earlier: set[str] = set()  # workers that were there before the last start or update

    def open(self, word: str) -> None:
        (self.folder / word).touch()

    def create(self, word: str, **env: str) -> None:
        self.server.create(self.name, self.source, env=self.env(word, **env))

    def env(self, word: str, **more: str) -> dict[str, str]:
        return {"WORD": word, "GATE": str(self.folder / word), **more}

    def run(self, word: str, **env: str) -> None:
        """Have it running."""
        self.open(word)
        self.server.deploy(self.name, self.source, env=self.env(word, **env))

    def update(self, word: str) -> None:
        self.earlier = self.workers()
        self.server.update(self.name, wait=False, env=self.env(word))

    def start(self) -> None:
        self.earlier = self.workers()
        self.server.client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=self.name))

    def stop(self) -> None:
        self.server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=self.name))

    def delete(self) -> None:
        self.server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=self.name, force=True))

    def get(self) -> Deployment:
        return self.server.get(self.name)

    def revision(self, number: int) -> int:
        """Its state."""
        name = f"deployments/{self.name}/revisions/{number}"
        return self.server.client.admin.GetRevision(deployment_pb2.GetRevisionRequest(name=name)).state

    def why(self, number: int) -> str:
        """Why it failed."""
        name = f"deployments/{self.name}/revisions/{number}"
        revision = self.server.client.admin.GetRevision(deployment_pb2.GetRevisionRequest(name=name))
        return reason_name(revision.failure.reason)

    def wait_until_it_loads(self, number: int) -> None:
        def loads() -> bool:
            return self.revision(number) == Revision.STATE_LOADING and bool(self.workers() - self.earlier)

        eventually(loads)

    def workers(self) -> set[str]:
        """The directories of workers, of all deployments of this server: those of other tests may still be going."""
        return {each.name for each in (self.server.state_dir / "workers").iterdir()}

    def says(self, word: str) -> bool:
        return self.server.predict(self.name, 0) == word


@pytest.fixture
def stage(server: RunningServer, repo: Repo, source: str, name: str, shared: Path) -> Stage:
    repo.commit({"main.py": MODEL})
    return Stage(server, source, name, shared)


def test_a_start_is_stopped_in_the_middle_and_begun_again(stage: Stage) -> None:
    before = stage.workers()
    stage.create("one")
    stage.start()
    stage.wait_until_it_loads(1)

    stage.stop()
    stage.server.wait(stage.name, Deployment.STATE_STOPPED)

    assert stage.workers() <= before
    assert stage.revision(1) == Revision.STATE_PENDING
    assert not stage.get().HasField("failure")
    assert "interrupted" in stage.server.build_log(stage.name)
    stage.open("one")
    stage.server.start(stage.name)
    assert stage.says("one")
    assert stage.revision(1) == Revision.STATE_READY


def test_a_deployment_is_deleted_in_the_middle_of_its_start(stage: Stage) -> None:
    before = stage.workers()
    stage.create("one")
    uid = stage.get().uid
    stage.start()
    stage.wait_until_it_loads(1)

    stage.delete()
    eventually(lambda: reason_of(stage.get) == "DEPLOYMENT_NOT_FOUND")

    assert stage.workers() <= before
    assert not (stage.server.state_dir / "logs" / uid).exists()


def test_an_update_is_superseded_by_another_and_the_service_answers_throughout(stage: Stage) -> None:
    stage.run("one")
    stage.update("two")
    stage.wait_until_it_loads(2)
    assert stage.says("one")

    stage.open("three")
    stage.update("three")
    eventually(lambda: stage.says("three") or not stage.says("one"))

    assert stage.says("three")
    deployment = stage.get()
    assert deployment.active_revision == deployment.target_revision == 3
    assert deployment.update_state == Deployment.UPDATE_STATE_DONE
    eventually(lambda: stage.revision(2) == Revision.STATE_FAILED)
    assert stage.why(2) == "REVISION_SUPERSEDED"
    eventually(lambda: stage.get().observed.live_workers == 1)


def test_a_deployment_is_scaled_in_the_middle_of_an_update_and_both_revisions_are(stage: Stage) -> None:
    stage.run("one")
    stage.update("two")
    stage.wait_until_it_loads(2)

    scaled = stage.server.scale(stage.name, 2)

    assert (scaled.active_revision, scaled.observed.live_workers) == (1, 2)
    assert scaled.update_state == Deployment.UPDATE_STATE_IN_PROGRESS
    stage.open("two")
    eventually(lambda: stage.says("two"))
    eventually(lambda: stage.get().observed.live_workers == 2)


def test_a_scale_that_is_refused_in_the_middle_of_an_update_ends_nothing(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": MODEL, "modelhost.toml": b"[limits]\nmemory = '100MiB'\n"})
    with RunningServer(tmp_path / "state", worker_memory=350 * 2**20) as server:
        server.add_source("models", repo)
        stage = Stage(server, "models", "iris", server.shared)
        stage.run("one")
        stage.update("two")
        stage.wait_until_it_loads(2)

        refused = server.scale("iris", 4)

        assert refused.workers == 1
        assert "may use 400 MiB" in refused.failure.message
        assert refused.update_state == Deployment.UPDATE_STATE_IN_PROGRESS
        stage.open("two")
        eventually(lambda: stage.says("two"))
        assert not stage.get().HasField("failure")


def test_a_deployment_is_stopped_in_the_middle_of_an_update(stage: Stage) -> None:
    before = stage.workers()
    stage.run("one")
    stage.update("two")
    stage.wait_until_it_loads(2)

    stage.stop()
    deployment = stage.server.wait(stage.name, Deployment.STATE_STOPPED)

    assert stage.workers() <= before
    assert deployment.update_state == Deployment.UPDATE_STATE_UNSPECIFIED
    assert deployment.active_revision == 0
    stage.open("two")
    stage.server.start(stage.name)
    assert stage.says("two")


def test_a_deployment_is_deleted_while_it_waits_for_its_last_calls(
    server: RunningServer, repo: Repo, source: str, name: str, shared: Path
) -> None:
    """It does not wait for them any longer: the stop alone would have, for as long as the test may take."""
    gate = shared / "gate"
    wait = f"    while p and not os.path.exists({str(gate)!r}):\n        time.sleep(0.01)\n"
    repo.commit({"main.py": f"import os, time\ndef predict(p):\n{wait}    return 1\n".encode()})
    server.deploy(name, source)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(server.predict, name, 1)
        eventually(lambda: server.get(name).observed.running_calls == 1)
        server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
        assert server.get(name).state == Deployment.STATE_STOPPING

        server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))

        eventually(
            lambda: reason_of(lambda: server.get(name)) == "DEPLOYMENT_NOT_FOUND",
            seconds=actor.STOP_GRACE_SECONDS / 2,
        )
        assert reason_of(call.result) == "SERVICE_NOT_RUNNING"


def lives(folder: Path, count: int) -> str:
    """A folder with so many lives."""
    shared_folder(folder / "lives")
    for number in range(count):
        (folder / "lives" / str(number)).touch()
    return str(folder / "lives")


def test_a_running_model_that_cannot_be_loaded_any_more_fails_its_deployment_with_its_last_words(
    stage: Stage, shared: Path
) -> None:
    stage.run("one", LIVES=lives(shared, 1))

    assert reason_of(lambda: stage.server.predict(stage.name, "die")) == "WORKER_DIED"
    deployment = stage.server.wait(stage.name, Deployment.STATE_FAILED)

    assert "no life is left" in deployment.failure.message
    assert deployment.failure.hint
    assert deployment.active_revision == 0
    assert reason_of(lambda: stage.says("one")) == "SERVICE_NOT_RUNNING"
    (shared / "lives" / "another").touch()
    stage.server.start(stage.name)
    assert stage.says("one")


def test_a_model_that_dies_for_good_while_its_successor_is_built_does_not_take_it_along(
    stage: Stage, shared: Path
) -> None:
    stage.run("one", LIVES=lives(shared, 1))
    stage.update("two")
    stage.wait_until_it_loads(2)
    assert reason_of(lambda: stage.server.predict(stage.name, "die")) == "WORKER_DIED"
    eventually(lambda: stage.server.run_log(stage.name).count("no life is left") >= 5)

    stage.open("two")
    eventually(lambda: stage.get().active_revision == 2)

    assert stage.says("two")
    stage.open("three")
    stage.update("three")  # whatever was still to be done about the first has been done when this is
    eventually(lambda: stage.get().active_revision != 2)
    assert stage.get().state == Deployment.STATE_RUNNING
    assert stage.says("three")


def test_a_server_that_stops_in_the_middle_of_a_start_carries_on_when_it_comes_back(repo: Repo, tmp_path: Path) -> None:
    repo.commit({"main.py": MODEL})
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        stage = Stage(server, "models", "iris", server.shared)
        stage.create("one")
        stage.start()
        stage.wait_until_it_loads(1)
    assert stage.workers() == set()

    stage.open("one")
    with RunningServer(tmp_path / "state") as server:
        deployment = server.wait("iris", Deployment.STATE_RUNNING)
        assert deployment.active_revision == 1
        assert server.predict("iris", 0) == "one"
