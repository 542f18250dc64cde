import signal

import pytest

from modelhost.v1.deployment_pb2 import Deployment, Failure, ModelSource
from modelhost.v1.log_pb2 import LogEntry
from tests.unit.client.fake_server import reason

PATIENCE = 30


def test_a_list_says_where_each_one_stands(server, cli):
    source = ModelSource(data_source="dataSources/models", ref="main", directory="churn")
    server.add_deployment("churn", source=source, update_state=Deployment.UPDATE_STATE_FAILED)
    server.add_deployment("fraud", state=Deployment.STATE_STOPPED, active_revision=0)
    server.add_deployment("other")
    heading, churn, fraud, other = cli("list").out.splitlines()
    assert heading.split() == ["NAME", "STATE", "REVISION", "WORKERS", "SERVICE", "SOURCE", "CHANGED"]
    assert "running, update failed" in churn
    assert "models @ main, directory churn" in churn
    assert fraud.split()[:3] == ["fraud", "stopped", "-"]
    assert other.startswith("other")


def test_a_list_says_why_one_failed(server, cli):
    server.add_deployment("churn", state=Deployment.STATE_FAILED, failure=Failure(reason=reason("IMPORT_FAILED")))
    assert "failed (IMPORT_FAILED)" in cli("list").out


def test_a_list_is_one_document(server, cli):
    for name in ("a", "b", "c"):
        server.add_deployment(name)
    document = cli("list", "--json").document
    assert [deployment["name"] for deployment in document["deployments"]] == [f"deployments/{name}" for name in "abc"]


def test_a_stopped_deployment_is_started_and_followed(server, cli):
    server.add_deployment("churn", state=Deployment.STATE_STOPPED, active_revision=0)
    assert "churn is running: revision 1," in cli("start", "churn").out


def test_log_lines_of_an_earlier_start_are_not_shown_again(server, cli):
    server.add_deployment("churn", state=Deployment.STATE_FAILED, active_revision=0)
    server.build.lines = ["an old line"]
    server.log_time = 1
    assert "an old line" not in cli("start", "churn").out


def test_a_running_deployment_need_not_be_started(server, cli):
    server.add_deployment("churn")
    assert cli("start", "churn").out == "churn: running\n"


def test_a_start_that_fails_is_1(server, cli):
    server.add_deployment("churn", state=Deployment.STATE_STOPPED, active_revision=0)
    server.build.failure = Failure(reason=reason("IMPORT_FAILED"), message="no module named numpy", step="load")
    result = cli("start", "churn")
    assert result.code == 1
    assert "revision 1 of churn failed in load: no module named numpy (IMPORT_FAILED)" in result.err


def test_a_start_need_not_be_followed(server, cli):
    server.add_deployment("churn", state=Deployment.STATE_STOPPED, active_revision=0)
    assert cli("start", "churn", "--no-wait").out == "churn: starting\n"


def test_a_stop_is_waited_for(server, cli):
    server.add_deployment("churn")
    assert cli("stop", "churn").out == "churn: stopped\n"


def test_a_stop_need_not_be_waited_for(server, cli):
    server.add_deployment("churn")
    assert cli("stop", "churn", "--no-wait", "--json").document["deployment"]["state"] == "STATE_STOPPING"


def test_a_deletion_is_waited_for(server, cli):
    server.add_deployment("churn", state=Deployment.STATE_STOPPED)
    assert cli("delete", "churn").out == "churn deleted\n"
    assert "churn" not in server.deployments


def test_a_deletion_need_not_be_waited_for(server, cli):
    server.add_deployment("churn")
    assert cli("delete", "churn", "--force", "--no-wait").out == "churn is being deleted\n"
    assert server.requests("DeleteDeployment")[0].force is True


@pytest.mark.parametrize("verb", ["show", "start", "stop", "rollback", "delete", "logs"])
def test_what_is_not_there_is_3(cli, verb):
    result = cli(verb, "nope", *["1"][: verb == "rollback"])
    assert (result.code, result.out) == (3, "")
    assert result.err == "error: there is no deployment nope\n"


@pytest.mark.parametrize("verb", ["stop", "delete"])
def test_ctrl_c_ends_the_waiting_only(server, background, verb):
    server.add_deployment("churn")
    server.build.hangs = True
    with background(verb, "churn") as process:
        assert server.watched.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
    assert err.startswith("interrupted: churn is no longer watched and goes on by itself\n")


class TestShow:
    @pytest.fixture
    def churn(self, server, cli):
        server.add_deployment("churn", state=Deployment.STATE_STOPPED, active_revision=0, description="leavers")
        assert cli("start", "churn", "--quiet").code == 0

    def test_all_that_is_known_of_a_deployment(self, server, cli, churn):
        shown = cli("show", "churn").out
        for words in ("leavers", "running", "svc-churn", "1, ready", "4f2c1a90d1"):
            assert words in shown

    def test_a_failure_is_shown_with_its_hint(self, server, cli):
        failure = Failure(reason=reason("IMPORT_FAILED"), message="no numpy", hint="add it", step="load", revision=1)
        server.add_deployment("churn", state=Deployment.STATE_FAILED, active_revision=0, failure=failure)
        lines = cli("show", "churn").out.splitlines()
        assert any(line.startswith("failure") and "IMPORT_FAILED (revision 1, load" in line for line in lines)
        assert any(line.split() == ["message", "no", "numpy"] for line in lines)
        assert any(line.split() == ["hint", "add", "it"] for line in lines)

    def test_the_newest_revisions_are_listed(self, server, cli, churn):
        server.add_revision("churn")
        table = cli("show", "churn").out.partition("\n\n")[2].splitlines()
        assert [line.split()[:2] for line in table] == [["REVISION", "STATE"], ["2", "pending"], ["1", "ready"]]

    def test_a_document_has_the_deployment_and_its_revision(self, cli, churn):
        document = cli("show", "churn", "--json").document
        assert document["deployment"]["name"] == "deployments/churn"
        assert document["revision"]["number"] == 1

    def test_a_revision_is_shown_with_its_files_and_packages(self, cli, churn):
        shown = cli("show", "churn", "--revision", "1").out
        for words in ("1, ready", "main.py", "abababababab", "numpy==1.16.6"):
            assert words in shown
        assert cli("show", "churn", "--revision", "1", "--json").document["files"][0]["path"] == "main.py"

    def test_a_revision_that_is_not_there_is_3(self, cli, churn):
        assert cli("show", "churn", "--revision", "9").code == 3

    def test_watching_is_of_the_deployment(self, cli, churn):
        assert cli("show", "churn", "--watch", "--revision", "1").code == 2

    def test_each_change_is_printed_until_it_is_deleted(self, server, cli, churn):
        server.deployments["churn"].state = Deployment.STATE_DELETING
        lines = cli("show", "churn", "--watch").out.splitlines()
        assert [line.split("  ")[1] for line in lines] == ["deleting, revision 1 serves", "deleted"]

    def test_a_failed_update_is_told_with_its_hint_and_what_goes_on_serving(self, server, cli, churn):
        deployment = server.deployments["churn"]
        server.add_revision("churn")
        deployment.state, deployment.update_state = Deployment.STATE_DELETING, Deployment.UPDATE_STATE_FAILED
        deployment.failure.CopyFrom(Failure(reason=reason("IMPORT_FAILED"), message="no numpy", hint="Add it."))
        first, hint, last = cli("show", "churn", "--watch").out.splitlines()
        assert first[21:] == (
            "deleting, update failed, revision 1 serves, revision 2 is pending, IMPORT_FAILED: no numpy"
        )
        assert hint.split() == ["hint:", "Add", "it."]
        assert last.endswith("deleted")

    def test_watching_in_json_is_an_object_a_line(self, server, cli, churn):
        server.deployments["churn"].state = Deployment.STATE_DELETING
        [line] = cli("show", "churn", "--watch", "--json").json_lines
        assert line["deployment"]["state"] == "STATE_DELETING"


class TestLogs:
    @pytest.fixture
    def churn(self, server):
        server.add_deployment("churn")
        for number, text in enumerate(("one", "two", "three", "four \x1b[31mred")):
            entry = LogEntry(text=text, worker="0123456789ab", revision=1, stream=LogEntry.STREAM_STDOUT)
            entry.request_id = "7c0e-1" if text == "two" else ""
            entry.time.seconds = number + 1
            server.run_log.append(entry)

    def test_a_running_deployment_shows_its_run_log(self, cli, churn):
        result = cli("logs", "churn")
        assert result.out.splitlines() == [
            "1970-01-01 00:00:01  1  0123456789ab  stdout  -           one",
            "1970-01-01 00:00:02  1  0123456789ab  stdout  7c0e-1      two",
            "1970-01-01 00:00:03  1  0123456789ab  stdout  -           three",
            "1970-01-01 00:00:04  1  0123456789ab  stdout  -           four red",
        ]
        assert result.err == "note: the run log; --build prints how it was built\n"

    def test_a_failed_one_shows_its_build_log(self, server, cli):
        server.add_deployment("churn", state=Deployment.STATE_FAILED)
        result = cli("logs", "churn")
        assert [line[19:] for line in result.out.splitlines()] == [
            "  fetch      commit resolved",
            "  provision  environment found",
            "  load       model loaded",
        ]
        assert result.err == "note: the build log; --run prints what its workers wrote\n"

    def test_so_does_one_whose_update_failed(self, server, cli):
        server.add_deployment("churn", update_state=Deployment.UPDATE_STATE_FAILED)
        assert "commit resolved" in cli("logs", "churn").out

    def test_which_log_can_be_said(self, server, cli, churn):
        result = cli("logs", "churn", "--build", "--revision", "2")
        assert "commit resolved" in result.out
        assert result.err == ""
        assert server.requests("ReadLog")[0].revision == 2
        assert server.requests("GetDeployment") == []
        assert cli("logs", "churn", "--run", "--build").code == 2

    def test_only_the_last_lines(self, cli, churn):
        lines = cli("logs", "churn", "--run", "--last", "2").out.splitlines()
        assert [line.split()[-1] for line in lines] == ["three", "red"]

    def test_in_json_it_is_an_object_a_line_with_the_text_as_it_is(self, cli, churn):
        lines = cli("logs", "churn", "--json", "-n", "1").json_lines
        assert [(line["text"], line["worker"]) for line in lines] == [("four \x1b[31mred", "0123456789ab")]

    def test_following_goes_on_until_ctrl_c(self, server, background, churn):
        with background("logs", "churn", "--run", "-f", "--last", "1") as process:
            assert process.stdout.readline().endswith("  four red\n")
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == ("", "")
            assert process.returncode == 130
        assert server.requests("TailLog")[0].last_lines == 1

    def test_only_what_one_call_wrote(self, server, cli, churn):
        result = cli("logs", "churn", "--request", "7c0e-1")
        assert (result.code, result.err) == (0, "")
        assert [line.split()[-1] for line in result.out.splitlines()] == ["two"]
        assert server.requests("GetDeployment") == []

    def test_a_call_that_wrote_nothing_is_said_to_have_no_line(self, cli, churn):
        result = cli("logs", "churn", "--request", "7c0e-2")
        assert (result.code, result.out) == (0, "")
        assert result.err == (
            "note: no line of the run log belongs to request 7c0e-2; it wrote nothing, was called with --debug, or its "
            "lines are no longer kept\n"
        )

    @pytest.mark.parametrize(
        "flags", [["--request", "7c0e-2", "--json"], ["--request", "7c0e-1", "-n", "0"], ["--run"]]
    )
    def test_nothing_else_is_said_to_have_no_line(self, server, cli, churn, flags):
        if flags == ["--run"]:
            server.run_log.clear()
        result = cli("logs", "churn", *flags)
        assert (result.code, result.out, result.err) == (0, "", "")

    def test_a_call_can_be_followed(self, server, background, churn):
        with background("logs", "churn", "--run", "-f", "--request", "7c0e-1") as process:
            assert process.stdout.readline().endswith("  two\n")
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == ("", "")

    def test_who_follows_a_call_waits_for_its_first_line(self, server, background, churn):
        with background("logs", "churn", "--run", "-f", "--request", "7c0e-2") as process:
            assert server.watched.wait(PATIENCE)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == ("", "")

    def test_a_build_has_no_calls(self, server, cli, churn):
        result = cli("logs", "churn", "--build", "--request", "7c0e-1")
        assert (result.code, server.calls) == (2, [])

    def test_following_a_build_ends_with_it(self, cli, churn):
        assert len(cli("logs", "churn", "--build", "--follow").out.splitlines()) == 3
