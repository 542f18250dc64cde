"""Help, versions and completion."""

import subprocess
import sys

import pytest

from modelhost.cli.completion import (
    complete_account,
    complete_deployment,
    complete_environment,
    complete_operator,
    complete_service,
)
from modelhost.cli.flags import help_text
from modelhost.v1.runtime_pb2 import Environment
from tests.unit.client.fake_server import TOKEN

VERBS = [
    *["deploy", "update", "list", "show", "start", "stop", "rollback", "diff", "delete", "logs", "predict"],
    *["environments list", "environments show", "environments collect", "runtimes"],
    *["account create", "account list", "account show", "account token", "account rotate", "account key"],
    *["account delete-key", "account disable", "account enable", "account delete", "grant", "revoke", "grants"],
    *["service list", "service show", "service open", "service close", "usage", "audit", "rekey"],
    *["operator add", "operator list", "operator show", "operator update", "operator rotate", "operator delete"],
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_examples_and_tells_how_to_connect(run, verb):
    result = run(*verb.split(), "--help")
    assert (result.code, result.err) == (0, "")
    examples = result.out.partition("Examples:")[2]
    assert f"modelhost {verb}" in examples
    for option in ("--address", "--token-file", "--json"):
        assert option in result.out


def test_the_root_has_all_verbs(run):
    shown = run("--help").out
    for verb in [*VERBS, "source", "version"]:
        assert f" {verb.split()[0]} " in shown


def test_help_needs_neither_grpc_nor_the_server():
    code = "import sys\nfrom modelhost.cli.main import main\nmain(['--help'])\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint({"grpc", "google.protobuf", "modelhost.client", "modelhost.server.commands", "structlog"})


def test_without_a_verb_the_help_is_shown(run):
    assert "Usage: modelhost" in run().out


def test_the_version_is_told(run):
    assert run("version").out.startswith("modelhost ")
    assert run("version", "--json").document.keys() == {"version", "python"}
    assert run("--version").out == run("version").out


def test_sentences_are_joined_and_examples_kept():
    text = """First
        line.

        Second [paragraph]
        goes on.

        Examples:
          one
          two
        """
    assert help_text(text) == "First line.\n\nSecond \\[paragraph] goes on.\n\nExamples:\n  one\n  two"


def test_names_of_deployments_are_completed(server, monkeypatch):
    monkeypatch.setenv("MODELHOST_ADDRESS", server.address)
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    for name in ("churn", "cheap", "fraud"):
        server.add_deployment(name)
    assert complete_deployment("ch") == ["churn", "cheap"]


def test_numbers_of_revisions_are_completed(server, run, monkeypatch):
    monkeypatch.setenv("MODELHOST_ADDRESS", server.address)
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    server.add_deployment("churn")
    for _ in range(10):
        server.add_revision("churn")
    words = {"_MODELHOST_COMPLETE": "complete_bash", "COMP_WORDS": "modelhost rollback churn 1", "COMP_CWORD": "3"}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-m", "modelhost.cli.main"], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["11", "10", "1"]


def test_digests_of_environments_are_completed(server, monkeypatch):
    monkeypatch.setenv("MODELHOST_ADDRESS", server.address)
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    server.environments = [Environment(name=f"environments/{digest}") for digest in ("3f9c", "a1b2")]
    assert complete_environment("3") == ["3f9c"]


def test_names_of_accounts_services_and_operators_are_completed(server, monkeypatch):
    monkeypatch.setenv("MODELHOST_ADDRESS", server.address)
    monkeypatch.setenv("MODELHOST_TOKEN", TOKEN)
    for name in ("shop", "shelf", "till"):
        server.add_account(name)
        server.add_operator(name)
    server.add_deployment("sheep")
    assert complete_account("sh") == complete_operator("sh") == ["shop", "shelf"]
    assert complete_service("sh") == ["sheep"]
    assert complete_service("svc-") == ["svc-sheep"]


def test_without_a_server_nothing_is_completed(monkeypatch):
    monkeypatch.setenv("MODELHOST_ADDRESS", "127.0.0.1:1")
    assert complete_deployment("ch") == []


def test_the_shell_gets_completions(server, monkeypatch):
    environ = {"_MODELHOST_COMPLETE": "complete_bash", "COMP_WORDS": "modelhost de", "COMP_CWORD": "1"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-m", "modelhost.cli.main"], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["deploy", "delete"]


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m modelhost.cli.main --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
