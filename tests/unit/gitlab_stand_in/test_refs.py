"""Branches, tags, commits."""

from typing import Any

import pytest
from gitlab.exceptions import GitlabGetError

from tests.gitlab_stand_in import Project


def names(found: Any) -> list[str]:
    return [ref.name for ref in found]


def test_branches_are_listed_by_name_with_their_commits(remote: Any, project: Project) -> None:
    other = project.repo.commit({"x": b"1"}, branch="feature/\u00fc-x")
    project.repo.git("branch", "a", "main")
    found = remote.branches.list(get_all=True)
    assert names(found) == ["a", "feature/\u00fc-x", "main"]
    assert [branch.default for branch in found] == [False, False, True]
    assert remote.branches.get("feature/\u00fc-x").commit["id"] == other


def test_branches_can_be_searched_and_read_by_keyset(remote: Any, project: Project) -> None:
    for name in ("release-1", "release-2", "release-3", "old-release"):
        project.repo.git("branch", name, "main")
    assert names(remote.branches.list(search="^rel", get_all=True)) == ["release-1", "release-2", "release-3"]
    assert names(remote.branches.list(search="release$", get_all=True)) == ["old-release"]
    assert len(remote.branches.list(search="LEASE", get_all=True)) == 4
    paged = remote.branches.list(pagination="keyset", per_page=2, get_all=True)
    assert names(paged) == ["main", "old-release", "release-1", "release-2", "release-3"]


def test_an_unknown_branch_is_not_found_and_an_impossible_one_refused(remote: Any) -> None:
    with pytest.raises(GitlabGetError, match="404 Branch Not Found"):
        remote.branches.get("nothing")
    with pytest.raises(GitlabGetError, match="The branch refname is invalid"):
        remote.branches.get("a..b")


def test_the_commit_of_an_annotated_tag_is_the_tagged_one(remote: Any, project: Project) -> None:
    commit = project.repo.git("rev-parse", "main")
    project.repo.tag("v1")
    project.repo.tag("v2", message="Two\n\nlines")
    light, annotated = remote.tags.get("v1"), remote.tags.get("v2")
    assert (light.commit["id"], light.target, light.message, light.created_at) == (commit, commit, "", None)
    assert (annotated.commit["id"], annotated.message) == (commit, "Two\n\nlines")
    assert annotated.target == project.repo.git("rev-parse", "v2") != commit
    assert annotated.created_at.startswith("2020-09-13T")


def test_a_tag_may_be_of_a_tag_or_of_no_commit_at_all(remote: Any, project: Project) -> None:
    commit = project.repo.git("rev-parse", "main")
    project.repo.tag("inner", message="x")
    project.repo.git("tag", "-m", "y", "outer", "refs/tags/inner")
    project.repo.git("tag", "blob", project.repo.blob(b"x"))
    found = {tag.name: tag.commit and tag.commit["id"] for tag in remote.tags.list(get_all=True)}
    assert found == {"inner": commit, "outer": commit, "blob": None}


def test_tags_come_newest_first_or_by_name(remote: Any, project: Project) -> None:
    for name in ("b", "c", "a"):
        project.repo.tag(name, message="x")
    assert names(remote.tags.list(get_all=True)) == ["a", "c", "b"]
    assert names(remote.tags.list(order_by="name", sort="asc", get_all=True)) == ["a", "b", "c"]
    with pytest.raises(GitlabGetError, match="404 Tag Not Found"):
        remote.tags.get("d")


def test_a_commit_is_found_by_branch_tag_hash_and_short_hash(remote: Any, project: Project) -> None:
    commit = project.repo.git("rev-parse", "main")
    project.repo.tag("v1", message="x")
    for name in ("main", "v1", commit, commit[:10], "HEAD"):
        assert remote.commits.get(name).id == commit
    found = remote.commits.get("main")
    assert (found.title, found.author_name, found.parent_ids) == ("change", "Ada Lovelace", [])


@pytest.mark.parametrize("name", ["nothing", "0" * 40, "--all", "main\nmain", "main:main.py"])
def test_what_names_no_commit_is_not_found(remote: Any, name: str) -> None:
    with pytest.raises(GitlabGetError, match="404 Commit Not Found"):
        remote.commits.get(name)


def test_history_is_listed_newest_first_without_totals(remote: Any, project: Project) -> None:
    second = project.repo.commit({"x": b"1"})
    listed = remote.commits.list(ref_name="main", iterator=True, per_page=1)
    assert (listed.total, listed.next_page) == (None, 2)
    assert [commit.id for commit in listed] == [second, project.repo.git("rev-parse", "main~1")]


def test_a_force_push_and_a_deletion_are_seen_at_once(remote: Any, project: Project) -> None:
    first = project.repo.git("rev-parse", "main")
    project.repo.commit_tree(project.repo.tree([]))
    assert remote.branches.get("main").commit["id"] != first
    assert remote.commits.get(first).id == first
    project.repo.git("update-ref", "-d", "refs/heads/main")
    with pytest.raises(GitlabGetError, match="404 Branch Not Found"):
        remote.branches.get("main")
