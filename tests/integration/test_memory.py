"""Deployments that declare how much memory they need, on a host that has only so much."""

from pathlib import Path

import pytest

from modelhost.client import ModelHostError
from modelhost.v1 import deployment_pb2
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer

GIB = 2**30


def test_a_deployment_that_does_not_fit_beside_the_others_fails_with_the_numbers(repo: Repo, tmp_path: Path) -> None:
    repo.commit({"main.py": b"def predict(p):\n    return 'here'\n", "modelhost.toml": b'[limits]\nmemory = "3GiB"\n'})
    with RunningServer(tmp_path / "state", worker_memory=4 * GIB) as server:
        server.add_source("models", repo)
        server.deploy("first", "models")
        server.create("second", "models", limits={"memory_bytes": 2 * GIB})

        failed = server.start("second")

        assert failed.state == Deployment.STATE_FAILED
        assert failed.failure.step == "load"
        assert failed.failure.message == (
            "its workers may use 2 GiB, and of the host's 4 GiB others that are loaded may use 3 GiB: 1 GiB are left"
        )
        assert "--memory" in failed.failure.hint
        assert server.predict("first", 0) == "here"

        server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name="first"))
        server.wait("first", Deployment.STATE_STOPPED)
        assert server.start("second").state == Deployment.STATE_RUNNING


def test_a_call_that_passes_its_deployments_limit_is_told_so(repo: Repo, tmp_path: Path) -> None:
    code = b"import time\ndef predict(p):\n    kept = bytearray(400 << 20)\n    time.sleep(60)\n"
    repo.commit({"main.py": code})
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.deploy("big", "models", limits={"memory_bytes": 200 << 20})

        with pytest.raises(ModelHostError) as caught:
            server.predict("big", 0)

        assert caught.value.reason == "WORKER_DIED"
        assert "its limit is 200 MiB" in str(caught.value)
        assert "its limit is 200 MiB" in server.run_log("big")
