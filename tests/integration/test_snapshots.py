"""Commits of real repositories become snapshots on a real disk, whole or not at all."""

import hashlib
import os
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest

from modelhost.envs.process import Cancelled, Job
from modelhost.server.errors import Conflict, DomainError, NotFound
from modelhost.server.sources import EntryKind, Selection, Source, TreeEntry
from modelhost.server.sources.git.source import GitSource
from modelhost.server.sources.snapshots import Snapshot, SnapshotLimits, SnapshotStore
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.git_repos import Content, Executable, Link, Repo, Submodule
from tests.local_hosts import LOCAL

ATTRIBUTES = b"* text=auto eol=crlf\nsecret.py export-ignore\nversion.py export-subst ident\n*.bin filter=lfs\n"
FILES: dict[str, Content] = {
    ".gitattributes": ATTRIBUTES,
    "main.py": b"print(1)\nprint(2)\r\n",
    "secret.py": b"x\n",
    "version.py": b"$Format:%H$ $Id$\n",
    "weights.bin": bytes(range(256)) * 10,
    "empty": b"",
    "run.sh": Executable(b"#!/bin/sh\n"),
    "latest": Link("data/v 2"),
    "data/v 2/\u00fc \U0001f600": b"x",
    "data/.hidden": b"y",
    "data/-rf": b"z",
}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "model")


@pytest.fixture
def source(repo: Repo, tmp_path: Path) -> GitSource:
    return GitSource(repo.url, tmp_path / "cache", LOCAL)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


def on_disk(root: Path) -> dict[str, Content]:
    """Every file and link below a folder."""
    found: dict[str, Content] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = Link(os.readlink(path))
        elif path.is_file():
            executable = path.stat().st_mode & 0o111 != 0
            found[name] = Executable(path.read_bytes()) if executable else path.read_bytes()
    return found


def leftovers(store_root: Path) -> list[Path]:
    return list(store_root.iterdir()) if store_root.exists() else []


class Altered:
    """A source that does something of its own when bytes are read."""

    def __init__(self, source: Source, on_piece: Callable[[bytes], bytes]) -> None:
        self._source = source
        self._on_piece = on_piece
        self.tree, self.refs, self.resolve, self.test = source.tree, source.refs, source.resolve, source.test

    def blobs(
        self, project: str, commit: str, entries: Sequence[TreeEntry], job: Job
    ) -> Generator[tuple[TreeEntry, bytes], None, None]:
        for entry, piece in self._source.blobs(project, commit, entries, job):
            yield entry, self._on_piece(piece)


def test_a_snapshot_has_the_bytes_of_the_commit_whatever_its_attributes_say(
    repo: Repo, source: GitSource, store: SnapshotStore
) -> None:
    snapshot = store.take(source, "", repo.commit(FILES), Selection(), Job())
    assert on_disk(snapshot.root) == FILES
    for file in snapshot.files:
        if file.kind is not EntryKind.LINK:
            assert repo.blob((snapshot.root / file.path).read_bytes()) == repo.git("rev-parse", f"main:{file.path}")


def test_a_snapshot_says_what_it_holds(repo: Repo, source: GitSource, store: SnapshotStore) -> None:
    snapshot = store.take(source, "", repo.commit(FILES), Selection(), Job())
    files = {file.path: file for file in snapshot.files}
    assert list(files) == sorted(FILES)
    assert files["weights.bin"].size == 2560
    assert files["weights.bin"].sha256 == hashlib.sha256(bytes(range(256)) * 10).hexdigest()
    assert (files["run.sh"].executable, files["main.py"].executable) == (True, False)
    assert (files["latest"].kind, files["latest"].link_target) == (EntryKind.LINK, "data/v 2")
    assert snapshot.total_bytes == sum((snapshot.root / path).lstat().st_size for path in FILES)
    assert store.find(snapshot.digest) == snapshot
    assert store.read_manifest(snapshot.digest) == snapshot.files
    assert store.verify(snapshot.digest) == []


def test_modes_are_those_of_git_whatever_the_umask(repo: Repo, source: GitSource, store: SnapshotStore) -> None:
    commit = repo.commit(FILES)
    before = os.umask(0o077)
    try:
        root = store.take(source, "", commit, Selection(), Job()).root
    finally:
        os.umask(before)
    modes = {str(path.relative_to(root)): path.lstat().st_mode & 0o777 for path in root.rglob("*")}
    assert (modes["main.py"], modes["run.sh"], modes["data"]) == (0o644, 0o755, 0o755)


def test_the_digest_is_of_the_files_and_of_nothing_else(repo: Repo, source: GitSource, store: SnapshotStore) -> None:
    def digest(files: dict[str, Content], directory: str = "") -> str:
        return store.take(source, "", repo.commit(files), Selection(directory), Job()).digest

    one = digest(FILES)
    assert digest(FILES) == one
    assert digest({f"moved/{path}": content for path, content in FILES.items()}, "moved") == one
    others = [
        digest({**FILES, "main.py": b"print(3)\n"}),
        digest({**FILES, "run.sh": b"#!/bin/sh\n"}),
        digest({**FILES, "latest": Link("data")}),
        digest({**FILES, "latest": b"data/v 2"}),
        digest({**FILES, "more": b""}),
    ]
    assert len({one, *others}) == 6


def test_only_what_is_selected_is_taken(repo: Repo, source: GitSource, store: SnapshotStore) -> None:
    commit = repo.commit({
        "credit/main.py": b"1", "credit/lib/a.py": b"2", "credit/notes.txt": b"3", "credit/modelhost.toml": b"4",
        "vendor": Submodule(), "fraud/main.py": b"5",
    })  # fmt: skip
    snapshot = store.take(source, "", commit, Selection("credit", ("lib", "main.py")), Job())
    assert on_disk(snapshot.root) == {"main.py": b"1", "lib/a.py": b"2", "modelhost.toml": b"4"}
    with pytest.raises(NotFound, match=r'"libs"; is "lib" meant'):
        store.take(source, "", commit, Selection("credit", ("libs",)), Job())
    with pytest.raises(Conflict, match='"vendor" is a submodule'):
        store.take(source, "", commit, Selection(), Job())


# Hostile trees

BLOB, INNER, TARGET = "blob", "inner tree", "link target"


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("100644", b"..", BLOB)], r"`\.\.`"),
        ([("40000", b"..", INNER)], r"`\.\.`"),
        ([("100644", b"../../proof", BLOB)], r"`\.\.`"),
        ([("100644", b"/tmp/proof", BLOB)], "absolute"),
        ([("40000", b".git", INNER)], r"\.git"),
        ([("40000", b".GIT", INNER)], r"\.git"),
        ([("40000", b"git~1", INNER)], r"\.git"),
        ([("100644", b"a\nb", BLOB)], "control"),
        ([("100644", b"x" * 300, BLOB)], "255"),
        ([("100644", b"a", BLOB), ("100644", b"a", BLOB)], "twice"),
        ([("100644", b"a", BLOB), ("40000", b"a", INNER)], "both a file and a directory"),
        ([("120000", b"a", TARGET), ("40000", b"a", INNER)], "both a file and a directory"),
        ([("120000", b"a", TARGET), ("100644", b"a/inside", BLOB)], "both a file and a directory"),
        ([("120000", b"a", TARGET)], 'the link "a" to "/tmp" leads to an absolute path'),
        ([("160000", b"a", BLOB)], "submodule"),
        ([("120000", b"a", INNER)], "Git"),
        ([("100644", b"", BLOB)], "Git"),
        ([("100644", b"x" * 70_000, BLOB)], "longer than"),
    ],
)
def test_hostile_trees_are_refused_and_leave_nothing(
    repo: Repo,
    source: GitSource,
    store: SnapshotStore,
    tmp_path: Path,
    entries: list[tuple[str, bytes, str]],
    problem: str,
) -> None:
    objects = {BLOB: repo.blob(b"x"), TARGET: repo.blob(b"/tmp")}
    objects[INNER] = repo.tree([("100644", b"inside", objects[BLOB])])
    commit = repo.commit_tree(repo.tree([(mode, name, objects[which]) for mode, name, which in entries]))
    with pytest.raises(DomainError, match=problem):
        store.take(source, "", commit, Selection(), Job())
    assert leftovers(tmp_path / "snapshots") == []
    assert not list(tmp_path.rglob("proof"))


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        ({"l": Link("main.py")}, ""),
        ({"a/b/l": Link("../../main.py")}, ""),
        ({"l": Link("not/there")}, ""),
        ({"l": Link("../main.py")}, "out of the deployed directory"),
        ({"a/l": Link("../../outside")}, "out of the deployed directory"),
        ({"l": Link("/etc/passwd")}, "absolute"),
        ({"l": Link("m"), "m": Link("l")}, "circle"),
        ({"a/up": Link(".."), "l": Link("a/up/../outside")}, "out of the deployed directory"),
        ({"l": Link("x" * 5_000)}, "longer than"),
    ],
)
def test_links_may_lead_anywhere_inside_and_nowhere_else(
    repo: Repo, source: GitSource, store: SnapshotStore, files: dict[str, Content], refused: str
) -> None:
    inside: dict[str, Content] = {"main.py": b"", **files}
    commit = repo.commit({f"model/{path}": content for path, content in inside.items()} | {"outside": b"secret"})
    if not refused:
        assert on_disk(store.take(source, "", commit, Selection("model"), Job()).root) == inside
        return
    with pytest.raises(Conflict, match=refused) as refusal:
        store.take(source, "", commit, Selection("model"), Job())
    assert refusal.value.reason == ErrorReason.ERROR_REASON_PATH_REFUSED


def test_a_git_lfs_pointer_is_refused_and_leaves_nothing(
    repo: Repo, source: GitSource, store: SnapshotStore, tmp_path: Path
) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
    with pytest.raises(Conflict, match=r'"weights\.bin" is a Git LFS pointer'):
        store.take(source, "", repo.commit({"a": b"", "weights.bin": pointer}), Selection(), Job())
    assert leftovers(tmp_path / "snapshots") == []


# Limits


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (SnapshotLimits(max_bytes=99), 'have 100 bytes or more; the limit is 99, the largest is "large" with 90'),
        (SnapshotLimits(max_files=3), "4 files and folders are selected; the limit is 3"),
    ],
)
def test_a_selection_beyond_the_limits_is_refused_before_a_byte_is_read(
    repo: Repo, source: GitSource, tmp_path: Path, limits: SnapshotLimits, message: str
) -> None:
    commit = repo.commit({"large": b"x" * 90, "small": b"y" * 10, "folder/empty": b""})

    def unexpected(piece: bytes) -> bytes:
        raise AssertionError("a byte was read")

    store = SnapshotStore(tmp_path / "snapshots", limits)
    with pytest.raises(Conflict) as refusal:
        store.take(Altered(source, unexpected), "", commit, Selection(), Job())
    assert refusal.value.reason == ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE
    assert message in refusal.value.message
    assert leftovers(tmp_path / "snapshots") == []


def test_a_selection_at_the_limits_is_taken(repo: Repo, source: GitSource, tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshots", SnapshotLimits(max_bytes=100, max_files=4))
    commit = repo.commit({"large": b"x" * 90, "small": b"y" * 10, "folder/empty": b""})
    assert store.take(source, "", commit, Selection(), Job()).total_bytes == 100


def test_bytes_beyond_what_the_tree_said_are_counted_too(repo: Repo, source: GitSource, tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshots", SnapshotLimits(max_bytes=100))
    commit = repo.commit({"a": b"x" * 90})
    with pytest.raises(Conflict, match="the limit is 100"):
        store.take(Altered(source, lambda piece: piece * 2), "", commit, Selection(), Job())
    assert leftovers(tmp_path / "snapshots") == []


# Whole or not at all


def test_a_take_that_is_cancelled_leaves_nothing(
    repo: Repo, source: GitSource, store: SnapshotStore, tmp_path: Path
) -> None:
    commit = repo.commit(FILES)
    job = Job()

    def cancel(piece: bytes) -> bytes:
        job.cancel()
        return piece

    with pytest.raises(Cancelled):
        store.take(Altered(source, cancel), "", commit, Selection(), job)
    assert leftovers(tmp_path / "snapshots") == []


def test_a_take_that_fails_midway_leaves_nothing(
    repo: Repo, source: GitSource, store: SnapshotStore, tmp_path: Path
) -> None:
    def fail(piece: bytes) -> bytes:
        if piece == b"z":
            raise OSError("no space left")
        return piece

    with pytest.raises(OSError, match="no space"):
        store.take(Altered(source, fail), "", repo.commit(FILES), Selection(), Job())
    assert leftovers(tmp_path / "snapshots") == []


def test_takes_of_one_commit_at_once_are_one_snapshot(
    repo: Repo, source: GitSource, store: SnapshotStore, tmp_path: Path
) -> None:
    commit = repo.commit(FILES)
    source.tree("", commit, Job())  # it is fetched: who waits to fetch it too would wait for the others to have read it
    meeting = threading.Barrier(4)
    taken: list[Snapshot] = []

    def meet(piece: bytes) -> bytes:
        if piece == b"z":
            meeting.wait(30)
        return piece

    def take() -> None:
        taken.append(store.take(Altered(source, meet), "", commit, Selection(), Job()))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 4
    assert len(set(taken)) == 1
    assert [path.name for path in leftovers(tmp_path / "snapshots")] == [taken[0].digest]
    assert store.verify(taken[0].digest) == []


def test_a_snapshot_with_a_damaged_manifest_is_not_found_and_is_replaced(
    repo: Repo, source: GitSource, store: SnapshotStore
) -> None:
    commit = repo.commit(FILES)
    snapshot = store.take(source, "", commit, Selection(), Job())
    (snapshot.root.parent / "manifest.json").write_bytes(b"")
    assert store.find(snapshot.digest) is None
    assert store.verify(snapshot.digest)
    assert store.take(source, "", commit, Selection(), Job()) == snapshot
    assert store.verify(snapshot.digest) == []


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda root: (root / "main.py").write_bytes(b"print(1)\nprint(3)\r\n"), '"main.py" has other bytes'),
        (lambda root: _append(root / "weights.bin"), '"weights.bin" has 2561 bytes, not 2560'),
        (lambda root: (root / "empty").unlink(), '"empty" cannot be read: No such file'),
        (lambda root: (root / "main.py").chmod(0o755), '"main.py" has the wrong mode'),
        (lambda root: (root / "run.sh").chmod(0o644), '"run.sh" has the wrong mode'),
        (lambda root: ((root / "latest").unlink(), (root / "latest").symlink_to("/etc")), '"latest" is not that link'),
        (lambda root: ((root / "empty").unlink(), (root / "empty").mkdir()), '"empty" is not a file'),
        (lambda root: (root / "data" / "more").write_bytes(b""), '"data/more" does not belong to it'),
        (lambda root: (root / "folder").mkdir(), '"folder" does not belong to it'),
    ],
)
def test_every_damage_is_found(
    repo: Repo, source: GitSource, store: SnapshotStore, damage: Callable[[Path], object], problem: str
) -> None:
    snapshot = store.take(source, "", repo.commit(FILES), Selection(), Job())
    damage(snapshot.root)
    (found,) = store.verify(snapshot.digest)
    assert problem in found


def test_what_is_not_there_is_not_found(store: SnapshotStore) -> None:
    absent = "0" * 64
    assert store.find(absent) is None
    assert store.verify(absent)
    store.remove(absent)
    store.sweep()
    with pytest.raises(FileNotFoundError):
        store.read_manifest(absent)


@pytest.mark.parametrize("digest", ["", "..", "../" * 20, "a" * 63, "A" * 64, "g" * 64])
def test_what_is_no_digest_is_no_path(store: SnapshotStore, digest: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        store.remove(digest)


# Copies


def test_a_copy_is_whole_writable_and_independent(
    repo: Repo, source: GitSource, store: SnapshotStore, tmp_path: Path
) -> None:
    snapshot = store.take(source, "", repo.commit(FILES), Selection(), Job())
    copy = tmp_path / "worker"
    store.copy_to(snapshot.digest, copy)
    assert on_disk(copy) == FILES
    for path in copy.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.stat().st_nlink == 1
            path.write_bytes(b"changed by the model")
    (copy / "data" / "new").write_bytes(b"")
    (copy / "latest").unlink()
    assert store.verify(snapshot.digest) == []


def test_a_copy_never_goes_over_something_else(
    repo: Repo, source: GitSource, store: SnapshotStore, tmp_path: Path
) -> None:
    snapshot = store.take(source, "", repo.commit(FILES), Selection(), Job())
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "mine").write_bytes(b"")
    with pytest.raises(FileExistsError):
        store.copy_to(snapshot.digest, tmp_path / "worker")
    assert on_disk(tmp_path / "worker") == {"mine": b""}


def test_a_copy_of_a_damaged_snapshot_fails_and_leaves_nothing(
    repo: Repo, source: GitSource, store: SnapshotStore, tmp_path: Path
) -> None:
    snapshot = store.take(source, "", repo.commit(FILES), Selection(), Job())
    _append(snapshot.root / "weights.bin")
    with pytest.raises(ValueError, match=r"weights\.bin"):
        store.copy_to(snapshot.digest, tmp_path / "worker")
    assert not (tmp_path / "worker").exists()


# Removal


def test_a_removed_snapshot_is_gone_and_can_be_taken_again(
    repo: Repo, source: GitSource, store: SnapshotStore, tmp_path: Path
) -> None:
    commit = repo.commit(FILES)
    snapshot = store.take(source, "", commit, Selection(), Job())
    store.remove(snapshot.digest)
    assert leftovers(tmp_path / "snapshots") == []
    assert store.take(source, "", commit, Selection(), Job()) == snapshot


def test_the_sweep_removes_what_was_left_half_done_and_nothing_else(
    repo: Repo, source: GitSource, store: SnapshotStore, tmp_path: Path
) -> None:
    snapshot = store.take(source, "", repo.commit(FILES), Selection(), Job())
    half = tmp_path / "snapshots" / ".tmp-0123"
    (half / "files" / "deep").mkdir(parents=True)
    (half / "files" / "deep" / "main.py").write_bytes(b"")
    store.sweep()
    assert [path.name for path in leftovers(tmp_path / "snapshots")] == [snapshot.digest]
    assert store.verify(snapshot.digest) == []
