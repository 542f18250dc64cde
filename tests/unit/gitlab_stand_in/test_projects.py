"""Projects, groups, users, and the pages of lists."""

from typing import Any

import gitlab as python_gitlab
import pytest
import requests
from gitlab.exceptions import GitlabGetError, GitlabHeadError, GitlabHttpError

from tests.gitlab_stand_in import GitLab, Project


def paths(found: Any) -> list[str]:
    return [project.path_with_namespace for project in found]


def test_a_project_is_found_by_number_and_by_path_whatever_its_case(
    client: python_gitlab.Gitlab, project: Project
) -> None:
    for key in (project.id, "energy/forecasting/turbine", "Energy/Forecasting/Turbine"):
        found = client.projects.get(key)
        assert (found.id, found.path_with_namespace, found.path, found.default_branch) == (
            1,
            "energy/forecasting/turbine",
            "turbine",
            "main",
        )
        assert found.namespace["full_path"] == "energy/forecasting"


@pytest.mark.parametrize("key", [99, "energy/nothing", "turbine"])
def test_an_unknown_project_is_not_found(client: python_gitlab.Gitlab, project: Project, key: Any) -> None:
    with pytest.raises(GitlabGetError, match="404 Project Not Found"):
        client.projects.get(key)


def test_a_private_project_does_not_exist_for_those_without_a_token(gitlab: GitLab, project: Project) -> None:
    with requests.Session() as nobody:
        assert nobody.get(f"{gitlab.url}/api/v4/projects/{project.id}").json() == {"message": "404 Project Not Found"}
        assert nobody.get(f"{gitlab.url}/api/v4/projects").json() == []


def test_a_public_project_is_seen_by_all_but_not_by_membership(connect: Any, gitlab: GitLab, project: Project) -> None:
    gitlab.project("finance/open", public=True)
    bot = connect(gitlab.token(namespace="energy"))
    assert paths(bot.projects.list(get_all=True, sort="asc")) == ["energy/forecasting/turbine", "finance/open"]
    assert paths(bot.projects.list(get_all=True, membership=True)) == ["energy/forecasting/turbine"]


def test_an_empty_project_has_no_default_branch(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    found = client.projects.get(gitlab.project("energy/empty").id)
    assert (found.default_branch, found.empty_repo) == (None, True)
    assert found.branches.list(get_all=True) == []
    with pytest.raises(GitlabGetError, match="404 Tree Not Found"):
        found.repository_tree()


def test_the_old_path_of_a_renamed_project_redirects_to_its_number(
    client: python_gitlab.Gitlab, gitlab: GitLab, project: Project
) -> None:
    project.rename("energy/wind/turbine")
    assert client.projects.get("energy/forecasting/turbine").path_with_namespace == "energy/wind/turbine"
    old, new = gitlab.requests[-2:]
    assert (old.status, old.path) == (301, "/api/v4/projects/energy%2Fforecasting%2Fturbine")
    assert (new.status, new.path) == (200, f"/api/v4/projects/{project.id}")
    assert client.projects.get(project.id).path_with_namespace == "energy/wind/turbine"


def test_a_redirect_of_a_renamed_project_keeps_the_rest_of_the_url(
    client: python_gitlab.Gitlab, gitlab: GitLab, project: Project
) -> None:
    project.rename("energy/wind/turbine")
    lazy = client.projects.get("energy/forecasting/turbine", lazy=True)
    assert lazy.files.raw("lib/notes.txt", ref="main") == b""
    assert gitlab.requests[-1].target == "/api/v4/projects/1/repository/files/lib%2Fnotes.txt/raw?ref=main"
    with pytest.raises(GitlabHeadError, match="405"):
        lazy.files.head("lib/notes.txt", ref="main")


def test_a_new_project_takes_the_old_path_over(client: python_gitlab.Gitlab, gitlab: GitLab, project: Project) -> None:
    project.rename("energy/wind/turbine")
    successor = gitlab.project("energy/forecasting/turbine")
    assert client.projects.get("energy/forecasting/turbine").id == successor.id


def test_search_looks_at_the_last_part_of_the_path_unless_told_otherwise(
    client: python_gitlab.Gitlab, gitlab: GitLab, project: Project
) -> None:
    gitlab.project("energy/forecasting/solar")
    assert paths(client.projects.list(search="TURB", get_all=True)) == ["energy/forecasting/turbine"]
    assert client.projects.list(search="forecast", get_all=True) == []
    assert len(client.projects.list(search="forecast", search_namespaces=True, get_all=True)) == 2


def test_lists_by_offset_tell_their_totals_and_link_their_pages(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    for number in range(5):
        gitlab.project(f"energy/model-{number}")
    listed = client.projects.list(iterator=True, per_page=2, order_by="id", sort="asc")
    assert (listed.total, listed.total_pages, listed.per_page, listed.next_page) == (5, 3, 2, 2)
    assert paths(listed) == [f"energy/model-{number}" for number in range(5)]
    assert [request.query.get("page") for request in gitlab.requests] == [None, "2", "3"]
    assert paths(client.projects.list(page=3, per_page=2, get_all=False)) == ["energy/model-0"]


def test_a_page_never_holds_more_than_a_hundred(client: python_gitlab.Gitlab, project: Project) -> None:
    commit = project.repo.git("rev-parse", "main")
    created = "".join(f"create refs/heads/b{number:03d} {commit}\n" for number in range(101))
    project.repo.git("update-ref", "--stdin", stdin=created.encode())
    remote = client.projects.get(project.id)
    assert len(remote.branches.list(per_page=500, page=1)) == 100
    assert len(remote.branches.list(get_all=True)) == 102


def test_projects_by_keyset_link_to_an_empty_last_page(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    for number in range(4):
        gitlab.project(f"energy/model-{number}")
    listed = client.projects.list(iterator=True, pagination="keyset", order_by="id", sort="asc", per_page=2)
    assert listed.total is None
    assert paths(listed) == [f"energy/model-{number}" for number in range(4)]
    assert [request.query.get("id_after") for request in gitlab.requests] == [None, "2", "4"]


def test_projects_by_keyset_run_backwards_too(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    for number in range(3):
        gitlab.project(f"energy/model-{number}")
    listed = client.projects.list(get_all=True, pagination="keyset", order_by="id", sort="desc", per_page=2)
    assert paths(listed) == ["energy/model-2", "energy/model-1", "energy/model-0"]


def test_keyset_works_for_no_other_order_and_no_other_list(client: python_gitlab.Gitlab, project: Project) -> None:
    for path, order in (("/projects", "name"), ("/groups/energy/projects", "id")):
        with pytest.raises(GitlabHttpError, match="405: Keyset pagination is not yet available"):
            client.http_get(path, pagination="keyset", order_by=order, sort="asc")


def test_links_go_to_where_gitlab_thinks_it_is(client: python_gitlab.Gitlab, gitlab: GitLab, project: Project) -> None:
    gitlab.external_url = "https://gitlab.example.com"
    answer = client.http_request("get", "/projects", query_data={"per_page": 1})
    assert answer.links["first"]["url"].startswith("https://gitlab.example.com/api/v4/projects?")


def test_simple_projects_are_short(client: python_gitlab.Gitlab, project: Project) -> None:
    (short,) = client.projects.list(simple=True, get_all=True)
    assert not hasattr(short, "visibility")
    assert short.default_branch == "main"


def test_a_group_is_found_by_number_and_path(client: python_gitlab.Gitlab, project: Project) -> None:
    group = client.groups.get("energy/forecasting")
    assert client.groups.get(group.id).full_path == "energy/forecasting"
    assert group.parent_id == client.groups.get("energy").id
    with pytest.raises(GitlabGetError, match="404 Group Not Found"):
        client.groups.get("energy/nothing")


def test_a_group_lists_its_projects_and_those_of_its_subgroups(
    client: python_gitlab.Gitlab, gitlab: GitLab, project: Project
) -> None:
    gitlab.project("energy/grid")
    gitlab.project("energy-other/grid")
    energy = client.groups.get("energy")
    assert paths(energy.projects.list(get_all=True)) == ["energy/grid"]
    everything = energy.projects.list(get_all=True, include_subgroups=True, order_by="id", sort="asc", per_page=1)
    assert paths(everything) == ["energy/forecasting/turbine", "energy/grid"]
    assert paths(energy.projects.list(get_all=True, include_subgroups=True, search="grid")) == ["energy/grid"]


def test_a_user_is_found_by_name_and_has_projects(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.user("grace")
    gitlab.project("grace/compiler")
    (user,) = client.users.list(username="Grace", get_all=True)
    assert paths(user.projects.list(get_all=True)) == ["grace/compiler"]
    assert client.projects.get("grace/compiler").namespace["kind"] == "user"
    assert client.users.list(username="nobody", get_all=True) == []
    with pytest.raises(GitlabHttpError, match="404 User Not Found"):
        client.http_get("/users/99/projects")


def test_a_namespace_is_a_group_or_a_user(client: python_gitlab.Gitlab, project: Project) -> None:
    assert client.namespaces.get("energy/forecasting").kind == "group"
    assert client.namespaces.get("ada").kind == "user"
    with pytest.raises(GitlabGetError, match="404 Namespace Not Found"):
        client.namespaces.get("nobody")


def test_a_path_of_no_endpoint_is_not_found(client: python_gitlab.Gitlab) -> None:
    with pytest.raises(GitlabHttpError, match="404 Not Found"):
        client.http_get("/nothing/like/this")


def test_paths_outside_the_api_lead_to_the_login_page(gitlab: GitLab) -> None:
    with requests.Session() as session:
        page = session.get(f"{gitlab.url}/energy/forecasting/api/v4x/version")
    assert page.url == f"{gitlab.url}/users/sign_in"
    assert page.headers["Content-Type"].startswith("text/html")
