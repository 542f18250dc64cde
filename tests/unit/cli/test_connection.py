"""How the command finds the server, and is let in."""

import grpc
import pytest

from modelhost.cli import connection
from modelhost.client import address
from modelhost.client.local import Tls, publish, registry_dir
from tests import tls_files
from tests.unit.client.fake_server import TOKEN, Code, running


def test_on_the_servers_own_host_the_token_is_found(server, run, tmp_path):
    token_file = tmp_path / "admin.token"
    token_file.touch(mode=0o600)
    token_file.write_text(TOKEN + "\n")
    publish(server.address, token_file)
    assert run("list", "--address", server.address).code == 0


def test_a_token_file_comes_before_all_else(server, run, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELHOST_TOKEN", "wrong")
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    assert run("list", "--address", server.address, "--token-file", str(token_file)).code == 0


def test_a_token_in_the_environment_will_do(server, run, monkeypatch):
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    assert run("list", "--address", server.address).code == 0


def test_the_default_address_is_the_clients():
    assert connection.DEFAULT_ADDRESS == address.DEFAULT_ADDRESS


def test_no_token_says_where_there_is_one(server, run):
    result = run("list", "--address", server.address)
    assert result.code == 6
    assert f"error: the server at {server.address} wants a token, and none was found" in result.err
    assert "hint: the admin token is `admin.token` in the server's state directory" in result.err


def test_a_wrong_token_says_where_it_came_from(server, run, tmp_path, monkeypatch):
    token_file = tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text("wrong")
    assert (
        f"does not take the token in {token_file}"
        in run("list", "--address", server.address, "--token-file", str(token_file)).err
    )
    publish(server.address, token_file)
    assert "does not take the token that it published" in run("list", "--address", server.address).err
    monkeypatch.setenv("MODELHOST_TOKEN", "wrong")
    result = run("list", "--address", server.address, "--json")
    assert "does not take the token in MODELHOST_TOKEN" in result.error["message"]
    assert result.error["reason"] == "UNAUTHENTICATED"


def test_a_registry_that_is_open_to_others_is_refused(server, run, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    publish(server.address, token_file)
    registry_dir().chmod(0o777)
    result = run("list", "--address", server.address)
    assert result.code == 6
    assert "the token is not safe to use" in result.err
    assert server.calls == []


def test_a_file_that_cannot_be_read_is_said(server, run):
    assert "error: cannot read /nope: No such file" in run("list", "--token-file", "/nope").err
    assert "error: cannot read /nope: No such file" in run("list", "--ca-file", "/nope").err


def test_tls_with_a_server_that_speaks_none_is_said(server, run):
    result = run("list", "--address", f"https://{server.address}")
    assert result.code == 5
    assert f"the server at {server.address} speaks no TLS" in result.err
    assert "hint: leave out https://" in result.err


def test_a_token_that_has_expired_is_told_from_one_that_is_not_known(server, run, monkeypatch):
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    server.refuse("ListDeployments", Code.UNAUTHENTICATED, "it has expired; get another", "TOKEN_EXPIRED")
    result = run("list", "--address", server.address)
    assert result.code == 6
    assert "error: the token in MODELHOST_TOKEN has expired\nhint: `modelhost account token` gets another" in result.err


# ---- TLS


@pytest.fixture
def tls(tmp_path):
    return tls_files.Tls(tmp_path / "tls", "models.example.com")


@pytest.fixture
def encrypted(tls):
    """A server whose certificate is for another name than the one it is reached by."""
    pair = [(tls.key.read_bytes(), tls.certificate.read_bytes())]
    with running(credentials=grpc.ssl_server_credentials(pair)) as fake:
        yield fake


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "admin.token"
    path.touch(mode=0o600)
    path.write_text(TOKEN + "\n")
    return path


def test_on_the_servers_own_host_its_certificate_is_found_too(encrypted, tls, run, token_file, monkeypatch):
    publish(encrypted.address, token_file, Tls(tls.certificate, "models.example.com"))
    assert run("list", "--address", encrypted.address).code == 0
    assert run("list", "--address", encrypted.address, "--token-file", str(token_file)).code == 0
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    assert run("list", "--address", encrypted.address).code == 0


def test_whoever_says_whom_to_trust_gets_that(encrypted, tls, run, token_file):
    publish(encrypted.address, token_file, Tls(tls.certificate, "models.example.com"))
    result = run("list", "--address", encrypted.address, "--ca-file", str(tls.ca_file))
    assert result.code == 5
    assert f"the certificate of the server at {encrypted.address} is made out to other names" in result.err
    assert "cannot be trusted" in run("list", "--address", f"https://{encrypted.address}").err


def test_another_server_at_the_published_address_does_not_get_the_token(encrypted, run, token_file, tmp_path):
    other = tls_files.Tls(tmp_path / "other", "models.example.com")
    publish(encrypted.address, token_file, Tls(other.certificate, "models.example.com"))
    result = run("list", "--address", encrypted.address)
    assert result.code == 5
    assert "cannot be trusted" in result.err
    assert encrypted.calls == []


def test_a_published_certificate_that_is_not_safe_is_refused(encrypted, tls, run, token_file):
    publish(encrypted.address, token_file, Tls(tls.certificate, "models.example.com"))
    tls.certificate.chmod(0o666)
    result = run("list", "--address", encrypted.address)
    assert result.code == 2
    assert f"error: the server at {encrypted.address} speaks TLS, and its certificate is not safe to use" in result.err
    assert "hint: begin the address with https://, and name its authority with --ca-file" in result.err


def test_a_server_elsewhere_that_speaks_tls_is_recognised(encrypted, run, monkeypatch):
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    result = run("list", "--address", encrypted.address)
    assert result.code == 5
    assert "closed the connection at once, as one does that speaks TLS" in result.err
    assert "hint: for TLS begin the address with https://, and name the server's authority: --ca-file" in result.err


def test_a_server_that_wants_certificates_of_its_clients_gets_one(run, tmp_path, monkeypatch):
    tls = tls_files.Tls(tmp_path / "tls")
    pair = [(tls.key.read_bytes(), tls.certificate.read_bytes())]
    certificate, key = tls.client("alice")
    (tmp_path / "alice.pem").write_bytes(certificate)
    (tmp_path / "alice.key").write_bytes(key)
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    monkeypatch.setenv("MODELHOST_CA_FILE", str(tls.ca_file))
    with running(credentials=grpc.ssl_server_credentials(pair, tls.ca, True)) as fake:
        without = run("list", "--address", fake.address)
        monkeypatch.setenv("MODELHOST_CLIENT_CERT", str(tmp_path / "alice.pem"))
        half = run("list", "--address", fake.address)
        given = run("list", "--address", fake.address, "--client-key", str(tmp_path / "alice.key"))
    assert without.code == 5
    assert "hint: give one of its authority: --client-cert and --client-key" in without.err
    assert half.code == 2
    assert "--client-cert and --client-key go together" in half.err
    assert given.code == 0
