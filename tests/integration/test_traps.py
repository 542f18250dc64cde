"""What others of this kind fell into. Each test here would have caught one of them in this server.

The rest of the list is tested where it belongs: prints that corrupt the link and forked children in
`serving/test_misbehaving_models.py`; backoff and crash loops in `serving/test_pool_workers.py`; message limits in
`test_default_limits.py`; sizes of errors in `tests/unit/test_errors.py`; Git's options and export attributes in
`git/test_bad_repositories.py` and `test_snapshots.py`; loads that fail in `test_bad_deployments.py`; Python 2.7 that is
found, and virtualenv that can still make its environments, in `environments/`; one call at a time in R in
`test_scaling.py`.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelhost.client import ModelHostError
from modelhost.v1 import predict_pb2, predict_pb2_grpc
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually, reason_of

Status = health_pb2.HealthCheckResponse
PID = b"import os\ndef predict(p):\n    return os.getpid()\n"
_forks: list[int] = []
os.register_at_fork(before=lambda: _forks.append(os.getpid()))  # told of a fork in Python, not of an exec


@pytest.fixture
def raw(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def kill_worker(server: RunningServer, name: str) -> None:
    """Kill a deployment's only worker, and wait for another."""
    pid = server.predict(name, 0)
    restarts = server.get(name).observed.restarts
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.get(name).observed.restarts > restarts)
    assert server.predict(name, 0) != pid


def test_ends_of_workers_take_nobody_elses_children(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    """MLServer reaps with waitpid(-1): whoever else waits for a child of the process never learns how it ended."""
    repo.commit({"main.py": PID})
    server.deploy(name, source)
    children = [subprocess.Popen(["/bin/sh", "-c", f"exit {code}"]) for code in (3, 4, 5)]

    for _ in range(3):
        kill_worker(server, name)

    assert [child.wait(10) for child in children] == [3, 4, 5]


def test_a_server_that_speaks_grpc_is_never_forked(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    """A fork without exec copies gRPC's locks as they are (grpc#17093): builds, workers and Git are executed."""
    repo.commit({"main.py": PID, "requirements.txt": b"six==1.16.0\n"})
    _forks.clear()

    server.deploy(name, source)
    kill_worker(server, name)

    assert _forks == []


def test_a_storm_of_cancelled_calls_loads_no_model_again(
    server: RunningServer, raw: grpc.Channel, repo: Repo, source: str, name: str, shared: Path
) -> None:
    """TorchServe#1888: callers that went away had workers ended and models loaded, for ever."""
    gate = shared / "gate"
    waits = f"    while p and not os.path.exists({str(gate)!r}):\n        time.sleep(0.001)\n"
    repo.commit({"main.py": f"import os, time\ndef predict(p):\n{waits}    return os.getpid()\n".encode()})
    server.deploy(name, source, limits={"queue_size": 1000})
    pid = server.predict(name, 0)
    stub = predict_pb2_grpc.PredictStub(raw)
    request = predict_pb2.PredictRequest(service=name, parameters_json="1")
    metadata = [("authorization", f"Bearer {server.token}")]

    for _ in range(5):
        calls = [stub.Predict.future(request, metadata=metadata) for _ in range(60)]
        eventually(lambda: server.get(name).observed.queued_calls >= 50)
        for call in calls:
            call.cancel()
        assert sum(call.cancelled() for call in calls) >= 50
        gate.touch()
        assert server.predict(name, 0) == pid
        gate.unlink()

    assert server.get(name).observed.queued_calls == 0
    assert server.get(name).observed.restarts == 0


def test_a_model_whose_queue_is_full_keeps_no_other_waiting(
    server: RunningServer, repo: Repo, source: str, name: str, shared: Path
) -> None:
    """MLServer#1232, #2040: one queue, or one pool, for all models."""
    gate = shared / "gate"
    repo.commit({"main.py": f"import os, time\ndef predict(p):\n    while not os.path.exists({str(gate)!r}):\n"
                            "        time.sleep(0.01)\n".encode()})  # fmt: skip
    server.deploy(name, source, limits={"queue_size": 20})
    repo.commit({"main.py": PID})
    server.deploy(f"{name}-b", source)

    with ThreadPoolExecutor(21) as threads:
        hot = [threads.submit(server.predict, name, 0) for _ in range(21)]
        eventually(lambda: server.get(name).observed.queued_calls == 20)
        assert reason_of(lambda: server.predict(name, 0)) == "QUEUE_FULL"

        assert len({server.predict(f"{name}-b", 0) for _ in range(50)}) == 1

        assert not any(call.done() for call in hot)
        gate.touch()
        assert [call.result() for call in hot] == [None] * 21


def test_health_tells_of_a_model_without_a_live_worker_and_no_call_hangs(
    server: RunningServer, raw: grpc.Channel, repo: Repo, source: str, name: str, shared: Path
) -> None:
    """MLServer#707, triton#7230: the workers are dead, the server says it is ready, and calls hang."""
    gate = shared / "gate"
    gate.touch()
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n".encode()
    repo.commit({"main.py": waits + PID})
    server.deploy(name, source)
    stub, metadata = health_pb2_grpc.HealthStub(raw), [("authorization", f"Bearer {server.token}")]
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), metadata=metadata)
    assert next(watch).status == Status.SERVING
    pid = server.predict(name, 0)
    gate.unlink()

    os.kill(pid, signal.SIGKILL)

    assert next(watch).status == Status.NOT_SERVING
    with pytest.raises(ModelHostError) as late:
        server.predict(name, 0, timeout=0.3)
    assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.get(name).observed.starting_workers == 1
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(server.predict, name, 0)
        eventually(lambda: server.get(name).observed.queued_calls == 1)
        gate.touch()
        assert waiting.result() != pid
    assert next(watch).status == Status.SERVING
    watch.cancel()


def test_more_callers_than_a_server_should_take_are_refused_or_answered_and_never_hang(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    """`maximum_concurrent_rpcs` of grpc.aio loses count (grpc#30424, #41531): the queue is our own."""
    repo.commit({"main.py": PID})
    server.deploy(name, source, limits={"queue_size": 5})
    reasons: list[str] = []
    lock = threading.Lock()

    def call() -> None:
        for _ in range(20):
            reason = reason_of(lambda: server.predict(name, 0))
            with lock:
                reasons.append(reason)

    with ThreadPoolExecutor(30) as threads:
        for done in [threads.submit(call) for _ in range(30)]:
            done.result()

    assert len(reasons) == 600
    assert set(reasons) <= {"", "QUEUE_FULL"}
    assert reasons.count("") >= 20
    assert server.get(name).state == Deployment.STATE_RUNNING
    assert server.predict(name, 0)
