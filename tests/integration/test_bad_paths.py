"""Names that lead astray: paths that leave their place, refs and URLs that are options, sources that are not there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from modelhost.v1 import data_source_pb2, deployment_pb2
from tests.checks import refused
from tests.git_repos import Repo
from tests.running import RunningServer

TRICKS = {
    "upwards": "../x",
    "upwards later": "a/../../x",
    "absolute": "/etc/passwd",
    "an option": "-x",
    "a long option": "--upload-pack=touch x",
    "a line end": "a\nb",
    "an escape": "a\x1b[2Jb",
    "a null": "a\0b",
    "empty parts": "a//b",
    "here": "./a",
    "too long": "x" * 300,
    "too deep": "x/" * 200 + "x",
}
FIELDS = (
    "source.project", "source.directory", "source.paths",
    "settings.main_file", "settings.requirements_file", "settings.working_dir", "settings.import_paths",
)  # fmt: skip
REPEATED = ("source.paths", "settings.import_paths")


@pytest.fixture(scope="session")
def source(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A source for all: nothing is ever deployed from it."""
    server.add_source("bad-paths", Repo(tmp_path_factory.mktemp("bad-paths") / "repo"))
    return "bad-paths"


def wish(source: str, field: str, value: str) -> deployment_pb2.Deployment:
    """A deployment with a field like that, all else being fine."""
    fields: dict[str, Any] = {"source": {"data_source": source}, "settings": {"runtime": "python3.6"}}
    part, _, name = field.partition(".")
    fields[part][name] = ["fine", value] if field in REPEATED else value
    return ParseDict(fields, deployment_pb2.Deployment())


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS.keys())
def test_a_path_that_could_lead_astray_is_refused_by_name_and_nothing_is_made(
    server: RunningServer, source: str, name: str, field: str, trick: str
) -> None:
    with refused("FIELD_INVALID") as caught:
        server.client.admin.CreateDeployment(
            deployment_pb2.CreateDeploymentRequest(deployment_id=name, deployment=wish(source, field, trick))
        )

    assert [each.subject for each in caught.value.violations] == [f"deployment.{field}"]
    assert caught.value.message.isprintable()
    with refused("DEPLOYMENT_NOT_FOUND"):
        server.get(name)


@pytest.mark.parametrize("field", FIELDS)
def test_an_update_is_checked_like_a_create_and_changes_nothing(
    server: RunningServer, source: str, name: str, field: str
) -> None:
    before = server.create(name, source)
    wanted = wish(source, field, "../x")
    wanted.name = before.name

    with refused("FIELD_INVALID") as caught:
        server.client.admin.UpdateDeployment(
            deployment_pb2.UpdateDeploymentRequest(deployment=wanted, update_mask={"paths": [field]})
        )

    assert [each.subject for each in caught.value.violations] == [f"deployment.{field}"]
    assert server.get(name) == before


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS.keys())
@pytest.mark.parametrize(
    ("method", "field"),
    [("TestDataSource", "project"), ("ListRefs", "project"), ("ListFiles", "project"), ("ListFiles", "directory")],
)
def test_looking_around_in_a_source_takes_no_such_path_either(
    server: RunningServer, source: str, method: str, field: str, trick: str
) -> None:
    which = {"name" if method == "TestDataSource" else "data_source": source}
    request = getattr(data_source_pb2, f"{method}Request")(**which, **{field: trick})

    with refused("FIELD_INVALID") as caught:
        getattr(server.client.admin, method)(request)

    assert [each.subject for each in caught.value.violations] == [field]


@pytest.mark.parametrize("ref", ["-x", "--upload-pack=touch x", "a\nb", "a\0b", "x" * 251])
def test_a_ref_that_could_be_something_else_is_refused(server: RunningServer, source: str, name: str, ref: str) -> None:
    with refused("FIELD_INVALID") as caught:
        server.create(name, source, ref=ref)

    assert [each.subject for each in caught.value.violations] == ["deployment.source.ref"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-x",
        "--upload-pack=touch x",
        "ext::sh -c x",
        "fd::1",
        "models",
        "../models",
        "ftp://host/x",
        "http://",
        "/a\nb",
    ],
)
def test_a_url_that_is_none_or_runs_something_is_not_registered(server: RunningServer, name: str, url: str) -> None:
    source = data_source_pb2.DataSource(git=data_source_pb2.GitLocation(url=url))

    with refused("FIELD_INVALID") as caught:
        server.client.admin.CreateDataSource(
            data_source_pb2.CreateDataSourceRequest(data_source_id=name, data_source=source)
        )

    assert [each.subject for each in caught.value.violations] == ["data_source.git.url"]
    with refused("DATA_SOURCE_NOT_FOUND"):
        server.client.admin.GetDataSource(data_source_pb2.GetDataSourceRequest(name=name))


@pytest.mark.parametrize(
    "settings",
    [
        {"limits": {"queue_size": -1}},
        {"limits": {"queue_size": 10_001}},
        {"limits": {"call_timeout": "0s"}},
        {"limits": {"call_timeout": "-1s"}},
        {"limits": {"load_timeout": "86401s"}},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": "a\0b"}},
        {"env": {"MODELHOST_LINK_TOKEN": "x"}},
        {"function": "os.system('x')"},
        {"text": 99},
        {"runtime": "runtimes/a/b"},
        {"requirements": ["x"] * 1_001},
        {"test_call": {"parameters_json": ""}},
        {"test_call": {"parameters_json": "{'a': 1}"}},
        {"test_call": {"parameters_json": "NaN"}},
        {"test_call": {"parameters_json": "[" * 5_000}},
        {"test_call": {"parameters_json": "1", "expected_json": "{"}},
    ],
    ids=lambda settings: str(settings)[:50],
)
def test_a_setting_that_breaks_its_rule_is_refused_by_name(
    server: RunningServer, source: str, name: str, settings: Mapping[str, Any]
) -> None:
    wanted = ParseDict({"source": {"data_source": source}, "settings": settings}, deployment_pb2.Deployment())

    with refused("FIELD_INVALID") as caught:
        server.client.admin.CreateDeployment(
            deployment_pb2.CreateDeploymentRequest(deployment_id=name, deployment=wanted)
        )

    ((part, value),) = settings.items()
    field = f"{part}.{next(iter(value))}" if part == "limits" else part
    (violation,) = caught.value.violations
    assert violation.subject.startswith(f"deployment.settings.{field}")


def test_a_source_that_is_not_registered_is_refused_and_those_there_are_named(
    server: RunningServer, source: str, name: str
) -> None:
    with refused("DATA_SOURCE_NOT_FOUND") as caught:
        server.create(name, "nowhere")

    assert "nowhere" in caught.value.message
    assert caught.value.metadata["known"]
    with refused("DEPLOYMENT_NOT_FOUND"):
        server.get(name)


def test_a_source_that_cannot_be_reached_is_told_by_its_test(server: RunningServer, tmp_path: Path, name: str) -> None:
    missing = tmp_path / "nowhere"
    server.client.admin.CreateDataSource(
        data_source_pb2.CreateDataSourceRequest(
            data_source_id=name, data_source={"git": data_source_pb2.GitLocation(url=str(missing))}
        )
    )

    answer = server.client.admin.TestDataSource(data_source_pb2.TestDataSourceRequest(name=name))

    assert not answer.ok
    assert answer.reason == "PROJECT_NOT_FOUND"
    assert str(missing) in answer.message
