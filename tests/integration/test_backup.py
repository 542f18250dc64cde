"""A backup of a running server is whole, and a state directory that is made of it is that server's."""

import errno
import fcntl
import gzip
import io
import json
import os
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from modelhost.server.backup.archive import BackupProblem
from modelhost.server.backup.restore import restore
from modelhost.server.backup.save import Saved, save
from modelhost.server.errors import reason_name
from modelhost.server.statedir import StateDir, StateDirBusy
from modelhost.server.store.database import DatabaseUnusable
from modelhost.server.store.migrations import MIGRATIONS, SchemaTooNew
from modelhost.v1 import deployment_pb2
from tests.git_repos import Repo
from tests.integration.environments.workshop import make_wheel
from tests.revisions import model, revisions
from tests.running import START_SECONDS, Deployment, RunningServer, eventually, reason_of

MEMBERS = ["backup.json", "modelhost.db", "secret.key"]


def taken(state_dir: Path, target: Path, *, with_key: bool = True, overwrite: bool = False) -> Saved:
    return save(state_dir, target, with_key=with_key, overwrite=overwrite)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state directory of a server that runs a model with a secret, and whose environment has a package."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "index").mkdir()
    make_wheel(folder / "index", "tiny", "1.0")
    repo = Repo(folder / "repo")
    code = b"import os, tiny\ndef predict(parameters):\n    return [tiny.version, os.environ['PASSWORD']]\n"
    repo.commit({"main.py": code, "requirements.txt": b"tiny\n"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder / "index"))
        with RunningServer(folder / "state") as server:
            server.add_source("models", repo)
            server.deploy("churn", "models", secret_env={"PASSWORD": "open sesame"})
            make_wheel(folder / "index", "tiny", "2.0")
            yield folder / "state"


@pytest.fixture
def backup(one: Path, tmp_path: Path) -> Path:
    taken(one, tmp_path / "backup.tar")
    return tmp_path / "backup.tar"


def change(state_dir: Path, *statements: str) -> None:
    with closing(apsw.Connection(str(state_dir / "modelhost.db"))) as connection:
        for statement in statements:
            connection.execute(statement)


def answer_when_up(server: RunningServer) -> object:
    """What the model answers, once it can be called: it is wished RUNNING from the start."""
    eventually(lambda: reason_of(lambda: server.predict("churn", 0)) == "", seconds=START_SECONDS)
    return server.predict("churn", 0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- taking one


def test_a_backup_is_one_file_for_its_owner_alone_with_three_members(one: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        saved = taken(one, tmp_path / "backup.tar")
    finally:
        os.umask(before)

    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]
    assert mode(tmp_path / "backup.tar") == 0o600
    assert saved.size == (tmp_path / "backup.tar").stat().st_size
    with tarfile.open(tmp_path / "backup.tar", "r:") as archive:
        assert archive.getnames() == MEMBERS
        described = json.load(archive.extractfile("backup.json") or io.BytesIO())
        assert {member.mode for member in archive} == {0o600}
    assert (described["format"], described["schema"]) == (1, len(MIGRATIONS))
    assert (saved.contents.deployments, saved.contents.running, saved.contents.locks) == (1, 1, 1)


def test_without_the_key_nothing_of_it_is_in_the_file(one: Path, tmp_path: Path) -> None:
    taken(one, tmp_path / "backup.tar", with_key=False)

    content = (tmp_path / "backup.tar").read_bytes()
    assert (one / "secret.key").read_bytes().strip() not in content
    assert b"open sesame" not in content
    with tarfile.open(tmp_path / "backup.tar") as archive:
        assert archive.getnames() == MEMBERS[:2]


def test_a_name_that_ends_in_gz_is_compressed(one: Path, tmp_path: Path) -> None:
    taken(one, tmp_path / "backup.tar.gz")

    assert gzip.decompress((tmp_path / "backup.tar.gz").read_bytes())
    assert restore(tmp_path / "backup.tar.gz", tmp_path / "state", None).has_key


def test_what_killed_backups_have_left_goes_with_the_next_one_and_nothing_else(one: Path, tmp_path: Path) -> None:
    left, held, others = (tmp_path / f".modelhost-backup-{name}" for name in ("abcd_123", "0123wxyz", "of-last-year"))
    for folder in (left, held, others):
        folder.mkdir()
        (folder / "secret.key").write_text("secret")
    (tmp_path / ".modelhost-backup-linklink").symlink_to(others)
    lock = os.open(held, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # its maker is at it

    taken(one, tmp_path / "backup.tar")

    assert {path.name for path in tmp_path.glob(".*")} == {held.name, others.name, ".modelhost-backup-linklink"}
    assert (others / "secret.key").exists()
    os.close(lock)
    taken(one, tmp_path / "another.tar")
    assert not held.exists()


def test_where_folders_have_no_locks_a_day_must_have_passed(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = (tmp_path / f".modelhost-backup-{name}" for name in ("abcd_123", "0123wxyz"))
    for folder in (new, old):
        folder.mkdir()
    os.utime(old, (0, 0))

    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # as NFS does

    monkeypatch.setattr(fcntl, "flock", refuse)

    taken(one, tmp_path / "backup.tar")

    assert (new.exists(), old.exists()) == (True, False)


def test_what_is_there_is_overwritten_only_if_that_is_said(one: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup.tar"
    target.write_text("precious")

    with pytest.raises(BackupProblem, match="is there already"):
        taken(one, target)
    assert target.read_text() == "precious"
    taken(one, target, overwrite=True)

    assert tarfile.is_tarfile(target)
    assert mode(target) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]


def test_where_no_server_was_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(BackupProblem, match="no state of a server in"):
        taken(tmp_path / "nowhere", tmp_path / "backup.tar")

    assert list(tmp_path.iterdir()) == []


def test_a_damaged_database_is_not_taken_for_a_backup_and_stays_as_it_is(backup: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    restore(backup, state, None)
    database = state / "modelhost.db"
    content = database.read_bytes()
    damaged = content[:8192] + b"\xab" * (len(content) - 8192)
    database.write_bytes(damaged)

    with pytest.raises(DatabaseUnusable):
        taken(state, tmp_path / "another.tar")

    assert database.read_bytes() == damaged
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "state"]


def test_backups_taken_while_a_server_writes_have_whole_transactions(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": model("one")})
    stop = threading.Event()
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)

        def write() -> None:
            number = 0
            while not stop.is_set():
                server.create(f"model-{number}", "models")
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            saved = [taken(tmp_path / "state", tmp_path / f"{number}.tar") for number in range(8)]
        finally:
            stop.set()
            writer.join()

    counts = [each.contents.deployments for each in saved]
    assert counts == sorted(counts)
    assert [each.contents.revisions for each in saved] == counts, "a deployment and its revision are one transaction"
    assert not list(tmp_path.glob(".modelhost*"))


# ---- restoring


def test_a_restored_server_runs_what_ran_with_the_same_files_packages_and_secrets(
    one: Path, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(one.parent / "index"))

    restored = restore(backup, tmp_path / "new" / "state", None)

    assert (restored.has_key, restored.contents.running) == (True, 1)
    state = tmp_path / "new" / "state"
    assert sorted(path.name for path in state.iterdir()) == ["lock", "modelhost.db", "secret.key"]
    assert {mode(path) for path in state.iterdir()} == {0o600}
    assert mode(state) == 0o700
    with closing(apsw.Connection(str(state / "modelhost.db"))) as connection:
        before = connection.execute("SELECT snapshot_digest, environment_digest FROM revisions").fetchall()
    with RunningServer(state) as server:
        assert answer_when_up(server) == ["1.0", "open sesame"]
        assert "packages that were locked" in server.build_log("churn")
        revision = revisions(server, "churn")[1]
        assert [(revision.snapshot_digest, revision.environment_digest)] == before


def test_a_directory_with_a_database_is_not_restored_to(one: Path, backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "state", None)
    before = (tmp_path / "state" / "modelhost.db").read_bytes()

    with pytest.raises(BackupProblem, match="has a database already"):
        restore(backup, tmp_path / "state", None)
    with pytest.raises(StateDirBusy):
        restore(backup, one, None)

    assert (tmp_path / "state" / "modelhost.db").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["lock", "modelhost.db", "secret.key"]


def test_what_else_lies_in_a_directory_stays(backup: Path, tmp_path: Path) -> None:
    kept = tmp_path / "state" / "environments" / "kept"
    kept.mkdir(parents=True)

    restore(backup, tmp_path / "state", None)

    assert kept.is_dir()


def test_the_log_of_a_database_that_was_moved_away_is_not_taken_for_the_restored_ones(
    backup: Path, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "modelhost.db-wal").write_bytes(b"of another")

    with pytest.raises(BackupProblem, match=r"modelhost\.db-wal"):
        restore(backup, tmp_path / "state", None)


def rewrite(path: Path, act: Callable[[dict[str, bytes]], list[tuple[tarfile.TarInfo, bytes]]]) -> None:
    """Make the archive anew of what `act` says."""
    with tarfile.open(path) as archive:
        contents = {name: (archive.extractfile(name) or io.BytesIO()).read() for name in archive.getnames()}
    with tarfile.open(path, "w") as archive:
        for member, content in act(contents):
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def plain(contents: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(tarfile.TarInfo(name), content) for name, content in contents.items()]


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member, b""


def described(contents: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    content = {**json.loads(contents["backup.json"]), **changes}
    return {**contents, "backup.json": json.dumps(content).encode()}


def of_a_newer_schema(contents: dict[str, bytes]) -> dict[str, bytes]:
    content = bytearray(contents["modelhost.db"])
    content[60:64] = (len(MIGRATIONS) + 1).to_bytes(4, "big")  # user_version
    import hashlib

    digests = json.loads(contents["backup.json"])["sha256"]
    return described(
        {**contents, "modelhost.db": bytes(content)},
        sha256={**digests, "modelhost.db": hashlib.sha256(content).hexdigest()},
    )


DAMAGES: dict[str, tuple[type[Exception], str, Callable[[Path], object]]] = {
    "empty": (BackupProblem, "no backup", lambda path: path.write_bytes(b"")),
    "something else": (BackupProblem, "no backup", lambda path: path.write_bytes(b"precious" * 1000)),
    "cut short": (BackupProblem, "damaged", lambda path: path.write_bytes(path.read_bytes()[:20_000])),
    "cut short, compressed": (
        BackupProblem,
        "damaged",
        lambda path: path.write_bytes(gzip.compress(path.read_bytes())[:3000]),
    ),
    "a byte": (
        BackupProblem,
        "modelhost.db is not what was put in",
        lambda path: path.write_bytes(path.read_bytes().replace(b"churn", b"Churn", 1)),
    ),
    "a way out": (
        BackupProblem,
        "a member that no backup has",
        lambda path: rewrite(path, lambda contents: plain({**contents, "../evil": b"x"})),
    ),
    "an absolute path": (
        BackupProblem,
        "a member that no backup has",
        lambda path: rewrite(path, lambda contents: plain({**contents, str(path.parent / "evil"): b"x"})),
    ),
    "a link": (
        BackupProblem,
        "a member that no backup has",
        lambda path: rewrite(
            path, lambda contents: [*plain(contents)[:2], link("secret.key", str(path.parent / "evil"))]
        ),
    ),
    "twice": (
        BackupProblem,
        "a member that no backup has",
        lambda path: rewrite(path, lambda contents: plain(contents) + plain(contents)),
    ),
    "no description": (
        BackupProblem,
        "there is no backup.json",
        lambda path: rewrite(path, lambda contents: plain(contents)[1:]),
    ),
    "no database": (
        BackupProblem,
        "modelhost.db is not what was put in",
        lambda path: rewrite(path, lambda contents: plain(contents)[::2]),
    ),
    "a strange description": (
        BackupProblem,
        "its backup.json says",
        lambda path: rewrite(path, lambda contents: plain({**contents, "backup.json": b'{"format": 1}'})),
    ),
    "a newer format": (
        BackupProblem,
        "has format 2",
        lambda path: rewrite(path, lambda contents: plain(described(contents, format=2))),
    ),
    "a newer schema": (
        SchemaTooNew,
        "run a newer modelhost",
        lambda path: rewrite(path, lambda contents: plain(of_a_newer_schema(contents))),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_whole_backup_is_refused_and_nothing_is_made(backup: Path, tmp_path: Path, damage: str) -> None:
    kind, words, act = DAMAGES[damage]
    act(backup)

    with pytest.raises(kind, match=words):
        restore(backup, tmp_path / "new" / "state", None)

    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]


# ---- the key


@pytest.fixture
def keyless(one: Path, tmp_path: Path) -> Path:
    taken(one, tmp_path / "keyless.tar", with_key=False)
    return tmp_path / "keyless.tar"


def test_a_key_that_was_kept_elsewhere_is_given_or_lies_there_already(one: Path, keyless: Path, tmp_path: Path) -> None:
    assert restore(keyless, tmp_path / "given", one / "secret.key").has_key
    (tmp_path / "there").mkdir()
    shutil.copy(one / "secret.key", tmp_path / "there" / "secret.key")
    assert restore(keyless, tmp_path / "there", None).has_key

    for state in ("given", "there"):
        assert (tmp_path / state / "secret.key").read_bytes() == (one / "secret.key").read_bytes()
        assert mode(tmp_path / state / "secret.key") == 0o600


def test_a_key_that_does_not_fit_is_refused(one: Path, keyless: Path, backup: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_text("A" * 43 + "=")
    (tmp_path / "no.key").write_text("no key")

    for archive in (keyless, backup):
        with pytest.raises(BackupProblem, match="is not the key of the secrets"):
            restore(archive, tmp_path / "state", other)
    with pytest.raises(ValueError, match="does not hold a key"):
        restore(keyless, tmp_path / "state", tmp_path / "no.key")
    with pytest.raises(BackupProblem, match="there is no key"):
        restore(keyless, tmp_path / "state", tmp_path / "missing.key")

    assert not (tmp_path / "state").exists()


def test_without_any_key_what_is_sealed_fails_with_its_reason_until_it_is_set_again(
    keyless: Path, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(one.parent / "index"))

    assert not restore(keyless, tmp_path / "state", None).has_key

    with RunningServer(tmp_path / "state") as server:
        failed = server.wait("churn", Deployment.STATE_FAILED)
        assert reason_name(failed.failure.reason) == "SECRET_UNREADABLE"
        assert "PASSWORD" in failed.failure.message
        assert "`modelhost update churn --secret-env VARIABLE`" in failed.failure.hint
        server.update("churn", secret_env={"PASSWORD": "set again"})
        assert server.start("churn").state == Deployment.STATE_RUNNING
        assert server.predict("churn", 0) == ["1.0", "set again"]


# ---- what is not as it was


def test_files_that_are_not_those_of_before_are_an_error(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "state", None)
    change(
        tmp_path / "state",
        f"UPDATE revisions SET snapshot_digest = '{'0' * 64}'",
        "DELETE FROM fetches",
    )

    with RunningServer(tmp_path / "state") as server:
        failed = server.wait("churn", Deployment.STATE_FAILED)

        assert reason_name(failed.failure.reason) == "SNAPSHOT_CHANGED"
        assert revisions(server, "churn")[1].snapshot_digest == "0" * 64, "what it was made of is not forgotten"


def test_another_patch_version_of_the_interpreter_is_told_and_gives_another_environment(
    one: Path, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(one.parent / "index"))
    restore(backup, tmp_path / "state", None)
    change(
        tmp_path / "state",
        "UPDATE environment_locks SET digest = 'of-another', version = '3.6.1'",
        "UPDATE revisions SET environment_digest = 'of-another', runtime_version = '3.6.1'",
    )

    with RunningServer(tmp_path / "state") as server:
        assert answer_when_up(server) == ["1.0", "open sesame"]
        assert "warning: the revision was built for python3.6 3.6.1" in server.build_log("churn")
        assert len(revisions(server, "churn")[1].environment_digest) == 64, "that of the new one is stored"


def test_a_file_left_by_a_restore_that_was_killed_is_no_hindrance(backup: Path, tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    (state.root / ".restore-12345678").mkdir()
    (state.root / ".restore-12345678" / "secret.key").write_text("secret")

    assert restore(backup, tmp_path / "state", None).has_key
    assert sorted(path.name for path in state.root.iterdir()) == ["lock", "modelhost.db", "secret.key"]


def test_deployments_keep_their_services(backup: Path, one: Path, tmp_path: Path) -> None:
    def services(state: Path) -> list[object]:
        with closing(apsw.Connection(str(state / "modelhost.db"), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            return connection.execute("SELECT id, service_id, target FROM deployments").fetchall()

    restore(backup, tmp_path / "state", None)
    with RunningServer(tmp_path / "state") as server:
        before = [("churn", server.get("churn").service.removeprefix("services/"), 1)]
        server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name="churn", force=True))

    again = tmp_path / "again"
    restore(backup, again, None)
    assert services(again) == before
