"""What an update changes: the fields in its mask, or those that are set; and when that makes a revision."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict

from modelhost.v1 import deployment_pb2
from tests.checks import refused
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer

BEFORE = {
    "source": {"data_source": "dataSources/update-masks", "ref": "main", "paths": ["main.py"]},
    "settings": {
        "runtime": "runtimes/python3.6",
        "requirements": ["numpy", "pandas"],
        "env": {"A": "1", "B": "2"},
        "unbox": True,
        "limits": {"call_timeout": "30s", "queue_size": 7},
        "batching": {"max_size": 4, "max_delay": "0.020s"},
        "test_call": {"parameters_json": "1", "expected_json": "1"},
    },
}


@pytest.fixture(scope="session")  # pytest-xdist may take tests of other modules in between
def source(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    server.add_source("update-masks", Repo(tmp_path_factory.mktemp("update-masks") / "repo"))
    return "update-masks"


@pytest.fixture
def there(server: RunningServer, source: str, name: str) -> str:
    """A deployment with much that is set."""
    message = {"deployment_id": name, "deployment": {"description": "before", **BEFORE}}
    server.client.admin.CreateDeployment(ParseDict(message, deployment_pb2.CreateDeploymentRequest()))
    return name


def update(server: RunningServer, name: str, change: dict[str, Any], *mask: str) -> Deployment:
    message = ParseDict({"deployment": {"name": name, **change}}, deployment_pb2.UpdateDeploymentRequest())
    message.update_mask.CopyFrom(FieldMask(paths=mask))
    return server.client.admin.UpdateDeployment(message)


def wish(deployment: Deployment) -> dict[str, Any]:
    """What was asked for, as JSON has it."""
    whole = MessageToDict(deployment, preserving_proto_field_name=True)
    return {part: whole[part] for part in ("source", "settings")}


def changed(**parts: dict[str, Any]) -> dict[str, Any]:
    """The wish of before with these fields changed; None takes one out."""
    merged = {part: {**fields, **parts.get(part, {})} for part, fields in BEFORE.items()}
    return {part: {key: value for key, value in fields.items() if value is not None} for part, fields in merged.items()}


@pytest.mark.parametrize(
    ("change", "mask", "expected"),
    [
        ({"settings": {"function": "score"}}, ["settings.function"], changed(settings={"function": "score"})),
        ({"settings": {"function": "score"}}, [], changed(settings={"function": "score"})),
        ({}, ["settings.requirements"], changed(settings={"requirements": None})),
        (
            {"settings": {"requirements": ["scipy"]}}, ["settings.requirements"],
            changed(settings={"requirements": ["scipy"]}),
        ),
        ({"settings": {"requirements": ["scipy"]}}, [], changed(settings={"requirements": ["scipy"]})),
        ({"settings": {"env": {"C": "3"}}}, ["settings.env"], changed(settings={"env": {"C": "3"}})),
        ({"settings": {"env": {"C": "3"}}}, [], changed(settings={"env": {"C": "3"}})),
        ({}, ["settings.env"], changed(settings={"env": None})),
        ({"settings": {"unbox": False}}, [], changed(settings={"unbox": False})),
        ({}, ["settings.unbox"], changed(settings={"unbox": None})),
        (
            {"settings": {"limits": {"queue_size": 9}}}, ["settings.limits.queue_size"],
            changed(settings={"limits": {"call_timeout": "30s", "queue_size": 9}}),
        ),
        (
            {"settings": {"limits": {"queue_size": 9}}}, [],
            changed(settings={"limits": {"call_timeout": "30s", "queue_size": 9}}),
        ),
        (
            {"settings": {"limits": {"queue_size": 9}}}, ["settings.limits"],
            changed(settings={"limits": {"queue_size": 9}}),
        ),
        ({}, ["settings.limits.call_timeout"], changed(settings={"limits": {"queue_size": 7}})),
        (
            {"settings": {"batching": {"max_size": 8}}}, [],
            changed(settings={"batching": {"max_size": 8, "max_delay": "0.020s"}}),
        ),
        ({}, ["settings.batching.max_size"], changed(settings={"batching": {"max_delay": "0.020s"}})),
        ({}, ["settings.test_call"], changed(settings={"test_call": None})),
        (
            {"settings": {"test_call": {"parameters_json": "2"}}}, [],
            changed(settings={"test_call": {"parameters_json": "2"}}),
        ),
        ({"source": {"ref": "v1"}}, [], changed(source={"ref": "v1"})),
        ({"source": {"ref": "v1"}}, ["source.ref"], changed(source={"ref": "v1"})),
        ({}, ["source.ref", "source.paths"], changed(source={"ref": None, "paths": None})),
        (
            {"source": {"data_source": "update-masks", "directory": "b"}}, ["source"],
            {**BEFORE, "source": {"data_source": "dataSources/update-masks", "directory": "b"}},
        ),
        (
            {"settings": {"runtime": "python2.7"}}, ["settings"],
            {**BEFORE, "settings": {"runtime": "runtimes/python2.7"}},
        ),
        (
            {"description": "after", "settings": {"function": "f"}}, ["settings"],
            {**BEFORE, "settings": {"function": "f"}},
        ),
        ({}, [], BEFORE),  # the same anew: a branch may have moved
    ],
    ids=str,
)  # fmt: skip
def test_an_update_changes_what_its_mask_says_and_makes_a_revision(
    server: RunningServer, there: str, change: dict[str, Any], mask: list[str], expected: dict[str, Any]
) -> None:
    answer = update(server, there, change, *mask)

    assert wish(answer) == expected
    assert answer.target_revision == 2
    assert answer.description == "before"
    assert server.get(there) == answer
    name = f"deployments/{there}/revisions/2"
    revision = server.client.admin.GetRevision(deployment_pb2.GetRevisionRequest(name=name))
    assert (revision.source, revision.requested_settings) == (answer.source, answer.settings)


@pytest.mark.parametrize(
    ("change", "mask", "description"),
    [
        ({"description": "after"}, [], "after"),
        ({"description": "after"}, ["description"], "after"),
        ({}, ["description"], ""),
        ({"description": "after", "settings": {"function": "f"}}, ["description"], "after"),
    ],
    ids=str,
)
def test_a_new_description_alone_makes_no_revision(
    server: RunningServer, there: str, change: dict[str, Any], mask: list[str], description: str
) -> None:
    before = server.get(there)

    answer = update(server, there, change, *mask)

    assert answer.description == description
    assert (wish(answer), answer.target_revision) == (BEFORE, 1)
    assert answer.etag != before.etag


@pytest.mark.parametrize(
    "path",
    [
        "nothing", "settings.nothing", "settings.limits.nothing", "source.nothing.more", "description.more",
        "name", "uid", "state", "service", "active_revision", "target_revision", "update_state", "failure",
        "failure.reason", "routes", "observed.live_workers", "create_time", "update_time", "etag",
        "settings.env.A", "settings.requirements.0", "*", "", " ", "settings.", ".settings", "Settings", "x" * 100_000,
    ],
    ids=lambda path: path[:30] or "empty",
)  # fmt: skip
def test_a_mask_names_fields_that_are_there_and_not_output_only(server: RunningServer, there: str, path: str) -> None:
    before = server.get(there)

    with refused("FIELD_INVALID") as caught:
        update(server, there, {"description": "after"}, "description", path)

    assert [each.subject for each in caught.value.violations] == ["update_mask"]
    assert server.get(there) == before


@pytest.mark.parametrize(("change", "field"), [({}, "source"), ({}, "source.data_source")])
def test_what_is_required_cannot_be_cleared(
    server: RunningServer, there: str, change: dict[str, Any], field: str
) -> None:
    with refused("FIELD_INVALID") as caught:
        update(server, there, change, field)

    assert [each.subject for each in caught.value.violations] == ["deployment.source.data_source"]


@pytest.mark.parametrize("name", ["", "deployments/", "a/b", "dataSources/x"])
def test_an_update_says_of_what(server: RunningServer, name: str) -> None:
    with refused("FIELD_INVALID") as caught:
        update(server, name, {"description": "x"})

    assert [each.subject for each in caught.value.violations] == ["deployment.name"]
