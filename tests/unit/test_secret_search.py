"""The search for secrets finds them wherever tests may leave them, fails the run, and shows none."""

import gzip
import io
import secrets
import shutil
import tarfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from modelhost.server.access.tokens import Tokens
from tests.secret_search import kinds_in, search

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]


def secret(prefix: str) -> str:
    return prefix + secrets.token_urlsafe(32)


MAKERS: dict[str, Callable[[], str]] = {
    "an operator's token": lambda: secret("mha_"),
    "a secret key": lambda: secret("mhs_"),
    "an API key": lambda: secret("mhk_"),
    "a bearer token": lambda: Tokens(lambda: b"key" * 20, lifetime=60).issue("0" * 32, "0" * 12, None)[0],
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose secrets are gone when all that is left is searched."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("kind", MAKERS)
def test_secrets_are_found_in_whatever_is_around_them(kind: str) -> None:
    made = MAKERS[kind]().encode()

    assert kinds_in(b"\0\xff" + made + b"\n") == [kind]
    assert kinds_in(b'{"authorization": "Bearer ' + made + b'"}') == [kind]


@pytest.mark.parametrize(
    "text", ["mha_wrong", "mhk_", "Bearer mhs_wrong-but-secret", "eyJhbGciOiJub25lIn0.e30.", "ak_1234"]
)
def test_what_only_begins_like_one_is_none(text: str) -> None:
    assert kinds_in(text.encode()) == []


def test_files_are_searched_wherever_they_lie_and_by_what_is_in_them(folder: Path) -> None:
    token = secret("mhk_").encode()
    (folder / "state" / "logs").mkdir(parents=True)
    (folder / "state" / "logs" / "run.jsonl").write_bytes(b"x" * 10_000 + token)
    (folder / ".draft").write_bytes(token)
    (folder / "core.1234").write_bytes(bytes(1_000_000) + token + bytes(1_000_000))
    (folder / "old.gz").write_bytes(gzip.compress(b"line\n" + token))
    (folder / "empty").touch()
    (folder / "torn.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])

    assert sorted(search(folder)) == [
        f"an API key in {folder}/{name}" for name in (".draft", "core.1234", "old.gz", "state/logs/run.jsonl")
    ]


def test_a_database_is_searched_with_what_is_only_in_its_log(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "modelhost.db"))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (text)")
    connection.execute("INSERT INTO t VALUES (?)", (secret("mha_"),))
    found = search(folder)
    connection.close()

    assert found == [f"an operator's token in {folder}/modelhost.db-wal"]


def test_where_a_secret_is_meant_to_be_it_may_be(folder: Path) -> None:
    for name in ("admin.token", ".admin.token", "viewer.token"):
        (folder / name).write_text(secret("mha_"))
    (folder / "site-packages").mkdir()
    (folder / "site-packages" / "module.py").write_text(secret("mha_"))
    (folder / "elsewhere").symlink_to(folder / "admin.token")

    assert search(folder) == []


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_servers_own_key_is_found_outside_of_its_file_and_of_backups_of_it(folder: Path, mode: str) -> None:
    key = b64encode(secrets.token_bytes(32)) + b"\n"
    (folder / "secret.key").write_bytes(key)
    for name, members in (("backup", ("secret.key", "backup.json")), ("bad-backup", ("secret.key", "notes"))):
        with tarfile.open(folder / name, mode) as archive:
            for member in members:
                data = key if member in ("secret.key", "notes") else b"{}"
                header = tarfile.TarInfo(member)
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
    assert search(folder) == [f"a server's secret.key, notes in {folder}/bad-backup"]

    (folder / "server.log").write_bytes(b"key=" + key)

    assert f"a server's secret.key in {folder}/server.log" in search(folder)


LEAKS = """
def test_leaks(tmp_path):
    (tmp_path / "server.log").write_text({token!r})
    print({token!r})
"""
NO_LEAK = """
def test_is_silent(tmp_path):
    (tmp_path / "admin.token").write_text({token!r})
"""


@pytest.mark.parametrize(
    ("code", "processes"), [(LEAKS, 0), (LEAKS, 2), (NO_LEAK, 0)], ids=["leaks", "leaks with xdist", "no leak"]
)
def test_a_run_that_leaves_a_secret_fails_and_says_where(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, code: str, processes: int
) -> None:
    token = secret("mha_")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile(code.format(token=token))

    result = pytester.runpytest_subprocess(f"-n{processes}", "-p", "no:cacheprovider", "--import-mode=importlib")

    shutil.rmtree(pytester.path)
    result.assert_outcomes(passed=1)
    assert token not in result.stdout.str()
    assert token not in result.stderr.str()
    if code == NO_LEAK:
        assert result.ret == pytest.ExitCode.OK
        return
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*secrets where none may be*",
            "an operator's token in */server.log",
            "an operator's token in the captured stdout call of *::test_leaks",
        ]
    )
