"""Rules that hold for every change: names, request ids, etags, validate_only, update masks, and the size of errors."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict

from modelhost.v1 import data_source_pb2, deployment_pb2, log_pb2
from tests.checks import refused
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually

MODEL = {"main.py": b"def predict(parameters):\n    return parameters\n", "data/x.csv": b"1\n"}


@pytest.fixture(scope="session")
def source(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    repo = Repo(tmp_path_factory.mktemp("api-rules") / "repo")
    repo.commit(MODEL)
    server.add_source("api-rules", repo)
    return "api-rules"


def create_request(name: str, source: str, **fields: Any) -> deployment_pb2.CreateDeploymentRequest:
    """`fields` are of the request, and as JSON has them."""
    wanted = {"source": {"data_source": source}, "settings": {"runtime": "python3.6"}}
    message = {"deployment_id": name, "deployment": wanted, **fields}
    return ParseDict(message, deployment_pb2.CreateDeploymentRequest())


def source_request(name: str, **fields: Any) -> data_source_pb2.CreateDataSourceRequest:
    message = {"data_source_id": name, "data_source": {"git": {"url": "/srv/models"}}, **fields}
    return ParseDict(message, data_source_pb2.CreateDataSourceRequest())


def update(server: RunningServer, name: str, change: dict[str, Any], mask: list[str], **fields: Any) -> Deployment:
    """Update with exactly that mask."""
    message = ParseDict({"deployment": {"name": name, **change}, **fields}, deployment_pb2.UpdateDeploymentRequest())
    message.update_mask.CopyFrom(FieldMask(paths=mask))
    return server.client.admin.UpdateDeployment(message)


# -- names -------------------------------------------------------------------------------------------------------------

LONGEST = "a" * 50
ILLEGAL = ["", "a" * 51, "a b", "a/b", "a.b", "ä", "a\n", "a\0", "../a", "deployments/a", "a" * 100_000]


@pytest.mark.parametrize("name", [*ILLEGAL, "1a", "_a", "-a", "svc-a"], ids=lambda name: repr(name[:20]))
def test_a_deployment_gets_no_illegal_name(server: RunningServer, source: str, name: str) -> None:
    with refused("FIELD_INVALID") as caught:
        server.client.admin.CreateDeployment(create_request(name, source))

    assert [each.subject for each in caught.value.violations] == ["deployment_id"]
    assert "the first a letter" in caught.value.message


@pytest.mark.parametrize("name", ILLEGAL, ids=lambda name: repr(name[:20]))
def test_a_data_source_gets_no_illegal_name(server: RunningServer, name: str) -> None:
    with refused("FIELD_INVALID") as caught:
        server.client.admin.CreateDataSource(source_request(name))

    assert [each.subject for each in caught.value.violations] == ["data_source_id"]


@pytest.mark.parametrize("name", [LONGEST, "Z-9_", "q"])
def test_a_legal_name_is_taken_once(server: RunningServer, source: str, name: str) -> None:
    server.client.admin.CreateDeployment(create_request(name, source))
    server.client.admin.CreateDataSource(source_request(name))

    with refused("DEPLOYMENT_EXISTS") as caught:
        server.client.admin.CreateDeployment(create_request(name, source))
    assert name in caught.value.message
    with refused("DATA_SOURCE_EXISTS"):
        server.client.admin.CreateDataSource(source_request(name))


def test_a_data_source_in_use_is_kept_and_says_by_whom(server: RunningServer, repo: Repo, name: str) -> None:
    server.add_source(name, repo)
    server.create(name, name)
    request = data_source_pb2.DeleteDataSourceRequest(name=name)

    with refused("DATA_SOURCE_IN_USE") as caught:
        server.client.admin.DeleteDataSource(request)

    assert caught.value.metadata["deployments"] == name
    assert server.client.admin.GetDataSource(data_source_pb2.GetDataSourceRequest(name=name)).name


# -- request ids -------------------------------------------------------------------------------------------------------


def change_named(server: RunningServer, method: str, name: str, source: str) -> Callable[[str, bool], Any]:
    """A change of a deployment or data source of that name: with a request id, and with another body where told so."""
    admin = server.client.admin
    deployment, data_source = deployment_pb2, data_source_pb2
    other = {True: {"etag": "1"}, False: {}}
    text = {True: "other", False: "one"}
    return {
        "CreateDeployment": lambda key, else_: admin.CreateDeployment(
            create_request(f"n{name[-8:]}-{text[else_]}", source, request_id=key)
        ),
        "UpdateDeployment": lambda key, else_: update(server, name, {"description": text[else_]}, [], request_id=key),
        "StartDeployment": lambda key, else_: admin.StartDeployment(
            deployment.StartDeploymentRequest(name=name, request_id=key, **other[else_])
        ),
        "StopDeployment": lambda key, else_: admin.StopDeployment(
            deployment.StopDeploymentRequest(name=name, request_id=key, **other[else_])
        ),
        "DeleteDeployment": lambda key, else_: admin.DeleteDeployment(
            deployment.DeleteDeploymentRequest(name=name, request_id=key, force=else_)
        ),
        "CreateDataSource": lambda key, else_: admin.CreateDataSource(
            source_request(f"n{name[-8:]}-{text[else_]}", request_id=key)
        ),
        "DeleteDataSource": lambda key, else_: admin.DeleteDataSource(
            data_source.DeleteDataSourceRequest(name=name, request_id=key, **other[else_])
        ),
    }[method]


CHANGES = (
    "CreateDeployment", "UpdateDeployment", "StartDeployment", "StopDeployment", "DeleteDeployment",
    "CreateDataSource", "DeleteDataSource",
)  # fmt: skip


@pytest.fixture
def there(server: RunningServer, source: str, name: str) -> str:
    """A deployment and an unused data source of that name."""
    server.create(name, source)
    server.client.admin.CreateDataSource(source_request(name))
    return name


@pytest.mark.parametrize("method", CHANGES)
def test_a_repeated_change_is_done_once_and_answered_as_it_was(
    server: RunningServer, source: str, there: str, method: str
) -> None:
    change, key = change_named(server, method, there, source), str(uuid.uuid4())

    everything = deployment_pb2.ListDeploymentsRequest(page_size=1000)
    on_the_way = (Deployment.STATE_STARTING, Deployment.STATE_STOPPING, Deployment.STATE_DELETING)

    def settled() -> list[Deployment] | None:
        found = list(server.client.admin.ListDeployments(everything).deployments)
        return None if any(each.state in on_the_way for each in found) else found

    first = change(key, False)
    later = eventually(settled)

    assert change(key, False) == first
    assert settled() == later


def test_the_same_change_asked_for_at_the_same_time_is_done_once(server: RunningServer, source: str, name: str) -> None:
    request = create_request(name, source, request_id=str(uuid.uuid4()))

    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(server.client.admin.CreateDeployment, [request] * 8)]

    assert {each.uid for each in answers} == {server.get(name).uid}


@pytest.mark.parametrize("method", CHANGES)
def test_a_request_id_serves_for_one_body_and_one_method(
    server: RunningServer, source: str, there: str, method: str
) -> None:
    change, key = change_named(server, method, there, source), str(uuid.uuid4())
    change(key, False)

    with refused("REQUEST_ID_REUSED") as caught:
        change(key, True)
    assert [each.subject for each in caught.value.violations] == ["request_id"]
    for other in CHANGES:
        if other != method:
            with refused("REQUEST_ID_REUSED"):
                change_named(server, other, there, source)(key, False)


@pytest.mark.parametrize("key", ["1", "not-a-uuid", "x" * 36, "x" * 100_000], ids=lambda key: key[:10])
@pytest.mark.parametrize("method", CHANGES)
def test_a_request_id_is_a_uuid(server: RunningServer, source: str, name: str, method: str, key: str) -> None:
    with refused("FIELD_INVALID") as caught:
        change_named(server, method, name, source)(key, False)

    assert [each.subject for each in caught.value.violations] == ["request_id"]


def test_a_failed_change_is_not_remembered(server: RunningServer, repo: Repo, name: str) -> None:
    request = create_request(name, name, request_id=str(uuid.uuid4()))
    with refused("DATA_SOURCE_NOT_FOUND"):
        server.client.admin.CreateDeployment(request)

    server.add_source(name, repo)

    assert server.client.admin.CreateDeployment(request).name == f"deployments/{name}"


# -- etags -------------------------------------------------------------------------------------------------------------


def test_a_change_made_up_from_an_older_state_is_aborted(server: RunningServer, source: str, there: str) -> None:
    stale = server.get(there).etag
    now = update(server, there, {"description": "meanwhile"}, [])
    admin = server.client.admin

    for attempt in (
        lambda: update(server, there, {"description": "late", "etag": stale}, ["description"]),
        lambda: update(server, there, {"settings": {"function": "late"}, "etag": stale}, []),
        lambda: admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=there, etag=stale)),
        lambda: admin.StopDeployment(deployment_pb2.StopDeploymentRequest(name=there, etag=stale)),
        lambda: admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=there, etag=stale)),
        lambda: admin.DeleteDataSource(data_source_pb2.DeleteDataSourceRequest(name=there, etag="77")),
    ):
        with refused("ETAG_MISMATCH") as caught:
            attempt()
        assert caught.value.code.name == "ABORTED"
    assert server.get(there) == now

    assert update(server, there, {"description": "in time", "etag": now.etag}, []).description == "in time"


# -- validate_only -----------------------------------------------------------------------------------------------------


def test_validate_only_shows_what_would_be_and_changes_nothing(
    server: RunningServer, source: str, there: str, name: str
) -> None:
    before = server.get(there)
    key = str(uuid.uuid4())

    made = server.client.admin.CreateDeployment(
        create_request(f"{name}-new", source, validate_only=True, request_id=key)
    )
    changed = update(server, there, {"settings": {"function": "score"}}, [], validate_only=True, request_id=key)
    registered = server.client.admin.CreateDataSource(source_request(f"{name}-new", validate_only=True))

    assert (made.name, made.state) == (f"deployments/{name}-new", Deployment.STATE_STOPPED)
    assert (changed.settings.function, changed.target_revision) == ("score", 2)
    assert registered.name == f"dataSources/{name}-new"
    with refused("DEPLOYMENT_NOT_FOUND"):
        server.get(f"{name}-new")
    with refused("SERVICE_NOT_FOUND"):
        server.predict(f"{name}-new", 1)
    with refused("DATA_SOURCE_NOT_FOUND"):
        server.client.admin.GetDataSource(data_source_pb2.GetDataSourceRequest(name=f"{name}-new"))
    assert server.get(there) == before
    with refused("REVISION_NOT_FOUND"):
        server.client.admin.GetRevision(deployment_pb2.GetRevisionRequest(name=f"{before.name}/revisions/2"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": {"ref": "mian"}}, "REF_NOT_FOUND"),
        ({"source": {"directory": "nowhere"}}, "PATH_NOT_FOUND"),
        ({"source": {"paths": ["main.py", "no.csv"]}}, "PATH_NOT_FOUND"),
        ({"source": {"project": "nowhere"}}, "PROJECT_NOT_FOUND"),
        ({"settings": {"runtime": "python1.5"}}, "RUNTIME_NOT_FOUND"),
        ({"source": {"data_source": "nowhere"}}, "DATA_SOURCE_NOT_FOUND"),
        ({"source": {"ref": "main", "directory": "data", "paths": ["x.csv"]}}, ""),
    ],
    ids=str,
)
def test_validate_only_asks_the_source_and_the_host(
    server: RunningServer, source: str, there: str, name: str, change: dict[str, Any], reason: str
) -> None:
    wanted = {part: {"data_source": source, **fields} for part, fields in change.items() if part == "source"}
    wanted = {"source": {"data_source": source}, **change, **wanted}

    for attempt in (
        lambda: server.client.admin.CreateDeployment(
            create_request(f"{name}-new", source, deployment=wanted, validate_only=True)
        ),
        lambda: update(server, there, change, [], validate_only=True),
    ):
        if reason:
            with refused(reason):
                attempt()
        else:
            attempt()


# -- the size of errors ------------------------------------------------------------------------------------------------

HUGE = {"ASCII": "x" * 100_000, "two bytes": "ü" * 100_000, "to be escaped": "\x01" * 100_000, "quotes": "'\"" * 50_000}


@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE.keys())
def test_an_error_about_a_huge_value_is_small(server: RunningServer, source: str, there: str, value: str) -> None:
    admin = server.client.admin
    attempts: list[tuple[str, Callable[[], Any]]] = [
        ("DEPLOYMENT_NOT_FOUND", lambda: server.get(value)),
        ("FIELD_INVALID", lambda: server.get(f"a/{value}")),
        ("SERVICE_NOT_FOUND", lambda: server.predict(value, 1)),
        ("FIELD_INVALID", lambda: server.predict(f"a/{value}/b", 1)),
        ("DATA_SOURCE_NOT_FOUND", lambda: server.create(f"{there}-2", value)),
        ("FIELD_INVALID", lambda: server.create(f"{there}-2", source, ref=value)),
        ("FIELD_INVALID", lambda: server.create(f"{there}-2", source, directory=value)),
        ("FIELD_INVALID", lambda: server.create(f"{there}-2", source, main_file=f"../{value}")),
        ("FIELD_INVALID", lambda: server.create(f"{there}-2", source, function=f"{value}!")),
        ("FIELD_INVALID", lambda: server.create(f"{there}-2", source, env={f"{value}=": ""})),
        ("FIELD_INVALID", lambda: server.create(f"{there}-2", source, runtime=f"a/{value}")),
        ("FIELD_INVALID", lambda: update(server, there, {"description": value}, [])),
        ("FIELD_INVALID", lambda: update(server, there, {}, [value])),
        ("ETAG_MISMATCH", lambda: update(server, there, {"description": "x", "etag": value}, [])),
        ("PAGE_TOKEN_INVALID", lambda: admin.ReadLog(log_pb2.ReadLogRequest(deployment=there, page_token=value))),
        ("FIELD_INVALID", lambda: admin.GetRevision(deployment_pb2.GetRevisionRequest(name=value))),
        ("FIELD_INVALID", lambda: admin.CreateDataSource(source_request(value))),
    ]
    for reason, attempt in attempts:
        with refused(reason) as caught:
            attempt()
        assert caught.value.metadata or reason == "PAGE_TOKEN_INVALID"
        assert all(len(text.encode()) <= 256 for text in caught.value.metadata.values())
