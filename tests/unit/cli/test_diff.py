"""What is different between two revisions."""

import re

import pytest

from modelhost.v1.deployment_pb2 import DiffRevisionsResponse, FileChange, ValueChange
from tests.unit.client.fake_server import Code

UNIFIED = """\
--- a/main.py
+++ b/main.py
@@ -1,2 +1,2 @@
 def predict(parameters):
-    return 1
+    return 2 \x1b[7m
"""


@pytest.fixture
def churn(server):
    server.add_deployment("churn")
    server.add_revision("churn")
    server.add_revision("churn")


@pytest.fixture
def difference(server, churn):
    server.difference = DiffRevisionsResponse(
        commit=ValueChange(name="commit", before="a" * 40, after="b" * 40),
        settings=[ValueChange(name="env.MODE", before="", after="fast")],
        packages=[ValueChange(name="numpy", before="1.16.6", after="1.19.5")],
        files=[
            FileChange(path="main.py", before_sha256="1", after_sha256="2", unified_diff=UNIFIED),
            FileChange(path="model.pkl", before_sha256="1", after_sha256="2"),
            FileChange(path="new.bin", after_sha256="2"),
            FileChange(path="old.bin", before_sha256="1"),
        ],
    )


def test_values_come_first_then_files_without_text_then_the_texts(cli, difference):
    result = cli("diff", "churn")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "churn: revision 2 → 3",
        "",
        "CHANGED           BEFORE        AFTER",
        "commit            aaaaaaaaaaaa  bbbbbbbbbbbb",
        "setting env.MODE  -             fast",
        "package numpy     1.16.6        1.19.5",
        "",
        "FILE     LINES  PATH",
        "changed  -      model.pkl",
        "added    -      new.bin",
        "removed  -      old.bin",
        "",
        "--- a/main.py",
        "+++ b/main.py",
        "@@ -1,2 +1,2 @@",
        " def predict(parameters):",
        "-    return 1",
        "+    return 2 ",
    ]


def test_of_all_files_only_the_names(cli, difference):
    lines = cli("diff", "churn", "--stat").out.splitlines()
    assert lines[-5:] == [
        "FILE     LINES  PATH",
        "changed  +1 -1  main.py",
        "changed  -      model.pkl",
        "added    -      new.bin",
        "removed  -      old.bin",
    ]


def test_which_two_can_be_said(server, cli, churn):
    cli("diff", "churn")
    cli("diff", "churn", "2")
    cli("diff", "churn", "3", "--base", "1")
    assert [(request.name, request.base_revision) for request in server.requests("DiffRevisions")] == [
        ("deployments/churn/revisions/3", 0),
        ("deployments/churn/revisions/2", 0),
        ("deployments/churn/revisions/3", 1),
    ]


def test_no_difference_is_said(cli, churn):
    assert cli("diff", "churn", "3").out == "churn: no difference between revisions 2 and 3\n"


def test_the_first_has_no_other(cli, churn):
    assert cli("diff", "churn", "1").out == "churn: revision 1 has no other to be compared with\n"


def test_in_json_it_is_one_document(cli, difference):
    document = cli("diff", "churn", "--json").document
    assert (document["base_revision"], document["revision"]) == (2, 3)
    assert document["files"][0]["unified_diff"] == UNIFIED


def test_a_terminal_shows_it_in_colour(terminal, difference):
    code, shown = terminal("diff", "churn").finish()
    assert code == 0
    assert "\x1b[31m-    return 1" in shown
    assert "\x1b[32m+    return 2" in shown
    assert "\x1b[7m" not in shown
    assert re.search(r"\x1b\[1m--- a/main.py", shown)


def test_what_is_not_there_is_3(server, cli):
    server.refuse("ListRevisions", Code.NOT_FOUND, "there is no deployment nope", "DEPLOYMENT_NOT_FOUND")
    result = cli("diff", "nope")
    assert (result.code, result.err) == (3, "error: there is no deployment nope\n")
