"""Repositories that are hostile or broken, and copies that are damaged."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelhost.envs.process import CommandFailed, Job
from modelhost.server.errors import Conflict, DomainError, InvalidRequest, Unavailable
from modelhost.server.sources import PIECE_BYTES
from modelhost.server.sources.git.command import NO_REPOSITORY, Git, reach
from modelhost.server.sources.git.place import Repository
from modelhost.server.sources.git.source import GitSource
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.git_repos import Repo
from tests.integration.git.files import CONTENTS, FILES, contents
from tests.local_hosts import LOCAL


def test_a_url_that_is_an_option_runs_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for url in (f"--upload-pack=touch {proof}", f"ext::touch {proof}", f"-u touch {proof}"):
        with pytest.raises(InvalidRequest):
            GitSource(url, tmp_path / "cache", LOCAL)
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
    assert contents(GitSource(str(repo.path), tmp_path / "cache", LOCAL), commit) == CONTENTS
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
