"""What scripts rely on: one JSON document, exit codes, and how the command finds its token."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhost.cli.errors import EXIT_CODES
from tests.e2e.command import Answer, Command
from tests.e2e.daemon import Daemon, python
from tests.git_repos import Repo

MODEL = b"""
import os

def predict(parameters):
    if parameters == "die":
        os._exit(3)
    return 1 / parameters
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("scripts") / "host", "--interpreter", str(python("3.6")))
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def modelhost(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command, with `inverse` running, `stopped` stopped, and a data source that does not work."""
    folder = tmp_path_factory.mktemp("folder")
    repo = Repo(folder / "models.git")
    repo.commit({"main.py": MODEL})
    command = Command(daemon, folder)
    command.ok("source add models models.git")
    command.ok("source add broken /nowhere --no-test")
    command.ok("deploy --quiet --name inverse --source models --runtime python3.6")
    command.ok("deploy --no-start --name stopped --source models --runtime python3.6")
    return command


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("list --json", {"deployments", "next_page_token"}),
        ("show inverse --json", {"deployment", "revision"}),
        ("show inverse --revision 1 --json", {"name", "number", "state", "commit", "files"}),
        ("source list --json", {"data_sources", "next_page_token"}),
        ("source test models --json", {"ok", "message", "default_branch", "ref_count"}),
        ("source refs models --json", {"refs", "next_page_token"}),
        ("source files models --json", {"files", "commit", "next_page_token"}),
        ("runtimes --json", {"runtimes"}),
        ("show inverse --revisions --json", {"revisions", "next_page_token"}),
        ("diff inverse --json", {"base_revision", "revision", "files", "settings", "packages"}),
        ("environments list --json", {"environments", "next_page_token"}),
        ("environments collect --dry-run --json", {"environments", "snapshots", "freed_bytes"}),
        ("predict inverse 4 --json", {"result", "revision", "request_id"}),
        ("predict inverse 4 --debug --json", {"result", "traceback", "stdout", "stderr", "timing", "request_id"}),
        ("deploy --name other --source models --runtime python3.6 --validate-only --json", {"deployment"}),
        ("stop stopped --json", {"deployment"}),
        ("version --json", {"version"}),
    ],
)
def test_with_json_stdout_is_one_document_and_stderr_is_empty(modelhost: Command, line: str, keys: set[str]) -> None:
    answer = modelhost.ok(line)

    assert keys <= answer.document.keys()
    assert answer.out.count("\n") == 1
    assert answer.err == ""


def test_with_json_a_deployment_is_followed_as_lines_the_last_of_which_is_the_deployment(modelhost: Command) -> None:
    answer = modelhost.ok("deploy --name followed --source models --runtime python3.6 --json")

    entries = [json.loads(line) for line in answer.lines]
    assert {key for entry in entries[:-1] for key in entry} == {"log", "state"}
    assert entries[-1]["deployment"]["state"] == "STATE_RUNNING"
    assert answer.err == ""


def test_with_json_an_error_is_one_document_on_stderr(modelhost: Command) -> None:
    answer = modelhost("show nobody --json")

    assert answer.out == ""
    error = json.loads(answer.err)["error"]
    assert error["reason"] == "DEPLOYMENT_NOT_FOUND"
    assert error["code"] == "NOT_FOUND"
    assert error["metadata"] == {"deployment": "nobody"}
    assert error["exit_code"] == answer.code == 3


# -- exit codes --------------------------------------------------------------------------------------------------------


def test_the_table_of_exit_codes_is_in_the_help(modelhost: Command) -> None:
    shown = modelhost.ok("--help").out.partition("Exit codes:")[2]

    table = {int(code): meaning for code, meaning in re.findall(r"^ *(\d+)  +(.+?) *$", shown, re.M)}
    assert table == {int(code): meaning for code, meaning in EXIT_CODES.items()}


@pytest.mark.parametrize(
    ("code", "line", "words"),
    [
        (0, "list", ""),
        (1, "source test broken", "/nowhere is not there"),
        (1, "deploy --name failing --source models --runtime python3.6 --function nothing", "it defines: predict"),
        (2, "list --no-such-option", "no-such-option"),
        (2, "deploy --name x --source models extra words", "extra"),
        (2, "predict inverse {not-json", "the parameters are not JSON"),
        (2, "deploy --name BAD! --source models --runtime python3.6", "BAD!"),
        (3, "show nobody", "there is no deployment nobody"),
        (3, "start nobody", "there is no deployment nobody"),
        (3, "predict nobody 1", "there is no prediction service nobody"),
        (3, "source files models --ref no-such-branch", "no-such-branch"),
        (3, "deploy --name x --source nowhere --runtime python3.6", "registered: broken, models"),
        (4, "source add models /elsewhere", "registered already"),
        (4, "source delete models", "is used by"),
        (4, "predict stopped 1", "modelhost start stopped"),
        (4, "delete inverse", "stop it before it is deleted"),
        (7, "predict inverse 0", "ZeroDivisionError: division by zero"),
        (7, """predict inverse '"die"'""", "the worker died"),
    ],
)
def test_the_exit_code_says_what_kind_of_failure_it_was(modelhost: Command, code: int, line: str, words: str) -> None:
    answer = modelhost(line)

    assert answer.code == code, answer
    assert words in answer.err
    assert answer.err.startswith("error: " if code else "")


# -- the server and the token ------------------------------------------------------------------------------------------


def test_where_no_server_answers_it_says_how_to_start_one(modelhost: Command) -> None:
    answer = modelhost.having(MODELHOST_ADDRESS="127.0.0.1:1")("list")

    assert answer.code == 5
    assert "127.0.0.1:1" in answer.err
    assert "`modelhost serve` starts one here" in answer.err


def test_on_the_servers_host_the_token_is_found_without_being_named(modelhost: Command) -> None:
    assert not {"MODELHOST_TOKEN", "MODELHOST_TOKEN_FILE"} & modelhost.variables.keys()

    modelhost.ok("list")


def elsewhere(modelhost: Command, tmp_path: Path, **variables: str) -> Command:
    """As on another host, where nothing is known of the server but its address."""
    nothing = tmp_path / "nothing"
    nothing.mkdir(mode=0o700)
    return modelhost.having(XDG_RUNTIME_DIR=str(nothing), **variables)


def assert_not_let_in(answer: Answer, daemon: Daemon) -> None:
    assert answer.code == 6
    assert "--token-file FILE, or in MODELHOST_TOKEN" in answer.err
    assert daemon.token not in answer.out + answer.err


def test_without_a_token_nobody_is_let_in(modelhost: Command, daemon: Daemon, tmp_path: Path) -> None:
    answer = elsewhere(modelhost, tmp_path)("list")

    assert_not_let_in(answer, daemon)
    assert "wants a token, and none was found" in answer.err


def test_the_token_can_be_a_variable(modelhost: Command, daemon: Daemon, tmp_path: Path) -> None:
    elsewhere(modelhost, tmp_path, MODELHOST_TOKEN=daemon.token).ok("list")


def test_the_token_can_be_in_a_file(modelhost: Command, daemon: Daemon, tmp_path: Path) -> None:
    command = elsewhere(modelhost, tmp_path)

    command.ok(f"list --token-file {daemon.state_dir}/admin.token")
    command.having(MODELHOST_TOKEN_FILE=f"{daemon.state_dir}/admin.token").ok("list")


def test_a_wrong_token_is_refused_and_it_says_which_one_it_was(
    modelhost: Command, daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "wrong.token").write_text("mha_wrong-but-secret\n")

    from_variable = modelhost.having(MODELHOST_TOKEN="mha_wrong-but-secret")("list")
    from_file = modelhost(f"list --token-file {tmp_path}/wrong.token")

    assert_not_let_in(from_variable, daemon)
    assert "does not take the token in MODELHOST_TOKEN" in from_variable.err
    assert_not_let_in(from_file, daemon)
    assert f"does not take the token in {tmp_path}/wrong.token" in from_file.err
    assert "wrong-but-secret" not in from_variable.err + from_file.err
