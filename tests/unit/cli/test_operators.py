"""Who looks after the server."""

import stat

import pytest

from modelhost.v1.access_pb2 import ROLE_ADMIN, ROLE_DEPLOYER, ROLE_VIEWER

WARNING = "the token expires on 2026-12-05 10:00 UTC, in 7 days: `modelhost operator rotate ada` makes another"


def test_an_operator_is_added_and_the_token_shown_this_once(server, cli):
    result = cli("operator", "add", "ada", "--role", "deployer", "--description", "Ada", "--expires", "90d")
    assert result.out.splitlines() == ["operator ada added: deployer", "token  token-of-ada"]
    assert "The token is shown this once and never again: keep it now.\n" in result.err
    [request] = server.requests("CreateOperator")
    assert (request.operator_id, request.operator.role, request.operator.description) == ("ada", ROLE_DEPLOYER, "Ada")
    assert request.token_lifetime.seconds == 90 * 86400


def test_the_token_can_go_into_a_file(cli, tmp_path):
    file = tmp_path / "ada.token"
    result = cli("operator", "add", "ada", "--role", "viewer", "--new-token-file", str(file))
    assert "token-of-ada" not in result.out + result.err
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("token-of-ada\n", 0o600)
    assert cli("operator", "add", "bob", "--role", "viewer", "--new-token-file", str(file)).code == 2


def test_the_file_for_the_new_token_is_not_the_one_with_the_commands_own(server, cli, tmp_path):
    (tmp_path / "admin.token").write_text("wrong")
    result = cli("operator", "add", "ada", "--role", "viewer", "--token-file", str(tmp_path / "admin.token"))
    assert result.code == 6
    assert server.operators == {}


def test_a_role_is_one_of_three_and_has_to_be_given(server, cli):
    assert cli("operator", "add", "ada").code == 2
    assert cli("operator", "add", "ada", "--role", "root").code == 2
    assert server.calls == []


def test_operators_are_listed(server, cli):
    server.add_operator("ada", role=ROLE_ADMIN, description="Ada", warnings=[WARNING])
    server.add_operator("bob", disabled=True)
    result = cli("operator", "list")
    _, *rows = result.out.splitlines()
    assert [" ".join(row.split()) for row in rows] == ["ada admin enabled - - Ada", "bob viewer disabled - - -"]
    assert result.err == f"warning: ada: {WARNING}\n"
    assert len(cli("operator", "list", "--json").document["operators"]) == 2


def test_one_is_shown(server, cli):
    server.add_operator("ada", role=ROLE_ADMIN, description="Ada", warnings=[WARNING])
    result = cli("operator", "show", "ada")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines == [
        *["operator ada", "description Ada", "role admin", "state enabled", "created 2026-11-28 10:00:00"],
        *["expires never", "last used never"],
    ]
    assert result.err == f"warning: ada: {WARNING}\n"
    assert cli("operator", "show", "ada", "--json").document["role"] == "ROLE_ADMIN"


@pytest.mark.parametrize(
    ("flags", "paths", "words"),
    [
        (["--role", "admin"], ["role"], "admin, enabled"),
        (["--description", ""], ["description"], "viewer, enabled"),
        (["--disable"], ["disabled"], "viewer, disabled"),
        (["--enable", "--role", "deployer"], ["role", "disabled"], "deployer, enabled"),
    ],
)
def test_only_what_is_named_is_changed(server, cli, flags, paths, words):
    server.add_operator("ada", role=ROLE_VIEWER)
    assert cli("operator", "update", "ada", *flags).out == f"operator ada updated: {words}\n"
    assert list(server.requests("UpdateOperator")[0].update_mask.paths) == paths


def test_nothing_to_change_is_said(server, cli):
    result = cli("operator", "update", "ada")
    assert (result.code, server.calls) == (2, [])
    assert "error: there is nothing to change" in result.err


def test_an_operator_gets_a_new_token(server, cli, tmp_path):
    server.add_operator("ada")
    result = cli("operator", "rotate", "ada", "--expires", "1d")
    assert result.out.splitlines() == ["operator ada has a new token", "token  another-token"]
    assert server.requests("RotateOperatorToken")[0].token_lifetime.seconds == 86400
    assert cli("operator", "rotate", "ada", "--new-token-file", str(tmp_path / "t"), "--json").document["token"] == ""
    assert (tmp_path / "t").read_text() == "another-token\n"


def test_an_operator_is_deleted(server, cli):
    server.add_operator("ada")
    assert cli("operator", "delete", "ada").out == "operator ada deleted\n"
    assert server.operators == {}
    assert cli("operator", "delete", "ada").code == 3


def test_a_deletion_is_asked_for_first(server, terminal):
    server.add_operator("ada")
    command = terminal("operator", "delete", "ada")
    command.wait_for("delete the operator ada?")
    command.type("n\n")
    assert (command.finish()[0], len(server.operators)) == (1, 1)


def test_a_new_key_of_the_server_says_what_it_means(cli):
    result = cli("rekey")
    assert result.out == "there is a new secret.key: 5 stored secrets sealed anew\n"
    assert "tokens that were issued before have stopped working" in result.err
    assert cli("rekey", "--json").document == {"resealed": 5}


def test_a_new_key_of_the_server_is_asked_for_first(server, terminal):
    command = terminal("rekey")
    command.wait_for("The tokens that applications have stop working")
    command.type("n\n")
    assert (command.finish()[0], server.calls) == (1, [])
