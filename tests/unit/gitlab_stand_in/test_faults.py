"""What can be wrong on demand, as python-gitlab meets it."""

import time
from typing import Any

import gitlab as python_gitlab
import pytest
import requests
from gitlab.exceptions import GitlabAuthenticationError, GitlabError, GitlabHttpError, GitlabParsingError
from requests.exceptions import ChunkedEncodingError, ConnectionError, ReadTimeout

from tests.gitlab_stand_in import (
    Answer,
    CutOff,
    GitLab,
    HangUp,
    Huge,
    Instead,
    LoginPage,
    Malformed,
    Meanwhile,
    Project,
    Redirect,
    Request,
    Slow,
    Status,
    Trickle,
    Truncated,
)


def statuses(gitlab: GitLab) -> list[int]:
    return [request.status for request in gitlab.requests]


def test_too_many_requests_say_when_to_come_back(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.once("*/version", Status(429, retry_after=0))
    client.http_get("/version")
    assert statuses(gitlab) == [429, 200]
    gitlab.faults.once("*/version", Status(429, retry_after=1))
    with pytest.raises(GitlabHttpError, match="429"):
        client.http_get("/version", obey_rate_limit=False)
    gitlab.faults.once("*/version", Status(429, retry_after=1))
    with requests.Session() as session:
        headers = session.get(f"{gitlab.url}/api/v4/version").headers
    assert (headers["Retry-After"], headers["RateLimit-Remaining"]) == ("1", "0")
    assert int(headers["RateLimit-Reset"]) >= int(time.time())


def test_too_many_requests_of_one_endpoint_do_not_say_when(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.once("*/version", Status(429))
    with pytest.raises(GitlabHttpError) as caught:
        client.http_get("/version", obey_rate_limit=False)
    assert b'{"message":{"error":"This endpoint has been requested too many times' in caught.value.response_body


def test_errors_come_so_many_times_and_then_no_more(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.times(2, "*/version", Status(502))
    gitlab.faults.once("*/version", Status(500))
    assert client.http_get("/version", retry_transient_errors=True)
    assert statuses(gitlab) == [502, 502, 500, 200]


@pytest.mark.parametrize(
    ("status", "begin"),
    [(500, '{"message":"500 Internal Server Error"}'), (502, "<html>"), (404, '{"message":"404'), (418, '{"message"')],
)
def test_errors_have_the_body_of_whoever_makes_them(
    client: python_gitlab.Gitlab, gitlab: GitLab, status: int, begin: str
) -> None:
    gitlab.faults.always("*/version", Status(status))
    with pytest.raises(GitlabHttpError) as caught:
        client.http_get("/version")
    assert (caught.value.response_code, caught.value.response_body.decode().startswith(begin)) == (status, True)
    gitlab.faults.clear()
    assert client.http_get("/version")


def test_faults_are_for_paths_that_match_and_can_let_some_pass(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.once("*/version", Status(500), skip=1)
    client.auth()
    client.http_get("/version")
    with pytest.raises(GitlabHttpError):
        client.http_get("/version")
    assert statuses(gitlab) == [200, 200, 500]


def test_a_fault_can_be_for_requests_that_a_function_picks(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    def second_page(request: Request) -> bool:
        return request.query.get("page") == "2"

    gitlab.faults.always(second_page, Status(503))
    client.http_get("/projects", page=1)
    with pytest.raises(GitlabHttpError, match="503"):
        client.http_get("/projects", page=2)


def test_a_slow_answer_outlasts_a_clients_patience(connect: Any, gitlab: GitLab) -> None:
    gitlab.faults.always("*/version", Slow(60))
    with pytest.raises(ReadTimeout):
        connect(timeout=(10, 0.05)).http_get("/version")


def test_an_answer_that_trickles_is_right_in_the_end(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.once("*/version", Trickle(piece=16, pause=0.001))
    assert client.http_get("/version") == {"version": "18.2.1-ee", "revision": "5ba4bd1a9aa"}


def test_a_cut_off_answer_is_noticed_by_its_length(remote: Any, gitlab: GitLab) -> None:
    for fault in (CutOff(), CutOff(after=0), CutOff(after=10)):
        gitlab.faults.once("*/raw", fault)
        with pytest.raises((ChunkedEncodingError, ConnectionError)):
            remote.files.raw("main.py", ref="main")


def test_a_cut_off_archive_is_noticed_by_its_last_chunk(remote: Any, gitlab: GitLab) -> None:
    gitlab.faults.once("*/archive*", CutOff())
    with pytest.raises(ChunkedEncodingError):
        remote.repository_archive()


def test_a_truncated_archive_looks_whole(remote: Any, gitlab: GitLab) -> None:
    whole = remote.repository_archive()
    gitlab.faults.once("*/archive*", Truncated())
    assert remote.repository_archive() == whole[: len(whole) // 2]


def test_malformed_json_does_not_parse(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.once("*/version", Malformed())
    with pytest.raises(GitlabParsingError):
        client.http_get("/version")


def test_a_login_page_is_no_json(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.always("*/version", LoginPage())
    answer = client.http_get("/version")
    assert isinstance(answer, requests.Response)
    assert answer.text.startswith("<!DOCTYPE html>")


def test_a_connection_can_end_without_an_answer(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.once("*/version", HangUp())
    with pytest.raises(ConnectionError):
        client.http_get("/version")
    assert statuses(gitlab) == [0]


def test_a_hostile_redirect_shows_which_tokens_come_along(connect: Any, gitlab: GitLab) -> None:
    """requests drops `Authorization` on the way to another host, but not `PRIVATE-TOKEN`: python-gitlab leaks it."""
    gitlab.faults.always("*/version", Redirect(gitlab.elsewhere_url))
    for options, leaks in (({}, True), ({"private_token": None, "oauth_token": gitlab.token()}, False)):
        with pytest.raises(GitlabError):
            connect(**options).http_get("/version")
        assert (gitlab.requests[-1].host, gitlab.requests[-1].path) == ("elsewhere", "/api/v4/version")
        assert bool(gitlab.requests[-1].token) is leaks


def test_a_redirect_can_lead_to_a_place_of_its_own(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.once("*/version", Redirect(f"{gitlab.url}/users/sign_in", 307))
    client.http_get("/version")
    assert [request.path for request in gitlab.requests] == ["/api/v4/version", "/users/sign_in"]


def test_things_happen_between_two_requests(remote: Any, gitlab: GitLab, project: Project) -> None:
    gitlab.faults.once("*/tree", Meanwhile(lambda: project.repo.git("update-ref", "-d", "refs/heads/main")))
    assert remote.repository_tree(ref="main")
    with pytest.raises(GitlabError, match="404 Commit Not Found"):
        remote.files.raw("main.py", ref="main")


def test_a_huge_file_is_announced_and_not_stored(remote: Any, gitlab: GitLab) -> None:
    gitlab.faults.always("*/raw", Huge(2 * 1024**3))
    path = f"/projects/{remote.id}/repository/blobs/{'0' * 40}/raw"
    with remote.manager.gitlab.http_request("get", path, streamed=True) as answer:
        assert answer.headers["Content-Length"] == str(2 * 1024**3)
        assert next(answer.iter_content(4096)) == bytes(4096)


def test_any_answer_can_be_given_instead(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    gitlab.faults.once("*/user", Instead(Answer(401, b"{}")))
    with pytest.raises(GitlabAuthenticationError):
        client.auth()


def test_a_gitlab_can_be_unreachable_and_come_back(client: python_gitlab.Gitlab, gitlab: GitLab) -> None:
    client.auth()
    gitlab.stop()
    with pytest.raises(ConnectionError):
        client.auth()
    gitlab.start()
    client.auth()
    assert client.url == gitlab.url


def test_a_cut_off_archive_can_have_had_a_length(remote: Any, gitlab: GitLab) -> None:
    gitlab.faults.once("*/archive*", CutOff(announced=True))
    with pytest.raises(ChunkedEncodingError, match="IncompleteRead"):
        remote.repository_archive()
