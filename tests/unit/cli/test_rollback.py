"""Going back to a revision, and what revisions there are."""

import pytest

from modelhost.v1.deployment_pb2 import Deployment, Failure, Revision
from tests.unit.client.fake_server import COMMIT, reason

NO_NUMPY = Failure(reason=reason("IMPORT_FAILED"), message="no module named numpy", hint="Add it.", step="load")


@pytest.fixture
def churn(server):
    """Running its second revision, the first being ready."""
    churn = server.add_deployment("churn")
    server.add_revision("churn")
    for revision in server.revisions["churn"]:
        revision.state, revision.commit = Revision.STATE_READY, COMMIT
        revision.ready_time.CopyFrom(revision.create_time)
    churn.active_revision = 2
    return churn


def test_a_running_deployment_is_followed_until_it_runs_the_other(server, cli, churn):
    result = cli("rollback", "churn", "1")
    assert result.code == 0
    [request] = server.requests("RollbackDeployment")
    assert (request.name, request.revision) == ("churn", 1)
    assert "churn is running: revision 1, commit 4f2c1a90d1\n" in result.out
    assert churn.active_revision == 1


def test_the_build_log_of_that_revision_is_shown(server, cli, churn):
    assert "load       model loaded" in cli("rollback", "churn", "1").out
    assert server.requests("TailLog")[0].revision == 1


def test_one_that_is_stopped_is_started_with_it(server, cli, churn):
    churn.state, churn.active_revision = Deployment.STATE_STOPPED, 0
    assert "churn is running: revision 1, commit" in cli("rollback", "churn", "1").out
    assert server.requests("StartDeployment") == []


def test_a_failure_is_1_and_says_what_goes_on_serving(server, cli, churn):
    server.build.failure = NO_NUMPY
    result = cli("rollback", "churn", "1")
    assert result.code == 1
    assert result.err.splitlines() == [
        "error: revision 1 of churn failed in load; revision 2 goes on serving: no module named numpy (IMPORT_FAILED)",
        "hint: Add it.",
    ]


def test_it_need_not_be_followed(server, cli, churn):
    result = cli("rollback", "churn", "1", "--no-wait")
    assert result.out == "churn goes for revision 1, running, updating\n"
    assert "`modelhost show churn --watch`" in result.err
    assert server.requests("WatchDeployment") == []


def test_with_json_the_last_line_is_the_deployment(cli, churn):
    *before, last = cli("rollback", "churn", "1", "--json").json_lines
    assert {key for line in before for key in line} == {"log", "state"}
    assert last["deployment"]["active_revision"] == 1


@pytest.mark.parametrize("number", ["0", "x"])
def test_a_revision_is_a_number_from_1(server, cli, number):
    assert cli("rollback", "churn", number).code == 2
    assert server.calls == []


class TestRevisions:
    def test_all_are_listed_with_what_each_is(self, server, cli, churn):
        for _ in range(4):
            server.add_revision("churn")
        broken = server.revisions["churn"][4]
        broken.state = Revision.STATE_FAILED
        broken.failure.reason = reason("REVISION_SUPERSEDED")
        heading, *rows = cli("show", "churn", "--revisions").out.splitlines()
        assert heading.split() == ["REVISION", "STATE", "IS", "COMMIT", "REF", "MADE"]
        assert [row.split()[:3] for row in rows] == [
            ["6", "pending", "target"],
            ["5", "failed", "(REVISION_SUPERSEDED)"],
            ["4", "pending", "-"],
            ["3", "pending", "-"],
            ["2", "ready", "active"],
            ["1", "ready", "-"],
        ]
        assert rows[4].split()[3] == "4f2c1a90d1"

    def test_the_one_that_runs_as_it_should_is_both(self, cli, churn):
        assert "active, target" in cli("show", "churn", "--revisions").out

    def test_in_json_they_are_one_document(self, cli, churn):
        document = cli("show", "churn", "--revisions", "--json").document
        assert [revision["number"] for revision in document["revisions"]] == [2, 1]

    @pytest.mark.parametrize("other", [["--watch"], ["--revision", "1"]])
    def test_they_are_shown_alone(self, cli, churn, other):
        assert cli("show", "churn", "--revisions", *other).code == 2
