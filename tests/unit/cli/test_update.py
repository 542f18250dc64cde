"""Changing what is named, and nothing else."""

import pytest

from modelhost.v1.deployment_pb2 import Deployment, ModelSettings, ModelSource


@pytest.fixture
def churn(server):
    return server.add_deployment(
        "churn",
        description="leavers",
        source=ModelSource(data_source="dataSources/models", ref="main", directory="churn"),
        settings=ModelSettings(function="score", runtime="python3.6"),
    )


def paths(server):
    [request] = server.requests("UpdateDeployment")
    return list(request.update_mask.paths)


def test_only_what_is_named_is_sent(server, cli, churn):
    result = cli("update", "churn", "--ref", "v1.3", "--call-timeout", "5m", "--env", "MODE=fast")
    assert result.code == 0
    assert paths(server) == ["source.ref", "settings.env", "settings.limits.call_timeout"]
    assert "churn is running: revision 2," in result.out
    assert churn.source == ModelSource(data_source="dataSources/models", ref="v1.3", directory="churn")
    assert churn.settings.function == "score"


def test_with_nothing_named_the_branch_is_resolved_anew(server, cli, churn):
    result = cli("update", "churn")
    assert paths(server) == ["source"]
    assert server.requests("UpdateDeployment")[0].deployment.source == churn.source
    assert "churn is running: revision 2," in result.out


def test_a_setting_can_be_given_back_to_the_file(server, cli, churn):
    assert cli("update", "churn", "--reset", "function", "--reset", "call-timeout").code == 0
    assert paths(server) == ["settings.function", "settings.limits.call_timeout"]
    assert churn.settings.function == ""
    assert churn.settings.runtime == "python3.6"


def test_an_unknown_setting_cannot_be_reset(server, cli, churn):
    result = cli("update", "churn", "--reset", "colour")
    assert result.code == 2
    assert "there is no setting 'colour'" in result.err
    assert server.requests("UpdateDeployment") == []


def test_a_description_alone_makes_no_revision_to_follow(server, cli, churn):
    assert cli("update", "churn", "--description", "who leaves").out == "churn updated, running\n"
    assert paths(server) == ["description"]
    assert server.requests("WatchDeployment") == []
    assert churn.description == "who leaves"


def test_a_stopped_deployment_stays_stopped(server, cli, churn):
    churn.state = Deployment.STATE_STOPPED
    assert cli("update", "churn", "--ref", "v1.3").out == "churn updated, stopped\n"
    assert server.requests("StartDeployment") == []


def test_a_failed_deployment_is_started_again(server, cli, churn):
    churn.state, churn.active_revision = Deployment.STATE_FAILED, 0
    assert "churn is running: revision 2," in cli("update", "churn", "--function", "predict").out
    assert len(server.requests("StartDeployment")) == 1


def test_it_need_not_be_followed(server, cli, churn):
    assert cli("update", "churn", "--ref", "v1.3", "--no-wait").out == "churn updated, running, updating\n"
    assert server.requests("WatchDeployment") == []


def test_it_can_be_checked_without_being_changed(server, cli, churn):
    result = cli("update", "churn", "--ref", "v1.3", "--validate-only")
    assert result.out == "churn can be updated; nothing was changed\n"
    assert churn.source.ref == "main"


def test_what_is_not_there_cannot_be_updated(cli):
    assert cli("update", "churn", "--ref", "v1.3").code == 3
