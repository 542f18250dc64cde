"""Batches through the API: many callers at once, each with its own answer, whatever becomes of the others."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelhost.client import ModelHostError
from modelhost.v1 import deployment_pb2, log_pb2
from tests.checks import Gate, refused
from tests.git_repos import Repo
from tests.running import RunningServer, eventually

PYTHON = b"""
import os, time

class InvalidParameters(Exception):
    pass

def wait(parameters):
    while not os.path.exists(parameters["until"]):
        time.sleep(0.005)

def predict(parameters):
    if "until" in parameters:
        wait(parameters)
    if parameters.get("do") == "poison":
        raise ValueError("poisoned")
    return [parameters.get("n"), 1]

def predict_batch(batch):
    print("together: %d" % len(batch))
    if any(parameters.get("do") == "poison" for parameters in batch):
        raise ValueError("poisoned")
    return [one(parameters, len(batch)) for parameters in batch]

def one(parameters, size):
    if parameters.get("do") == "refuse":
        return InvalidParameters("not %d" % parameters["n"])
    return [parameters["n"], size]
"""
R = b"""
score <- function(parameters) {
    if (is.null(parameters$until)) return(c(parameters$n, 1))
    while (!file.exists(parameters$until)) Sys.sleep(0.005)
}
score_batch <- function(batch) lapply(batch, function(p) c(p$n, length(batch)))
"""


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as threads:
        yield threads


class Crowd:
    """Callers of a model that come while its only worker is busy, and so wait for it together."""

    def __init__(self, server: RunningServer, name: str, threads: ThreadPoolExecutor, gate: Gate) -> None:
        self._server = server
        self._name = name
        self._threads = threads
        self._gate = gate
        self._first = self._call({"until": gate.path})
        eventually(lambda: server.get(name).observed.running_calls == 1)

    def call(self, *parameters: dict[str, Any], **options: Any) -> "list[Future[Any]]":
        """Wait in the queue, in this order."""
        waiting = []
        for each in parameters:
            count = self._server.get(self._name).observed.queued_calls + 1
            waiting.append(self._call(each, **options))
            eventually(lambda count=count: self._server.get(self._name).observed.queued_calls == count)
        return waiting

    def go(self) -> None:
        """Free the worker."""
        self._gate.open()
        self._first.result()

    def _call(self, parameters: dict[str, Any], **options: Any) -> "Future[Any]":
        return self._threads.submit(self._server.predict, self._name, parameters, **options)


@pytest.fixture
def crowd(server: RunningServer, name: str, callers: ThreadPoolExecutor, shared: Path) -> Callable[[], Crowd]:
    return lambda: Crowd(server, name, callers, Gate(shared / "gate"))


@pytest.mark.parametrize(
    ("runtime", "file", "text"),
    [("python2.7", "main.py", PYTHON), ("python3.6", "main.py", PYTHON), ("r", "main.R", R)],
)
def test_callers_who_wait_are_run_together_and_each_has_its_own_answer(
    server: RunningServer, repo: Repo, source: str, name: str, crowd: Callable[[], Crowd],
    runtime: str, file: str, text: bytes,
) -> None:  # fmt: skip
    repo.commit({file: text, "modelhost.toml": b"[batching]\nmax_size = 8\n"})
    deployment = server.deploy(name, source, runtime=server.runtime_of_r() if runtime == "r" else runtime)
    together = crowd()

    waiting = together.call(*({"n": n} for n in range(20)))
    together.go()
    answers = [each.result() for each in waiting]

    assert [answer[0] for answer in answers] == list(range(20))
    assert Counter(answer[1] for answer in answers) == {8: 16, 4: 4}
    revision = server.client.admin.GetRevision(
        deployment_pb2.GetRevisionRequest(name=f"{deployment.name}/revisions/{deployment.active_revision}")
    )
    assert revision.settings.batching.max_size == 8
    assert revision.settings.batching.max_delay.ToMilliseconds() == 5


def test_a_call_that_fails_alone_and_one_that_fails_a_batch_leave_the_others_alone(
    server: RunningServer, repo: Repo, source: str, name: str, crowd: Callable[[], Crowd]
) -> None:
    repo.commit({"main.py": PYTHON})
    server.deploy(name, source, batching={"max_size": 4})
    together = crowd()
    first = together.call({"n": 1}, {"n": 2, "do": "refuse"}, {"n": 3}, {"n": 4})
    second = together.call({"n": 5}, {"n": 6, "do": "poison"}, {"n": 7}, {"n": 8})

    together.go()

    assert [first[number].result() for number in (0, 2, 3)] == [[1, 4], [3, 4], [4, 4]]
    with refused("PARAMETERS_INVALID") as caught:
        first[1].result()
    assert "not 2" in str(caught.value)
    assert [second[number].result() for number in (0, 2, 3)] == [[5, 1], [7, 1], [8, 1]]
    with refused("MODEL_RAISED") as caught:
        second[1].result()
    assert "poisoned" in str(caught.value)


def test_a_call_that_is_killed_with_its_batch_says_so_under_its_own_id(
    server: RunningServer, repo: Repo, source: str, name: str, crowd: Callable[[], Crowd]
) -> None:
    repo.commit({"main.py": PYTHON.replace(b'print("together', b'os.kill(os.getpid(), 9)\n    print("together')})
    server.deploy(name, source, batching={"max_size": 4})
    together = crowd()
    one, other = together.call({"n": 1}, request_id="one") + together.call({"n": 2}, request_id="other")

    together.go()

    for call, request_id in ((one, "one"), (other, "other")):
        with refused("WORKER_DIED") as caught:
            call.result()
        assert caught.value.metadata["request_id"] == request_id


def test_what_a_batch_writes_is_found_by_each_of_its_calls(
    server: RunningServer, repo: Repo, source: str, name: str, crowd: Callable[[], Crowd]
) -> None:
    repo.commit({"main.py": PYTHON})
    server.deploy(name, source, batching={"max_size": 4})
    together = crowd()
    waiting = [*together.call({"n": 1}, request_id="one"), *together.call({"n": 2}, request_id="other")]
    together.go()
    for each in waiting:
        each.result()

    def lines(request_id: str) -> list[str]:
        request = log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_RUN, request_id=request_id)
        return [entry.text for entry in server.client.admin.ReadLog(request).entries]

    eventually(lambda: lines("one") == lines("other") == ["together: 2"])
    assert lines("oth") == []


def test_a_deadline_that_passes_in_the_queue_keeps_a_call_out_of_the_batch(
    server: RunningServer, repo: Repo, source: str, name: str, crowd: Callable[[], Crowd]
) -> None:
    repo.commit({"main.py": PYTHON})
    server.deploy(name, source, batching={"max_size": 4})
    together = crowd()
    hurried, patient = together.call({"n": 1}, timeout=0.5), together.call({"n": 2}, {"n": 3})

    with pytest.raises(ModelHostError):
        hurried[0].result()
    together.go()

    assert [each.result() for each in patient] == [[2, 2], [3, 2]]


def test_batches_without_a_function_for_them_are_warned_of(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": b"def predict(p):\n    return p\n"})

    server.deploy(name, source, batching={"max_size": 4})

    assert "warning: no batches, for the main file defines no function predict_batch" in server.build_log(name)
    assert server.predict(name, 1) == 1
