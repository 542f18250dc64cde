"""Resource names: with their collection or bare, and what a new id may look like."""

import pytest

from modelhost.server.api import names
from modelhost.server.errors import InvalidRequest


@pytest.mark.parametrize("name", ["deployments/iris", "iris"])
def test_a_name_is_taken_with_its_collection_or_bare(name: str) -> None:
    assert names.parse(name, names.DEPLOYMENTS) == "iris"


@pytest.mark.parametrize("name", ["", "deployments/", "dataSources/iris", "deployments/iris/", "a/b", "/iris"])
def test_what_is_no_name_of_the_collection_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        names.parse(name, names.DEPLOYMENTS, "deployment.name")

    assert caught.value.field == "deployment.name"
    assert repr(name) in caught.value.message


def test_joining_and_parsing_are_inverse() -> None:
    assert names.parse(names.join(names.SERVICES, "svc-1"), names.SERVICES) == "svc-1"
    assert names.join(names.SERVICES, "") == ""


@pytest.mark.parametrize("name", ["deployments/iris/revisions/12", "iris/revisions/12"])
def test_a_revision_is_named_below_its_deployment(name: str) -> None:
    assert names.parse_revision(name) == ("iris", 12)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "iris",
        "iris/revisions",
        "iris/revisions/",
        "iris/revisions/one",
        "iris/revisions/-1",
        "iris/revisions/1/2",
        "iris/versions/1",
        "/revisions/1",
        "iris/revisions/12345678901234567890",
    ],
)
def test_what_names_no_revision_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        names.parse_revision(name)


@pytest.mark.parametrize("new", ["a", "iris-2", "Iris_model", "x" * 50, "7up", "-"])
def test_an_id_of_letters_digits_underscores_and_dashes_is_legal(new: str) -> None:
    names.check_new_id(new, "id")


@pytest.mark.parametrize("new", ["", "x" * 51, "a b", "a/b", "é", "a.b", "a\n", "a\0", ".."])
def test_any_other_id_is_refused(new: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        names.check_new_id(new, "deployment_id")

    assert caught.value.field == "deployment_id"
    assert "1 to 50 characters of a-z A-Z 0-9 _ -" in caught.value.message


@pytest.mark.parametrize("new", ["svc-1", "7up", "-a", "_a"])
def test_an_id_that_could_be_taken_for_something_else_is_refused(new: str) -> None:
    with pytest.raises(InvalidRequest, match="the first a letter, not beginning with svc-"):
        names.check_new_id(new, "deployment_id", letter_first=True, reserved="svc-")


def test_a_reserved_beginning_is_reserved_only_at_the_beginning() -> None:
    names.check_new_id("my-svc-1", "deployment_id", letter_first=True, reserved="svc-")
