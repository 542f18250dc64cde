"""Real repositories, read through the real git over every transport that this machine can serve."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelhost.envs.process import Cancelled, CommandFailed, Job
from modelhost.server.errors import Conflict, DomainError, InvalidRequest, NotFound, Unavailable
from modelhost.server.sources import PIECE_BYTES, EntryKind, Source, TreeEntry
from modelhost.server.sources.git.command import NO_REPOSITORY, Git, reach
from modelhost.server.sources.git.place import Repository
from modelhost.server.sources.git.source import GitSource
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.git_repos import Content, Executable, Link, Repo, Submodule
from tests.git_web import PASSWORD, Web, serving

FILES: dict[str, Content] = {
    "main.py": b"def predict(parameters):\r\n    return 1\n",
    "empty": b"",
    "run.sh": Executable(b"#!/bin/sh\n"),
    "lib/data set/\u00fc \U0001f600.bin": bytes(range(256)),
    "latest": Link("lib/data set"),
    ".hidden": b"x",
}
CONTENTS = {path: content for path, content in FILES.items() if isinstance(content, bytes)} | {
    "run.sh": b"#!/bin/sh\n",
    "latest": b"lib/data set",
}


class Log(list[str]):
    """A job's lines."""

    def job(self) -> Job:
        return Job(lambda stream, line: self.append(line))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "places" / "group" / "model.git")


@pytest.fixture
def source(repo: Repo, tmp_path: Path) -> GitSource:
    return GitSource(repo.url, tmp_path / "cache")


def contents(source: Source, commit: str, project: str = "") -> dict[str, bytes]:
    """Every file of a commit."""
    entries = source.tree(project, commit, Job())
    files = dict.fromkeys((entry.path for entry in entries), b"")
    for entry, piece in source.blobs(project, commit, entries, Job()):
        files[entry.path] += piece
    return files


@contextlib.contextmanager
def git_daemon(base: Path) -> Iterator[str]:
    """A git:// server on loopback; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all"]
    with subprocess.Popen([*command, f"--base-path={base}", str(base)], stderr=subprocess.DEVNULL) as daemon:
        try:
            _until(lambda: socket.create_connection(("127.0.0.1", port)).close())
            yield f"git://127.0.0.1:{port}"
        finally:
            daemon.terminate()


def _until(attempt: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            attempt()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


@pytest.fixture(params=["path", "file", "git", "http"])
def place(request: pytest.FixtureRequest, repo: Repo) -> Iterator[str]:
    """The folder with the project `group/model.git`, by each transport."""
    base = repo.path.parent.parent
    match request.param:
        case "path":
            yield str(base)
        case "file":
            yield base.as_uri()
        case "git":
            with git_daemon(base) as url:
                yield url
        case _:
            with serving(Web(base)) as web:
                yield web.url(f"ada:{PASSWORD}@")


def test_a_project_is_read_over_every_transport(place: str, repo: Repo, tmp_path: Path, log: Log) -> None:
    old = repo.commit({"old": b"1"})
    repo.tag("v1", message="annotated")
    commit = repo.commit(FILES)
    repo.git("update-server-info")
    source = GitSource(place, tmp_path / "cache")
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
        source = GitSource(web.url(f"ada:{PASSWORD}@") + "/model.git", tmp_path / "cache")
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


def test_repositories_with_sha256_names_are_read(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "model", object_format="sha256")
    commit = repo.commit(FILES)
    source = GitSource(str(repo.path), tmp_path / "cache")
    assert len(commit) == 64
    assert source.resolve("", commit[:8], Job()) == commit
    assert contents(source, commit) == CONTENTS


# Hostile and broken


def test_a_url_that_is_an_option_runs_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for url in (f"--upload-pack=touch {proof}", f"ext::touch {proof}", f"-u touch {proof}"):
        with pytest.raises(InvalidRequest):
            GitSource(url, tmp_path / "cache")
        with pytest.raises(CommandFailed):  # and should one get past the check, git takes it for no option
            Git().run(NO_REPOSITORY, "ls-remote", *reach(Repository(url, url, "")), job=Job(), timeout=60)
    assert not proof.exists()


def test_neither_the_users_nor_the_repositorys_configuration_is_used(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    proof, script, home = tmp_path / "proof", tmp_path / "script", tmp_path / "home"
    script.write_text(f'#!/bin/sh\ntouch {proof}\nexec "$@"\n')
    script.chmod(0o755)
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[url "/nowhere"]\n insteadOf = {repo.path.parent}\n[core]\n fsmonitor = {script}\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_SSH_COMMAND", str(script))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    commit = repo.commit(FILES)
    repo.git("config", "uploadpack.packObjectsHook", str(script))
    repo.git("config", "core.fsmonitor", str(script))
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc"):
        shutil.copy(script, repo.path / "hooks" / hook)
    assert contents(GitSource(str(repo.path), tmp_path / "cache"), commit) == CONTENTS
    assert not proof.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_registered_repository_may_belong_to_another_user(source: GitSource, repo: Repo) -> None:
    commit = repo.commit(FILES)
    for path in (repo.path, *repo.path.rglob("*")):
        os.chown(path, 12_345, 12_345)
    assert source.resolve("", "main", Job()) == commit
    assert contents(source, commit) == CONTENTS


def test_a_git_lfs_pointer_is_refused_by_name(source: GitSource, repo: Repo) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
    commit = repo.commit({"about-lfs.txt": pointer + b"is what a pointer looks like", "weights.bin": pointer})
    with pytest.raises(Conflict, match=r'"weights.bin" is a Git LFS pointer') as refusal:
        contents(source, commit)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_PATH_REFUSED


def test_a_tree_that_stands_for_billions_of_files_is_not_listed(
    source: GitSource, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("modelhost.server.sources.git.source.MAX_TREE_ENTRIES", 10_000)
    mode, entry = "100644", repo.blob(b"x")
    for _ in range(10):
        entry = repo.tree([(mode, b"%d" % number, entry) for number in range(10)])
        mode = "40000"
    commit = repo.commit_tree(entry)
    with pytest.raises(Conflict, match="more than 10000 files") as refusal:
        source.tree("", commit, Job())
    assert refusal.value.reason == ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE


def test_an_entry_that_is_not_what_its_tree_says_is_refused(source: GitSource, repo: Repo) -> None:
    inner = repo.tree([("100644", b"x", repo.blob(b"x"))])
    commit = repo.commit_tree(repo.tree([("100644", b"file", inner)]))
    with pytest.raises(DomainError):
        contents(source, commit)


def _cut_packs(mirror: Path) -> None:
    for pack in mirror.glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        os.truncate(pack, pack.stat().st_size // 2)


def _spoil_packs(mirror: Path) -> None:
    for pack in mirror.glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        with pack.open("r+b") as file:
            file.seek(pack.stat().st_size // 2)
            file.write(b"\0" * 64)


def _empty_refs(mirror: Path) -> None:
    for ref in mirror.glob("refs/modelhost/*"):
        ref.write_bytes(b"")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "packs are cut": _cut_packs,
    "packs are spoilt": _spoil_packs,
    "refs are empty": _empty_refs,
    "objects are gone": lambda mirror: shutil.rmtree(mirror / "objects"),
    "packs are gone": lambda mirror: shutil.rmtree(mirror / "objects" / "pack"),
    "HEAD is gone": lambda mirror: (mirror / "HEAD").unlink(),
    "the configuration is garbage": lambda mirror: (mirror / "config").write_bytes(b"\0garbage"),
    "everything is gone": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_copy_is_made_anew(source: GitSource, repo: Repo, tmp_path: Path, damage: str) -> None:
    files = {**CONTENTS, "weights.bin": os.urandom(300_000)}
    commit = repo.commit(files)
    assert contents(source, commit) == files
    (mirror,) = (tmp_path / "cache").glob("*/repository.git")
    DAMAGE[damage](mirror)
    assert contents(source, commit) == files
    second = repo.commit({"new": b"1"})
    assert contents(source, second) == {"new": b"1"}


def test_damage_that_git_does_not_see_gives_no_wrong_file(source: GitSource, repo: Repo, tmp_path: Path) -> None:
    nothing = bytes(10 * PIECE_BYTES)  # beyond `core.bigFileThreshold`: streamed without a look at its checksum
    content = nothing + os.urandom(200_000) + nothing
    commit = repo.commit({"a": b"before", "weights.bin": content})
    entries = source.tree("", commit, Job())
    (mirror,) = (tmp_path / "cache").glob("*/repository.git")
    _spoil_packs(mirror)
    with pytest.raises(Unavailable, match="damaged"):
        list(source.blobs("", commit, entries, Job()))
    assert contents(source, commit)["weights.bin"] == content


def test_a_commit_that_is_broken_at_its_source_is_an_error_and_no_endless_repair(
    source: GitSource, repo: Repo
) -> None:  # fmt: skip
    commit = repo.commit_tree(repo.tree([("100644", b"", repo.blob(b"x"))]))
    with pytest.raises(DomainError, match="Git"):
        source.tree("", commit, Job())


# Unreachable, refused, slow


def test_a_closed_port_is_an_unreachable_host(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for scheme in ("git", "http", "ssh"):
            url = f"{scheme}://127.0.0.1:{closed.getsockname()[1]}/x"
            with pytest.raises(Unavailable, match="cannot be reached") as failure:
                GitSource(url, tmp_path / "cache").test("", Job())
            assert failure.value.reason == ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE


@pytest.mark.parametrize("project", ["nope", "group"])
def test_a_project_that_is_not_there_is_missing_over_every_transport(
    place: str, repo: Repo, tmp_path: Path, project: str
) -> None:  # fmt: skip
    with pytest.raises(NotFound) as missing:
        GitSource(place, tmp_path / "cache").refs(project, Job())
    assert missing.value.reason == ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND
    assert project in missing.value.message
    assert PASSWORD not in repr(missing.value.values)


@pytest.mark.parametrize("userinfo", ["", "ada@", "ada:wrong-pony@", "wrong-pony@"])
def test_wrong_credentials_are_told_and_never_shown(repo: Repo, tmp_path: Path, log: Log, userinfo: str) -> None:
    with serving(Web(repo.path.parent)) as web:
        source = GitSource(web.url(userinfo) + "/model.git", tmp_path / "cache")
        with pytest.raises(Conflict, match="refused access") as refusal:
            source.test("", log.job())
    assert refusal.value.reason == ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED
    everything = repr((refusal.value.message, refusal.value.values, refusal.value.hint, refusal.value.__cause__, log))
    assert "wrong-pony" not in everything


def test_a_password_is_not_among_the_arguments_of_any_process(repo: Repo, tmp_path: Path) -> None:
    repo.commit(FILES)
    repo.git("update-server-info")
    with serving(Web(repo.path.parent)) as web:
        contents(
            source := GitSource(web.url(f"ada:{PASSWORD}@") + "/model.git", tmp_path / "cache"),
            source.resolve("", "main", Job()),
        )
        assert any(web.authorizations)
        assert not web.seen_in_arguments
    assert not any(PASSWORD.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_redirect_to_another_host_does_not_get_the_password(repo: Repo, tmp_path: Path) -> None:
    with serving(Web(repo.path.parent)) as other, serving(Web(repo.path.parent, redirect=other.url())) as web:
        with pytest.raises(Conflict, match="refused access"):
            GitSource(web.url(f"ada:{PASSWORD}@") + "/model.git", tmp_path / "cache").test("", Job())
        assert other.authorizations
        assert not any(other.authorizations)


@pytest.fixture
def silent_host() -> Iterator[str]:
    """A host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"git://127.0.0.1:{server.getsockname()[1]}/x"


def test_a_host_that_does_not_answer_is_given_up(silent_host: str, tmp_path: Path) -> None:
    source = GitSource(silent_host, tmp_path / "cache", fetch_timeout=0.2, list_timeout=0.1)
    with pytest.raises(Unavailable, match=r"did not answer within 0.1 s"):
        source.refs("", Job())
    with pytest.raises(Unavailable, match=r"did not answer within 0.2 s"):
        source.tree("", "1" * 40, Job())


@pytest.mark.parametrize(
    "ask", [lambda source, job: source.refs("", job), lambda source, job: source.tree("", "1" * 40, job)]
)
def test_waiting_for_a_host_can_be_cancelled(
    silent_host: str, tmp_path: Path, ask: Callable[[Source, Job], object]
) -> None:  # fmt: skip
    job = Job()
    threading.Timer(0.2, job.cancel).start()
    with pytest.raises(Cancelled):
        ask(GitSource(silent_host, tmp_path / "cache"), job)


def test_waiting_for_another_fetch_can_be_cancelled(source: GitSource, repo: Repo) -> None:
    first, second = repo.commit({"a": b"1"}), repo.commit({"a": b"2"})
    reading = source.blobs("", first, source.tree("", first, Job()), Job())
    next(reading)  # holds the copy for reading, so that nothing can be fetched
    job = Job()
    threading.Timer(0.2, job.cancel).start()
    with pytest.raises(Cancelled):
        source.tree("", second, job)
    reading.close()
    assert contents(source, second) == {"a": b"2"}


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
    source = GitSource(str(repo.path.parent), tmp_path / "cache")
    assert contents(source, one, "model") == {"a": b"1"}
    assert contents(source, two, "other") == {"b": b"2"}
    with pytest.raises(NotFound):
        source.tree("other", one, Job())


def test_what_was_fetched_with_credentials_is_not_read_without(repo: Repo, tmp_path: Path) -> None:
    commit = repo.commit(FILES)
    repo.git("update-server-info")
    with serving(Web(repo.path.parent)) as web:
        assert contents(GitSource(web.url(f"ada:{PASSWORD}@") + "/model.git", tmp_path / "cache"), commit) == CONTENTS
        with pytest.raises(Conflict, match="refused access"):
            GitSource(web.url() + "/model.git", tmp_path / "cache").tree("", commit, Job())


def test_entries_are_read_in_the_order_they_are_asked_for(source: GitSource, repo: Repo) -> None:
    commit = repo.commit({"a": b"1", "b": b"", "c": b"3"})
    a, b, c = source.tree("", commit, Job())
    asked: list[TreeEntry] = [c, b, a]
    assert list(source.blobs("", commit, asked, Job())) == [(c, b"3"), (b, b""), (a, b"1")]
    assert list(source.blobs("", commit, [], Job())) == []
