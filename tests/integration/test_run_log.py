"""What the run log has besides the model's own words: tracebacks of failed calls, and the ends of workers."""

import os
import signal

import pytest

from modelhost.v1 import deployment_pb2
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually, reason_of

RAISES = b"def predict(p):\n    return {}[p]\n"
STOPS = b"score <- function(p) helper(p)\nhelper <- function(p) stop('no such thing')\n"


@pytest.mark.parametrize(
    ("runtime", "file", "text", "expected"),
    [
        ("python2.7", "main.py", RAISES, "line 2, in predict"),
        ("python3.6", "main.py", RAISES, "line 2, in predict"),
        ("r", "main.R", STOPS, "helper(p)"),
    ],
)
def test_a_failed_calls_traceback_is_in_the_run_log(
    server: RunningServer, repo: Repo, source: str, name: str, runtime: str, file: str, text: bytes, expected: str
) -> None:
    repo.commit({file: text})
    server.deploy(name, source, runtime=server.runtime_of_r() if runtime == "r" else runtime)

    assert reason_of(lambda: server.predict(name, "x")) == "MODEL_RAISED"

    eventually(lambda: expected in server.run_log(name))


def test_the_end_of_a_worker_is_in_the_run_log(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.py": b"import os\ndef predict(p):\n    return os.getpid()\n"})
    server.deploy(name, source)

    os.kill(server.predict(name, 0), signal.SIGKILL)

    eventually(lambda: "this worker ended (signal SIGKILL)" in server.run_log(name))
    assert server.predict(name, 0)  # by another


def test_the_end_of_a_worker_that_is_dismissed_is_no_news(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": b"def predict(p):\n    print('called')\n"})
    server.deploy(name, source)
    server.predict(name, 0)

    server.update(name, function="predict")

    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    server.wait(name, Deployment.STATE_STOPPED)  # both workers have ended
    server.start(name)
    server.predict(name, 0)
    eventually(lambda: server.run_log(name).count("called") == 2)
    assert "ended" not in server.run_log(name)
