"""Real repositories, read through the real git over every transport that this machine can serve."""

import os
import threading
from pathlib import Path

import pytest

from modelhost.envs.process import Job
from modelhost.server.errors import Conflict, NotFound
from modelhost.server.sources import PIECE_BYTES, EntryKind, TreeEntry
from modelhost.server.sources.git.source import GitSource
from tests.git_repos import Repo, Submodule
from tests.git_web import PASSWORD, Web, serving
from tests.integration.git.files import CONTENTS, FILES, Log, contents
from tests.local_hosts import LOCAL


def test_a_project_is_read_over_every_transport(place: str, repo: Repo, tmp_path: Path, log: Log) -> None:
    old = repo.commit({"old": b"1"})
    repo.tag("v1", message="annotated")
    commit = repo.commit(FILES)
    repo.git("update-server-info")
    source = GitSource(place, tmp_path / "cache", LOCAL)
    project = "group/model.git"

    report = source.test(project, log.job())
    assert (report.default_branch, report.ref_count) == ("main", 2)
    assert "1 branch, 1 tag; the default branch is main" in report.message
    assert [(ref.name, ref.is_tag, ref.commit) for ref in source.refs(project, log.job())] == [
        ("main", False, commit),
        ("v1", True, old),
    ]
    assert source.resolve(project, "", log.job()) == commit
    assert source.resolve(project, old[:10], log.job()) == old
    assert contents(source, commit, project) == CONTENTS
    assert contents(source, old, project) == {"old": b"1"}
    assert PASSWORD not in repr((report, log))


def test_a_tree_lists_what_a_commit_has_by_path(source: GitSource, repo: Repo) -> None:
    commit = repo.commit({**FILES, "vendor/lib": Submodule()})
    tree = {entry.path: (entry.kind, entry.size) for entry in source.tree("", commit, Job())}
    assert list(tree) == sorted(tree)
    assert tree["main.py"] == (EntryKind.FILE, len(CONTENTS["main.py"]))
    assert tree["run.sh"] == (EntryKind.EXECUTABLE, 10)
    assert tree["latest"] == (EntryKind.LINK, 0)
    assert tree["vendor/lib"] == (EntryKind.SUBMODULE, 0)


def test_names_that_are_not_utf8_survive(source: GitSource, repo: Repo) -> None:
    commit = repo.commit_tree(repo.tree([("100644", b"caf\xe9.py", repo.blob(b"x"))]))
    assert contents(source, commit) == {os.fsdecode(b"caf\xe9.py"): b"x"}


def test_a_large_file_comes_in_pieces(source: GitSource, repo: Repo) -> None:
    content = os.urandom(5 * PIECE_BYTES + 7)
    commit = repo.commit({"weights.bin": content, "z": b"after"})
    entries = source.tree("", commit, Job())
    pieces = list(source.blobs("", commit, entries, Job()))
    assert max(len(piece) for _, piece in pieces) == PIECE_BYTES
    assert b"".join(piece for entry, piece in pieces if entry.path == "weights.bin") == content
    assert pieces[-1] == (entries[1], b"after")


def test_repositories_with_sha256_names_are_read(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "model", object_format="sha256")
    commit = repo.commit(FILES)
    source = GitSource(str(repo.path), tmp_path / "cache", LOCAL)
    assert len(commit) == 64
    assert source.resolve("", commit[:8], Job()) == commit
    assert contents(source, commit) == CONTENTS


def test_many_threads_may_use_one_copy(source: GitSource, repo: Repo) -> None:
    commits = [repo.commit({"n": b"%d" % number}) for number in range(4)]
    got: list[tuple[str, dict[str, bytes]]] = []
    threads = [threading.Thread(target=lambda c=c: got.append((c, contents(source, c)))) for c in commits * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {commit: {"n": b"%d" % number} for number, commit in enumerate(commits)}
    assert len(got) == len(threads)
    assert all(files == expected[commit] for commit, files in got)


def test_two_projects_of_a_place_have_copies_of_their_own(repo: Repo, tmp_path: Path) -> None:
    other = Repo(repo.path.parent / "other.git")
    one, two = repo.commit({"a": b"1"}), other.commit({"b": b"2"})
    source = GitSource(str(repo.path.parent), tmp_path / "cache", LOCAL)
    assert contents(source, one, "model") == {"a": b"1"}
    assert contents(source, two, "other") == {"b": b"2"}
    with pytest.raises(NotFound):
        source.tree("other", one, Job())


def test_what_was_fetched_with_credentials_is_not_read_without(repo: Repo, tmp_path: Path) -> None:
    commit = repo.commit(FILES)
    repo.git("update-server-info")
    with serving(Web(repo.path.parent)) as web:
        assert (
            contents(GitSource(web.url(f"ada:{PASSWORD}@") + "/model.git", tmp_path / "cache", LOCAL), commit)
            == CONTENTS
        )
        with pytest.raises(Conflict, match="refused access"):
            GitSource(web.url() + "/model.git", tmp_path / "cache", LOCAL).tree("", commit, Job())


def test_entries_are_read_in_the_order_they_are_asked_for(source: GitSource, repo: Repo) -> None:
    commit = repo.commit({"a": b"1", "b": b"", "c": b"3"})
    a, b, c = source.tree("", commit, Job())
    asked: list[TreeEntry] = [c, b, a]
    assert list(source.blobs("", commit, asked, Job())) == [(c, b"3"), (b, b""), (a, b"1")]
    assert list(source.blobs("", commit, [], Job())) == []
