"""From a wish to a running model, and what is said on the way."""

import signal
import subprocess
from pathlib import Path

import grpc
import pytest

from modelhost.v1.deployment_pb2 import Deployment, Failure, ModelSettings
from tests.unit.client.fake_server import reason

PATIENCE = 30


def write(directory: Path, text: str) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "modelhost.toml").write_text(text, encoding="utf-8")
    return str(directory)


@pytest.fixture
def model(tmp_path):
    """A model's directory, with what names it and its source."""
    text = """
        name = "churn"
        description = "who leaves"
        runtime = "python3.6"

        [source]
        data_source = "models"
        ref = "v1.0"
        directory = "churn"
    """
    return write(tmp_path / "model", text)


NOPE = Failure(
    reason=reason("FUNCTION_NOT_FOUND"),
    message="main.py has no function 'nope'; it defines: predict",
    hint="Set the right one with `modelhost update --function`.",
    step="load",
)


def test_a_model_is_created_started_and_followed_until_it_runs(server, cli, model):
    result = cli("deploy", model)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[:3] == [
        "fetch      commit resolved",
        "provision  environment found",
        "load       model loaded",
    ]
    running, service, empty, command = result.out.splitlines()[3:]
    assert running.startswith("churn is running: revision 1, commit 4f2c1a90d1, built in ")
    assert (service, empty) == ("service svc-churn", "")
    assert command == "  modelhost predict churn '{\"age\": 41}'"


def test_only_what_is_not_for_the_server_is_taken_from_the_file(server, cli, model):
    cli("deploy", model)
    [request] = server.requests("CreateDeployment")
    assert request.deployment_id == "churn"
    assert request.deployment.description == "who leaves"
    source = request.deployment.source
    assert (source.data_source, source.project, source.ref, source.directory) == ("models", "", "v1.0", "churn")
    assert request.deployment.settings == ModelSettings()


def test_flags_come_before_the_file(server, cli, model):
    cli("deploy", model, "--name", "churn2", "--ref", "v2.0", "--path", "main.py", "--path", "data")
    [request] = server.requests("CreateDeployment")
    source = request.deployment.source
    assert (request.deployment_id, source.ref, list(source.paths)) == ("churn2", "v2.0", ["main.py", "data"])
    assert source.directory == "churn"


def test_flags_alone_will_do(server, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [
        *["--name", "churn", "--source", "models", "--project", "team/models", "--description", "leavers"],
        *["--runtime", "python2.7", "--main-file", "app.py", "--function", "score"],
        *["--requirement", "numpy==1.16.6", "--requirement", "pandas", "--requirements-file", "req.txt"],
        *["--working-dir", "work", "--import-path", "lib", "--env", "MODE=fast", "--env", "URL=http://a=b"],
        *["--text", "bytes", "--unbox", "--call-timeout", "1.5m", "--load-timeout", "2h", "--queue-size", "7"],
        *["--memory", "1.5GiB", "--max-batch-size", "16", "--max-batch-delay", "20ms"],
    ]
    assert cli("deploy", *flags).code == 0
    [request] = server.requests("CreateDeployment")
    assert request.deployment.description == "leavers"
    assert request.deployment.source.project == "team/models"
    expected = ModelSettings(
        runtime="python2.7",
        main_file="app.py",
        function="score",
        requirements=["numpy==1.16.6", "pandas"],
        requirements_file="req.txt",
        working_dir="work",
        import_paths=["lib"],
        env={"MODE": "fast", "URL": "http://a=b"},
        text=ModelSettings.TEXT_BYTES,
        unbox=True,
    )
    expected.limits.call_timeout.seconds = 90
    expected.limits.load_timeout.seconds = 7200
    expected.limits.queue_size = 7
    expected.limits.memory_bytes = 3 * 2**29
    expected.batching.max_size = 16
    expected.batching.max_delay.nanos = 20_000_000
    assert request.deployment.settings == expected


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--env", "MODE", "--env: 'MODE' is no variable"),
        ("--env", "=x", "--env: '=x' is no variable"),
        ("--call-timeout", "soon", "--call-timeout: 'soon' is no time"),
        ("--load-timeout", "5y", "--load-timeout: '5y' is no time"),
    ],
)
def test_a_flag_that_makes_no_sense_is_refused_before_anything_is_sent(server, cli, model, flag, value, message):
    result = cli("deploy", model, flag, value)
    assert result.code == 2
    assert message in result.err
    assert server.calls == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--name is missing, and "),
        ('name = "churn"', "--source is missing, and "),
        ("name = churn", "is not TOML: "),
        ("name = 3", "name must be text"),
        ('source = "models"', "source must be a table"),
        ("[source]\nbranch = 'main'", "[source] has no 'branch'"),
        ("[source]\nref = 1.0", "source.ref must be text"),
        ("[source]\npaths = 'main.py'", "source.paths must be a list of text"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_before_anything_is_sent(server, cli, tmp_path, text, message):
    result = cli("deploy", write(tmp_path / "model", text))
    assert result.code == 2
    assert message in result.err
    assert server.calls == []


def test_without_a_file_what_is_missing_is_said(cli, tmp_path):
    result = cli("deploy", str(tmp_path))
    assert result.code == 2
    assert f"error: --name is missing, and there is no {tmp_path}/modelhost.toml" in result.err
    assert 'hint: give --name, or write name = "…" into modelhost.toml' in result.err


def test_a_deployment_that_exists_is_updated_as_a_whole(server, cli, model):
    settings = ModelSettings(function="old", runtime="python2.7")
    server.add_deployment("churn", state=Deployment.STATE_STOPPED, settings=settings)
    result = cli("deploy", model, "--runtime", "python3.6")
    assert result.code == 0
    [request] = server.requests("UpdateDeployment")
    assert list(request.update_mask.paths) == ["source", "settings", "description"]
    assert request.deployment.settings == ModelSettings(runtime="python3.6")
    assert server.requests("CreateDeployment") == []
    assert [request.name for request in server.requests("StartDeployment")] == ["deployments/churn"]
    assert "note: was set before and is not set now: function; `modelhost update` would keep it" in result.err
    assert "churn is running: revision 2," in result.out


def test_a_running_deployment_is_updated_and_not_started_again(server, cli, model):
    server.add_deployment("churn")
    assert "churn is running: revision 2," in cli("deploy", model).out
    assert server.requests("StartDeployment") == []


def test_a_failure_says_why_and_what_to_do(server, cli, model):
    server.build.failure = NOPE
    result = cli("deploy", model)
    assert result.code == 1
    assert result.out.splitlines()[-1] == "load       model loaded"
    assert result.err.splitlines() == [
        "error: revision 1 of churn failed in load: main.py has no function 'nope'; it defines: predict "
        "(FUNCTION_NOT_FOUND)",
        "hint: Set the right one with `modelhost update --function`.",
    ]


def test_a_failed_update_says_what_goes_on_serving(server, cli, model):
    server.add_deployment("churn")
    server.build.failure = NOPE
    result = cli("deploy", model)
    assert result.code == 1
    assert "revision 2 of churn failed in load; revision 1 goes on serving: " in result.err


def test_quiet_prints_only_the_end(server, cli, model):
    assert cli("deploy", model, "--quiet").out.startswith("churn is running: ")


def test_quiet_prints_the_last_lines_of_a_failure(server, cli, model):
    server.build.failure = NOPE
    result = cli("deploy", model, "--quiet")
    assert (result.code, result.out) == (1, "")
    assert "  load       model loaded\n" in result.err


def test_with_json_every_line_is_an_object_and_the_last_one_the_deployment(server, cli, model):
    result = cli("deploy", model, "--json")
    assert (result.code, result.err) == (0, "")
    *before, last = result.json_lines
    assert [line["log"]["text"] for line in before if "log" in line] == server.build.lines
    states = [line["state"]["revision"]["state"] for line in before if "state" in line]
    assert states[0] == "STATE_PENDING"
    assert states[-1] == "STATE_READY"
    assert last["deployment"]["state"] == "STATE_RUNNING"


def test_with_json_a_failure_is_on_both_streams(server, cli, model):
    server.build.failure = NOPE
    result = cli("deploy", model, "--json")
    assert result.code == 1
    assert result.json_lines[-1]["deployment"]["state"] == "STATE_FAILED"
    assert (result.error["reason"], result.error["exit_code"]) == ("FUNCTION_NOT_FOUND", 1)


def test_it_can_be_created_without_being_started(server, cli, model):
    assert cli("deploy", model, "--no-start").out == "churn created, stopped\n"
    assert server.requests("StartDeployment") == []
    assert cli("deploy", model, "--no-start", "--json").document["deployment"]["name"] == "deployments/churn"


def test_it_can_be_started_without_being_followed(server, cli, model):
    result = cli("deploy", model, "--no-wait")
    assert result.out == "churn created, starting\n"
    assert "`modelhost show churn --watch`" in result.err
    assert server.requests("WatchDeployment") == []


def test_it_can_be_checked_without_being_changed(server, cli, model):
    assert cli("deploy", model, "--validate-only").out == "churn can be created; nothing was changed\n"
    assert server.requests("CreateDeployment")[0].validate_only is True
    server.add_deployment("churn")
    assert cli("deploy", model, "--validate-only").out == "churn can be updated; nothing was changed\n"
    assert server.requests("UpdateDeployment")[0].validate_only is True


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"target_revision": 9}, 4, "churn was changed meanwhile: it goes for revision 9, not 1"),
        ({"state": Deployment.STATE_STOPPED}, 4, "churn was stopped meanwhile"),
        ({"state": Deployment.STATE_DELETING}, 3, "churn was deleted meanwhile"),
    ],
)
def test_what_others_do_meanwhile_is_noticed(server, cli, model, change, code, message):
    cli("deploy", model, "--no-start")
    server.on_watch = lambda deployment: [setattr(deployment, name, value) for name, value in change.items()]
    result = cli("start", "churn")
    assert result.code == code
    assert message in result.err


def test_a_watch_that_breaks_is_an_error_of_its_own(server, cli, model):
    server.refuse("WatchDeployment", grpc.StatusCode.UNAVAILABLE, "the server is stopping", "SERVER_STOPPING")
    result = cli("deploy", model)
    assert (result.code, result.err) == (5, "error: the server is stopping\n")


def test_a_log_that_cannot_be_followed_does_not_matter(server, cli, model):
    server.refuse("TailLog", grpc.StatusCode.INTERNAL, "the log is broken", "INTERNAL")
    result = cli("deploy", model)
    assert result.code == 0
    assert "churn is running" in result.out


def test_ctrl_c_leaves_the_deployment_as_it_is(server, background, model):
    server.build.hangs = True
    with background("deploy", model) as process:
        assert server.watched.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
    assert err.splitlines() == [
        "interrupted: churn is no longer watched and goes on by itself",
        "hint: `modelhost show churn --watch`, `modelhost logs churn --build -f`",
    ]
    assert server.requests("StopDeployment") == []
    assert server.requests("DeleteDeployment") == []


class TestInARepository:
    """A model's directory within a Git work tree."""

    @pytest.fixture
    def repository(self, tmp_path):
        write(tmp_path / "repo" / "models" / "churn", 'name = "churn"\n[source]\ndata_source = "models"\n')
        (tmp_path / "repo" / "models" / "churn" / "main.py").write_text("def predict(x): return x\n")
        self.git(tmp_path / "repo", "init", "--quiet")
        self.commit(tmp_path / "repo")
        return tmp_path / "repo"

    def git(self, directory, *arguments):
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)

    def commit(self, repository):
        self.git(repository, "add", "--all")
        self.git(repository, "commit", "--quiet", "--message", "a commit")

    def test_the_directory_is_where_the_file_lies(self, server, cli, repository):
        result = cli("deploy", str(repository / "models" / "churn"))
        assert result.code == 0
        assert result.err == (
            "note: the model's root is models/churn, where modelhost.toml lies; --directory sets another\n"
        )
        assert server.requests("CreateDeployment")[0].deployment.source.directory == "models/churn"

    def test_a_directory_that_is_said_stands(self, server, cli, repository):
        assert cli("deploy", str(repository / "models" / "churn"), "--directory", "other").err == ""
        assert server.requests("CreateDeployment")[0].deployment.source.directory == "other"

    def test_at_the_root_there_is_nothing_to_say(self, server, cli, repository):
        write(repository, 'name = "churn"\n[source]\ndata_source = "models"\n')
        self.commit(repository)
        assert cli("deploy", str(repository)).err == ""
        assert server.requests("CreateDeployment")[0].deployment.source.directory == ""

    def test_what_is_not_committed_is_warned_of(self, cli, repository):
        model = repository / "models" / "churn"
        (model / "main.py").write_text("def predict(x): return 2 * x\n")
        (model / "a new name.py").write_text("")
        (repository / "elsewhere.txt").write_text("")
        err = cli("deploy", str(model)).err
        assert "warning: not committed, so not what is deployed: main.py, a new name.py\n" in err

    def test_of_many_files_only_the_first_are_named(self, cli, repository):
        model = repository / "models" / "churn"
        for name in "abcde":
            (model / name).write_text("")
        assert "not what is deployed: a, b, c and 2 more\n" in cli("deploy", str(model)).err

    def test_a_renamed_file_is_named_once(self, cli, repository):
        model = repository / "models" / "churn"
        self.git(model, "mv", "main.py", "app.py")
        assert "not what is deployed: app.py\n" in cli("deploy", str(model)).err

    def test_without_git_nothing_is_known(self, server, cli, repository, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        assert cli("deploy", str(repository / "models" / "churn")).err == ""
        assert server.requests("CreateDeployment")[0].deployment.source.directory == ""
