"""The bytes of a GitLab's files are those of the commit, whatever way they come, or they do not come."""

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhost.envs.process import Cancelled, Job
from modelhost.server.sources import PIECE_BYTES, EntryKind, Selection
from modelhost.server.sources.gitlab.source import GitLabSource
from modelhost.server.sources.snapshots import SnapshotLimits, SnapshotStore
from tests.git_repos import Content, Submodule
from tests.gitlab_sources import CONTENTS, FILES, a_source, contents, refusal
from tests.gitlab_stand_in import (
    Answer,
    CutOff,
    GitLab,
    HangUp,
    Huge,
    HugeArchive,
    Instead,
    Meanwhile,
    Project,
    Redirect,
    Status,
    Truncated,
    bomb,
)
from tests.gitlab_stand_in.answers import json_answer

PATH = "energy/forecasting/turbine"
ARCHIVE, BLOBS, BATCH = "*/repository/archive*", "*/repository/blobs/*", "*/info/lfs/objects/batch"
MIB = 1024**2
LARGE = random.Random(7).randbytes(3 * MIB + 17)


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


@pytest.fixture
def project(gitlab: GitLab) -> Project:
    return gitlab.project(PATH)


@pytest.fixture
def source(gitlab: GitLab, tmp_path: Path) -> GitLabSource:
    return a_source(gitlab, tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


def some(source: GitLabSource, commit: str, *paths: str) -> dict[str, bytes]:
    """A few files of a commit."""
    entries = [entry for entry in source.tree(PATH, commit, Job()) if entry.path in paths]
    files = dict.fromkeys((entry.path for entry in entries), b"")
    with contextlib.closing(source.blobs(PATH, commit, entries, Job())) as blobs:
        for entry, piece in blobs:
            assert len(piece) <= PIECE_BYTES
            files[entry.path] += piece
    return files


def test_a_whole_commit_comes_in_one_archive(gitlab: GitLab, source: GitLabSource, project: Project) -> None:
    commit = project.repo.commit(FILES | {"large": LARGE})
    assert contents(source, PATH, commit) == CONTENTS | {"large": LARGE}
    assert len(gitlab.requests_to(ARCHIVE)) == 1
    assert gitlab.requests_to(BLOBS) == []


def test_a_few_files_come_one_by_one(gitlab: GitLab, source: GitLabSource, project: Project) -> None:
    commit = project.repo.commit(FILES | {"large": LARGE})
    assert some(source, commit, "main.py", "large", "empty", "latest") == {
        "main.py": CONTENTS["main.py"], "large": LARGE, "empty": b"", "latest": b"lib/data set",
    }  # fmt: skip
    assert gitlab.requests_to(ARCHIVE) == []


def test_most_of_a_directory_comes_in_an_archive_of_it(
    gitlab: GitLab, project: Project, store: SnapshotStore, source: GitLabSource
) -> None:
    files: dict[str, Content] = {f"models/wind ü/{number}.py": b"%d" % number for number in range(9)}
    commit = project.repo.commit(files | {f"data/{number}": b"x" for number in range(50)})
    snapshot = store.take(source, PATH, commit, Selection("models/wind ü"), Job())
    assert {file.path for file in snapshot.files} == {f"{number}.py" for number in range(9)}
    (request,) = gitlab.requests_to(ARCHIVE)
    assert request.query["path"] == "models/wind ü"
    store.take(source, PATH, commit, Selection(paths=tuple(f"data/{number}" for number in range(9))), Job())
    assert len(gitlab.requests_to(ARCHIVE)) == 1, "nine of fifty are got one by one"


def test_what_an_archive_leaves_out_or_changes_comes_as_it_is(
    gitlab: GitLab, project: Project, source: GitLabSource
) -> None:
    files: dict[str, Content] = {
        ".gitattributes": b"secret.py export-ignore\nversion.py export-subst\n*.txt text eol=crlf\n",
        "secret.py": b"x\n",
        "version.py": b"$Format:%H$\n",
        "lines.txt": b"a\nb\n",
    }
    commit = project.repo.commit(FILES | files)
    assert contents(source, PATH, commit) == CONTENTS | files
    assert len(gitlab.requests_to(ARCHIVE)) == 1
    assert len(gitlab.requests_to(BLOBS)) == 3


def test_a_snapshot_is_that_of_the_commit(project: Project, source: GitLabSource, store: SnapshotStore) -> None:
    commit = project.repo.commit(FILES)
    snapshot = store.take(source, PATH, commit, Selection(), Job())
    assert {file.path: (snapshot.root / file.path).lstat().st_size for file in snapshot.files} == {
        path: len(content) for path, content in CONTENTS.items()
    }
    assert os.readlink(snapshot.root / "latest") == "lib/data set"
    kinds = {file.path: file.kind for file in snapshot.files}
    assert (kinds["run.sh"], kinds["latest"]) == (EntryKind.EXECUTABLE, EntryKind.LINK)


def test_nothing_stays_in_the_cache(project: Project, source: GitLabSource, tmp_path: Path) -> None:
    contents(source, PATH, project.repo.commit(FILES | {"large": LARGE}))
    assert list((tmp_path / "cache").iterdir()) == []


def test_submodules_are_refused_and_named(project: Project, source: GitLabSource, store: SnapshotStore) -> None:
    commit = project.repo.commit(FILES | {"vendor/lib": Submodule()})
    with refusal() as refused:
        store.take(source, PATH, commit, Selection(), Job())
    assert refused.reason == "PATH_REFUSED"
    assert refused.message == '"vendor/lib" is a submodule, which cannot be deployed: choose paths without it'


def test_a_name_that_gitlab_cannot_tell_is_refused(project: Project, source: GitLabSource) -> None:
    repo = project.repo
    commit = repo.commit_tree(repo.tree([("100644", b"caf\xe9", repo.blob(b"x"))]))
    with refusal() as refused:
        contents(source, PATH, commit)
    assert refused.reason == "PATH_REFUSED"
    assert "not in UTF-8" in refused.message


class TestWhatArrivesSpoilt:
    @pytest.mark.parametrize("fault", [CutOff(), CutOff(announced=True), Truncated(), CutOff(after=0), HangUp()])
    def test_a_broken_archive_is_got_again(
        self, gitlab: GitLab, project: Project, source: GitLabSource, fault: object
    ) -> None:
        commit = project.repo.commit(FILES | {"large": LARGE})
        gitlab.faults.times(2, ARCHIVE, fault)  # type: ignore[arg-type]
        assert contents(source, PATH, commit) == CONTENTS | {"large": LARGE}
        assert len(gitlab.requests_to(ARCHIVE)) == 3
        assert gitlab.requests_to(BLOBS) == []

    def test_an_archive_that_is_never_whole_is_an_error(
        self, gitlab: GitLab, project: Project, source: GitLabSource, store: SnapshotStore, tmp_path: Path
    ) -> None:
        commit = project.repo.commit(FILES | {"large": LARGE})
        gitlab.faults.always(ARCHIVE, CutOff())
        with refusal() as refused:
            store.take(source, PATH, commit, Selection(), Job())
        assert refused.reason == "SOURCE_UNAVAILABLE"
        assert refused.message.endswith(f"did not arrive whole from {gitlab.url}, 4 times")
        assert list((tmp_path / "snapshots").iterdir()) == []

    @pytest.mark.parametrize("body", [b"", b"<html>", b"\x1f\x8b\x08" + bytes(50)])
    def test_what_is_no_archive_is_an_error(
        self, gitlab: GitLab, project: Project, source: GitLabSource, body: bytes
    ) -> None:
        commit = project.repo.commit(FILES)
        gitlab.faults.always(ARCHIVE, Instead(Answer(200, body, content_type="application/octet-stream")))
        with refusal() as refused:
            contents(source, PATH, commit)
        assert refused.reason == "SOURCE_UNAVAILABLE"

    def test_without_an_archive_files_come_one_by_one(
        self, gitlab: GitLab, project: Project, source: GitLabSource
    ) -> None:
        commit = project.repo.commit(FILES)
        for status in (403, 404):
            gitlab.faults.once(ARCHIVE, Status(status))
            assert contents(source, PATH, commit) == CONTENTS

    @pytest.mark.parametrize(
        "fault", [CutOff(), CutOff(after=2 * MIB + 1), CutOff(after=0), Truncated(), HangUp(), Status(502)]
    )
    def test_a_broken_file_is_continued(
        self, gitlab: GitLab, project: Project, source: GitLabSource, fault: object
    ) -> None:
        commit = project.repo.commit({"large": LARGE})
        gitlab.faults.times(3, BLOBS, fault)  # type: ignore[arg-type]
        assert some(source, commit, "large") == {"large": LARGE}

    def test_a_file_that_is_never_whole_is_an_error(
        self, gitlab: GitLab, project: Project, source: GitLabSource
    ) -> None:
        commit = project.repo.commit({"large": LARGE})
        gitlab.faults.always(BLOBS, CutOff())
        with refusal() as refused:
            some(source, commit, "large")
        assert refused.reason == "SOURCE_UNAVAILABLE"
        assert refused.message == f'the file "large" did not arrive whole from {gitlab.url}, 4 times'

    @pytest.mark.parametrize("body", [b"other bytes", b"", b"y" * len(CONTENTS["main.py"])])
    def test_other_bytes_than_the_hash_says_are_never_given(
        self, gitlab: GitLab, project: Project, source: GitLabSource, body: bytes
    ) -> None:
        commit = project.repo.commit(FILES)
        gitlab.faults.always(BLOBS, Instead(Answer(200, body, content_type="text/plain")))
        (entry,) = (each for each in source.tree(PATH, commit, Job()) if each.path == "main.py")
        given = []
        with refusal() as refused:
            given.extend(source.blobs(PATH, commit, [entry], Job()))
        assert (refused.reason, given) == ("SOURCE_UNAVAILABLE", [])

    def test_a_file_whose_size_nobody_tells(self, gitlab: GitLab, project: Project, source: GitLabSource) -> None:
        commit = project.repo.commit({"large": LARGE})
        gitlab.faults.once(BLOBS, Instead(Answer(200, iter([LARGE[:5], LARGE[5:]]), content_type="text/plain")))
        assert some(source, commit, "large") == {"large": LARGE}


class TestWhatChangesMeanwhile:
    def test_a_branch_that_is_deleted_or_pushed_anew(self, project: Project, source: GitLabSource) -> None:
        commit = project.repo.commit(FILES)
        resolved = source.resolve(PATH, "main", Job())
        project.repo.commit({"x": b"other"}, branch="main")
        project.repo.git("branch", "-D", "main")
        assert contents(source, PATH, resolved) == CONTENTS
        assert resolved == commit

    def test_a_commit_that_is_collected(self, gitlab: GitLab, project: Project, source: GitLabSource) -> None:
        commit = project.repo.commit(FILES)
        entries = [entry for entry in source.tree(PATH, commit, Job()) if entry.path == "main.py"]
        project.repo.git("branch", "-D", "main")
        project.repo.git("prune", "--expire=now")
        with refusal() as refused:
            list(source.blobs(PATH, commit, entries, Job()))
        assert refused.reason == "REF_NOT_FOUND"
        assert refused.message.endswith(f'no longer has the file "main.py" of commit {commit}')

    def test_a_token_that_expires_between_two_files(
        self, gitlab: GitLab, project: Project, store: SnapshotStore, tmp_path: Path
    ) -> None:
        token = gitlab.token()
        commit = project.repo.commit({"a": b"1", "b": b"2", "c": b"3"})
        gitlab.faults.once(BLOBS, Meanwhile(token.expire), skip=1)
        with refusal() as refused:
            store.take(a_source(gitlab, tmp_path, token=token), PATH, commit, Selection(), Job())
        assert refused.reason == "SOURCE_TOKEN_EXPIRED"
        assert list((tmp_path / "snapshots").iterdir()) == []

    def test_a_project_that_is_renamed_between_tree_and_files(self, project: Project, source: GitLabSource) -> None:
        commit = project.repo.commit(FILES)
        entries = source.tree(PATH, commit, Job())
        project.rename("energy/windmill")
        assert len(list(source.blobs(PATH, commit, entries, Job()))) == len(FILES)


class TestWhatIsTooLarge:
    def test_a_file_of_two_gib_is_not_begun(self, gitlab: GitLab, project: Project, source: GitLabSource) -> None:
        commit = project.repo.commit({"weights.bin": b"x"})
        gitlab.faults.always(BLOBS, Huge(2 * 1024**3))
        with refusal() as refused:
            some(source, commit, "weights.bin")
        assert refused.reason == "SNAPSHOT_TOO_LARGE"
        assert refused.message == (
            f'the file "weights.bin" has {2 * 1024**3} bytes; the limit for all selected files is {1024**3}'
        )

    def test_a_file_of_unknown_size_is_left_at_the_limit(
        self, gitlab: GitLab, project: Project, tmp_path: Path
    ) -> None:
        commit = project.repo.commit({"weights.bin": b"x"})
        endless = iter(lambda: bytes(64 * 1024), None)
        gitlab.faults.always(BLOBS, Instead(Answer(200, endless, content_type="text/plain")))
        with refusal() as refused:
            some(a_source(gitlab, tmp_path, max_bytes=2 * MIB), commit, "weights.bin")
        assert refused.reason == "SNAPSHOT_TOO_LARGE"

    def test_an_archive_is_left_at_the_limit(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        commit = project.repo.commit(FILES | {"weights.bin": b"x"})
        gitlab.faults.always(ARCHIVE, HugeArchive(2 * 1024**3))
        with refusal() as refused:
            contents(a_source(gitlab, tmp_path, max_bytes=MIB), PATH, commit)
        assert refused.reason == "SNAPSHOT_TOO_LARGE"
        assert '"weights.bin" has 2147483648 bytes' in refused.message

    def test_an_archive_of_much_that_nobody_wants_is_left(
        self, gitlab: GitLab, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("modelhost.server.sources.gitlab.archive.OVERHEAD_BYTES", MIB)
        commit = project.repo.commit(FILES)
        gitlab.faults.always(ARCHIVE, HugeArchive(2 * 1024**3, "model-main/other"))
        assert contents(a_source(gitlab, tmp_path, max_bytes=MIB), PATH, commit) == CONTENTS

    def test_all_files_together_are_held_to_the_snapshots_limit(
        self, project: Project, source: GitLabSource, tmp_path: Path
    ) -> None:
        store = SnapshotStore(tmp_path / "snapshots", SnapshotLimits(max_bytes=MIB))
        commit = project.repo.commit({"a": bytes(MIB // 2), "b": bytes(MIB // 2), "c": b"1"})
        with refusal() as refused:
            store.take(source, PATH, commit, Selection(), Job())
        assert refused.reason == "SNAPSHOT_TOO_LARGE"
        assert list((tmp_path / "snapshots").iterdir()) == []

    def test_a_tree_that_is_a_bomb_is_left_at_the_limit(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        commit = bomb(project.repo, depth=4, size=10)
        with refusal() as refused:
            a_source(gitlab, tmp_path, max_tree_entries=250).tree(PATH, commit, Job())
        assert refused.reason == "SNAPSHOT_TOO_LARGE"
        assert len(gitlab.requests_to("*/repository/tree")) == 3

    def test_files_that_are_all_the_same_are_kept_once(self, project: Project, gitlab: GitLab, tmp_path: Path) -> None:
        commit = bomb(project.repo, depth=2, width=8, size=100_000)
        source = a_source(gitlab, tmp_path, max_bytes=150_000)
        assert sum(len(content) for content in contents(source, PATH, commit).values()) == 6_400_000

    def test_pages_that_lead_in_a_circle(self, gitlab: GitLab, project: Project, source: GitLabSource) -> None:
        commit = project.repo.commit(FILES)
        entry = {"id": "1" * 40, "name": "a", "type": "blob", "path": "a", "mode": "100644"}
        link = f'<{gitlab.url}/api/v4/projects/1/repository/tree?page_token=1>; rel="next"'
        gitlab.faults.always("*/repository/tree", Instead(json_answer([entry], headers=(("Link", link),))))
        with refusal() as refused:
            source.tree(PATH, commit, Job())
        assert refused.reason == "SOURCE_UNAVAILABLE"


class TestGitLfs:
    @pytest.mark.parametrize("storage", ["proxied", "redirect", "direct"])
    @pytest.mark.parametrize("archive", [True, False])
    def test_files_are_followed_wherever_they_are_kept(
        self, gitlab: GitLab, project: Project, source: GitLabSource, storage: str, archive: bool
    ) -> None:
        gitlab.lfs_storage = storage  # type: ignore[assignment]
        lfs: dict[str, Content] = {".gitattributes": b"*.bin filter=lfs\n", "large.bin": project.lfs_object(LARGE)}
        files = (FILES if archive else {}) | lfs | {"small.bin": project.lfs_object(b"1")}
        commit = project.repo.commit(files)
        found = contents(source, PATH, commit)
        assert found == (CONTENTS if archive else {}) | lfs | {"large.bin": LARGE, "small.bin": b"1"}
        assert bool(gitlab.requests_to(ARCHIVE)) is archive

    @pytest.mark.parametrize("storage", ["proxied", "redirect", "direct"])
    def test_no_credentials_go_to_where_files_are_kept(
        self, gitlab: GitLab, project: Project, tmp_path: Path, storage: str
    ) -> None:
        gitlab.lfs_storage = storage  # type: ignore[assignment]
        token = gitlab.token()
        commit = project.repo.commit({"large.bin": project.lfs_object(LARGE)})
        assert some(a_source(gitlab, tmp_path, token=token), commit, "large.bin") == {"large.bin": LARGE}
        for request in gitlab.requests:
            if request.host == "elsewhere":
                assert not {name.lower() for name in request.headers} & {"authorization", "private-token"}
            if "gitlab-lfs" in request.path:
                assert request.token not in ("", token)

    def test_archives_of_older_gitlabs_hold_them_already(
        self, gitlab: GitLab, project: Project, source: GitLabSource
    ) -> None:
        pointer = project.lfs_object(LARGE)
        commit = project.repo.commit(FILES | {".gitattributes": b"*.bin filter=lfs\n", "large.bin": pointer})
        gitlab.faults.always(ARCHIVE, IgnoringLfs())
        assert contents(source, PATH, commit)["large.bin"] == LARGE

    def test_a_file_that_gitlab_does_not_have(self, project: Project, source: GitLabSource) -> None:
        pointer = project.lfs_object(b"x")
        project.lfs_sizes.clear()
        with refusal() as refused:
            some(source, project.repo.commit({"large.bin": pointer}), "large.bin")
        assert refused.reason == "PATH_REFUSED"
        assert refused.message == (
            '"large.bin" is a Git LFS pointer, and GitLab lacks its file: `git lfs push --all` brings it there'
        )

    def test_a_project_without_git_lfs(self, gitlab: GitLab, project: Project, source: GitLabSource) -> None:
        commit = project.repo.commit({"large.bin": project.lfs_object(b"x")})
        gitlab.faults.always(BATCH, Status(404))
        with refusal() as refused:
            some(source, commit, "large.bin")
        assert refused.message.endswith("but the project has no Git LFS")

    def test_other_bytes_than_the_pointer_says(self, project: Project, source: GitLabSource) -> None:
        commit = project.repo.commit({"large.bin": project.lfs_pretend(1000)})
        with refusal() as refused:
            some(source, commit, "large.bin")
        assert refused.reason == "SOURCE_UNAVAILABLE"

    def test_one_over_the_limit_is_not_begun(self, gitlab: GitLab, project: Project, source: GitLabSource) -> None:
        commit = project.repo.commit({"large.bin": project.lfs_pretend(2 * 1024**3)})
        with refusal() as refused:
            some(source, commit, "large.bin")
        assert refused.reason == "SNAPSHOT_TOO_LARGE"
        assert gitlab.requests_to(BATCH) == []

    @pytest.mark.parametrize("fault", [CutOff(), Truncated(), HangUp(), Status(403), Status(503)])
    def test_a_broken_download_goes_on_with_leave_anew(
        self, gitlab: GitLab, project: Project, source: GitLabSource, fault: object
    ) -> None:
        commit = project.repo.commit({"large.bin": project.lfs_object(LARGE)})
        gitlab.faults.times(2, "*/gitlab-lfs/objects/*", fault)  # type: ignore[arg-type]
        assert some(source, commit, "large.bin") == {"large.bin": LARGE}

    def test_a_token_that_expires_before_the_batch(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        token = gitlab.token()
        commit = project.repo.commit({"large.bin": project.lfs_object(LARGE)})
        gitlab.faults.once(BLOBS, Meanwhile(token.expire))
        with refusal() as refused:
            some(a_source(gitlab, tmp_path, token=token), commit, "large.bin")
        assert refused.reason == "SOURCE_TOKEN_EXPIRED"

    @pytest.mark.parametrize(
        "answer",
        [
            {"objects": []},
            {"objects": "x"},
            [],
            {"objects": [{"oid": "1" * 64, "size": 1, "actions": {"download": {"href": "http://x/"}}}]},
            {"objects": [{"actions": {"download": {"href": "file:///etc/passwd"}}}]},
        ],
    )
    def test_a_batch_that_is_none(self, gitlab: GitLab, project: Project, source: GitLabSource, answer: object) -> None:
        commit = project.repo.commit({"large.bin": project.lfs_object(b"x")})
        gitlab.faults.always(BATCH, Instead(json_answer(answer)))
        with refusal() as refused:
            some(source, commit, "large.bin")
        assert refused.reason == "SOURCE_UNAVAILABLE"

    def test_a_pointer_of_an_extension_is_refused(self, project: Project, source: GitLabSource) -> None:
        pointer = project.lfs_object(b"x").replace(b"oid", b"ext-0-foo sha256:" + b"1" * 64 + b"\noid", 1)
        with refusal() as refused:
            some(source, project.repo.commit({"large.bin": pointer}), "large.bin")
        assert refused.reason == "PATH_REFUSED"
        assert "extension" in refused.message

    def test_an_almost_pointer_is_an_ordinary_file(self, project: Project, source: GitLabSource) -> None:
        text = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"
        long = project.lfs_object(b"x") + b"x" * 1024
        commit = project.repo.commit({"a": text, "b": long})
        assert some(source, commit, "a", "b") == {"a": text, "b": long}


class IgnoringLfs:
    """GitLab before it knew `include_lfs_blobs`."""

    def apply(self, context) -> Answer:  # type: ignore[no-untyped-def]
        context.request.query.pop("include_lfs_blobs")
        answer: Answer = context.answer()
        return answer


def test_a_file_may_be_redirected_to_another_host_without_the_token(
    gitlab: GitLab, project: Project, source: GitLabSource
) -> None:
    commit = project.repo.commit({"main.py": b"1"})
    gitlab.faults.always(BLOBS, Redirect(gitlab.elsewhere_url))
    with refusal() as refused:
        some(source, commit, "main.py")
    assert refused.reason in ("SOURCE_UNAVAILABLE", "REF_NOT_FOUND")
    elsewhere = [request for request in gitlab.requests if request.host == "elsewhere"]
    assert elsewhere
    assert all(request.token == "" for request in elsewhere)


def test_a_fetch_can_be_cancelled_between_pieces(project: Project, source: GitLabSource) -> None:
    commit = project.repo.commit({"large": LARGE})
    job = Job()
    entries = source.tree(PATH, commit, job)
    with contextlib.closing(source.blobs(PATH, commit, entries, job)) as blobs:
        next(blobs)
        job.cancel()
        with pytest.raises(Cancelled):
            list(blobs)
