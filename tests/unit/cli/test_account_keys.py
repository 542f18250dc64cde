"""The keys of service accounts, and the tokens that they get."""

import io

import pytest


@pytest.fixture
def shop(server):
    return server.add_account("shop")


@pytest.fixture
def keys(shop, monkeypatch):
    """Both keys are in the environment."""
    monkeypatch.setenv("MODELHOST_ACCESS_KEY", "ak-shop")
    monkeypatch.setenv("MODELHOST_SECRET_KEY", "secret-of-shop")


def test_a_new_secret_key_leaves_the_former_a_day(server, cli, shop):
    result = cli("account", "rotate", "shop")
    assert result.out.splitlines() == [
        "service account shop has a new secret key",
        "access key  ak-shop",
        "secret key  secret-of-shop-rotated",
    ]
    assert "The secret key is shown this once and never again: keep it now." in result.err
    assert "note: the former key works until 2026-11-29 10:00:00" in result.err
    assert not server.requests("RotateServiceAccountSecret")[0].HasField("overlap")


def test_a_former_key_can_be_left_longer_or_not_at_all(server, cli, shop):
    cli("account", "rotate", "shop", "--overlap", "7d", "--expires", "90d")
    result = cli("account", "rotate", "shop", "--now")
    longer, at_once = server.requests("RotateServiceAccountSecret")
    assert (longer.overlap.seconds, longer.secret_lifetime.seconds) == (7 * 86400, 90 * 86400)
    assert at_once.HasField("overlap")
    assert at_once.overlap.seconds == 0
    assert "note: no former key works any more" in result.err


def test_now_and_later_exclude_each_other(server, cli, shop):
    assert cli("account", "rotate", "shop", "--now", "--overlap", "1h").code == 2
    assert server.calls == []


def test_a_new_secret_key_can_go_into_a_file(cli, shop, tmp_path):
    result = cli("account", "rotate", "shop", "--secret-file", str(tmp_path / "s"), "--json")
    assert result.document["secret_key"] == ""
    assert (tmp_path / "s").read_text() == "secret-of-shop-rotated\n"


def test_an_api_key_is_made_and_shown_this_once(server, cli, shop):
    result = cli("account", "key", "shop", "--description", "the dashboard", "--expires", "30d")
    assert result.out.splitlines() == ["API key serviceAccounts/shop/apiKeys/1 made", "API key  key-of-shop"]
    assert "The API key is shown this once and never again: keep it now." in result.err
    [request] = server.requests("CreateApiKey")
    assert (request.description, request.lifetime.seconds) == ("the dashboard", 30 * 86400)


def test_an_api_key_can_go_into_a_file_that_the_command_takes_as_its_token(cli, shop, tmp_path):
    result = cli("account", "key", "shop", "--key-file", str(tmp_path / "key"))
    assert "key-of-shop" not in result.out + result.err
    assert (tmp_path / "key").read_text() == "key-of-shop\n"
    assert cli("account", "key", "shop", "--json").document["key"] == "key-of-shop"


@pytest.mark.parametrize("name", ["serviceAccounts/shop/apiKeys/1", "shop/1"])
def test_an_api_key_is_deleted(server, cli, shop, name):
    cli("account", "key", "shop")
    assert cli("account", "delete-key", name).out == "API key serviceAccounts/shop/apiKeys/1 deleted\n"
    assert list(shop.api_keys) == []
    assert cli("account", "delete-key", name).code == 3


def test_a_token_and_nothing_else_is_printed(server, cli, keys):
    result = cli("account", "token")
    assert (result.code, result.out, result.err) == (0, "token-1-of-shop\n", "")
    assert "token-1-of-shop" in server.tokens


def test_a_token_opens_what_the_account_may_call(server, run, cli, keys, tmp_path):
    (tmp_path / "token").write_text(cli("account", "token").out)
    assert cli("predict", "churn", "1", "--token-file", str(tmp_path / "token")).out == "1\n"


def test_with_json_it_is_said_when_the_token_ends(cli, keys):
    document = cli("account", "token", "--json").document
    assert document.keys() == {"token", "expire_time"}
    assert document["expire_time"].endswith("Z")


def test_getting_a_token_shows_the_server_no_other(server, run, shop, monkeypatch):
    """It is what an application does on a host where nobody is admin."""
    monkeypatch.setenv("MODELHOST_SECRET_KEY", "secret-of-shop")
    monkeypatch.setenv("MODELHOST_TOKEN_FILE", "/nope")
    assert run("account", "token", "--access-key", "ak-shop", "--address", server.address).code == 0


def test_the_secret_key_comes_from_a_file_before_a_variable_before_a_pipe(server, cli, keys, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong\n"))
    assert cli("account", "token").code == 0
    (tmp_path / "wrong").write_text("wrong\n")
    assert cli("account", "token", "--secret-key-file", str(tmp_path / "wrong")).code == 6
    monkeypatch.delenv("MODELHOST_SECRET_KEY")
    monkeypatch.setattr("sys.stdin", io.StringIO("secret-of-shop\n"))
    assert cli("account", "token").code == 0


def test_the_secret_key_is_asked_for_on_a_terminal_and_not_shown(server, shop, terminal):
    command = terminal("account", "token", "--access-key", "ak-shop")
    command.wait_for("The secret key (it is not shown): ")
    command.type("secret-of-shop\n")
    code, shown = command.finish()
    assert code == 0
    assert "secret-of-shop" not in shown
    assert "token-1-of-shop" in shown


def test_there_is_no_option_for_the_secret_key(server, cli, shop):
    assert cli("account", "token", "--access-key", "ak-shop", "--secret-key", "secret-of-shop").code == 2
    assert server.calls == []


def test_without_keys_nothing_is_asked(server, cli, shop, monkeypatch):
    assert "error: there is no access key" in cli("account", "token").err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    result = cli("account", "token", "--access-key", "ak-shop")
    assert (result.code, server.calls) == (2, [])
    assert "error: there is no secret key in stdin" in result.err


def test_what_is_no_key_is_not_repeated(server, cli, shop, monkeypatch):
    monkeypatch.setenv("MODELHOST_SECRET_KEY", "hüsh")
    result = cli("account", "token", "--access-key", "ak-shop")
    assert (result.code, server.calls) == (2, [])
    assert "hüsh" not in result.err


def test_keys_that_the_server_refuses_are_6_and_say_what_to_look_at(server, cli, keys):
    server.accounts["shop"].disabled = True
    result = cli("account", "token")
    assert result.code == 6
    assert f"error: the server at {server.address} gives no token for these keys" in result.err
    assert "hint: are access key and secret key of the same account, is it enabled" in result.err
    assert cli("account", "token", "--json").error["reason"] == "UNAUTHENTICATED"


def test_a_time_that_is_none_is_refused_before_anything_is_asked(server, cli, shop):
    for verb in ("create", "rotate", "key"):
        result = cli("account", verb, "shop", "--expires", "soon")
        assert (result.code, result.err.splitlines()[0]) == (2, "error: --expires: 'soon' is no time")
    assert server.calls == []
