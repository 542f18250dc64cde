"""Models deployed from a GitLab, and what may happen to it between register and predict."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhost.client import ModelHostError
from modelhost.v1 import deployment_pb2
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.gitlab_operators import register, try_out, update
from tests.gitlab_stand_in import GitLab, Huge, Meanwhile, Project, Truncated, bomb
from tests.running import Deployment, RunningServer

PATH = "energy/forecasting/turbine"
MIB = 1024**2
ARCHIVE, BLOBS, TREE = "*/repository/archive*", "*/blobs/*", "*/repository/tree"


def answers(text: str) -> bytes:
    """A model that says that."""
    return f"def predict(parameters):\n    return {text!r}\n".encode()


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


@pytest.fixture
def project(gitlab: GitLab) -> Project:
    return gitlab.project(PATH)


@pytest.fixture
def place(server: RunningServer, gitlab: GitLab, project: Project, name: str) -> str:
    """A data source that is the stand-in."""
    register(server, name, gitlab)
    return name


def files_of(server: RunningServer, name: str, revision: int = 1) -> set[str]:
    request = deployment_pb2.GetRevisionRequest(name=f"deployments/{name}/revisions/{revision}")
    return {file.path for file in server.client.admin.GetRevision(request).files}


def test_a_model_is_served_from_a_project_of_a_namespace(
    server: RunningServer, gitlab: GitLab, project: Project, name: str
) -> None:
    commit = project.repo.commit({"models/main.py": answers("first"), "README.md": b"x"})
    register(server, name, gitlab, namespace="energy")

    deployment = server.deploy(name, name, project="forecasting/turbine", ref="main", directory="models")

    assert server.predict(name, 0) == "first"
    assert deployment.source.project == "forecasting/turbine"
    revision = server.client.admin.GetRevision(
        deployment_pb2.GetRevisionRequest(name=f"deployments/{name}/revisions/1")
    )
    assert (revision.commit, [file.path for file in revision.files]) == (commit, ["main.py"])
    assert f"main is commit {commit}" in server.build_log(name)


def test_a_deployment_has_to_name_a_project(server: RunningServer, place: str, name: str) -> None:
    with pytest.raises(ModelHostError) as caught:
        server.create(name, place)

    assert caught.value.reason == "FIELD_INVALID"
    assert caught.value.metadata["field"] == "deployment.source.project"
    assert f"modelhost source projects {place}" in str(caught.value)


def test_a_project_by_number_outlives_its_name(
    server: RunningServer, gitlab: GitLab, project: Project, place: str
) -> None:
    project.repo.commit({"main.py": answers("first")})
    server.deploy(place, place, project=str(project.id), ref="main")
    project.rename("weather/windmill")
    project.repo.commit({"main.py": answers("second")})

    deployment = server.update(place, ref="main")

    assert deployment.active_revision == 2, deployment.failure
    assert deployment.source.project == str(project.id)
    assert server.predict(place, 0) == "second"


def test_a_token_that_expires_stops_the_next_update_and_not_the_model(
    server: RunningServer, gitlab: GitLab, project: Project, name: str
) -> None:
    token = gitlab.token()
    project.repo.commit({"main.py": answers("first")})
    register(server, name, gitlab, token=token)
    server.deploy(name, name, project=PATH, ref="main")
    token.expire()
    project.repo.commit({"main.py": answers("second")})

    failed = server.update(name, ref="main")

    assert failed.state == Deployment.STATE_RUNNING
    assert failed.update_state == Deployment.UPDATE_STATE_FAILED
    assert failed.failure.reason == ErrorReason.ERROR_REASON_SOURCE_TOKEN_EXPIRED
    assert failed.failure.message == f"the token for {gitlab.url} has expired"
    assert failed.failure.hint == "Make a new token in GitLab and give it to the data source."
    assert server.predict(name, 0) == "first"

    update(server, name, token=gitlab.token())

    assert server.update(name, ref="main").update_state == Deployment.UPDATE_STATE_DONE
    assert server.predict(name, 0) == "second"


def test_a_branch_that_is_deleted_between_resolving_and_fetching_leaves_the_commit(
    server: RunningServer, gitlab: GitLab, project: Project, place: str
) -> None:
    project.repo.commit({"main.py": answers("first")})
    project.repo.git("branch", "other")
    gitlab.faults.once(TREE, Meanwhile(lambda: project.repo.git("branch", "-D", "other")))

    server.deploy(place, place, project=PATH, ref="other")

    assert server.predict(place, 0) == "first"
    failed = server.update(place, ref="other")
    assert failed.failure.reason == ErrorReason.ERROR_REASON_REF_NOT_FOUND
    assert server.predict(place, 0) == "first"


def test_a_branch_that_is_pushed_anew_while_it_is_fetched_changes_nothing_of_the_commit(
    server: RunningServer, gitlab: GitLab, project: Project, place: str
) -> None:
    files = {f"data/{number}": b"%d" % number for number in range(20)}
    commit = project.repo.commit({"main.py": answers("first"), **files})

    def force_push() -> None:
        project.repo.git("update-ref", "-d", "refs/heads/main")
        project.repo.commit({"main.py": answers("second")})

    gitlab.faults.once(TREE, Meanwhile(force_push))

    server.deploy(place, place, project=PATH, ref="main")

    assert server.predict(place, 0) == "first"
    assert files_of(server, place) == {"main.py", *files}
    assert f"main is commit {commit}" in server.build_log(place)
    server.update(place, ref="main")
    assert server.predict(place, 0) == "second"


def test_an_archive_that_arrives_cut_short_is_got_again(
    server: RunningServer, gitlab: GitLab, project: Project, place: str
) -> None:
    project.repo.commit({"main.py": answers("whole"), **{f"data/{n}": b"%d" % n for n in range(20)}})
    gitlab.faults.once(ARCHIVE, Truncated())

    server.deploy(place, place, project=PATH)

    assert len(gitlab.requests_to(ARCHIVE)) == 2
    assert server.predict(place, 0) == "whole"
    assert len(files_of(server, place)) == 21


def test_a_file_of_two_gib_is_refused_before_it_is_read(
    server: RunningServer, gitlab: GitLab, project: Project, place: str
) -> None:
    project.repo.commit({"main.py": answers("x"), "weights.bin": b"y"})
    gitlab.faults.always(BLOBS, Huge(2 * 1024**3))
    server.create(place, place, project=PATH)

    failed = server.start(place)

    assert failed.state == Deployment.STATE_FAILED
    assert failed.failure.reason == ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE
    assert f"has {2 * 1024**3} bytes; the limit for all selected files is {1024**3}" in failed.failure.message
    assert "--max-snapshot-bytes" in failed.failure.hint


def test_a_repository_of_many_files_that_are_one_is_held_to_the_servers_limit(
    gitlab: GitLab, project: Project, tmp_path: Path
) -> None:
    bomb(project.repo, depth=2, width=8, size=MIB)
    with RunningServer(tmp_path / "state", snapshot_limit=4 * MIB) as server:
        register(server, "bomb", gitlab)
        server.create("bomb", "bomb", project=PATH)

        failed = server.start("bomb")

        assert failed.failure.reason == ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE, failed.failure
        kept = [path for path in (server.state_dir / "snapshots").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in kept) == 0
        assert try_out(server, "bomb").ok


def test_names_that_differ_by_case_alone_blanks_and_unicode_reach_the_model_as_they_are(
    server: RunningServer, gitlab: GitLab, place: str
) -> None:
    project = gitlab.project("energy/case")
    lists = b"import io, os\ndef predict(p):\n    found = {}\n    for name in sorted(os.listdir(u'data set')):\n"
    lists += b"        found[name] = io.open(u'data set/' + name, encoding='utf-8').read()\n    return found\n"
    data = {"Turbine": "upper", "turbine": "lower", "W\u00fcste \U0001f600.txt": "\u00fc", " two  blanks": "b"}
    project.repo.commit({"main.py": lists, **{f"data set/{name}": text.encode() for name, text in data.items()}})

    server.deploy(place, place, project="energy/case")

    assert server.predict(place, 0) == data
