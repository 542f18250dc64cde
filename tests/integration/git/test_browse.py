"""What a Git source shows of itself before anything is deployed: its projects and the text of its files."""

from pathlib import Path

import pytest

from modelhost.envs.process import Job
from modelhost.server.errors import InvalidRequest, NotFound
from modelhost.server.sources.git.source import GitSource
from tests.git_repos import Executable, Link, Repo, Submodule
from tests.local_hosts import LOCAL

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"1" * 64 + b"\nsize 5\n"


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder with repositories of several kinds, and with what is none."""
    folder = tmp_path / "places"
    for path in (
        "energy/turbine.git",
        "energy/solar/roof.git",
        "billing.git",
        "a/b/c/d/deep.git",
        "a/b/c/d/e/lost.git",
    ):
        Repo(folder / path)
    Repo(folder / "billing.git" / "inside.git")
    Repo(folder / "checked-out" / ".git").commit({"x": b"1"})
    (folder / "empty").mkdir()
    (folder / "around").symlink_to(folder)
    return folder


def paths(source: GitSource, search: str = "", limit: int = 100) -> list[list[str]]:
    pages, after = [], ""
    while True:
        page = source.projects(search, after, limit, Job())
        pages.append([project.path for project in page.projects])
        after = page.next
        if not after:
            return pages


def test_a_repository_is_its_own_only_project(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "turbine.git")
    repo.commit({"x": b"1"})
    for url in (repo.url, str(repo.path)):
        (project,) = GitSource(url, tmp_path / "cache", LOCAL).projects("turb", "", 1, Job()).projects
        assert (project.id, project.path, project.title) == ("", "", "turbine")
        assert (project.default_branch, project.active) == ("main", None)
    assert paths(GitSource(repo.url, tmp_path / "cache", LOCAL), "solar") == [[]]


def test_a_folder_has_the_repositories_below_it(places: Path, tmp_path: Path) -> None:
    source = GitSource(str(places), tmp_path / "cache", LOCAL)
    expected = ["a/b/c/d/deep.git", "billing.git", "checked-out", "energy/solar/roof.git", "energy/turbine.git"]
    assert paths(source) == [expected]
    assert paths(source, limit=2) == [expected[:2], expected[2:4], expected[4:]]
    assert paths(source, "ENERGY") == [expected[3:]]
    for path in expected:
        assert source.test(path, Job())
    branches = {project.path: project.default_branch for project in source.projects("", "", 9, Job()).projects}
    assert {path for path, branch in branches.items() if branch} == {"checked-out"}


def test_what_is_no_repository_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        GitSource("file:///nowhere/at/all.git", tmp_path / "cache", LOCAL).refs("", Job())


def test_files_are_read_from_their_beginning(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "model")
    large = bytes(range(256)) * 10_000
    files = {"a b/ü*.py": b"x = 1\n", "run": Executable(b"#!"), "link": Link("a b"), "lfs": POINTER, "large": large}
    commit = repo.commit({**files, "empty": b"", "sub": Submodule()})
    source = GitSource(repo.url, tmp_path / "cache", LOCAL)
    read = {path: source.read_file("", commit, path, 1000, Job()) for path in (*files, "empty")}
    assert {path: (each.data, each.size) for path, each in read.items()} == {
        "a b/ü*.py": (b"x = 1\n", 6),
        "run": (b"#!", 2),
        "link": (b"a b", 3),
        "lfs": (POINTER, len(POINTER)),
        "large": (large[:1000], len(large)),
        "empty": (b"", 0),
    }
    for path in ("nothing", "a b", "sub", "*"):
        with pytest.raises(NotFound) as caught:
            source.read_file("", commit, path, 1000, Job())
        assert caught.value.message == f'the commit has no file "{path}"'
    with pytest.raises(InvalidRequest):
        source.read_file("", commit, "../etc/passwd", 1000, Job())
