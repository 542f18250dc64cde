"""Who changed what, from where, and how it was before: recorded with the change itself, without secrets."""

import json
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelhost.v1 import (
    access_pb2,
    audit_pb2,
    data_source_pb2,
    deployment_pb2,
    operator_pb2,
    runtime_pb2,
    service_account_pb2,
    service_pb2,
)
from tests.checks import refused
from tests.git_repos import Repo
from tests.running import RunningServer, eventually

MODEL = {"main.py": b"def predict(p):\n    return p\n"}


@pytest.fixture(scope="session")
def admin(server: RunningServer) -> Any:
    return server.client.admin


@pytest.fixture(scope="session")
def source_of_all(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    repo = Repo(tmp_path_factory.mktemp("audit") / "repo")
    repo.commit(MODEL)
    server.add_source("audit", repo)
    return "audit"


def events(admin: Any, **asked: Any) -> list[audit_pb2.AuditEvent]:
    """All that match, newest first."""
    found, token = [], ""
    while True:
        page = admin.ListAuditEvents(audit_pb2.ListAuditEventsRequest(page_token=token, **asked))
        found += page.audit_events
        if not (token := page.next_page_token):
            return found


def one(admin: Any, **asked: Any) -> audit_pb2.AuditEvent:
    (event,) = events(admin, **asked)
    return event


def test_an_event_says_who_did_what_to_which_thing_from_where_and_when(
    server: RunningServer, admin: Any, source_of_all: str, name: str
) -> None:
    before = time.time()
    server.create(name, source_of_all)

    event = one(admin, resource=f"deployments/{name}")

    assert event.operator == "operators/admin"
    assert event.method == "modelhost.v1.Admin/CreateDeployment"
    assert event.peer.startswith("ipv4:127.0.0.1:")
    assert before - 1 < event.time.ToMilliseconds() / 1000 < time.time() + 1
    assert event.request_id
    assert event.before_json == ""
    assert json.loads(event.after_json)["settings"] == {"runtime": "runtimes/python3.6"}


def test_of_a_change_only_what_is_different_is_kept(
    server: RunningServer, admin: Any, source_of_all: str, name: str
) -> None:
    server.create(name, source_of_all, env={"SAME": "1", "OTHER": "2"})
    server.update(name, wait=False, env={"SAME": "1", "OTHER": "3"})

    event = one(admin, resource=f"deployments/{name}", method="UpdateDeployment")

    before, after = json.loads(event.before_json), json.loads(event.after_json)
    assert before["settings"] == {"env": {"OTHER": "2"}}
    assert after["settings"] == {"env": {"OTHER": "3"}}
    assert (before["targetRevision"], after["targetRevision"]) == (1, 2)
    assert set(after) == {"settings", "targetRevision", "etag"}


def test_what_was_not_set_and_is_now_is_seen_and_the_other_way_round(
    server: RunningServer, admin: Any, source_of_all: str, name: str
) -> None:
    server.deploy(name, source_of_all)
    service = server.get(name).service
    admin.OpenService(service_pb2.OpenServiceRequest(name=name))
    admin.CloseService(service_pb2.CloseServiceRequest(name=name))
    admin.CloseService(service_pb2.CloseServiceRequest(name=name))

    with refused("SERVICE_NOT_FOUND"):  # there is none before it has first run
        server.create(f"{name[:40]}-2", source_of_all)
        admin.OpenService(service_pb2.OpenServiceRequest(name=f"{name[:40]}-2"))
    seen = [(event.before_json, event.after_json) for event in events(admin, resource=service)]

    assert seen == [("{}", "{}"), ('{"open":true}', '{"open":false}'), ('{"open":false}', '{"open":true}')]


Change = Callable[[Any, str, str], Any]


CHANGES: dict[str, Change] = {
    "UpdateDataSource": lambda admin, source, name: admin.UpdateDataSource(
        data_source_pb2.UpdateDataSourceRequest(
            data_source=data_source_pb2.DataSource(name=source, description="d"), update_mask={"paths": ["description"]}
        )
    ),
    "StopDeployment": lambda admin, source, name: admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=name)),
    "OpenService": lambda admin, source, name: admin.OpenService(service_pb2.OpenServiceRequest(name=name)),
    "CloseService": lambda admin, source, name: admin.CloseService(service_pb2.CloseServiceRequest(name=name)),
    "CreateServiceAccount": lambda admin, source, name: admin.CreateServiceAccount(
        service_account_pb2.CreateServiceAccountRequest(service_account_id=name)
    ),
    "CreateApiKey": lambda admin, source, name: admin.CreateApiKey(
        service_account_pb2.CreateApiKeyRequest(service_account=name)
    ),
    "RotateServiceAccountSecret": lambda admin, source, name: admin.RotateServiceAccountSecret(
        service_account_pb2.RotateServiceAccountSecretRequest(name=name)
    ),
    "GrantService": lambda admin, source, name: admin.GrantService(
        service_account_pb2.GrantServiceRequest(service_account=name, service=name)
    ),
    "RevokeService": lambda admin, source, name: admin.RevokeService(
        service_account_pb2.RevokeServiceRequest(service_account=name, service=name)
    ),
    "UpdateServiceAccount": lambda admin, source, name: admin.UpdateServiceAccount(
        service_account_pb2.UpdateServiceAccountRequest(
            service_account=service_account_pb2.ServiceAccount(name=name, disabled=True)
        )
    ),
    "DeleteServiceAccount": lambda admin, source, name: admin.DeleteServiceAccount(
        service_account_pb2.DeleteServiceAccountRequest(name=name)
    ),
    "CreateOperator": lambda admin, source, name: admin.CreateOperator(
        operator_pb2.CreateOperatorRequest(
            operator_id=name, operator=operator_pb2.Operator(role=access_pb2.ROLE_VIEWER)
        )
    ),
    "UpdateOperator": lambda admin, source, name: admin.UpdateOperator(
        operator_pb2.UpdateOperatorRequest(operator=operator_pb2.Operator(name=name, role=access_pb2.ROLE_DEPLOYER))
    ),
    "RotateOperatorToken": lambda admin, source, name: admin.RotateOperatorToken(
        operator_pb2.RotateOperatorTokenRequest(name=name)
    ),
    "DeleteOperator": lambda admin, source, name: admin.DeleteOperator(operator_pb2.DeleteOperatorRequest(name=name)),
    "CollectEnvironments": lambda admin, source, name: admin.CollectEnvironments(
        runtime_pb2.CollectEnvironmentsRequest()
    ),
    "RotateSecretKey": lambda admin, source, name: admin.RotateSecretKey(operator_pb2.RotateSecretKeyRequest()),
    "DeleteDeployment": lambda admin, source, name: admin.DeleteDeployment(
        deployment_pb2.DeleteDeploymentRequest(name=name, force=True)
    ),
}


def test_every_kind_of_change_is_recorded_and_none_of_their_secrets(
    server: RunningServer, admin: Any, source_of_all: str, name: str
) -> None:
    name = name[-40:]
    server.deploy(name, source_of_all)
    service = server.get(name).service.removeprefix("services/")
    resources = {"UpdateDataSource": f"dataSources/{source_of_all}", "RotateSecretKey": "secret.key"}
    resources |= dict.fromkeys(("OpenService", "CloseService"), f"services/{service}")
    resources |= dict.fromkeys(("GrantService", "RevokeService"), f"serviceAccounts/{name}/grants/{service}")
    resources |= {"CollectEnvironments": "environments"}
    kinds = {"Operator": "operators", "Account": "serviceAccounts", "ApiKey": "serviceAccounts"}
    begun = time.time()
    secrets = []

    for method, change in CHANGES.items():
        answer = change(admin, source_of_all, name)
        secrets += [getattr(answer, field, "") for field in ("secret_key", "key", "token")]
        kind = next((kinds[word] for word in kinds if word in method), "deployments")
        (event,) = events(admin, method=method, resource=resources.get(method, f"{kind}/{name}"))[:1]
        assert event.time.ToMilliseconds() / 1000 >= begun - 0.001, f"{method} was not recorded"

    shown = str(events(admin, start_time={"seconds": int(begun)}))
    secrets = [secret for secret in secrets if secret]
    assert len(secrets) == 5
    assert not [secret for secret in secrets if secret in shown]
    assert not {"mhs_", "mhk_", "mha_"} & {shown[at : at + 4] for at in range(len(shown))}


def test_every_method_that_changes_something_is_recorded_in_some_test() -> None:
    from modelhost.v1 import admin_pb2

    reading = ("Get", "List", "Watch", "Read", "Tail", "Diff", "Test", "Debug")
    changing = {
        rpc.name for rpc in admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods if not rpc.name.startswith(reading)
    }
    elsewhere = {
        "CreateDataSource", "DeleteDataSource", "CreateDeployment", "UpdateDeployment", "StartDeployment",
        "RollbackDeployment", "DeleteApiKey",
    }  # fmt: skip

    assert changing == {*CHANGES, *elsewhere}


def test_the_other_kinds_are_recorded_too(server: RunningServer, admin: Any, repo: Repo, name: str) -> None:
    repo.commit(MODEL)
    server.add_source(name, repo)
    server.deploy(name, name)
    admin.RollbackDeployment(deployment_pb2.RollbackDeploymentRequest(name=name, revision=1))
    account = name[-40:]
    admin.CreateServiceAccount(service_account_pb2.CreateServiceAccountRequest(service_account_id=account))
    key = admin.CreateApiKey(service_account_pb2.CreateApiKeyRequest(service_account=account))
    admin.DeleteApiKey(service_account_pb2.DeleteApiKeyRequest(name=key.name))
    admin.CreateDataSource(
        data_source_pb2.CreateDataSourceRequest(
            data_source_id=f"{account}-2",
            data_source=data_source_pb2.DataSource(git=data_source_pb2.GitLocation(url=str(repo.path))),
        )
    )
    admin.DeleteDataSource(data_source_pb2.DeleteDataSourceRequest(name=f"{account}-2"))

    def methods(resource: str) -> list[str]:
        return [event.method.rpartition("/")[2] for event in events(admin, resource=resource)]

    assert methods(f"deployments/{name}") == ["RollbackDeployment", "StartDeployment", "CreateDeployment"]
    assert methods(f"serviceAccounts/{account}") == ["DeleteApiKey", "CreateApiKey", "CreateServiceAccount"]
    assert methods(f"dataSources/{account}-2") == ["DeleteDataSource", "CreateDataSource"]


def test_what_is_refused_or_only_checked_or_repeated_is_not_recorded_again(
    server: RunningServer, admin: Any, source_of_all: str, name: str
) -> None:
    account = name[-40:]
    request = service_account_pb2.CreateServiceAccountRequest(service_account_id=account, request_id=str(uuid.uuid4()))
    checked = service_account_pb2.CreateServiceAccountRequest(service_account_id=account, validate_only=True)
    admin.CreateServiceAccount(checked)
    admin.CreateServiceAccount(request)
    admin.CreateServiceAccount(request)
    with refused("SERVICE_ACCOUNT_EXISTS"):
        admin.CreateServiceAccount(service_account_pb2.CreateServiceAccountRequest(service_account_id=account))

    assert one(admin, resource=f"serviceAccounts/{account}").method.endswith("CreateServiceAccount")


def test_events_are_found_by_operator_time_and_resource_and_what_belongs_to_it(
    server: RunningServer, admin: Any, source_of_all: str, name: str
) -> None:
    name = name[-40:]
    server.create(name, source_of_all)
    made = admin.CreateOperator(
        operator_pb2.CreateOperatorRequest(operator_id=name, operator=operator_pb2.Operator(role=access_pb2.ROLE_ADMIN))
    )
    with server.connect(made.token) as client:
        client.admin.CreateServiceAccount(service_account_pb2.CreateServiceAccountRequest(service_account_id=name))
        client.admin.GrantService(service_account_pb2.GrantServiceRequest(service_account=name, service=name))

    by_operator = events(admin, operator=name)
    assert [event.method.rpartition("/")[2] for event in by_operator] == ["GrantService", "CreateServiceAccount"]
    assert events(admin, operator=f"operators/{name}") == by_operator
    assert events(admin, resource=f"serviceAccounts/{name}") == by_operator
    assert events(admin, resource=by_operator[0].resource) == by_operator[:1]
    assert events(admin, operator=name, method="GrantService", page_size=1) == by_operator[:1]
    moment = by_operator[0].time
    assert by_operator[0] in events(admin, operator=name, start_time=moment)
    assert by_operator[0] not in events(admin, operator=name, end_time=moment)
    assert not events(admin, operator=name, start_time={"seconds": int(time.time()) + 10})


@pytest.mark.parametrize("asked", [{"page_token": "bogus"}, {"page_size": -1}, {"operator": "a/b"}])
def test_what_cannot_be_asked_is_refused(admin: Any, asked: dict[str, Any]) -> None:
    with refused("PAGE_TOKEN_INVALID" if "page_token" in asked else "FIELD_INVALID"):
        admin.ListAuditEvents(audit_pb2.ListAuditEventsRequest(**asked))


# -- as a stream -------------------------------------------------------------------------------------------------------


def changed(server: RunningServer, name: str) -> None:
    server.client.admin.CreateServiceAccount(service_account_pb2.CreateServiceAccountRequest(service_account_id=name))


def test_events_go_to_a_file_for_its_owner_alone_even_when_it_is_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with RunningServer(tmp_path / "state", audit_log=str(path)) as server:
        changed(server, "one")
        eventually(lambda: path.exists() and path.read_text().endswith("\n"))
        assert path.stat().st_mode & 0o777 == 0o600
        path.rename(tmp_path / "audit.1")
        changed(server, "two")
        eventually(lambda: path.exists() and path.read_text().endswith("\n"))
        changed(server, "three")
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert [line["resource"] for line in lines] == ["serviceAccounts/two", "serviceAccounts/three"]
    assert lines[0]["operator"] == "operators/admin"
    assert lines[0]["before"] is None
    assert lines[0]["after"]["name"] == "serviceAccounts/two"
    assert lines[0]["time"].endswith("Z")
    assert "mhs_" not in path.read_text()


def test_events_go_to_syslog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog:
        syslog.bind(("127.0.0.1", 0))
        syslog.settimeout(30)
        port = syslog.getsockname()[1]
        with RunningServer(tmp_path / "state", audit_log=f"syslog://127.0.0.1:{port}") as server:
            changed(server, "one")
            said = syslog.recv(65536).decode()

    priority, _, text = said.partition(">")
    assert priority.startswith("<")
    assert json.loads(text)["resource"] == "serviceAccounts/one"


@pytest.mark.parametrize("target", ["relative.log", "syslog://", "syslog://host:port", "/no/such/folder/audit.log"])
def test_a_stream_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path, target: str) -> None:
    with pytest.raises((ValueError, OSError)), RunningServer(tmp_path / "state", audit_log=target):
        pass
    with RunningServer(tmp_path / "state"):  # and leaves the state free for another try
        pass
