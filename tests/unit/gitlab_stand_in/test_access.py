"""Tokens: what they say of themselves, and what is answered to those that will not do."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import gitlab as python_gitlab
import pytest
import requests
from gitlab.exceptions import GitlabAuthenticationError, GitlabError, GitlabGetError

from tests.gitlab_stand_in import GitLab, Meanwhile, Project

TODAY = datetime.now(UTC).date()


def refused(client: python_gitlab.Gitlab, path: str = "/user") -> tuple[int, Any]:
    """Status and body with which a request is refused."""
    with pytest.raises(GitlabError) as caught:
        client.http_get(path)
    return caught.value.response_code, json.loads(caught.value.response_body)


def test_the_version_is_told_to_those_with_a_token(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    assert client.version() == ("18.2.1-ee", "5ba4bd1a9aa")
    with requests.Session() as nobody:
        assert nobody.get(f"{gitlab.url}/api/v4/version").json() == {"message": "401 Unauthorized"}


def test_a_token_describes_itself(connect: Any, gitlab: GitLab) -> None:
    expires = TODAY + timedelta(days=20)
    token = connect(gitlab.token(("read_api",), expires=expires)).personal_access_tokens.get("self")
    assert (token.scopes, token.expires_at, token.active, token.revoked) == (
        ["read_api"],
        expires.isoformat(),
        True,
        False,
    )


def test_a_token_without_any_fitting_scope_still_describes_itself(connect: Any, gitlab: GitLab) -> None:
    assert connect(gitlab.token(("read_registry",))).personal_access_tokens.get("self").scopes == ["read_registry"]


def test_the_user_of_a_personal_token_is_a_person(client: python_gitlab.Gitlab) -> None:
    client.auth()
    assert client.user is not None
    assert (client.user.username, client.user.bot) == ("ada", False)


@pytest.mark.parametrize(
    ("namespace", "prefix"),
    [("energy/forecasting/turbine", "project_1_bot_"), ("energy", "group_101_bot_")],
)
def test_the_user_of_a_project_or_group_token_is_a_bot(
    connect: Any, gitlab: GitLab, project: Project, namespace: str, prefix: str
) -> None:
    bot = connect(gitlab.token(namespace=namespace))
    bot.auth()
    assert bot.user.username.startswith(prefix)
    assert bot.user.bot
    assert bot.personal_access_tokens.get("self").user_id == bot.user.id


def test_a_group_token_reaches_only_what_is_below_the_group(connect: Any, gitlab: GitLab, project: Project) -> None:
    other = gitlab.project("finance/risk")
    bot = connect(gitlab.token(namespace="energy"))
    assert [found.id for found in bot.projects.list(get_all=True)] == [project.id]
    assert refused(bot, f"/projects/{other.id}") == (404, {"message": "404 Project Not Found"})
    assert refused(bot, "/groups/finance") == (404, {"message": "404 Group Not Found"})


def test_an_unknown_token_is_unauthorized(connect: Any) -> None:
    assert refused(connect("glpat-nobody-knows-this")) == (401, {"message": "401 Unauthorized"})


def test_an_expired_token_says_so(connect: Any, gitlab: GitLab) -> None:
    assert refused(connect(gitlab.token(expires=TODAY))) == (
        401,
        {
            "error": "invalid_token",
            "error_description": "Token is expired. You can either do re-authorization or token refresh.",
        },
    )


def test_a_revoked_token_says_so_even_about_itself(connect: Any, gitlab: GitLab) -> None:
    status, body = refused(connect(gitlab.token(revoked=True)), "/personal_access_tokens/self")
    assert (status, body["error"]) == (401, "invalid_token")
    assert body["error_description"] == "Token was revoked. You have to re-authorize from the user."


def test_a_refused_token_is_challenged_in_a_header(gitlab: GitLab) -> None:
    token = gitlab.token(revoked=True)
    with requests.Session() as session:
        answer = session.get(f"{gitlab.url}/api/v4/user", headers={"PRIVATE-TOKEN": token})
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="Protected by OAuth 2.0", error="invalid_token"')


def test_a_token_lacking_a_scope_is_told_which(connect: Any, gitlab: GitLab, project: Project) -> None:
    client = connect(gitlab.token(("read_repository",)))
    assert refused(client, f"/projects/{project.id}") == (
        403,
        {
            "error": "insufficient_scope",
            "error_description": "The request requires higher privileges than provided by the access token.",
            "scope": "api read_api",
        },
    )
    assert refused(client, "/user")[1]["scope"] == "read_user api read_api"


def test_read_repository_alone_reads_files_but_not_the_tree(connect: Any, gitlab: GitLab, project: Project) -> None:
    client = connect(gitlab.token(("read_repository",)))
    remote = client.projects.get(project.id, lazy=True)
    assert remote.files.raw("main.py", ref="main").startswith(b"def predict")
    for denied in (remote.repository_tree, remote.repository_archive, remote.branches.list):
        with pytest.raises(GitlabError, match="insufficient_scope"):
            denied()


def test_a_bearer_header_is_as_good_as_a_private_token(connect: Any, gitlab: GitLab) -> None:
    client = connect("", private_token=None, oauth_token=gitlab.token())
    client.auth()
    assert client.user.username == "ada"
    assert gitlab.requests[-1].headers["authorization"].startswith("Bearer glpat-")


def test_basic_authentication_is_not_for_the_api(gitlab: GitLab) -> None:
    with requests.Session() as session:
        assert session.get(f"{gitlab.url}/api/v4/user", auth=("oauth2", str(gitlab.token()))).status_code == 401


def test_a_guest_sees_a_project_but_not_its_code(connect: Any, gitlab: GitLab, project: Project) -> None:
    remote = connect(gitlab.token(guest=True)).projects.get(project.id)
    assert not hasattr(remote, "default_branch")
    with pytest.raises(GitlabGetError, match="403 Forbidden"):
        remote.repository_tree()


def test_a_token_can_expire_between_two_requests(connect: Any, gitlab: GitLab) -> None:
    token = gitlab.token()
    client = connect(token)
    gitlab.faults.once("*/user", Meanwhile(token.expire))
    client.auth()
    with pytest.raises(GitlabAuthenticationError, match="invalid_token"):
        client.auth()


def test_requests_are_recorded_with_method_path_and_headers(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    client.http_get("/projects", search="a b")
    request = gitlab.requests[-1]
    assert (request.method, request.path, request.query) == ("GET", "/api/v4/projects", {"search": "a b"})
    assert request.headers["private-token"] == request.token == client.private_token
    assert (request.host, request.status) == ("gitlab", 200)
    assert gitlab.requests_to("*/projects") == [request]
