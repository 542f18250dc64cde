"""The story of a change, with the real command: update, compare, go back, look into a call, find it in the log."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import Command
from tests.e2e.daemon import Daemon, python
from tests.git_repos import Repo
from tests.running import eventually

MODEL = b"""\
import os
import sys

RATE = 2


def predict(parameters):
    print("rating %s" % parameters["amount"])
    sys.stderr.write("with a key of %d letters\\n" % len(os.environ["API_KEY"]))
    return {"rate": RATE * parameters["amount"], "mode": os.environ.get("MODE")}
"""
DATA = bytes(range(256))
SECRET = "hunter2-and-more"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("updates") / "host", "--interpreter", str(python("3.6")))
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def commits() -> list[str]:
    """The model's two commits, once there are."""
    return []


@pytest.fixture(scope="module")
def modelhost(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory, commits: list[str]) -> Command:
    """The command, with `rate` at its second revision: another rate, another data file, another variable."""
    folder = tmp_path_factory.mktemp("folder")
    repo = Repo(folder / "models.git")
    command = Command(daemon, folder, {"API_KEY": SECRET})
    commits.append(repo.commit({"main.py": MODEL, "data.bin": DATA, "old.txt": b"old\n"}))
    command.ok("source add models models.git")
    command.ok("deploy --quiet --name rate --source models --runtime python3.6 --env MODE=slow --secret-env API_KEY")
    commits.append(repo.commit({"main.py": MODEL.replace(b"RATE = 2", b"RATE = 3"), "data.bin": DATA[::-1]}))
    command.ok("update rate --quiet --env MODE=fast")
    return command


@pytest.fixture(autouse=True)
def newest(modelhost: Command) -> None:
    """Every test begins with the newest revision running."""
    if modelhost.ok("show rate --json").document["deployment"]["active_revision"] != 2:
        modelhost.ok("rollback rate 2 --quiet")


def test_what_an_update_changed_is_shown(modelhost: Command, commits: list[str]) -> None:
    shown = modelhost.ok("diff rate").out

    assert shown.startswith("rate: revision 1 → 2\n")
    assert re.search(rf"^commit +{commits[0][:12]}  {commits[1][:12]}$", shown, re.M)
    assert re.search(r"^setting env\.MODE +slow +fast$", shown, re.M)
    assert re.search(r"^changed +- +data\.bin$", shown, re.M)
    assert "--- a/main.py\n+++ b/main.py\n" in shown
    assert "\n-RATE = 2\n+RATE = 3\n" in shown
    assert "\n-old\n" in shown
    assert re.search(r"^removed +\+0 -1 +old\.txt$", modelhost.ok("diff rate --stat").out, re.M)
    assert modelhost.ok("diff rate 1 --base 2 --json").document["commit"]["after"] == commits[0]
    assert modelhost.ok("diff rate 1").out == "rate: revision 1 has no other to be compared with\n"


def test_an_earlier_revision_runs_again_with_its_files_settings_and_secrets(modelhost: Command) -> None:
    assert modelhost.ok("predict rate", '{"amount": 10}').document == {"rate": 30, "mode": "fast"}

    back = modelhost.ok("rollback rate 1")

    assert re.search(r"^rate is running: revision 1, commit [0-9a-f]{10}$", back.out, re.M), back.out
    assert modelhost.ok("predict rate", '{"amount": 10}').document == {"rate": 20, "mode": "slow"}
    table = modelhost.ok("show rate --revisions").lines
    assert [line.split()[:3] for line in table[-2:]] == [["2", "ready", "-"], ["1", "ready", "active,"]]


def test_a_revision_that_is_not_there_cannot_be_gone_back_to(modelhost: Command) -> None:
    answer = modelhost("rollback rate 99")

    assert answer.code == 3
    assert "has no revision 99" in answer.err


def test_a_call_is_looked_into(modelhost: Command) -> None:
    seen = modelhost.ok("predict rate --debug", '{"amount": 10}')

    assert seen.document == {"rate": 30, "mode": "fast"}
    assert "── stdout\nrating 10\n── stderr\nwith a key of 16 letters\n── revision 2, request " in seen.err
    assert re.search(r"^queue [\d.]+ ms · send [\d.]+ ms · run [\d.]+ ms · receive [\d.]+ ms$", seen.err, re.M)
    older = modelhost.ok("predict rate --debug --revision 1 --json", '{"amount": 10}').document
    assert (older["result"]["rate"], older["revision"], older["stdout"]) == (20, 1, "rating 10\n")


def test_a_call_that_fails_is_found_in_the_log_and_looked_into_by_what_the_error_says(modelhost: Command) -> None:
    failed = modelhost("predict rate {} --request-id order-4711")

    assert failed.code == 7
    assert "KeyError" in failed.err
    find = re.findall(r"`(modelhost logs .*?)`", failed.err)[0]
    assert find == "modelhost logs rate --run --request order-4711"
    eventually(lambda: "KeyError: 'amount'" in modelhost.paste(find))
    assert {line.split()[5] for line in modelhost.paste(find).splitlines()} == {"order-4711"}
    assert "`modelhost predict rate JSON --debug`" in failed.err
    seen = modelhost("predict rate {} --debug")
    assert seen.code == 7
    assert "── traceback\nTraceback (most recent call last):\n" in seen.err
    assert seen.err.endswith("\nerror: the model raised KeyError: 'amount'\n")


def test_what_a_call_wrote_is_found_by_its_name(modelhost: Command) -> None:
    request_id = modelhost.ok("predict rate --json", '{"amount": 4}').document["request_id"]

    def lines() -> list[str]:
        return modelhost.ok(f"logs rate --request {request_id}").lines

    eventually(lambda: len(lines()) == 2)
    assert sorted(line.split()[4] for line in lines()) == ["stderr", "stdout"]
    assert {line.partition(request_id)[2].strip() for line in lines()} == {"rating 4", "with a key of 16 letters"}


def test_a_secret_is_never_shown(modelhost: Command, daemon: Daemon) -> None:
    shown = modelhost.ok("show rate").out
    everything = [
        shown,
        *(modelhost.ok(f"show rate --revision {number} --json").out for number in (1, 2)),
        modelhost.ok("show rate --json").out,
        modelhost.ok("diff rate --json").out,
        modelhost.ok("logs rate --build --json").out,
        modelhost.ok("logs rate --run --json").out,
        daemon.log_text(),
    ]

    assert re.search(r"^secrets +API_KEY=\*\*\*$", shown, re.M)
    assert [text for text in everything if SECRET in text] == []
    refused = modelhost(f"update rate --secret-env API_KEY={SECRET}")
    assert refused.code == 2
    assert SECRET not in refused.out + refused.err


def test_secrets_and_variables_are_removed_by_name(modelhost: Command, tmp_path: Path) -> None:
    (tmp_path / "other.key").write_text("four-letters\n")
    flags = f"--env MODE=slow --env MORE=1 --secret-env API_KEY --secret-env OTHER=@{tmp_path / 'other.key'}"
    modelhost.ok(f"deploy --quiet --name keys --source models --runtime python3.6 {flags}")
    assert re.search(r"^secrets +API_KEY=\*\*\*, OTHER=\*\*\*$", modelhost.ok("show keys").out, re.M)

    modelhost.ok("update keys --quiet --unset-secret-env OTHER --unset-env MODE")

    assert re.search(r"^secrets +API_KEY=\*\*\*$", modelhost.ok("show keys").out, re.M)
    assert re.search(r"^variables +MORE=1$", modelhost.ok("show keys").out, re.M)
    assert modelhost.ok("predict keys", '{"amount": 1}').document["mode"] is None
    assert "setting secret_env.OTHER" in modelhost.ok("diff keys").out


def test_environments_are_listed_with_who_uses_them_and_the_rest_is_collected(modelhost: Command) -> None:
    before = modelhost.ok("environments list --json").document["environments"]
    [environment] = [one for one in before if "deployments/rate/revisions/2" in one["used_by"]]
    shown = modelhost.ok(f"environments show {environment['spec_digest']}").out
    assert re.search(r"^used by +.*rate 1, 2$", shown, re.M)
    assert "rate 1, 2" in modelhost.ok("environments list").out
    modelhost.ok(
        "deploy --quiet --name passing --source models --runtime python3.6 --path main.py --secret-env API_KEY"
    )
    modelhost.ok("delete passing --force")

    would = modelhost.ok("environments collect --dry-run").lines
    collected = modelhost.ok("environments collect").lines

    assert [line.replace("would be ", "") for line in would] == collected
    assert [line.split()[0::2] for line in collected[:-1]] == [["files", "removed"]], "those of `passing`"
    assert re.search(r"^[1-9][\d.]* k?B freed$", collected[-1])
    assert modelhost.ok("environments collect").out.startswith("nothing to remove")
    assert modelhost.ok("predict rate", '{"amount": 1}').document["rate"] == 3


def test_changes_are_watched_as_they_come(modelhost: Command) -> None:
    with modelhost.begin("show rate --watch") as watching:
        watching.read_until("running")
        modelhost.ok("rollback rate 1 --quiet")

        assert "revision 1 serves" in watching.read_until("running, revision 1 serves")
        assert watching.interrupt().code == 130


def test_a_deployment_is_scaled_while_it_serves_and_says_so(modelhost: Command) -> None:
    revision = modelhost.ok("show rate --json").document["revision"]["number"]

    assert modelhost.ok("scale rate 3").out == "rate: 3 workers, 3 live, running\n"
    assert re.search(r"^workers +3 live", modelhost.ok("show rate").out, re.M)
    assert modelhost.ok("scale rate 1 --json").document["deployment"]["workers"] == 1

    assert modelhost.ok("show rate --json").document["revision"]["number"] == revision
    modelhost.ok("deploy --quiet --name pair --source models --runtime python3.6 --secret-env API_KEY --workers 2")
    assert re.search(r"^pair .* 2 ", modelhost.ok("list").out, re.M)
    modelhost.ok("update pair --workers 1")
    modelhost.ok("stop pair")
    assert modelhost.ok("scale pair 2").out == "pair: 2 workers, stopped\n"
    modelhost.ok("delete pair")
    assert "less than or equal to 64" in modelhost("scale rate 65").err
