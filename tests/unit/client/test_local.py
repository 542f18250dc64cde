"""Finding the admin token on the server's own host."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelhost.client import local
from modelhost.client.local import Tls, find_server, find_token, publish, registry_dir, withdraw


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A login session's directory, and in place of /tmp one of the test's own."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setattr(local, "_SHARED", tmp_path)
    return directory


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "admin.token"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    return path


def test_a_published_server_is_found(token_file):
    path = publish("127.0.0.1:8470", token_file)
    assert find_token("127.0.0.1:8470") == "s3cret"
    assert find_token("localhost:8470") == "s3cret"
    assert path == registry_dir() / "8470.json"


def test_what_is_published_is_for_the_user_alone(token_file):
    path = publish("127.0.0.1:8470", token_file)
    assert path.stat().st_mode & 0o777 == 0o600
    assert registry_dir().stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_text()) == {
        "address": "127.0.0.1:8470",
        "token_file": str(token_file),
        "pid": os.getpid(),
    }
    assert [entry.name for entry in registry_dir().iterdir()] == ["8470.json"]


@pytest.mark.parametrize("runtime", ["", "relative", "/nowhere/at/all"])
def test_without_a_session_the_directory_is_in_tmp(tmp_path, monkeypatch, runtime):
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert registry_dir() == tmp_path / f"modelhost-{os.geteuid()}"


def test_the_session_directory_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert registry_dir() == tmp_path / "modelhost-54321"


def test_a_server_without_a_session_is_found_from_within_one(token_file, runtime_dir, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    publish("127.0.0.1:8470", token_file)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_dir))
    assert find_token("127.0.0.1:8470") == "s3cret"


def test_no_server_no_token(token_file):
    assert find_token("127.0.0.1:8470") is None
    publish("127.0.0.1:8471", token_file)
    assert find_token("127.0.0.1:8470") is None


def test_a_server_on_all_addresses_is_found_on_loopback(token_file):
    publish("0.0.0.0:8470", token_file)
    assert find_token("127.0.0.1:8470") == "s3cret"


def test_a_server_on_another_address_only_is_not(token_file):
    publish("10.0.0.5:8470", token_file)
    assert find_token("127.0.0.1:8470") is None


def test_a_token_is_never_sent_to_another_host(token_file):
    publish("0.0.0.0:8470", token_file)
    assert find_token("10.0.0.5:8470") is None


def test_a_withdrawn_server_is_not_found(token_file):
    publish("127.0.0.1:8470", token_file)
    withdraw(8470)
    assert find_token("127.0.0.1:8470") is None
    assert list(registry_dir().iterdir()) == []


def test_withdrawing_what_is_not_there_is_fine():
    withdraw(8470)


def test_a_successors_entry_is_not_withdrawn(token_file):
    path = publish("127.0.0.1:8470", token_file)
    entry = json.loads(path.read_text())
    path.write_text(json.dumps({**entry, "pid": os.getppid()}))
    withdraw(8470)
    assert path.exists()


def test_what_a_dead_server_left_behind_is_not_used(token_file):
    path = publish("127.0.0.1:8470", token_file)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": dead.pid}))
    assert find_token("127.0.0.1:8470") is None


@pytest.mark.parametrize("content", ["", "no json", "[]", "{}", '{"address": 1, "pid": "x", "token_file": ""}'])
def test_a_broken_entry_is_no_entry(token_file, content):
    publish("127.0.0.1:8470", token_file).write_text(content)
    assert find_token("127.0.0.1:8470") is None


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    path.write_text("PEM")
    path.chmod(0o644)
    return path


def test_what_to_trust_is_published_with_a_server_that_speaks_tls(token_file, certificate):
    publish("127.0.0.1:8470", token_file, Tls(certificate, "models.example.com"))
    publish("127.0.0.1:8471", token_file)
    found = find_server("localhost:8470")
    assert (found.token(), found.tls.root_certificates(), found.tls.name) == ("s3cret", b"PEM", "models.example.com")
    assert find_token("127.0.0.1:8470") == "s3cret"
    assert find_server("127.0.0.1:8471").tls is None


def test_a_link_to_the_certificate_is_followed_when_it_is_read(token_file, certificate, tmp_path):
    link = tmp_path / "current.pem"
    link.symlink_to(certificate)
    publish("127.0.0.1:8470", token_file, Tls(link))
    link.unlink()
    link.write_text("another")
    assert find_server("127.0.0.1:8470").tls.root_certificates() == b"another"


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_certificate_that_others_can_write_is_not_trusted(token_file, certificate, mode):
    publish("127.0.0.1:8470", token_file, Tls(certificate))
    certificate.chmod(mode)
    with pytest.raises(PermissionError, match=r"server\.pem can be written by other users \(mode 06"):
        find_server("127.0.0.1:8470").tls.root_certificates()


def test_nor_is_one_of_another_user(token_file, certificate, monkeypatch):
    found = Tls(certificate)
    if os.geteuid() == 0:
        os.chown(certificate, 54321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(PermissionError, match=r"server\.pem belongs to uid \d+, not to root or us"):
        found.root_certificates()


def test_a_token_file_that_is_gone_is_no_token(token_file):
    publish("127.0.0.1:8470", token_file)
    token_file.unlink()
    assert find_token("127.0.0.1:8470") is None


def test_a_directory_that_others_can_read_is_refused(token_file):
    publish("127.0.0.1:8470", token_file)
    registry_dir().chmod(0o755)
    with pytest.raises(PermissionError, match=r"open to other users \(mode 0755\)"):
        find_token("127.0.0.1:8470")
    with pytest.raises(PermissionError, match="open to other users"):
        publish("127.0.0.1:8470", token_file)


def test_a_directory_of_another_user_is_refused(tmp_path, monkeypatch):
    (tmp_path / "modelhost-54321").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(PermissionError, match=r"belongs to uid \d+, not to us \(uid 54321\)"):
        find_token("127.0.0.1:8470")


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_in_place_of_the_directory_is_refused(token_file, tmp_path, exists):
    elsewhere = tmp_path / "elsewhere"
    if exists:
        elsewhere.mkdir(mode=0o700)
    registry_dir().symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="is a link or a file"):
        find_token("127.0.0.1:8470")
    with pytest.raises(PermissionError, match="is a link or a file"):
        publish("127.0.0.1:8470", token_file)


def test_a_token_that_others_can_read_is_refused(token_file):
    publish("127.0.0.1:8470", token_file)
    token_file.chmod(0o644)
    with pytest.raises(PermissionError, match=r"admin\.token is open to other users"):
        find_token("127.0.0.1:8470")
