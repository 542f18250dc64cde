"""Refs, hashes and what was pushed over: which commit is meant, and that it is there."""

from pathlib import Path

import pytest

from modelhost.envs.process import Job
from modelhost.server.errors import NotFound
from modelhost.server.sources.git.source import GitSource
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.git_repos import Repo
from tests.git_web import PASSWORD, Web, serving
from tests.integration.git.files import Log, contents
from tests.local_hosts import LOCAL


@pytest.fixture
def history(repo: Repo) -> dict[str, str]:
    """Commits by name: a history with a branch and a tag that are both called `same`."""
    commits = {"first": repo.commit({"a": b"1"}), "second": repo.commit({"a": b"2"})}
    commits["dev"] = repo.commit({"a": b"3"}, branch="feature/dev")
    repo.git("update-ref", "refs/heads/same", commits["first"])
    repo.git("update-ref", "refs/tags/same", commits["second"])
    repo.tag("v1", commits["first"])
    commits["tag object"] = repo.tag("v2", commits["first"], message="annotated")
    return commits


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("", "second"),
        ("main", "second"),
        ("feature/dev", "dev"),
        ("refs/heads/feature/dev", "dev"),
        ("v1", "first"),
        ("v2", "first"),
        ("refs/tags/v2", "first"),
        ("same", "first"),
        ("refs/heads/same", "first"),
        ("refs/tags/same", "second"),
    ],
)
def test_a_branch_goes_before_a_tag(
    source: GitSource, history: dict[str, str], ref: str, expected: str
) -> None:  # fmt: skip
    assert source.resolve("", ref, Job()) == history[expected]


@pytest.mark.parametrize("digits", [4, 7, 12, 39, 40])
def test_a_hash_may_be_short(source: GitSource, history: dict[str, str], digits: int) -> None:
    assert source.resolve("", history["first"][:digits], Job()) == history["first"]
    assert source.resolve("", history["dev"][:digits].upper(), Job()) == history["dev"]


def test_the_hash_of_an_annotated_tag_leads_to_its_commit(source: GitSource, history: dict[str, str]) -> None:
    assert source.resolve("", history["tag object"], Job()) == history["first"]


def test_a_branch_with_the_name_of_a_short_hash_is_that_branch(
    source: GitSource, repo: Repo, history: dict[str, str]
) -> None:  # fmt: skip
    repo.git("update-ref", f"refs/heads/{history['first'][:7]}", history["dev"])
    assert source.resolve("", history["first"][:7], Job()) == history["dev"]


def test_a_short_hash_of_several_commits_is_refused_with_their_names(source: GitSource, repo: Repo) -> None:
    tree = repo.tree([])
    commits: dict[str, str] = {}
    while True:  # four digits: two of some hundred commits share them
        commit = repo.git("commit-tree", "-m", str(len(commits)), tree)
        other = commits.setdefault(commit[:4], commit)
        if other != commit:
            break
    repo.git("update-ref", "refs/heads/main", commit)
    repo.git("update-ref", "refs/heads/other", other)
    with pytest.raises(NotFound, match="several commits") as ambiguous:
        source.resolve("", commit[:4], Job())
    assert ambiguous.value.reason == ErrorReason.ERROR_REASON_REF_NOT_FOUND
    assert commit in ambiguous.value.message
    assert other in ambiguous.value.message
    assert source.resolve("", commit[:20], Job()) == commit


@pytest.mark.parametrize("ref", ["mian", "v3", "f" * 40, "0" * 7, "main~1", "refs/heads/v1", "--help", "a\nb", "HEAD"])
def test_a_ref_that_is_not_there_is_named(source: GitSource, history: dict[str, str], ref: str) -> None:
    with pytest.raises(NotFound) as missing:
        source.resolve("", ref, Job())
    assert missing.value.reason == ErrorReason.ERROR_REASON_REF_NOT_FOUND
    assert ref.splitlines()[0] in missing.value.message


def test_names_like_the_missing_one_are_offered(source: GitSource, history: dict[str, str]) -> None:
    with pytest.raises(NotFound, match=r'"feature/dve"; is "feature/dev" meant\?'):
        source.resolve("", "feature/dve", Job())


def test_a_tree_is_no_commit(source: GitSource, repo: Repo, history: dict[str, str]) -> None:
    with pytest.raises(NotFound, match="is not a commit"):
        source.resolve("", repo.git("rev-parse", "main^{tree}"), Job())


def test_a_repository_without_commits_can_be_registered_but_not_deployed(source: GitSource, repo: Repo) -> None:
    assert "no commits yet" in source.test("", Job()).message
    for ref in ("", "main", "1234567"):
        with pytest.raises(NotFound):
            source.resolve("", ref, Job())


def test_a_deleted_branch_is_gone_but_its_commit_is_kept(
    source: GitSource, repo: Repo, history: dict[str, str]
) -> None:  # fmt: skip
    assert contents(source, history["dev"]) == {"a": b"3"}
    repo.git("update-ref", "-d", "refs/heads/feature/dev")
    repo.git("update-ref", "refs/heads/feature", history["first"])
    with pytest.raises(NotFound):
        source.resolve("", "feature/dev", Job())
    assert source.resolve("", history["second"][:8], Job()) == history["second"]
    assert contents(source, history["dev"]) == {"a": b"3"}


def test_a_commit_that_was_pushed_over_is_fetched_by_its_hash(source: GitSource, repo: Repo) -> None:
    old = repo.commit({"a": b"1"})
    repo.git("update-ref", "-d", "refs/heads/main")
    repo.commit({"a": b"2"})
    assert contents(source, old) == {"a": b"1"}


def test_history_is_completed_after_a_single_commit_was_fetched(source: GitSource, history: dict[str, str]) -> None:
    assert contents(source, history["second"]) == {"a": b"2"}
    assert source.resolve("", history["first"][:9], Job()) == history["first"]


def test_a_host_that_gives_no_single_commits_is_asked_for_everything(
    repo: Repo, history: dict[str, str], tmp_path: Path, log: Log
) -> None:  # fmt: skip
    repo.git("update-server-info")
    with serving(Web(repo.path.parent)) as web:
        source = GitSource(web.url(f"ada:{PASSWORD}@") + "/model.git", tmp_path / "cache", LOCAL)
        assert len(source.tree("", history["first"], log.job())) == 1
        assert any("fetching all branches and tags" in line for line in log)
        with pytest.raises(NotFound, match="no commit"):
            source.tree("", "e" * 40, Job())


def test_nothing_is_fetched_twice(source: GitSource, repo: Repo, history: dict[str, str]) -> None:
    before = contents(source, history["dev"])
    (repo.path / "objects").rename(repo.path / "objects-away")
    (repo.path / "objects").mkdir()
    assert contents(source, history["dev"]) == before
    assert source.resolve("", history["dev"], Job()) == history["dev"]
