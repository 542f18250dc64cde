"""What may be done in which state; and those who watch see it happen: deployments, build logs, run logs, services."""

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelhost.v1 import deployment_pb2, log_pb2, predict_pb2, service_pb2
from tests.checks import Gate, raw_channel, refused
from tests.git_repos import Repo
from tests.obedient import OBEDIENT, do
from tests.running import Deployment, RunningServer, eventually

GATED = b"""
import os, time
while not os.path.exists(os.environ["GATE"]):
    time.sleep(0.005)
print("loaded")
"""
State = Deployment.State


@pytest.fixture(scope="session")
def source(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its `main.py` is the obedient model, its `gated.py` the same, once the file that GATE names is there."""
    repo = Repo(tmp_path_factory.mktemp("api-states") / "repo")
    repo.commit({**OBEDIENT, "gated.py": GATED + OBEDIENT["main.py"]})
    server.add_source("api-states", repo)
    return "api-states"


@pytest.fixture
def gate(shared: Path) -> Iterator[Gate]:
    gate = Gate(shared / "gate")
    yield gate
    gate.open()


@pytest.fixture
def pool(gate: Gate) -> Iterator[ThreadPoolExecutor]:
    """Threads for what waits at the gate."""
    with ThreadPoolExecutor(4) as threads:
        yield threads
        gate.open()


def bring(
    server: RunningServer, source: str, name: str, state: str, gate: Gate, pool: ThreadPoolExecutor
) -> Deployment:
    """A deployment that is in that state, and stays in it until the gate is opened."""
    admin = server.client.admin
    match state:
        case "STOPPED":
            server.create(name, source)
        case "STARTING":
            server.create(name, source, main_file="gated.py", env={"GATE": gate.path})
            admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name))
        case "FAILED":
            server.create(name, source, function="missing")
            server.start(name)
        case "RUNNING" | "STOPPING" | "DELETING":
            server.deploy(name, source)
    if state in ("STOPPING", "DELETING"):
        pool.submit(server.predict, name, do("wait", path=gate.path))
        eventually(lambda: server.get(name).observed.running_calls)
    if state == "STOPPING":
        admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    if state == "DELETING":
        admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))
    deployment = server.get(name)
    assert deployment.state == State.Value(f"STATE_{state}")
    return deployment


def commands(server: RunningServer, name: str) -> dict[str, Callable[[], Deployment]]:
    admin = server.client.admin
    update = deployment_pb2.UpdateDeploymentRequest(
        deployment=Deployment(name=name, settings=deployment_pb2.ModelSettings(function="predict"))
    )
    return {
        "start": lambda: admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name)),
        "stop": lambda: admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name)),
        "update": lambda: admin.UpdateDeployment(update),
        "delete": lambda: admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name)),
    }


@pytest.mark.parametrize(
    ("state", "refused_ones"),
    [
        ("STARTING", ["delete"]),
        ("RUNNING", ["delete"]),
        ("STOPPING", ["start", "update", "delete"]),
        ("DELETING", ["start", "stop", "update"]),
    ],
)
def test_what_a_state_does_not_allow_is_refused_and_changes_nothing(
    server: RunningServer, source: str, name: str, gate: Gate, pool: ThreadPoolExecutor, state: str,
    refused_ones: list[str],
) -> None:  # fmt: skip
    before = bring(server, source, name, state, gate, pool)

    for command in refused_ones:
        with refused("STATE_CONFLICT") as caught:
            commands(server, name)[command]()
        assert caught.value.code.name == "FAILED_PRECONDITION"
        assert f"deployment {name} is {state}" in caught.value.message
        assert [each.subject for each in caught.value.violations] == [name]
    after = server.get(name)
    assert (after.state, after.etag, after.target_revision) == (before.state, before.etag, before.target_revision)


@pytest.mark.parametrize(
    ("state", "command"),
    [("STOPPED", "stop"), ("STARTING", "start"), ("RUNNING", "start"), ("STOPPING", "stop"), ("DELETING", "delete")],
)
def test_what_is_wished_already_is_answered_and_changes_nothing(
    server: RunningServer, source: str, name: str, gate: Gate, pool: ThreadPoolExecutor, state: str, command: str
) -> None:
    before = bring(server, source, name, state, gate, pool)

    answer = commands(server, name)[command]()

    assert (answer.state, answer.etag) == (before.state, before.etag)


@pytest.mark.parametrize(
    ("state", "command", "then"),
    [
        ("STOPPED", "start", "STARTING"),
        ("STOPPED", "update", "STOPPED"),
        ("STOPPED", "delete", "DELETING"),
        ("STARTING", "stop", "STOPPING"),
        ("STARTING", "update", "STARTING"),
        ("RUNNING", "stop", "STOPPING"),
        ("RUNNING", "update", "RUNNING"),
        ("FAILED", "start", "STARTING"),
        ("FAILED", "stop", "STOPPED"),
        ("FAILED", "update", "FAILED"),
        ("FAILED", "delete", "DELETING"),
    ],
)
def test_what_a_state_allows_is_done(
    server: RunningServer, source: str, name: str, gate: Gate, pool: ThreadPoolExecutor, state: str, command: str,
    then: str,
) -> None:  # fmt: skip
    before = bring(server, source, name, state, gate, pool)

    answer = commands(server, name)[command]()

    assert answer.state == State.Value(f"STATE_{then}")
    assert answer.etag != before.etag
    assert answer.target_revision == before.target_revision + (command == "update")


@pytest.mark.parametrize("state", ["STARTING", "RUNNING", "STOPPING"])
def test_a_forced_delete_ends_whatever_goes_on(
    server: RunningServer, source: str, name: str, gate: Gate, pool: ThreadPoolExecutor, state: str
) -> None:
    bring(server, source, name, state, gate, pool)
    watch = server.client.admin.WatchDeployment(deployment_pb2.WatchDeploymentRequest(name=name))
    next(watch)

    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))
    if state == "STOPPING":  # else the call under way has its grace
        gate.open()

    assert [*watch][-1].deployment.state == Deployment.STATE_DELETING
    with refused("DEPLOYMENT_NOT_FOUND"):
        server.get(name)
    assert server.create(name, source).target_revision == 1


def test_the_update_of_a_starting_deployment_starts_the_new_revision_instead(
    server: RunningServer, source: str, name: str, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    bring(server, source, name, "STARTING", gate, pool)

    server.update(name, main_file="main.py", wait=False)

    deployment = server.wait(name, Deployment.STATE_RUNNING, Deployment.STATE_FAILED)
    assert (deployment.state, deployment.active_revision) == (Deployment.STATE_RUNNING, 2)


# -- watching ----------------------------------------------------------------------------------------------------------


def test_a_watch_begins_at_once_follows_every_change_and_ends_with_the_deployment(
    server: RunningServer, source: str, name: str, gate: Gate
) -> None:
    server.create(name, source, main_file="gated.py", env={"GATE": gate.path})
    watch = server.client.admin.WatchDeployment(deployment_pb2.WatchDeploymentRequest(name=name))
    seen = [next(watch)]
    assert seen[0].deployment == server.get(name)

    def until(condition: Callable[[Any], bool]) -> None:
        while not condition(seen[-1]):
            seen.append(next(watch))

    server.client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name))
    until(lambda one: one.revision.state == deployment_pb2.Revision.STATE_LOADING)
    gate.open()
    until(lambda one: one.deployment.state == Deployment.STATE_RUNNING and one.deployment.observed.live_workers == 1)
    assert seen[-1].revision.state == deployment_pb2.Revision.STATE_READY
    assert seen[-1].revision.commit
    assert not seen[-1].revision.files
    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))
    seen += watch

    states = [*dict.fromkeys(one.deployment.state for one in seen)]
    assert states == [
        Deployment.STATE_STOPPED, Deployment.STATE_STARTING, Deployment.STATE_RUNNING, Deployment.STATE_DELETING
    ]  # fmt: skip
    steps = [*dict.fromkeys(one.revision.state for one in seen)]
    assert steps == sorted(steps)
    assert all(one != following for one, following in itertools.pairwise(seen))


def test_a_watch_of_what_is_not_there_is_refused(server: RunningServer) -> None:
    with refused("DEPLOYMENT_NOT_FOUND"):
        next(server.client.admin.WatchDeployment(deployment_pb2.WatchDeploymentRequest(name="nothing-here")))
    with refused("FIELD_INVALID"):
        next(server.client.admin.WatchDeployment(deployment_pb2.WatchDeploymentRequest(name="a/b")))


def tail(server: RunningServer, name: str, **fields: Any) -> list[str]:
    """A log's lines to its end."""
    stream = server.client.admin.TailLog(log_pb2.TailLogRequest(deployment=name, **fields))
    return [entry.text for part in stream for entry in part.entries]


def test_the_tail_of_a_build_log_ends_with_the_build(
    server: RunningServer, source: str, name: str, gate: Gate, pool: ThreadPoolExecutor
) -> None:
    bring(server, source, name, "STARTING", gate, pool)
    lines: Future[list[str]] = pool.submit(tail, server, name)
    eventually(lambda: "loading gated.py" in server.build_log(name))
    assert not lines.done()

    gate.open()

    assert "\n".join(lines.result()) == server.build_log(name)
    assert lines.result()[-1].startswith("load done")
    assert tail(server, name, last_lines=2) == lines.result()[-2:]
    assert tail(server, name, last_lines=0) == []
    assert tail(server, name, last_lines=10_000) == lines.result()


def test_the_tail_of_a_failed_build_ends_with_why(server: RunningServer, source: str, name: str) -> None:
    server.create(name, source, function="missing")
    server.client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=name))

    lines = tail(server, name)

    assert server.get(name).state == Deployment.STATE_FAILED
    failure = server.get(name).failure
    assert lines[-2:] == [f"failed: FUNCTION_NOT_FOUND: {failure.message}", f"hint: {failure.hint}"]


def test_the_tail_of_a_run_log_tells_each_line_as_it_comes_and_ends_with_the_deployment(
    server: RunningServer, source: str, name: str
) -> None:
    server.deploy(name, source)
    stream = server.client.admin.TailLog(log_pb2.TailLogRequest(deployment=name, kind=log_pb2.LOG_KIND_RUN))

    for count in (1, 3):
        server.predict(name, do("say", lines=count))
        lines: list[str] = []
        while len(lines) < count:
            lines += [entry.text for entry in next(stream).entries]
        assert lines == [f"line {number}" for number in range(count)]

    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))
    assert [*stream] == []


def test_a_tail_of_what_is_not_there_or_of_less_than_nothing_is_refused(
    server: RunningServer, source: str, name: str
) -> None:
    server.create(name, source)

    with refused("DEPLOYMENT_NOT_FOUND"):
        tail(server, "nothing-here")
    with refused("REVISION_NOT_FOUND"):
        tail(server, name, revision=7)
    with refused("FIELD_INVALID") as caught:
        tail(server, name, last_lines=-1)
    assert [each.subject for each in caught.value.violations] == ["last_lines"]


# -- services ----------------------------------------------------------------------------------------------------------


def test_a_service_says_what_it_is_whether_it_runs_or_not(server: RunningServer, source: str, name: str) -> None:
    example = do("echo", value=1)
    deployment = server.deploy(name, source, test_call={"parameters_json": json.dumps(example), "expected_json": "1"})
    service = deployment.service.removeprefix("services/")
    describe = server.client.predict_stub.DescribeService
    revision = server.client.admin.GetRevision(deployment_pb2.GetRevisionRequest(name=f"{deployment.name}/revisions/1"))

    answer = describe(predict_pb2.DescribeServiceRequest(service=name))

    assert answer == predict_pb2.DescribeServiceResponse(
        service=service,
        deployment=name,
        serving=True,
        revision=1,
        commit=revision.commit,
        runtime="runtimes/python3.6",
        runtime_version=answer.runtime_version,
        environment_digest=revision.environment_digest,
        example_parameters_json=json.dumps(example),
    )
    assert answer.runtime_version.startswith("3.6.")
    assert len(answer.environment_digest) == 64
    assert describe(predict_pb2.DescribeServiceRequest(service=service)) == answer
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name))
    server.wait(name, Deployment.STATE_STOPPED)
    answer.serving, answer.revision = False, 0
    assert describe(predict_pb2.DescribeServiceRequest(service=name)) == answer


def test_a_service_is_serving_only_while_a_live_worker_has_its_model_loaded(
    server: RunningServer, source: str, name: str, gate: Gate
) -> None:
    gate.open()
    service = server.deploy(name, source, main_file="gated.py", env={"GATE": gate.path}).service
    gate.close()
    describe = predict_pb2.DescribeServiceRequest(service=name)

    def seen() -> tuple[bool, bool, int]:
        return (
            server.client.predict_stub.DescribeService(describe).serving,
            server.client.admin.GetService(service_pb2.GetServiceRequest(name=service)).serving,
            server.get(name).observed.live_workers,
        )

    with raw_channel(server.address) as raw:
        health = health_pb2_grpc.HealthStub(raw).Watch(
            health_pb2.HealthCheckRequest(service=name), metadata=[("authorization", f"Bearer {server.token}")]
        )
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        assert seen() == (True, True, 1)

        with refused("WORKER_DIED"):
            server.predict(name, do("die"))

        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert seen() == (False, False, 0)
        assert server.get(name).state == Deployment.STATE_RUNNING
        gate.open()
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        assert seen() == (True, True, 1)
        health.cancel()


def test_the_description_of_a_service_that_is_not_there_is_refused(server: RunningServer) -> None:
    with refused("SERVICE_NOT_FOUND"):
        server.client.predict_stub.DescribeService(predict_pb2.DescribeServiceRequest(service="nothing-here"))
