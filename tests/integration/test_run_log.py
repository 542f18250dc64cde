"""What the run log has besides the model's own words: tracebacks of failed calls, and the ends of workers."""

import os
import signal

import pytest

from tests.git_repos import Repo
from tests.running import RunningServer, eventually, reason_of

RAISES = b"def predict(p):\n    return {}[p]\n"
STOPS = b"score <- function(p) helper(p)\nhelper <- function(p) stop('no such thing')\n"


@pytest.mark.parametrize(
    ("runtime", "file", "text", "expected"),
    [
        ("python2.7", "main.py", RAISES, "line 2, in predict"),
        ("python3.6", "main.py", RAISES, "line 2, in predict"),
        ("r4.2", "main.R", STOPS, "helper(p)"),
    ],
)
def test_a_failed_calls_traceback_is_in_the_run_log(
    server: RunningServer, repo: Repo, source: str, name: str, runtime: str, file: str, text: bytes, expected: str
) -> None:
    repo.commit({file: text})
    server.deploy(name, source, runtime=runtime)

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

    eventually(lambda: "called" in server.run_log(name))
    assert "ended" not in server.run_log(name)
