"""GitLab data sources on the command line, and the ways of their token."""

import io

import pytest

from modelhost.v1 import data_source_pb2  # not its names: pytest would take TestDataSourceResponse for a test

URL = "https://gitlab.example.com"
WARNING = "the token expires on 2026-04-01, in 9 days: make a new one in GitLab and give it to the data source"
ADD = ("source", "add", "energy", "--gitlab", URL)


@pytest.fixture
def stdin(monkeypatch):
    """Put a text into a pipe."""

    def pipe(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    pipe("glpat-piped\n")
    return pipe


@pytest.fixture
def there(cli, stdin, server):
    """The GitLab is registered."""
    assert cli(*ADD, "--no-test").code == 0
    server.calls.clear()


def test_a_gitlab_is_added_and_tried(server, cli, stdin, tmp_path):
    (tmp_path / "ca.pem").write_text("PEM")
    result = cli(*ADD, "--namespace", "energy", "--gitlab-ca-file", str(tmp_path / "ca.pem"), "--insecure-skip-verify")
    assert result.out.splitlines() == [
        "data source energy added: GitLab https://gitlab.example.com/energy",
        "ok: Git repository, default branch main, 3 branches and tags",
    ]
    [request] = server.requests("CreateDataSource")
    assert request.data_source.gitlab == data_source_pb2.GitLabLocation(
        url=URL, namespace="energy", token="glpat-piped", ca_certificates="PEM", insecure_skip_verify=True
    )


def test_the_token_comes_from_a_file_or_a_variable_before_a_pipe(server, cli, stdin, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("glpat-filed\n")
    cli(*ADD, "--no-test")
    monkeypatch.setenv("MODELHOST_GITLAB_TOKEN", "glpat-variable")
    cli(*ADD, "--no-test")
    cli(*ADD, "--no-test", "--gitlab-token-file", str(tmp_path / "token"))
    assert [request.data_source.gitlab.token for request in server.requests("CreateDataSource")] == [
        "glpat-piped",
        "glpat-variable",
        "glpat-filed",
    ]


def test_the_token_is_asked_for_on_a_terminal_and_not_shown(server, terminal):
    command = terminal(*ADD)
    command.wait_for("GitLab's token (it is not shown): ")
    command.type("glpat-typed\n")
    code, shown = command.finish()
    assert code == 0
    assert "glpat-typed" not in shown
    assert server.requests("CreateDataSource")[0].data_source.gitlab.token == "glpat-typed"


def test_there_is_no_option_for_the_token(server, cli):
    assert cli(*ADD, "--token", "glpat-shown").code == 2
    assert "no option for the token itself" in " ".join(cli("source", "add", "--help").out.split())


@pytest.mark.parametrize("text", ["", " \n"])
def test_without_a_token_nothing_is_added(server, cli, stdin, text):
    stdin(text)
    result = cli(*ADD)
    assert (result.code, result.err.splitlines()) == (
        2,
        [
            "error: there is no GitLab token in stdin",
            "hint: give it with --gitlab-token-file FILE, or in MODELHOST_GITLAB_TOKEN",
        ],
    )
    assert server.calls == []


def test_a_file_that_cannot_be_read_is_named(cli, tmp_path):
    (tmp_path / "latin").write_bytes(b"\xe9")
    missing = cli(*ADD, "--gitlab-token-file", str(tmp_path / "missing"))
    assert (missing.code, missing.err) == (2, f"error: cannot read {tmp_path}/missing: No such file or directory\n")
    latin = cli(*ADD, "--gitlab-ca-file", str(tmp_path / "latin"))
    assert (latin.code, latin.err) == (2, f"error: cannot read {tmp_path}/latin: it is not text\n")


@pytest.mark.parametrize(
    "words", [["models"], ["models", "/repos", "--gitlab", URL], ["models", "/repos", "--namespace", "energy"]]
)
def test_a_place_is_git_or_a_gitlab(server, cli, stdin, words):
    assert cli("source", "add", *words).code == 2
    assert server.calls == []


def test_what_will_fail_soon_is_warned_of(server, cli, stdin, there):
    stdin("glpat-other")
    server.test_answer.warnings.append(WARNING)
    server.sources["dataSources/energy"].warnings.append(WARNING)

    for words in (["source", "add", "other", "--gitlab", URL], ["source", "test", "energy"]):
        result = cli(*words)
        assert (result.code, result.err) == (0, f"warning: {WARNING}\n")
        assert "ok: " in result.out
    listed = cli("source", "list")
    assert "GitLab https://gitlab.example.com" in listed.out
    assert listed.err == f"warning: energy: {WARNING}\n"
    assert cli("source", "list", "--json").document["data_sources"][0]["warnings"] == [WARNING]
    tested = cli("source", "test", "energy", "--json")
    assert (tested.document["warnings"], tested.err) == ([WARNING], "")


def test_a_new_token_is_asked_for_by_name_and_taken_from_the_pipe(server, cli, stdin, there):
    stdin("glpat-new\n")
    result = cli("source", "update", "energy", "--new-token")
    assert result.out.splitlines()[0] == "data source energy updated: GitLab https://gitlab.example.com"
    [request] = server.requests("UpdateDataSource")
    assert list(request.update_mask.paths) == ["gitlab.token"]
    assert request.data_source.gitlab.token == "glpat-new"
    assert server.requests("TestDataSource")


def test_an_update_without_a_new_token_reads_no_pipe(server, cli, stdin, there):
    stdin("glpat-unread")
    cli("source", "update", "energy", "--namespace", "", "--verify", "--no-test")
    [request] = server.requests("UpdateDataSource")
    assert list(request.update_mask.paths) == ["gitlab.namespace", "gitlab.insecure_skip_verify"]
    assert request.data_source.gitlab.token == ""
    assert server.requests("TestDataSource") == []


def test_a_gitlab_moves_with_its_token(server, cli, there, tmp_path):
    (tmp_path / "token").write_text("glpat-new")
    cli("source", "update", "energy", "--url", "https://other.example.com")
    cli("source", "update", "energy", "--url", "https://o.example.com", "--gitlab-token-file", str(tmp_path / "token"))
    first, second = server.requests("UpdateDataSource")
    assert list(first.update_mask.paths) == ["gitlab.url"]
    assert list(second.update_mask.paths) == ["gitlab.url", "gitlab.token"]
    assert second.data_source.gitlab.url == "https://o.example.com"
