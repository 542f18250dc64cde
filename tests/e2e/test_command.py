"""The story of a newcomer, with the real command: register a source, deploy, call, look, change, delete."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import Command
from tests.e2e.daemon import Daemon, python
from tests.e2e.steps import Operator

SUM = """\
import os

def predict(parameters):
    print("summing %d numbers" % len(parameters["numbers"]))
    return {"sum": sum(parameters["numbers"]), "unit": os.environ.get("UNIT")}
"""
SETTINGS = """\
name = "sum"
runtime = "python3.6"

[env]
UNIT = "kg"

[test]
parameters = { numbers = [1, 2] }
expected = { sum = 3, unit = "kg" }

[source]
data_source = "models"
"""
NUMBERS = '{"numbers": [1, 2, 3.5]}'


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all: what its tests name is theirs alone."""
    versions = [word for version in ("2.7", "3.6") for word in ("--interpreter", str(python(version)))]
    daemon = Daemon(tmp_path_factory.mktemp("command") / "host", *versions)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def work_tree(tmp_path: Path) -> Path:
    """A model in a folder of a Git repository, as its author has it."""
    folder = tmp_path / "models"
    (folder / "sum").mkdir(parents=True)
    (folder / "README.md").write_text("Models.\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    write_and_commit(folder, {"sum/main.py": SUM, "sum/modelhost.toml": SETTINGS})
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write_and_commit(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=change")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def modelhost(daemon: Daemon, work_tree: Path) -> Iterator[Command]:
    """The command, beside the work tree; what was deployed and registered by it is gone after the test."""
    command = Command(daemon, work_tree.parent)
    yield command
    Operator(daemon).clear()


@pytest.fixture
def running(modelhost: Command, work_tree: Path) -> Command:
    """The same, with `sum` deployed."""
    modelhost.ok("source add models ./models")
    modelhost.within(work_tree / "sum").ok("deploy --quiet")
    return modelhost


def test_a_source_is_added_and_tried_at_once_and_can_be_looked_around_in(modelhost: Command, work_tree: Path) -> None:
    commit = git(work_tree, "rev-parse", "HEAD")
    git(work_tree, "tag", "v1")

    added = modelhost.ok("source add models ./models --description", "Our models")

    assert added.lines[0] == f"data source models added: {work_tree}"
    assert added.lines[1].startswith("ok: ")
    assert re.search(rf"^models +{work_tree} +Our models +20", modelhost.ok("source list").out, re.M)
    assert modelhost.ok("source test models").out.startswith("ok: ")
    refs = modelhost.ok("source refs models").out
    assert re.search(rf"^main +branch \(default\) +{commit}$", refs, re.M)
    assert re.search(rf"^v1 +tag +{commit}$", refs, re.M)
    files = modelhost.ok("source files models --ref v1 --directory sum")
    assert [line.split()[-1] for line in files.lines] == ["PATH", "sum/main.py", "sum/modelhost.toml"]
    assert files.err == f"note: commit {commit}\n"


def test_a_source_that_does_not_work_is_added_with_a_warning(modelhost: Command, tmp_path: Path) -> None:
    added = modelhost.ok(f"source add broken {tmp_path}/nowhere")

    assert added.out == f"data source broken added: {tmp_path}/nowhere\n"
    assert added.err.startswith("warning: it cannot be used yet: ")
    tested = modelhost("source test broken")
    assert tested.code == 1
    assert f"{tmp_path}/nowhere is not there" in tested.err


def test_runtimes_are_listed_with_their_versions(modelhost: Command) -> None:
    listed = modelhost.ok("runtimes").out

    assert re.search(rf"^python2\.7 +2\.7\.\d+ +yes +configuration +{python('2.7').parent}", listed, re.M)
    assert re.search(r"^python3\.6 +3\.6\.\d+ +yes +configuration ", listed, re.M)


def test_a_model_is_deployed_from_flags_and_the_shown_call_can_be_pasted(modelhost: Command) -> None:
    modelhost.ok("source add models ./models")

    deployed = modelhost.ok("deploy --name total --source models --directory sum --runtime python2.7 --env UNIT=kg")

    steps = list(dict.fromkeys(line.split()[0] for line in deployed.lines[:-4]))
    assert steps == ["fetch", "provision", "load"]
    assert re.search(r"^total is running: revision 1, commit [0-9a-f]{10}, built in ", deployed.out, re.M)
    assert re.search(r"^service svc-[0-9a-f]{16}$", deployed.out, re.M)
    call = deployed.lines[-1].strip()
    assert call.startswith("modelhost predict total ")
    assert json.loads(modelhost.paste(call)) == {"sum": 3, "unit": "kg"}


def test_a_model_is_deployed_from_its_modelhost_toml_and_git_says_where_it_lies(
    modelhost: Command, work_tree: Path
) -> None:
    modelhost.ok("source add models ./models")
    (work_tree / "sum" / "notes.txt").write_text("not committed")

    deployed = modelhost.within(work_tree / "sum").ok("deploy")

    assert re.search(r"^note: .*\bsum, where modelhost\.toml lies", deployed.err, re.M), deployed.err
    assert "warning: not committed, so not what is deployed: notes.txt\n" in deployed.err
    assert "sum is running: revision 1" in deployed.out
    shown = modelhost.ok("show sum --revision 1").out
    assert re.findall(r"(main\.py|modelhost\.toml|notes\.txt|README\.md)$", shown, re.M) == [
        "main.py",
        "modelhost.toml",
    ]


def test_what_runs_is_listed_and_shown(running: Command, work_tree: Path) -> None:
    commit = git(work_tree, "rev-parse", "HEAD")

    (headings, row) = running.ok("list").lines
    assert headings.split() == ["NAME", "STATE", "REVISION", "WORKERS", "SERVICE", "SOURCE", "CHANGED"]
    assert row.split()[:4] == ["sum", "running", "1", "1"]
    shown = running.ok("show sum").out
    for line in (
        r"^state +running$", r"^service +svc-[0-9a-f]{16}$", r"^runtime +python3\.6$", r"^runs +main\.py:predict$",
        r"^variables +UNIT=kg$", rf"^source +models @ default branch \({commit[:10]}\), directory sum$",
    ):  # fmt: skip
        assert re.search(line, shown, re.M), shown


def test_a_model_is_called_with_json_a_file_or_stdin(running: Command, tmp_path: Path) -> None:
    (tmp_path / "numbers.json").write_text(NUMBERS)

    answers = [
        running.ok("predict sum", NUMBERS),
        running.ok("predict sum @numbers.json"),
        running.ok("predict sum -", stdin=NUMBERS),
        running.ok(f"predict {running.ok('list').lines[1].split()[4]}", NUMBERS),
    ]

    assert [answer.document for answer in answers] == [{"sum": 6.5, "unit": "kg"}] * 4
    whole = running.ok("predict sum --json --request-id one", NUMBERS).document
    assert whole == {"result": {"sum": 6.5, "unit": "kg"}, "revision": 1, "request_id": "one"}


def test_its_logs_say_how_it_was_built_and_what_it_printed(running: Command) -> None:
    running.ok("predict sum", NUMBERS)

    built = running.ok("logs sum --build").out
    for step in ("fetch done in", "provision done in", "load done in"):
        assert step in built
    assert "summing 3 numbers" in running.ok("logs sum --run").out
    assert "summing 3 numbers" in running.ok("logs sum").out
    assert len(running.ok("logs sum --build --last 2").lines) == 2
    entries = [json.loads(line) for line in running.ok("logs sum --run --json").lines]
    assert {"summing 2 numbers", "summing 3 numbers"} <= {entry["text"] for entry in entries}


def test_its_run_log_is_followed_until_ctrl_c(running: Command) -> None:
    with running.begin("logs sum --run --follow") as following:
        running.ok("predict sum", '{"numbers": [1, 2, 3, 4]}')
        assert following.read_until("summing 4").endswith("summing 4 numbers")

        assert following.interrupt().code == 130


def test_it_is_stopped_started_and_deleted(running: Command) -> None:
    service = running.ok("list").lines[1].split()[4]

    assert running.ok("stop sum").out == "sum: stopped\n"
    refused = running("predict sum", NUMBERS)
    assert refused.code == 4
    assert "modelhost start sum" in refused.err
    started = running.ok("start sum")
    assert "sum is running: revision 1" in started.out
    assert f"service {service}\n" in started.out, "it is the same for as long as the deployment lives"
    assert running.ok("predict sum", NUMBERS).document["sum"] == 6.5
    refused = running("delete sum")
    assert refused.code == 4
    assert "stop it before it is deleted, or force the deletion" in refused.err
    assert running.ok("delete sum --force").out == "sum deleted\n"
    assert running.ok("list").lines[1:] == []
    assert running("predict sum", NUMBERS).code == 3


def test_an_update_to_a_bad_revision_says_why_and_the_old_one_serves(running: Command, work_tree: Path) -> None:
    write_and_commit(work_tree, {"sum/main.py": "import numpyy\n" + SUM})

    updated = running("update sum --ref main")

    assert updated.code == 1
    assert "revision 2 of sum failed in load; revision 1 goes on serving: " in updated.err
    assert "ModuleNotFoundError: No module named 'numpyy'" in updated.err
    assert re.search(r"^hint: .*requirements", updated.err, re.M | re.I), updated.err
    assert "running, update failed" in running.ok("list").out
    assert re.search(r"^failure +MODULE_NOT_FOUND \(revision 2, load", running.ok("show sum").out, re.M)
    assert running.ok("predict sum", NUMBERS).document["sum"] == 6.5
    assert "import numpyy" in running.ok("logs sum --build").out, "the traceback"

    write_and_commit(work_tree, {"sum/main.py": SUM.replace("sum(", "0 + sum(")})
    assert "sum is running: revision 3" in running.ok("update sum").out
    assert running.ok("predict sum --json", NUMBERS).document["revision"] == 3


def test_on_a_terminal_the_steps_of_a_build_are_shown_as_they_go(modelhost: Command) -> None:
    modelhost.ok("source add models ./models")

    screen = modelhost.on_a_terminal("deploy --name live --source models --directory sum")

    assert screen.code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.out)
    assert re.search(r"live, revision 1 .*(fetch|provision).*○ running", plain)
    assert re.search(r"✓ fetch", plain)
    assert "live is running: revision 1" in plain
