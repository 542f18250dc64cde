"""What a person sees."""

import re

import pytest

from modelhost.v1.deployment_pb2 import Deployment, Failure
from tests.unit.client.fake_server import reason


def plain(shown: str) -> str:
    """Return what a terminal showed without the commands to it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")


@pytest.fixture
def model(tmp_path):
    (tmp_path / "modelhost.toml").write_text('name = "churn"\n[source]\ndata_source = "models"\n')
    return str(tmp_path)


def test_a_deployment_shows_its_steps_under_the_log(server, terminal, model):
    code, shown = terminal("deploy", model).finish()
    assert code == 0
    text = plain(shown)
    assert "fetch      commit resolved" in text
    assert re.search(r"churn, revision 1   . fetch.*   . provision.*   . load.*   . running", text)
    assert "churn is running: revision 1" in text


def test_a_failure_stands_out(server, terminal, model):
    server.build.failure = Failure(
        reason=reason("IMPORT_FAILED"), message="no \x1b[7mnumpy", hint="add it", step="load"
    )
    code, shown = terminal("deploy", model).finish()
    assert code == 1
    assert "\x1b[7m" not in shown
    assert "error: revision 1 of churn failed in load: no numpy (IMPORT_FAILED)\nhint: add it\n" in plain(shown)


def test_tables_are_in_colour(server, terminal):
    server.add_deployment("churn")
    _, shown = terminal("list").finish()
    assert "\x1b[32mrunning" in shown


def test_an_empty_list_says_what_to_do(terminal):
    _, shown = terminal("list").finish()
    assert plain(shown) == "no deployments yet: `modelhost deploy --help` shows how to make one\n"


def test_json_stays_json_on_a_terminal(server, terminal):
    _, shown = terminal("list", "--json").finish()
    assert plain(shown) == '{\n  "deployments": [],\n  "next_page_token": ""\n}\n'


def test_a_long_result_is_easy_to_read(server, terminal):
    server.model = lambda parameters: '{"scores":[' + ",".join(["0.25"] * 30) + "]}"
    _, shown = terminal("predict", "churn", "1").finish()
    assert plain(shown).startswith('{\n  "scores": [\n    0.25,\n')


@pytest.mark.parametrize(("answer", "code", "is_deleted"), [("y", 0, True), ("n", 1, False)])
def test_a_deletion_is_asked_for_first(server, terminal, answer, code, is_deleted):
    server.add_deployment("churn", state=Deployment.STATE_STOPPED)
    command = terminal("delete", "churn")
    command.type(f"{answer}\n")
    assert command.finish()[0] == code
    assert ("churn" not in server.deployments) is is_deleted


def test_a_deletion_that_is_sure_is_not_asked_for(server, terminal):
    server.add_deployment("churn", state=Deployment.STATE_STOPPED)
    code, shown = terminal("delete", "churn", "--yes").finish()
    assert code == 0
    assert "y/N" not in shown
