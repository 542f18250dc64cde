"""How many workers a deployment has: asked for, changed while it serves, refused, remembered; and how they load."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelhost.client import ModelHostError
from modelhost.server.errors import reason_name
from modelhost.v1 import deployment_pb2
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually, reason_of

MIB = 2**20
PID = b"import os\ndef predict(p):\n    return os.getpid()\n"
# Both calls must be in the model at the same time, or neither comes back.
MEET = """
predict = score <- function(parameters) {{
  file.create(file.path("{folder}", parameters))
  while (length(list.files("{folder}")) < 2) Sys.sleep(0.01)
  "met"
}}
"""


@contextmanager
def callers(server: RunningServer, name: str, count: int = 3) -> Iterator[list[object]]:
    """Calls without a pause meanwhile; none may fail."""
    answers: list[object] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            answers.append(server.predict(name, 0))

    with ThreadPoolExecutor(count) as threads:
        calling = [threads.submit(call) for _ in range(count)]
        try:
            yield answers
        finally:
            done.set()
            for each in calling:
                each.result()


def revisions(server: RunningServer, name: str) -> int:
    request = deployment_pb2.ListRevisionsRequest(parent=name)
    return len(server.client.admin.ListRevisions(request).revisions)


def test_a_deployment_has_one_worker_if_nothing_else_is_said(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PID})

    assert server.deploy(name, source).workers == 1
    assert server.get(name).observed.live_workers == 1


def test_r_answers_two_calls_at_once_with_two_workers(
    server: RunningServer, repo: Repo, source: str, name: str, shared: Path
) -> None:
    repo.commit({"main.R": MEET.format(folder=shared).encode()})
    deployed = server.deploy(
        name, source, runtime=server.runtime_of_r().removeprefix("runtimes/"), workers=2, unbox=True
    )
    assert deployed.observed.live_workers == 2

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda word: server.predict(name, word, timeout=60), ["one", "two"]))

    assert answers == ["met", "met"]


def test_the_number_is_changed_without_a_revision_and_without_a_failed_call(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PID})
    before = server.deploy(name, source)

    with callers(server, name) as answers:
        more = server.scale(name, 3)
        assert (more.workers, more.observed.live_workers) == (3, 3)
        eventually(lambda: len(set(answers)) == 3)
        fewer = server.scale(name, 1)

    assert (fewer.workers, fewer.observed.live_workers) == (1, 1)
    assert (fewer.active_revision, revisions(server, name)) == (1, 1)
    assert fewer.etag != before.etag
    assert fewer.observed.restarts == 0


def test_a_number_is_kept_while_it_is_stopped_and_through_updates(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PID})
    server.create(name, source)
    assert server.scale(name, 2, wait=False).state == Deployment.STATE_STOPPED

    assert server.start(name).observed.live_workers == 2
    assert server.update(name, unbox=True).observed.live_workers == 2
    wish = Deployment(name=f"deployments/{name}", workers=3, settings={"unbox": False})
    server.client.admin.UpdateDeployment(deployment_pb2.UpdateDeploymentRequest(deployment=wish))
    eventually(lambda: (server.get(name).active_revision, server.get(name).observed.live_workers) == (3, 3))


@pytest.mark.parametrize("workers", [-1, 65, 1000])
def test_a_number_that_cannot_be_is_refused(
    server: RunningServer, repo: Repo, source: str, name: str, workers: int
) -> None:
    repo.commit({"main.py": PID})
    with pytest.raises(ModelHostError, match=f"workers must be 1 to 64, not {workers}"):
        server.create(name, source, workers=workers)
    server.create(name, source)

    assert reason_of(lambda: server.scale(name, workers)) == "FIELD_INVALID"
    assert server.get(name).workers == 1


def test_workers_survive_a_restart_and_are_refused_where_their_memory_does_not_fit(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": PID, "modelhost.toml": b"[limits]\nmemory = '100MiB'\n"})
    with RunningServer(tmp_path / "state", worker_memory=350 * MIB) as server:
        server.add_source("models", repo)
        server.deploy("churn", "models")
        server.scale("churn", 2)

        refused = server.scale("churn", 4)

        assert (refused.workers, refused.observed.live_workers) == (2, 2)
        assert refused.state == Deployment.STATE_RUNNING
        assert reason_name(refused.failure.reason) == "MEMORY_NOT_AVAILABLE"
        assert "may use 400 MiB, and of the host's 350 MiB" in refused.failure.message
        assert server.predict("churn", 0)
        scaled = server.scale("churn", 3)
        assert not scaled.HasField("failure")
        assert scaled.update_state == Deployment.UPDATE_STATE_UNSPECIFIED
    with RunningServer(tmp_path / "state", worker_memory=350 * MIB) as server:
        eventually(lambda: server.get("churn").observed.live_workers == 3)


def test_an_update_whose_workers_do_not_fit_beside_those_that_serve_fails_and_those_go_on(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": PID, "modelhost.toml": b"[limits]\nmemory = '100MiB'\n"})
    with RunningServer(tmp_path / "state", worker_memory=350 * MIB) as server:
        server.add_source("models", repo)
        server.deploy("churn", "models", workers=2)

        updated = server.update("churn", unbox=True)

        assert updated.update_state == Deployment.UPDATE_STATE_FAILED
        assert "its workers may use 200 MiB" in updated.failure.message
        assert "150 MiB are left" in updated.failure.message
        assert server.predict("churn", 0)


def test_no_more_models_are_loaded_at_once_than_there_are_places(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    note = """
import os, time
def mark(number):
    with open(os.path.join(os.environ["FOLDER"], "loads"), "a") as file:
        file.write("%d\\n" % number)
mark(1)
time.sleep(0.1)
mark(-1)
def predict(p):
    return p
"""
    repo.commit({"main.py": note.encode()})
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        loads = server.shared / "loads"
        loads.touch()
        loads.chmod(0o666)
        for name in ("a", "b", "c"):
            server.deploy(name, "models", workers=2, env={"FOLDER": str(server.shared)})
        loads.write_text("")
    with RunningServer(tmp_path / "state", concurrent_loads=2) as server:
        eventually(lambda: all(server.get(name).observed.live_workers == 2 for name in ("a", "b", "c")), seconds=60)
        steps = [int(line) for line in loads.read_text().split()]

    assert len(steps) == 12
    loading = [sum(steps[: end + 1]) for end in range(len(steps))]
    assert max(loading) == 2


def test_workers_are_exchanged_after_their_calls_as_modelhost_toml_says(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PID, "modelhost.toml": b"[limits]\nrecycle_after_calls = 30\nrecycle_memory = '1GiB'\n"})
    server.deploy(name, source)

    with callers(server, name) as answers:
        eventually(lambda: len(set(answers)) >= 3)

    assert server.get(name).observed.restarts == 0
    request = deployment_pb2.GetRevisionRequest(name=f"deployments/{name}/revisions/1")
    limits = server.client.admin.GetRevision(request).settings.limits
    assert (limits.recycle_after_calls, limits.recycle_memory_bytes) == (30, 2**30)
