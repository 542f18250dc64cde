"""Environment variables, and those whose values nobody is to see."""

import pytest

from modelhost.v1.deployment_pb2 import ModelSettings, ModelSource

VALUE = "correct horse\nbattery staple"


@pytest.fixture
def churn(server):
    settings = ModelSettings(env={"MODE": "slow", "DEBUG": "1"}, secret_env_names=["API_KEY", "OLD_KEY"])
    return server.add_deployment("churn", settings=settings, source=ModelSource(ref="main"), etag="7")


def sent(server):
    [request] = server.requests("UpdateDeployment")
    return request


def test_a_variable_is_set_and_the_others_stay(server, cli, churn):
    assert cli("update", "churn", "--env", "MODE=fast", "--env", "URL=http://a=b").code == 0
    assert list(sent(server).update_mask.paths) == ["settings.env"]
    assert sent(server).deployment.settings.env == {"MODE": "fast", "DEBUG": "1", "URL": "http://a=b"}


def test_what_others_set_meanwhile_is_not_lost(server, cli, churn):
    cli("update", "churn", "--env", "MODE=fast")
    assert sent(server).deployment.etag == "7"


def test_a_variable_is_removed_and_the_others_stay(server, cli, churn):
    assert cli("update", "churn", "--unset-env", "DEBUG").code == 0
    assert sent(server).deployment.settings.env == {"MODE": "slow"}


def test_reset_and_set_at_once_leaves_only_what_is_set(server, cli, churn):
    assert cli("update", "churn", "--reset", "env", "--env", "MODE=fast").code == 0
    assert sent(server).deployment.settings.env == {"MODE": "fast"}


def test_a_secret_is_taken_from_the_variable_of_that_name(server, cli, churn, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", VALUE)
    result = cli("update", "churn", "--secret-env", "DB_PASSWORD")
    assert result.code == 0
    assert list(sent(server).update_mask.paths) == ["settings.secret_env"]
    assert sent(server).deployment.settings.secret_env == {"DB_PASSWORD": VALUE}
    assert "correct horse" not in result.out + result.err


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_is_taken_from_a_file(server, cli, tmp_path, end):
    (tmp_path / "key").write_text(VALUE + end, newline="")
    flags = ["--name", "churn", "--source", "models", "--secret-env", f"DB_PASSWORD=@{tmp_path / 'key'}"]
    assert cli("deploy", str(tmp_path), *flags).code == 0
    assert server.requests("CreateDeployment")[0].deployment.settings.secret_env == {"DB_PASSWORD": VALUE}


@pytest.mark.parametrize("verb", [["update", "churn"], ["deploy", "--name", "churn", "--source", "models"]])
def test_a_value_on_the_command_line_is_refused_and_not_repeated(server, cli, churn, verb):
    result = cli(*verb, "--secret-env", "DB_PASSWORD=hunter2")
    assert result.code == 2
    assert "lists of processes and the shell's history show it" in result.err
    assert "hint: export DB_PASSWORD and write --secret-env DB_PASSWORD, or" in result.err
    assert "hunter2" not in result.out + result.err
    assert server.requests("UpdateDeployment") == server.requests("CreateDeployment") == []


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("NOT_THERE", "there is no variable NOT_THERE to take the value from"),
        ("EMPTY", "the value is empty"),
        ("KEY=@/nope", "cannot read /nope: No such file"),
        ("=@/nope", "a name is missing"),
    ],
)
def test_a_secret_without_a_value_is_refused(server, cli, churn, monkeypatch, flag, message):
    monkeypatch.setenv("EMPTY", "")
    result = cli("update", "churn", "--secret-env", flag)
    assert result.code == 2
    assert message in result.err
    assert server.calls == []


def test_a_secret_that_is_no_text_is_refused_without_its_bytes(cli, churn, tmp_path):
    (tmp_path / "key").write_bytes(b"secret\xff")
    result = cli("update", "churn", "--secret-env", f"KEY=@{tmp_path / 'key'}")
    assert (result.code, f"{tmp_path / 'key'} is not UTF-8 at byte 6" in result.err) == (2, True)


def test_a_secret_is_removed(server, cli, churn, monkeypatch):
    monkeypatch.setenv("API_KEY", VALUE)
    assert cli("update", "churn", "--unset-secret-env", "OLD_KEY", "--secret-env", "API_KEY").code == 0
    assert sent(server).deployment.settings.secret_env == {"OLD_KEY": "", "API_KEY": VALUE}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--unset-env", "NOPE"], "--unset-env NOPE: it is not set\nhint: set are: DEBUG, MODE"),
        (["--unset-secret-env", "NOPE"], "--unset-secret-env NOPE: it is not set\nhint: set are: API_KEY, OLD_KEY"),
        (["--unset-env", "MODE", "--env", "MODE=x"], "--unset-env MODE: it is given a value at once"),
        (["--reset", "secret_env"], "there is no setting 'secret_env'"),
    ],
)
def test_what_cannot_be_removed_is_refused(server, cli, churn, flags, message):
    result = cli("update", "churn", *flags)
    assert result.code == 2
    assert message in result.err
    assert server.requests("UpdateDeployment") == []


def test_a_deployment_as_a_whole_keeps_its_secrets_without_a_word(cli, churn, tmp_path):
    result = cli("deploy", str(tmp_path), "--name", "churn", "--source", "models")
    assert "note: was set before and is not set now: env;" in result.err


def test_of_a_secret_only_the_name_is_shown(cli, churn):
    shown = cli("show", "churn").out
    assert "API_KEY=***, OLD_KEY=***" in shown
    assert "DEBUG=1, MODE=slow" in shown
