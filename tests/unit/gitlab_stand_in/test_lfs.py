"""Git LFS by plain HTTP, as its specification says."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import gitlab as python_gitlab
import pytest
import requests

from tests.gitlab_stand_in import GitLab, Project

CONTENT = b"weights" * 1000
OID = hashlib.sha256(CONTENT).hexdigest()
JSON = "application/vnd.git-lfs+json"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        yield made


@pytest.fixture
def pointer(project: Project) -> bytes:
    return project.lfs_object(CONTENT)


def batch(
    session: requests.Session, gitlab: GitLab, path: str, token: str, *oids: str, operation: str = "download"
) -> requests.Response:
    asked = {"operation": operation, "transfers": ["basic"], "objects": [{"oid": oid, "size": 7000} for oid in oids]}
    url = f"{gitlab.url}/{path}.git/info/lfs/objects/batch"
    auth = ("oauth2", token) if token else None
    return session.post(url, json=asked, headers={"Accept": JSON, "Content-Type": JSON}, auth=auth)


def action(answer: requests.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["objects"][0]["actions"]["download"]


def test_a_pointer_says_hash_and_size(pointer: bytes) -> None:
    assert pointer == f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 7000\n".encode()


def test_a_batch_says_where_objects_are_and_which_are_not(
    session: requests.Session, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    answer = batch(session, gitlab, project.path, gitlab.token(), OID, "0" * 64)
    assert answer.headers["Content-Type"] == f"{JSON}; charset=utf-8"
    found, missing = answer.json()["objects"]
    assert found["actions"]["download"]["href"] == f"{gitlab.url}/{project.path}.git/gitlab-lfs/objects/{OID}"
    assert missing["error"] == {
        "code": 404,
        "message": "Object does not exist on the server or you don't have permissions to access it",
    }


def test_an_object_is_downloaded_with_the_batchs_headers_while_they_last(
    session: requests.Session, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    download = action(batch(session, gitlab, project.path, gitlab.token(), OID))
    assert session.get(download["href"], headers=download["header"]).content == CONTENT
    gitlab.world.passes.expire()
    assert session.get(download["href"], headers=download["header"]).status_code == 401


def test_a_redirect_to_object_storage_takes_no_credentials_along(
    session: requests.Session, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    gitlab.lfs_storage = "redirect"
    download = action(batch(session, gitlab, project.path, gitlab.token(), OID))
    answer = session.get(download["href"], headers=download["header"])
    assert answer.content == CONTENT
    assert answer.url.startswith(f"{gitlab.elsewhere_url}/lfs/{project.id}/{OID}?X-Amz-")
    assert (gitlab.requests[-1].host, gitlab.requests[-1].token) == ("elsewhere", "")


def test_object_storage_refuses_a_signed_url_with_other_credentials(
    session: requests.Session, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    gitlab.lfs_storage = "redirect"
    download = action(batch(session, gitlab, project.path, gitlab.token(), OID))
    signed = session.get(download["href"], headers=download["header"], allow_redirects=False).headers["Location"]
    answer = session.get(signed, headers=download["header"])
    assert (answer.status_code, "Only one auth mechanism allowed" in answer.text) == (400, True)
    assert session.get(signed[:-1] + ("0" if signed[-1] != "0" else "1")).status_code == 403


def test_a_batch_can_point_straight_to_object_storage(
    session: requests.Session, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    gitlab.lfs_storage = "direct"
    download = action(batch(session, gitlab, project.path, gitlab.token(), OID))
    assert "header" not in download
    assert datetime.fromisoformat(download["expires_at"]) > datetime.now(UTC)
    assert session.get(download["href"]).content == CONTENT


@pytest.mark.parametrize("scope", ["read_repository", "read_api", "api"])
def test_each_scope_that_may_clone_may_download(
    session: requests.Session, gitlab: GitLab, project: Project, pointer: bytes, scope: str
) -> None:
    assert action(batch(session, gitlab, project.path, gitlab.token((scope,)), OID))


def test_tokens_that_will_not_do_are_refused_in_lfss_words(
    session: requests.Session, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    gitlab.project("finance/risk")
    for bad in ("", "glpat-unknown", gitlab.token(revoked=True)):
        answer = batch(session, gitlab, project.path, bad, OID)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="GitLab"')
        assert answer.text.startswith("HTTP Basic: Access denied.")
    answer = batch(session, gitlab, project.path, gitlab.token(("read_user",)), OID)
    assert (answer.status_code, answer.json()["message"]) == (403, "Access forbidden. Check your access level.")
    answer = batch(session, gitlab, project.path, gitlab.token(namespace="finance"), OID)
    assert (answer.status_code, answer.json()["message"]) == (404, "Not found.")


def test_nothing_can_be_uploaded_and_an_empty_batch_is_not_found(
    session: requests.Session, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    token = gitlab.token()
    assert batch(session, gitlab, project.path, token, OID, operation="upload").status_code == 403
    assert batch(session, gitlab, project.path, token).status_code == 404


def test_the_old_path_of_a_renamed_project_still_serves_lfs(
    session: requests.Session, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    project.rename("energy/wind/turbine")
    download = action(batch(session, gitlab, "energy/forecasting/turbine", gitlab.token(), OID))
    assert "/energy/wind/turbine.git/" in download["href"]


def test_a_public_projects_objects_need_no_token(session: requests.Session, gitlab: GitLab) -> None:
    project = gitlab.project("open/model", public=True)
    project.lfs_object(CONTENT)
    download = action(batch(session, gitlab, project.path, "", OID))
    assert session.get(download["href"]).content == CONTENT


def test_a_raw_file_with_lfs_is_the_object_and_without_the_pointer(
    connect: Any, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    project.repo.commit({"model.bin": pointer, "lost.bin": pointer.replace(OID.encode(), b"0" * 64)})
    remote = connect().projects.get(project.id)
    assert remote.files.raw("model.bin", ref="main") == pointer
    assert remote.files.raw("model.bin", ref="main", lfs=True) == CONTENT
    with pytest.raises(python_gitlab.GitlabGetError, match="404 Not Found"):
        remote.files.raw("lost.bin", ref="main", lfs=True)


def test_python_gitlab_takes_its_token_to_object_storage(
    connect: Any, gitlab: GitLab, project: Project, pointer: bytes
) -> None:
    """requests drops only `Authorization` when a redirect leads elsewhere: a trap for whoever uses `lfs=true`."""
    project.repo.commit({"model.bin": pointer})
    gitlab.lfs_storage = "redirect"
    assert connect().projects.get(project.id).files.raw("model.bin", ref="main", lfs=True) == CONTENT
    assert (gitlab.requests[-1].host, gitlab.requests[-1].token[:6]) == ("elsewhere", "glpat-")


def test_a_pretended_object_is_announced_and_never_stored(
    session: requests.Session, gitlab: GitLab, project: Project
) -> None:
    size = 2 * 1024**3
    oid = project.lfs_pretend(size).split(b":")[2].split(b"\n")[0].decode()
    download = action(batch(session, gitlab, project.path, gitlab.token(), oid))
    with session.get(download["href"], headers=download["header"], stream=True) as answer:
        assert answer.headers["Content-Length"] == str(size)
        assert next(answer.iter_content(1000)) == bytes(1000)
