"""Debug: one call with its result or traceback, its own output and where the time went."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelhost.client import ModelHostError
from modelhost.v1 import deployment_pb2, log_pb2
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually, reason_of

TALKATIVE = b"""
import os, sys, time

print("imported")

def predict(parameters):
    print("said " + str(parameters))
    sys.stderr.write("whispered\\n")
    os.write(1, b"from below\\n")
    time.sleep(parameters.get("seconds", 0))
    if "flood" in parameters:
        sys.stdout.write("x" * parameters["flood"])
    if "raise" in parameters:
        raise KeyError(parameters["raise"])
    if "exit" in parameters:
        os._exit(3)
    return {"got": parameters}
"""
R_TALKATIVE = b"""
score <- function(parameters) {
  cat("said something\\n")
  message("whispered")
  if (!is.null(parameters$stop)) stop(parameters$stop)
  list(got = 1)
}
"""


def debug(server: RunningServer, name: str, parameters: Any, **fields: Any) -> deployment_pb2.DebugDeploymentResponse:
    request = deployment_pb2.DebugDeploymentRequest(name=name, parameters_json=json.dumps(parameters), **fields)
    return server.client.admin.DebugDeployment(request)


@pytest.fixture
def talkative(server: RunningServer, repo: Repo, source: str, name: str) -> str:
    repo.commit({"main.py": TALKATIVE})
    server.deploy(name, source)
    return name


@pytest.mark.parametrize("runtime", ["python2.7", "python3.6"])
def test_a_call_that_succeeds(server: RunningServer, repo: Repo, source: str, name: str, runtime: str) -> None:
    repo.commit({"main.py": TALKATIVE})
    server.deploy(name, source, runtime=runtime)

    seen = debug(server, name, {"seconds": 0.2})

    assert json.loads(seen.result_json) == {"got": {"seconds": 0.2}}
    assert not seen.HasField("failure")
    assert seen.traceback == ""
    assert "said" in seen.stdout
    assert seen.stdout.endswith("from below\n")
    assert seen.stderr == "whispered\n"
    assert seen.revision == 1
    assert seen.timing.run.ToTimedelta().total_seconds() >= 0.2
    server.predict(name, {"logged": 1})
    eventually(lambda: "logged" in server.run_log(name))
    assert server.run_log(name).count("said") == 1


def test_a_call_of_r(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.R": R_TALKATIVE})
    server.deploy(name, source, runtime=server.runtime_of_r())

    well, badly = debug(server, name, {}), debug(server, name, {"stop": "no such store"})

    assert json.loads(well.result_json) == {"got": [1]}
    assert well.stdout == badly.stdout == "said something\n"
    assert well.stderr == "whispered\n"
    assert badly.result_json == ""
    assert badly.failure.reason == ErrorReason.ERROR_REASON_MODEL_RAISED
    assert "no such store" in badly.failure.message
    assert "stop(parameters$stop)" in badly.traceback
    server.predict(name, {})
    eventually(lambda: server.run_log(name).count("said something") == 1)


def test_a_call_that_raises_has_its_traceback_and_what_it_wrote(server: RunningServer, talkative: str) -> None:
    seen = debug(server, talkative, {"raise": "depot"})

    assert seen.result_json == ""
    assert seen.failure.reason == ErrorReason.ERROR_REASON_MODEL_RAISED
    assert seen.failure.step == "call"
    assert "KeyError" in seen.failure.message
    assert seen.traceback.startswith("Traceback (most recent call last):\n")
    assert "in predict" in seen.traceback
    assert "said" in seen.stdout
    assert server.predict(talkative, {}) == {"got": {}}


def test_the_first_64_kib_of_output_come_back(server: RunningServer, talkative: str) -> None:
    seen = debug(server, talkative, {"flood": 200_000})

    assert len(seen.stdout) < 66_000
    assert "bytes more)" in seen.stdout
    assert json.loads(seen.result_json) == {"got": {"flood": 200_000}}


def test_a_call_that_kills_its_worker_says_so_and_the_next_one_has_another(
    server: RunningServer, talkative: str
) -> None:
    seen = debug(server, talkative, {"exit": True})

    assert seen.failure.reason == ErrorReason.ERROR_REASON_WORKER_DIED
    eventually(lambda: server.get(talkative).observed.live_workers == 1)
    assert json.loads(debug(server, talkative, {}).result_json) == {"got": {}}


def test_a_failed_deployment_is_called_in_a_worker_of_its_own(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": TALKATIVE, "modelhost.toml": b'[test]\nparameters = {raise = "store"}\n'})
    server.create(name, source)
    assert server.start(name).state == Deployment.STATE_FAILED

    seen = debug(server, name, {"raise": "store"})

    assert "KeyError: 'store'" in seen.traceback
    assert json.loads(debug(server, name, {"a": 1}).result_json) == {"got": {"a": 1}}
    assert server.get(name).observed.live_workers == 0


def test_a_model_that_cannot_be_loaded_says_why(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.py": b"import does_not_exist\n"})
    server.create(name, source)
    assert server.start(name).state == Deployment.STATE_FAILED

    seen = debug(server, name, {})

    assert seen.failure.step == "load"
    assert "does_not_exist" in seen.failure.message
    assert "import does_not_exist" in seen.traceback


def test_an_older_revision_can_be_called_beside_the_active_one(
    server: RunningServer, repo: Repo, talkative: str
) -> None:
    repo.commit({"main.py": b"def predict(parameters):\n    return 'new'\n"})
    server.update(talkative, ref="main")

    assert json.loads(debug(server, talkative, {}).result_json) == "new"
    assert json.loads(debug(server, talkative, {}, revision=1).result_json) == {"got": {}}


def test_a_deployment_that_was_never_built_cannot_be_called(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": TALKATIVE})
    server.create(name, source)

    assert reason_of(lambda: debug(server, name, {})) == "STATE_CONFLICT"
    assert reason_of(lambda: debug(server, name, {}, revision=7)) == "REVISION_NOT_FOUND"
    assert reason_of(lambda: debug(server, name, {}, revision=-1)) == "FIELD_INVALID"


def test_parameters_that_are_no_json_are_refused(server: RunningServer, talkative: str) -> None:
    request = deployment_pb2.DebugDeploymentRequest(name=talkative, parameters_json="{nope")

    assert reason_of(lambda: server.client.admin.DebugDeployment(request)) == "FIELD_INVALID"


# ---- the call that a line of the run log belongs to


def run_lines(server: RunningServer, name: str, **fields: Any) -> list[log_pb2.LogEntry]:
    request = log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_RUN, **fields)
    return list(server.client.admin.ReadLog(request).entries)


def test_every_line_of_the_run_log_names_its_call(server: RunningServer, talkative: str) -> None:
    ids = [server.client.predict(talkative, {"number": number}).request_id for number in range(30)]

    assert len(set(ids)) == 30
    eventually(lambda: len(run_lines(server, talkative)) == 1 + 30 * 3)
    entries = run_lines(server, talkative)
    assert (entries[0].text, entries[0].request_id) == ("imported", "")
    for number, request_id in enumerate(ids):
        mine = run_lines(server, talkative, request_id=request_id)
        assert sorted(entry.text for entry in mine) == ["from below", f"said {{'number': {number}}}", "whispered"]
        assert {entry.revision for entry in mine} == {1}
        assert all(entry.worker for entry in mine)


def test_a_caller_may_name_its_call_and_finds_the_traceback_by_it(server: RunningServer, talkative: str) -> None:
    request = deployment_pb2.DebugDeploymentRequest(name=talkative, parameters_json='{"raise": "x"}')
    seen = server.client.admin.DebugDeployment(request, metadata=(("x-request-id", "order-4711"),))
    assert seen.request_id == "order-4711"

    def found() -> list[str]:
        return [entry.text for entry in run_lines(server, talkative, request_id="order-4711")]

    eventually(lambda: any("KeyError" in line for line in found()))


def test_a_failed_call_tells_its_id(server: RunningServer, talkative: str) -> None:
    with pytest.raises(ModelHostError) as caught:
        server.client.predict(talkative, {"raise": "x"})

    request_id = caught.value.metadata["request_id"]
    eventually(lambda: any("KeyError" in entry.text for entry in run_lines(server, talkative, request_id=request_id)))


def test_a_call_is_followed_from_its_last_lines_on(server: RunningServer, talkative: str) -> None:
    first, _, _ = [server.client.predict(talkative, {"n": n}).request_id for n in range(3)]
    eventually(lambda: len(run_lines(server, talkative)) == 10)

    request = log_pb2.TailLogRequest(deployment=talkative, kind=log_pb2.LOG_KIND_RUN, last_lines=2, request_id=first)
    stream = server.client.admin.TailLog(request)

    entries = list(next(iter(stream)).entries)
    stream.cancel()
    assert [entry.request_id for entry in entries] == [first, first]


def test_a_build_log_has_no_calls(server: RunningServer, talkative: str) -> None:
    request = log_pb2.ReadLogRequest(deployment=talkative, kind=log_pb2.LOG_KIND_BUILD, request_id="x")

    assert reason_of(lambda: server.client.admin.ReadLog(request)) == "FIELD_INVALID"


def test_a_call_in_a_worker_of_its_own_ends_with_the_server_and_leaves_nothing(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    wait = "import os, time\ndef predict(p):\n    open(p, 'w').close()\n    time.sleep(600)\n"
    repo.commit({"main.py": wait.encode()})
    with ThreadPoolExecutor(1) as threads:
        with RunningServer(tmp_path / "state", stop_grace=0.2) as server:
            server.add_source("models", repo)
            server.deploy("churn", "models")
            server.update("churn", unbox=True)
            reached = server.shared / "reached"
            request = deployment_pb2.DebugDeploymentRequest(
                name="churn", revision=1, parameters_json=json.dumps(str(reached))
            )
            call = threads.submit(reason_of, lambda: server.client.admin.DebugDeployment(request))
            eventually(reached.exists)
            server.client = server.connect(server.token)  # the call's own stays open until it has its answer

        assert call.result() == "SERVER_STOPPING"
        assert list((server.state_dir / "workers").iterdir()) == []
