"""Data sources on hosts that the server may not go to: refused when they are registered if that can be known by then,
else when they are used."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhost.v1 import data_source_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.checks import refused
from tests.git_repos import Repo
from tests.gitlab_operators import get, register, try_out, update
from tests.gitlab_stand_in import GitLab
from tests.running import RunningServer


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server as it is without a list."""
    with RunningServer(tmp_path_factory.mktemp("strict") / "state", git_hosts=()) as running:
        yield running


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a list, on which the stand-in is by its address."""
    hosts = ("gitlab.example.com", "*.corp.example:8443", "127.0.0.1")
    with RunningServer(tmp_path_factory.mktemp("listing") / "state", git_hosts=hosts) as running:
        yield running


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


def register_git(server: RunningServer, source_id: str, url: str, *, validate_only: bool = False) -> pb.DataSource:
    return server.client.admin.CreateDataSource(
        pb.CreateDataSourceRequest(
            data_source_id=source_id,
            data_source=pb.DataSource(git=pb.GitLocation(url=url)),
            validate_only=validate_only,
        )
    )


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/x", "https://ada:hunter2@localhost:8443/x", "http://2130706433/x", "http://0x7f.1/x"),
        *("http://[::ffff:127.0.0.1]/x", "http://127.1/x", "git://[::1]/x", "ssh://git@127.0.0.1/x", "git@localhost:x"),
        *("http://169.254.169.254/latest", "http://[fe80::1]/x", "http://0.0.0.0/x", "http://100.100.100.200/x"),
    ],
)
def test_without_a_list_a_place_that_spells_out_such_an_address_is_not_stored(
    strict: RunningServer, name: str, url: str
) -> None:
    for validate_only in (True, False):
        with refused("HOST_NOT_ALLOWED") as caught:
            register_git(strict, name, url, validate_only=validate_only)
        assert "modelhost serve --git-host" in str(caught.value.__cause__)
        assert "hunter2" not in str(caught.value.__cause__)
    with refused("DATA_SOURCE_NOT_FOUND"):
        get(strict, name)


def test_without_a_list_other_places_and_folders_are_stored(strict: RunningServer, repo: Repo, name: str) -> None:
    for number, url in enumerate(["https://gitlab.example.com/x", "git@10.0.0.5:x", str(repo.path)]):
        assert register_git(strict, f"{name}-{number}", url).git.url == url
    assert try_out(strict, f"{name}-2").ok


def test_a_gitlab_on_loopback_is_not_stored_nor_moved_to(strict: RunningServer, gitlab: GitLab, name: str) -> None:
    with refused("HOST_NOT_ALLOWED"):
        register(strict, name, gitlab)
    register(strict, name, gitlab, url="https://gitlab.example.com")
    with refused("HOST_NOT_ALLOWED"):
        update(strict, name, url=gitlab.url, token=gitlab.token(), mask=["gitlab.url", "gitlab.token"])
    assert get(strict, name).gitlab.url == "https://gitlab.example.com"
    assert gitlab.requests == []


def test_with_a_list_only_what_may_be_on_it_is_stored(listing: RunningServer, repo: Repo, name: str) -> None:
    for number, url in enumerate(["https://gitlab.example.com/x", "https://git.corp.example:8443/x"]):
        register_git(listing, f"{name}-{number}", url)
    for url in ("http://127.0.0.2/x", "git@10.0.0.5:x", str(repo.path), repo.path.as_uri()):
        with refused("HOST_NOT_ALLOWED"):
            register_git(listing, name, url)
    with refused("DATA_SOURCE_NOT_FOUND"):
        get(listing, name)


def test_a_listed_gitlab_works(listing: RunningServer, gitlab: GitLab, name: str) -> None:
    register(listing, name, gitlab)
    assert try_out(listing, name).ok


def test_places_that_a_new_list_leaves_out_are_told_when_they_are_used(
    tmp_path: Path, repo: Repo, gitlab: GitLab
) -> None:
    repo.commit({"main.py": b"def predict(parameters):\n    return 1\n"})
    with RunningServer(tmp_path / "state") as before:
        register(before, "lab", gitlab)
        register_git(before, "folder", str(repo.path))
        assert before.client.admin.ListRefs(pb.ListRefsRequest(data_source="folder")).refs
    gitlab.requests.clear()
    with RunningServer(tmp_path / "state", git_hosts=("gitlab.example.com",)) as after:
        for source_id, entry in (("lab", "127.0.0.1"), ("folder", "file")):
            answer = try_out(after, source_id)
            assert (answer.ok, answer.reason) == (False, "HOST_NOT_ALLOWED")
            assert f"--git-host {entry}`" in answer.message
            with refused("HOST_NOT_ALLOWED"):
                after.client.admin.ListRefs(pb.ListRefsRequest(data_source=source_id, project="energy/turbine"))
        assert update(after, "lab", description="gone", mask=["description"]).description == "gone"
        with refused("HOST_NOT_ALLOWED"):
            update(after, "lab", url=f"{gitlab.url}/sub", mask=["gitlab.url"])
        after.create("model", "folder")
        assert after.start("model").failure.reason == ErrorReason.ERROR_REASON_HOST_NOT_ALLOWED
    assert gitlab.requests == []
