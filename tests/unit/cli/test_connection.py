"""How the command finds the server, and is let in."""

from modelhost.cli import connection
from modelhost.client import address
from modelhost.client.local import publish, registry_dir
from tests.unit.client.fake_server import TOKEN, Code


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
    assert f"no TLS with {server.address}" in result.err


def test_a_token_that_has_expired_is_told_from_one_that_is_not_known(server, run, monkeypatch):
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    server.refuse("ListDeployments", Code.UNAUTHENTICATED, "it has expired; get another", "TOKEN_EXPIRED")
    result = run("list", "--address", server.address)
    assert result.code == 6
    assert "error: the token in MODELHOST_TOKEN has expired\nhint: `modelhost account token` gets another" in result.err
