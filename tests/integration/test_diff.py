"""What is different from one revision to another."""

from modelhost.v1 import deployment_pb2, log_pb2
from tests.git_repos import Repo
from tests.revisions import diff, model
from tests.running import RunningServer, eventually, reason_of


def test_a_diff_shows_files_settings_and_packages(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    first = repo.commit(
        {"main.py": model("one"), "gone.txt": b"x\n", "data.bin": b"\0\1", "requirements.txt": b"six==1.15.0\n"}
    )
    server.deploy(name, source)
    second = repo.commit(
        {
            "main.py": b"def score(parameters):\n    return 'two'\n",
            "data.bin": b"\0\2",
            "new ü.txt": b"no end",
            "requirements.txt": b"six==1.16.0\n",
        }
    )
    server.update(name, function="score", env={"LEVEL": "high"})

    found = diff(server, name, 2)

    assert (found.base_revision, found.revision) == (1, 2)
    assert (found.commit.before, found.commit.after) == (first, second)
    files = {one.path: one for one in found.files}
    assert sorted(files) == ["data.bin", "gone.txt", "main.py", "new ü.txt", "requirements.txt"]
    assert files["main.py"].unified_diff == (
        "--- a/main.py\n+++ b/main.py\n@@ -1,2 +1,2 @@\n"
        "-def predict(parameters):\n-    return 'one'\n+def score(parameters):\n+    return 'two'\n"
    )
    assert files["data.bin"].unified_diff == ""
    assert files["data.bin"].before_sha256 != files["data.bin"].after_sha256
    assert files["gone.txt"].after_sha256 == ""
    assert files["new ü.txt"].before_sha256 == ""
    assert files["new ü.txt"].unified_diff.endswith("+no end\n\\ No newline at end of file\n")
    settings = {one.name: (one.before, one.after) for one in found.settings}
    assert settings == {"function": ("predict", "score"), "env.LEVEL": ("", "high")}
    assert [(one.name, one.before, one.after) for one in found.packages] == [("six", "1.15.0", "1.16.0")]


def test_only_newlines_end_a_line_of_a_diff(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.py": model("one") + b"# a form feed \x0c in a line\r\n"})
    server.deploy(name, source)
    repo.commit({"main.py": model("one") + b"# another form feed \x0c in a line\r\n"})
    server.update(name, unbox=True)

    unified = diff(server, name, 2).files[0].unified_diff
    assert "-# a form feed \x0c in a line\r\n+# another" in unified
    assert "No newline" not in unified


def test_a_diff_of_large_tables_is_given_in_time(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    rows = "".join(f"{n % 7},{n % 11}\n" for n in range(50_000))
    repo.commit({"main.py": model("one"), "data.csv": rows.encode()})
    server.deploy(name, source)
    repo.commit({"main.py": model("one"), "data.csv": ("0,0\n" + rows[:-8] + "9,9\n").encode()})
    server.update(name, unbox=True)

    found = {one.path: one.unified_diff for one in diff(server, name, 2).files}

    assert found["data.csv"] == (
        "--- a/data.csv\n+++ b/data.csv\n@@ -1,4 +1,5 @@\n 0,0\n+0,0\n 1,1\n 2,2\n 3,3\n"
        "@@ -49996,5 +49997,4 @@\n 1,0\n 2,1\n 3,2\n-4,3\n-5,4\n+9,9\n"
    )


def test_a_diff_with_itself_is_empty_and_can_go_backwards(server: RunningServer, two: str) -> None:
    assert diff(server, two, 1) == deployment_pb2.DiffRevisionsResponse(base_revision=1, revision=1)
    backwards = diff(server, two, 1, base=2)
    assert (backwards.base_revision, backwards.revision) == (2, 1)
    assert "-    return 'two'\n+    return 'one'\n" in backwards.files[0].unified_diff


def test_a_diff_of_what_was_never_fetched_has_the_settings_that_were_asked_for(server: RunningServer, two: str) -> None:
    server.update(two, ref="no-such-branch")

    found = diff(server, two, 3)

    assert not found.files
    assert [(one.name, one.before, one.after) for one in found.settings] == [("ref", "main", "no-such-branch")]
    assert reason_of(lambda: diff(server, two, 8)) == "REVISION_NOT_FOUND"
    assert reason_of(lambda: diff(server, two, 3, base=8)) == "REVISION_NOT_FOUND"


def test_a_run_log_tells_revisions_apart(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    for word in ("one", "two"):
        repo.commit({"main.py": f"print({word!r})\n".encode() + model(word)})
        if word == "one":
            server.deploy(name, source)
        else:
            server.update(name, unbox=True)

    def lines(revision: int) -> list[str]:
        request = log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_RUN, revision=revision)
        return [entry.text for entry in server.client.admin.ReadLog(request).entries]

    eventually(lambda: (lines(1), lines(2)) == (["one"], ["two"]))
