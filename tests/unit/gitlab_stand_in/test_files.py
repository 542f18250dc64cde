"""The tree, files and blobs."""

import base64
import hashlib
import json
from typing import Any

import pytest
from gitlab.exceptions import GitlabGetError, GitlabHttpError

from tests.git_repos import Executable, Link, Submodule
from tests.gitlab_stand_in import GitLab, Meanwhile, Project, bomb


def listing(remote: Any, **options: Any) -> list[str]:
    return [entry["path"] for entry in remote.repository_tree(get_all=True, **options)]


def test_the_tree_has_the_documented_shape(remote: Any, project: Project) -> None:
    project.repo.commit({"a/b": b"x", "run": Executable(b""), "link": Link("a"), "sub": Submodule(), "z": b""})
    entries = remote.repository_tree(get_all=True)
    assert [(entry["mode"], entry["type"], entry["name"]) for entry in entries] == [
        ("040000", "tree", "a"),
        ("120000", "blob", "link"),
        ("100755", "blob", "run"),
        ("100644", "blob", "z"),
        ("160000", "commit", "sub"),
    ]
    assert entries[-1]["id"] == "1" * 40
    assert set(entries[0]) == {"id", "name", "type", "path", "mode"}


def test_a_recursive_tree_lists_directories_first(remote: Any) -> None:
    assert listing(remote, recursive=True) == [
        "lib",
        "lib/data set",
        ".hidden",
        "lib/data set/\u00fc \U0001f600.bin",
        "lib/notes.txt",
        "main.py",
    ]


def test_a_part_of_the_tree_keeps_whole_paths(remote: Any) -> None:
    assert listing(remote, path="lib", ref="main") == ["lib/data set", "lib/notes.txt"]
    assert listing(remote, path="lib/data set/", recursive=True) == ["lib/data set/\u00fc \U0001f600.bin"]


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_the_tree_by_keyset_is_whole_whatever_the_size_of_a_page(remote: Any, gitlab: GitLab, size: int) -> None:
    gitlab.requests.clear()
    paged = listing(remote, recursive=True, pagination="keyset", per_page=size)
    assert paged == listing(remote, recursive=True)
    assert len([request for request in gitlab.requests if "per_page" in request.query]) == -(-6 // size)


def test_the_page_token_is_gitalys(remote: Any, gitlab: GitLab) -> None:
    listing(remote, recursive=True, pagination="keyset", per_page=3)
    token = json.loads(base64.b64decode(gitlab.requests[-1].query["page_token"]))
    assert token == {"file_name": ".hidden"}
    assert "page_token=eyJ" in gitlab.requests[-1].raw_query


def test_a_tree_without_pages_is_one_answer(remote: Any, gitlab: GitLab, project: Project) -> None:
    project.repo.commit({f"{number:03d}": b"" for number in range(150)})
    assert len(listing(remote, recursive=True, pagination="none")) == 150
    assert len(remote.repository_tree(page=1)) == 20


def test_a_tree_of_nothing_is_not_found(remote: Any) -> None:
    with pytest.raises(GitlabGetError, match="404 Tree Not Found"):
        remote.repository_tree(ref="nothing")
    for path in ("nothing", "main.py", ".."):
        with pytest.raises(GitlabGetError, match="404 invalid revision or path Not Found"):
            remote.repository_tree(path=path)


def test_a_malformed_page_token_is_refused(remote: Any) -> None:
    with pytest.raises(GitlabGetError, match="page_token is invalid"):
        remote.repository_tree(pagination="keyset", page_token="nonsense", get_all=False)


def test_pages_of_a_branch_that_moves_are_of_two_commits(remote: Any, gitlab: GitLab, project: Project) -> None:
    """Why a branch must be resolved to a commit once, before the tree is read."""
    project.repo.commit({"a": b"1", "b": b"1"})
    gitlab.faults.once("*/tree", Meanwhile(lambda: project.repo.commit({"a": b"2", "b": b"2"})))
    first, second = remote.repository_tree(ref="main", pagination="keyset", per_page=1, get_all=True)
    assert first["id"] != second["id"]


def test_a_huge_tree_is_listed_as_far_as_it_is_asked_for(remote: Any, project: Project) -> None:
    bomb(project.repo, depth=6, size=1024)
    listed = remote.repository_tree(recursive=True, pagination="keyset", per_page=100, iterator=True)
    assert [next(listed)["type"] for _ in range(150)] == ["tree"] * 150


def test_a_raw_file_comes_with_its_facts_in_headers(remote: Any, project: Project) -> None:
    commit = project.repo.git("rev-parse", "main")
    path = "lib/data set/\u00fc \U0001f600.bin"
    assert remote.files.raw(path, ref="main") == bytes(range(256))
    headers = remote.files.head(path, ref="main")
    assert headers["X-Gitlab-Size"] == "256"
    assert headers["X-Gitlab-Commit-Id"] == headers["X-Gitlab-Last-Commit-Id"] == commit
    assert headers["X-Gitlab-Content-Sha256"] == hashlib.sha256(bytes(range(256))).hexdigest()
    assert headers["X-Gitlab-Execute-Filemode"] == "false"
    assert remote.files.head(".hidden", ref="main")["X-Gitlab-Size"] == "1"
    assert headers["X-Gitlab-File-Path"].encode("latin-1").decode() == path


def test_a_raw_file_is_of_the_default_branch_if_no_ref_is_given(remote: Any) -> None:
    assert remote.files.raw(".hidden") == b"x"


def test_a_file_as_json_is_in_base64(remote: Any, project: Project) -> None:
    project.repo.commit({"run.sh": Executable(b"\xff\0")})
    found = remote.files.get("run.sh", ref="main")
    assert (found.decode(), found.size, found.encoding, found.execute_filemode) == (b"\xff\0", 2, "base64", True)
    assert found.blob_id == project.repo.git("rev-parse", "main:run.sh")


def test_missing_files_commits_and_refs_are_told_apart(remote: Any) -> None:
    with pytest.raises(GitlabGetError, match="404 File Not Found"):
        remote.files.raw("nothing", ref="main")
    with pytest.raises(GitlabGetError, match="404 File Not Found"):
        remote.files.raw("lib", ref="main")
    with pytest.raises(GitlabGetError, match="404 Commit Not Found"):
        remote.files.raw("main.py", ref="nothing")
    with pytest.raises(GitlabHttpError, match="400: ref is missing, ref is empty"):
        remote.manager.gitlab.http_get(f"/projects/{remote.id}/repository/files/main.py")


def test_a_link_is_a_file_that_holds_its_target(remote: Any, project: Project) -> None:
    project.repo.commit({"link": Link("lib/data")})
    assert remote.files.raw("link", ref="main") == b"lib/data"


def test_a_blob_is_read_by_its_hash(remote: Any, project: Project) -> None:
    hash_ = project.repo.blob(b"\0\xff" * 1000)
    assert remote.repository_raw_blob(hash_) == b"\0\xff" * 1000
    pieces = remote.repository_raw_blob(hash_, iterator=True, chunk_size=512)
    assert b"".join(pieces) == b"\0\xff" * 1000
    whole = remote.repository_blob(hash_)
    assert (whole["size"], whole["sha"], base64.b64decode(whole["content"])) == (2000, hash_, b"\0\xff" * 1000)


def test_what_is_no_blob_is_not_found(remote: Any, project: Project) -> None:
    for hash_ in ("0" * 40, project.repo.git("rev-parse", "main")):
        with pytest.raises(GitlabGetError, match="404 Blob Not Found"):
            remote.repository_raw_blob(hash_)
