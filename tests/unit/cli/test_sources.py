import pytest

from modelhost.v1 import data_source_pb2  # not its names: pytest would take TestDataSourceResponse for a test

UNREACHABLE = data_source_pb2.TestDataSourceResponse(message="it does not answer", reason="SOURCE_UNREACHABLE")


def test_a_source_is_added_and_tried(server, cli):
    result = cli("source", "add", "models", "https://git.example.com/models.git", "--description", "of the team")
    assert result.code == 0
    [request] = server.requests("CreateDataSource")
    assert request.data_source_id == "models"
    assert request.data_source.git.url == "https://git.example.com/models.git"
    assert request.data_source.description == "of the team"
    assert result.out.splitlines() == [
        "data source models added: https://git.example.com/models.git",
        "ok: Git repository, default branch main, 3 branches and tags",
    ]


def test_a_source_that_does_not_work_yet_is_added_with_a_warning(server, cli):
    server.test_answer = data_source_pb2.TestDataSourceResponse(
        message="it does not answer", reason="SOURCE_UNREACHABLE"
    )
    result = cli("source", "add", "models", "https://git.example.com/models.git", "--json")
    assert result.code == 0
    assert result.document["name"] == "dataSources/models"
    assert result.err == '{"warning": "it cannot be used yet: it does not answer"}\n'


def test_trying_it_can_be_left_out(server, cli):
    cli("source", "add", "models", "https://git.example.com/models.git", "--no-test")
    assert server.requests("TestDataSource") == []


def test_a_directory_is_made_absolute(server, cli, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    cli("source", "add", "models", "./models")
    assert server.requests("CreateDataSource")[0].data_source.git.url == str(tmp_path / "models")


def test_a_test_says_what_was_found(server, cli):
    result = cli("source", "test", "models", "--project", "fraud")
    assert (result.code, result.out) == (0, "ok: Git repository, default branch main, 3 branches and tags\n")
    assert server.requests("TestDataSource")[0].project == "fraud"


def test_a_test_that_fails_is_1(server, cli):
    server.test_answer = data_source_pb2.TestDataSourceResponse(
        message="it does not answer", reason="SOURCE_UNREACHABLE"
    )
    result = cli("source", "test", "models")
    assert (result.code, result.out, result.err) == (1, "", "error: it does not answer\n")
    result = cli("source", "test", "models", "--json")
    assert result.code == 1
    assert result.document["ok"] is False
    assert result.error["reason"] == "SOURCE_UNREACHABLE"


def test_a_list_has_all_its_pages(cli):
    for name in ("a", "b", "c"):
        cli("source", "add", name, f"https://git.example.com/{name}.git", "--no-test")
    assert [line.split()[0] for line in cli("source", "list").out.splitlines()] == ["NAME", "a", "b", "c"]
    document = cli("source", "list", "--json").document
    assert [source["name"] for source in document["data_sources"]] == [f"dataSources/{name}" for name in "abc"]
    assert document["next_page_token"] == ""


def test_a_source_is_deleted(server, cli):
    assert cli("source", "delete", "models").out == "data source models deleted\n"
    assert server.requests("DeleteDataSource")[0].name == "models"
    assert cli("source", "delete", "models", "--json").document == {}


def test_branches_and_tags_are_listed(server, cli):
    result = cli("source", "refs", "models", "--project", "fraud", "--prefix", "v1")
    assert [line.split()[:2] for line in result.out.splitlines()] == [
        ["NAME", "KIND"],
        ["v1.0", "tag"],
        ["v1.1", "tag"],
    ]
    assert server.requests("ListRefs")[0].project == "fraud"
    assert cli("source", "refs", "models", "--json").document["refs"][0]["is_default"] is True


def test_files_are_listed(server, cli):
    result = cli("source", "files", "models", "--ref", "v1.0", "--directory", "churn")
    assert result.out.splitlines() == [
        "SIZE    KIND       PATH",
        "-       submodule  data",
        "120 B   file       main.py",
        "2.5 MB  file       model.pkl",
    ]
    assert result.err.startswith("note: commit 4f2c1a90d1")
    request = server.requests("ListFiles")[0]
    assert (request.ref, request.directory) == ("v1.0", "churn")


def test_the_runtimes_say_what_is_missing(server, cli):
    result = cli("runtimes", "--refresh")
    assert result.out.splitlines() == [
        "RUNTIME    VERSION  USABLE  FOUND BY  PATH",
        "python2.7  2.7.18   yes     PATH      /usr/bin/python2",
        "r3.6       3.6.3    no      /opt/R    /opt/R/bin/R",
        "r3.6: no make",
    ]
    assert server.requests("ListRuntimes")[0].refresh is True
    assert [runtime["usable"] for runtime in cli("runtimes", "--json").document["runtimes"]] == [True, False]


def test_projects_are_listed(server, cli):
    lines = cli("source", "projects", "energy").out.splitlines()
    assert [line.split() for line in lines] == [
        ["NUMBER", "PATH", "TITLE", "DEFAULT", "BRANCH", "ACTIVE"],
        ["7", "forecasting/turbine", "Turbine", "main", "-"],
        ["9", "solar", "Solar", "-", "-"],
    ]
    found = cli("source", "projects", "energy", "--search", "turb", "--json").document
    assert [project["id"] for project in found["projects"]] == ["7"]


def test_a_file_is_printed_as_it_is(server, cli):
    server.text = "a\tb\r\n\x1b[7mc"
    result = cli("source", "cat", "energy", "lib/main.py", "--project", "7", "--ref", "v1.0")
    assert (result.code, result.out) == (0, server.text)
    assert result.err.startswith("note: commit 4f2c1a90d1")
    [request] = server.requests("ReadFile")
    assert (request.project, request.ref, request.path) == ("7", "v1.0", "lib/main.py")
    assert cli("source", "cat", "energy", "main.py", "--json").document["text"] == server.text


def test_of_a_large_file_the_rest_is_told_to_be_missing(server, cli):
    server.text_size = 2_500_000
    result = cli("source", "cat", "models", "large.csv")
    assert "warning: this is the beginning of large.csv: all of it has 2.5 MB" in result.err


def test_git_can_be_moved_and_described_anew(server, cli):
    cli("source", "add", "models", "https://git.example.com/models.git", "--no-test")
    result = cli("source", "update", "models", "--url", "https://git.example.com/other.git", "--description", "ours")
    assert result.out.splitlines() == [
        "data source models updated: https://git.example.com/other.git",
        "ok: Git repository, default branch main, 3 branches and tags",
    ]
    [request] = server.requests("UpdateDataSource")
    assert list(request.update_mask.paths) == ["description", "git.url"]
    assert cli("source", "update", "models", "--description", "", "--json").document["description"] == ""


def test_an_update_of_nothing_is_a_wrong_command_line(server, cli):
    result = cli("source", "update", "models")
    assert (result.code, result.err.splitlines()[0]) == (2, "error: there is nothing to change")
    assert server.requests("UpdateDataSource") == []


@pytest.mark.parametrize("verb", ["add", "update", "test", "list", "projects", "refs", "files", "cat", "delete"])
def test_every_verb_has_examples(run, verb):
    result = run("source", verb, "--help")
    assert result.code == 0
    assert f"modelhost source {verb}" in result.out.partition("Examples:")[2]
