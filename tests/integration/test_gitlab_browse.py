"""Looking around in a GitLab before anything is deployed from it: its projects, refs, files and their text."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhost.server.api.paging import token
from modelhost.v1 import data_source_pb2 as pb
from tests.checks import refused
from tests.git_repos import Repo
from tests.gitlab_operators import register
from tests.gitlab_sources import FILES
from tests.gitlab_stand_in import GitLab, Project
from tests.running import RunningServer

PATH = "energy/forecasting/turbine"


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


@pytest.fixture
def project(gitlab: GitLab) -> Project:
    return gitlab.project(PATH)


def test_projects_come_page_by_page(server: RunningServer, gitlab: GitLab, name: str) -> None:
    made = [gitlab.project(f"energy/p{number}") for number in range(5)]
    gitlab.project("weather/p9")
    register(server, name, gitlab, namespace="energy")
    request = pb.ListProjectsRequest(data_source=name, page_size=2)
    seen = []

    while True:
        page = server.client.admin.ListProjects(request)
        seen.append([(project.id, project.path) for project in page.projects])
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    flat = [each for page in seen for each in page]
    assert [len(page) for page in seen] == [2, 2, 1]
    assert flat == [(str(project.id), project.path.removeprefix("energy/")) for project in made]


def test_projects_can_be_searched_for(server: RunningServer, gitlab: GitLab, name: str) -> None:
    turbine = gitlab.project(PATH)
    turbine.repo.commit(FILES)
    gitlab.project("energy/solar")
    register(server, name, gitlab)

    [found] = server.client.admin.ListProjects(pb.ListProjectsRequest(data_source=name, search="turb")).projects

    assert (found.id, found.path, found.default_branch) == (str(turbine.id), PATH, "main")
    assert found.HasField("activity_time")


def test_a_page_belongs_to_its_list(server: RunningServer, gitlab: GitLab, name: str) -> None:
    for number in range(2):
        gitlab.project(f"energy/p{number}")
    register(server, name, gitlab)
    first = server.client.admin.ListProjects(pb.ListProjectsRequest(data_source=name, page_size=1))

    for search, page_token in (
        ("p", first.next_page_token),
        ("", "x"),
        ("", token(f"projects {name} ", "no number")),
    ):
        with refused("PAGE_TOKEN_INVALID"):
            server.client.admin.ListProjects(
                pb.ListProjectsRequest(data_source=name, page_size=1, search=search, page_token=page_token)
            )


@pytest.mark.parametrize("search", ["a\0b", "x" * 251])
def test_not_everything_can_be_searched_for(server: RunningServer, gitlab: GitLab, name: str, search: str) -> None:
    register(server, name, gitlab)

    with refused("FIELD_INVALID") as caught:
        server.client.admin.ListProjects(pb.ListProjectsRequest(data_source=name, search=search))

    assert caught.value.metadata["field"] == "search"


def test_git_has_projects_too(server: RunningServer, name: str, tmp_path: Path) -> None:
    for path in ("a", "b/c"):
        Repo(tmp_path / "place" / path)
    source = pb.DataSource(git=pb.GitLocation(url=str(tmp_path / "place")))
    server.client.admin.CreateDataSource(pb.CreateDataSourceRequest(data_source_id=name, data_source=source))

    first = server.client.admin.ListProjects(pb.ListProjectsRequest(data_source=name, page_size=1))
    second = server.client.admin.ListProjects(
        pb.ListProjectsRequest(data_source=name, page_size=1, page_token=first.next_page_token)
    )

    assert [each.path for page in (first, second) for each in page.projects] == ["a", "b/c"]
    assert second.next_page_token == ""


@pytest.mark.parametrize("by_number", [False, True])
def test_branches_files_and_text_are_shown_by_path_and_by_number(
    server: RunningServer, gitlab: GitLab, project: Project, name: str, by_number: bool
) -> None:
    commit = project.repo.commit(FILES)
    project.repo.tag("v1")
    register(server, name, gitlab)
    which = {"data_source": name, "project": str(project.id) if by_number else PATH}

    refs = server.client.admin.ListRefs(pb.ListRefsRequest(**which)).refs
    files = server.client.admin.ListFiles(pb.ListFilesRequest(**which, ref="v1"))
    read = server.client.admin.ReadFile(pb.ReadFileRequest(**which, ref="v1", path="main.py"))

    assert [(ref.name, ref.commit) for ref in refs] == [("main", commit), ("v1", commit)]
    assert {file.path for file in files.files} == set(FILES)
    assert files.commit == commit
    assert (read.text, read.size, read.commit) == ("def predict(parameters):\r\n    return 1\n", 39, commit)


@pytest.mark.parametrize("kind", ["git", "gitlab"])
def test_of_a_large_file_the_beginning_is_shown_in_whole_characters(
    server: RunningServer, gitlab: GitLab, project: Project, name: str, kind: str
) -> None:
    text = "x" + "\N{BLACK HEART SUIT}" * 400_000
    project.repo.commit({"large": text.encode(), "latin": b"caf\xe9", "cut": b"a\xe2\x99"})
    if kind == "git":
        server.add_source(name, project.repo)
    else:
        register(server, name, gitlab)
    which = {"data_source": name, "project": PATH if kind == "gitlab" else ""}

    large, latin, cut = (
        server.client.admin.ReadFile(pb.ReadFileRequest(**which, path=path)) for path in ("large", "latin", "cut")
    )

    assert large.size == len(text.encode())
    assert large.text == text[: 1 + (2**20 - 1) // 3]
    assert (latin.text, cut.text) == ("caf\N{REPLACEMENT CHARACTER}", "a\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("path", "reason"),
    [("", "FIELD_INVALID"), ("../x", "FIELD_INVALID"), ("-x", "FIELD_INVALID"), ("nowhere", "PATH_NOT_FOUND")],
)
def test_a_file_that_is_not_there_is_named(
    server: RunningServer, gitlab: GitLab, project: Project, name: str, path: str, reason: str
) -> None:
    project.repo.commit(FILES)
    register(server, name, gitlab)

    with refused(reason):
        server.client.admin.ReadFile(pb.ReadFileRequest(data_source=name, project=PATH, path=path))
