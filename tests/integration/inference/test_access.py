"""Who may do what by the Open Inference Protocol: as by Predict, and for operators as by Admin."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelhost.v1 import (
    access_pb2,
    audit_pb2,
    deployment_pb2,
    operator_pb2,
    service_account_pb2,
    service_pb2,
    usage_pb2,
)
from tests.git_repos import Repo
from tests.inference import SERVICE, InferenceClient, InferenceFailed, raw_outputs
from tests.running import Deployment, RunningServer, eventually
from tests.scraping import scrape

MODEL = b"""
def predict(t):
    if 'fail' in t:
        raise ValueError('no')
    return 1
"""
OPERATED = ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
OPEN = ("ServerLive", "ServerReady", "ServerMetadata")
FAIL = ("fail", "BOOL", [1], b"\1")


@pytest.fixture(scope="session")
def models(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    repo = Repo(tmp_path_factory.mktemp("inference-access") / "repo")
    repo.commit({"main.py": MODEL})
    server.add_source("inference-access", repo)
    return "inference-access"


@pytest.fixture
def model(server: RunningServer, models: str, name: str) -> str:
    """A deployment that nobody has called yet."""
    server.deploy(name, models)
    return name


@pytest.fixture
def clients(server: RunningServer, name: str) -> Iterator[dict[str, InferenceClient]]:
    """A service account that was granted nothing, operators of each role, and nobody."""
    admin = server.client.admin
    short = name[-30:]
    admin.CreateServiceAccount(service_account_pb2.CreateServiceAccountRequest(service_account_id=short))
    key = admin.CreateApiKey(service_account_pb2.CreateApiKeyRequest(service_account=f"serviceAccounts/{short}")).key
    tokens = {"account": key, "nobody": None, "admin": server.token}
    for role in ("viewer", "deployer"):
        made = admin.CreateOperator(
            operator_pb2.CreateOperatorRequest(
                operator_id=f"{role}-{short}",
                operator=operator_pb2.Operator(role=access_pb2.Role.Value(f"ROLE_{role.upper()}")),
            )
        )
        tokens[role] = made.token
    with ExitStack() as open_clients:
        yield {who: open_clients.enter_context(InferenceClient(server.address, token)) for who, token in tokens.items()}


def grant(server: RunningServer, name: str, **limits: float) -> None:
    server.client.admin.GrantService(
        service_account_pb2.GrantServiceRequest(service_account=name[-30:], service=name, limits=limits)
    )


def failure(client: InferenceClient, method: str, **fields: object) -> InferenceFailed:
    with pytest.raises(InferenceFailed) as caught:
        client.call(method, **fields)
    return caught.value


# ---- services


def test_what_is_not_granted_does_not_exist(clients: dict[str, InferenceClient], model: str) -> None:
    account = clients["account"]

    for method, field in (("ModelReady", "name"), ("ModelMetadata", "name"), ("ModelInfer", "model_name")):
        there, nowhere = (failure(account, method, **{field: each}) for each in (model, "nowhere"))
        assert (there.code, there.reason) == (nowhere.code, nowhere.reason) == ("NOT_FOUND", "SERVICE_NOT_FOUND")
        assert str(there).replace(model, "nowhere") == str(nowhere)


def test_who_was_granted_a_service_may_use_it(
    server: RunningServer, clients: dict[str, InferenceClient], model: str
) -> None:
    grant(server, model)
    service = server.get(model).service.removeprefix("services/")

    for name in (model, service, f"services/{service}", f"deployments/{model}"):
        assert raw_outputs(clients["account"].infer(name))
        assert clients["account"].call("ModelReady", name=name).ready
        assert clients["account"].call("ModelMetadata", name=name).name == name


def test_operators_who_only_look_call_no_model(clients: dict[str, InferenceClient], model: str) -> None:
    refused = failure(clients["viewer"], "ModelInfer", model_name=model)

    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "ROLE_REQUIRED")
    assert clients["viewer"].call("ModelReady", name=model).ready
    assert clients["viewer"].call("ModelMetadata", name=model).versions == ["1"]
    assert raw_outputs(clients["deployer"].infer(model))


def test_a_service_that_was_made_open_is_everybodys(
    server: RunningServer, clients: dict[str, InferenceClient], model: str
) -> None:
    assert failure(clients["nobody"], "ModelInfer", model_name=model).code == "UNAUTHENTICATED"
    server.client.admin.OpenService(service_pb2.OpenServiceRequest(name=model))

    assert raw_outputs(clients["nobody"].infer(model))
    assert failure(clients["nobody"], "ModelReady", name="nowhere").code == "UNAUTHENTICATED"
    server.client.admin.CloseService(service_pb2.CloseServiceRequest(name=model))
    assert failure(clients["nobody"], "ModelInfer", model_name=model).code == "UNAUTHENTICATED"


def test_how_the_server_is_everybody_may_ask(clients: dict[str, InferenceClient]) -> None:
    assert clients["nobody"].call("ServerLive").live
    assert clients["nobody"].call("ServerReady").ready
    assert clients["nobody"].call("ServerMetadata").name == "modelhost"


def test_a_stopped_model_is_not_ready_and_says_how_to_start_it(
    server: RunningServer, clients: dict[str, InferenceClient], model: str
) -> None:
    server.client.admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=model))
    server.wait(model, Deployment.STATE_STOPPED)

    refused = failure(clients["admin"], "ModelInfer", model_name=model)

    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "SERVICE_NOT_RUNNING")
    assert f"`modelhost start {model}`" in str(refused)
    assert not clients["admin"].call("ModelReady", name=model).ready
    assert not clients["admin"].call("ModelMetadata", name=model).versions


# ---- limits, usage, metrics


def test_limits_of_a_grant_count(server: RunningServer, clients: dict[str, InferenceClient], model: str) -> None:
    grant(server, model, requests_per_day=2, request_bytes=1000)
    account = clients["account"]
    large = failure(account, "ModelInfer", model_name=model, id="x" * 2000)
    assert (large.code, large.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")

    for _ in range(2):
        account.infer(model)

    assert failure(account, "ModelInfer", model_name=model).reason == "DAILY_QUOTA_EXCEEDED"


def test_calls_are_counted_as_those_of_predict(
    server: RunningServer, clients: dict[str, InferenceClient], model: str
) -> None:
    grant(server, model)
    for _ in range(3):
        clients["account"].infer(model)
    with pytest.raises(InferenceFailed):
        clients["account"].infer(model, FAIL)
    server.predict(model, {})

    usage = server.client.admin.GetServiceUsage(usage_pb2.GetServiceUsageRequest(service=model))

    counts = {one.caller: one.past_hour for one in usage.callers}
    mine = counts[f"serviceAccounts/{model[-30:]}"]
    assert (mine.requests, {one.code: one.count for one in mine.failures}) == (4, {"UNKNOWN": 1})
    assert counts["operators/admin"].requests == 1


def test_calls_are_in_the_metrics(tmp_path: Path, repo: Repo) -> None:
    repo.commit({"main.py": MODEL})
    with RunningServer(tmp_path / "state", metrics="127.0.0.1:0") as server:
        server.add_source("models", repo)
        server.deploy("counted", "models")
        with InferenceClient(server.address, server.token) as client:
            client.infer("counted")
            with pytest.raises(InferenceFailed):
                client.infer("counted", FAIL)
        seen = scrape(server.metrics_address)

    assert seen.value("modelhost_calls_total", deployment="counted", code="OK") == 1
    assert seen.value("modelhost_calls_total", deployment="counted", reason="MODEL_RAISED") == 1


# ---- the repository


@pytest.mark.parametrize("method", OPERATED)
def test_the_repository_is_for_operators_of_the_role(
    clients: dict[str, InferenceClient], model: str, method: str
) -> None:
    fields = {} if method == "RepositoryIndex" else {"model_name": model}

    assert failure(clients["nobody"], method, **fields).code == "UNAUTHENTICATED"
    assert failure(clients["account"], method, **fields).reason == "ROLE_REQUIRED"
    if method == "RepositoryIndex":
        assert model in [one.name for one in clients["viewer"].call(method).models]
    else:
        assert failure(clients["viewer"], method, **fields).reason == "ROLE_REQUIRED"
        clients["deployer"].call(method, **fields)


def test_the_index_says_of_every_deployment_whether_it_can_be_called(
    server: RunningServer, inference: InferenceClient, models: str, repo: Repo, name: str
) -> None:
    server.add_source(name, repo)
    repo.commit({"main.py": b"import nothing_of_that_name\n"})
    ready, created, failed = (f"{name[:44]}-{letter}" for letter in "abc")
    server.deploy(ready, models)
    server.create(created, models)
    server.create(failed, name)
    server.start(failed)

    index = {one.name: one for one in inference.call("RepositoryIndex").models}
    only_ready = [one.name for one in inference.call("RepositoryIndex", ready=True).models]

    assert (index[ready].state, index[ready].version, index[ready].reason) == ("READY", "1", "")
    assert (index[created].state, index[created].version, index[created].reason) == ("UNAVAILABLE", "", "stopped")
    assert index[failed].state == "UNAVAILABLE"
    assert "nothing_of_that_name" in index[failed].reason
    assert ready in only_ready
    assert not {created, failed} & set(only_ready)
    assert list(index) == sorted(index)


def test_loading_and_unloading_answer_when_it_is_done_and_are_of_no_effect_twice(
    server: RunningServer, inference: InferenceClient, models: str, name: str
) -> None:
    server.create(name, models)

    for _ in range(2):
        inference.call("RepositoryModelLoad", model_name=name)
        assert server.get(name).state == Deployment.STATE_RUNNING
        assert raw_outputs(inference.infer(name))
    for _ in range(2):
        inference.call(
            "RepositoryModelUnload", model_name=name, parameters={"unload_dependents": {"bool_param": False}}
        )
        assert server.get(name).state == Deployment.STATE_STOPPED


def test_both_are_in_the_audit(
    server: RunningServer, clients: dict[str, InferenceClient], models: str, name: str
) -> None:
    server.create(name, models)
    clients["deployer"].call("RepositoryModelLoad", model_name=name)
    clients["deployer"].call("RepositoryModelUnload", model_name=name)

    request = audit_pb2.ListAuditEventsRequest(operator=f"deployer-{name[-30:]}", resource=f"deployments/{name}")
    unload, load = server.client.admin.ListAuditEvents(request).audit_events

    assert load.method == f"{SERVICE.full_name}/RepositoryModelLoad"
    assert '"STATE_STARTING"' in load.after_json
    assert '"STATE_RUNNING"' in unload.before_json


def test_a_model_that_cannot_be_loaded_says_why(
    server: RunningServer, inference: InferenceClient, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": b"def predict(t:\n"})
    server.create(name, source)

    failed = failure(inference, "RepositoryModelLoad", model_name=name)

    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "SYNTAX_ERROR")
    assert str(failed).startswith(f"{name} did not start: main.py line 1")


@pytest.mark.parametrize(
    ("method", "fields", "reason"),
    [
        ("RepositoryModelLoad", {"model_name": "nowhere"}, "SERVICE_NOT_FOUND"),
        ("RepositoryModelUnload", {"model_name": "nowhere"}, "SERVICE_NOT_FOUND"),
        ("RepositoryModelLoad", {}, "FIELD_INVALID"),
        ("RepositoryModelLoad", {"parameters": {"config": {"string_param": "{}"}}}, "FIELD_INVALID"),
        ("RepositoryModelLoad", {"repository_name": "other"}, "SERVICE_NOT_FOUND"),
        ("RepositoryIndex", {"repository_name": "other"}, "SERVICE_NOT_FOUND"),
    ],
)
def test_what_there_is_not_is_refused(
    inference: InferenceClient, method: str, fields: dict[str, object], reason: str
) -> None:
    assert failure(inference, method, **fields).reason == reason


def test_a_listener_without_operators_has_no_repository(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "state", admin_listen="127.0.0.1:0") as server:
        with InferenceClient(server.address, server.token) as public:
            assert public.call("ServerLive").live
            for method in OPERATED:
                with pytest.raises(AssertionError, match="UNIMPLEMENTED"):  # of gRPC itself: no details of ours
                    public.call(method)
        with InferenceClient(server.admin_address, server.token) as operators:
            assert not operators.call("RepositoryIndex").models


def test_readiness_waits_for_what_ran_before_a_restart(tmp_path: Path, repo: Repo) -> None:
    """As the health of Predict does."""
    gate = tmp_path / "shared" / "gate"
    repo.commit(
        {"main.py": f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n".encode() + MODEL}
    )
    state = tmp_path / "state"
    with RunningServer(state) as server:
        server.add_source("models", repo)
        gate.touch()
        server.deploy("waits", "models")
        gate.unlink()
    with RunningServer(state) as server, InferenceClient(server.address, server.token) as client:
        assert client.call("ServerLive").live
        assert not client.call("ServerReady").ready
        assert not client.call("ModelReady", name="waits").ready
        gate.touch()
        eventually(lambda: client.call("ServerReady").ready)
        assert client.call("ModelReady", name="waits").ready


def test_every_method_is_one_of_those_above() -> None:
    models = ("ModelReady", "ModelMetadata", "ModelInfer")

    assert {rpc.name for rpc in SERVICE.methods} == {*OPERATED, *OPEN, *models}
