"""Secret variables: the model has them, and nobody else ever sees them."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from modelhost.client import ModelHostError
from modelhost.server.errors import reason_name
from modelhost.v1 import deployment_pb2, log_pb2
from tests.git_repos import Repo
from tests.running import Deployment, RunningServer, eventually, reason_of

SECRET = "s3cr3t/päss word+" + "x" * 8
ANOTHER = "another-s3cr3t-value"
PYTHON = b"""# coding: utf-8
import os, subprocess, sys

def predict(parameters):
    secret = os.environ["DB_PASSWORD"]
    if parameters == "print":
        print("the secret is " + secret)
        sys.stderr.write("on stderr: " + secret + "\\n")
        return len(secret)
    if parameters == "raise":
        raise ValueError("cannot log in with " + secret)
    if parameters == "child":
        code = "import os,sys; sys.stdout.write(str(len(os.environ['DB_PASSWORD'])))"
        return int(subprocess.check_output([sys.executable, "-c", code]))
    if parameters == "hash":
        import hashlib
        return hashlib.sha256(os.environb[b"DB_PASSWORD"] if hasattr(os, "environb") else secret).hexdigest()
    return sorted(name for name in os.environ if name.startswith("DB_"))
"""
R = b"""
score <- function(parameters) {
  if (identical(parameters, "print")) cat("the secret is", Sys.getenv("DB_PASSWORD"), "\\n")
  if (identical(parameters, "raise")) stop("cannot log in with ", Sys.getenv("DB_PASSWORD"))
  nchar(Sys.getenv("DB_PASSWORD"), "bytes")
}
"""


def everywhere(folder: Path) -> bytes:
    """Every byte of every file of a state directory, but for the models' own copies of what they were given."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def forms(secret: str) -> list[bytes]:
    return [secret.encode(), json.dumps(secret)[1:-1].encode(), repr(secret)[1:-1].encode()]


def build_entries(server: RunningServer, name: str) -> str:
    request = log_pb2.ReadLogRequest(deployment=name, kind=log_pb2.LOG_KIND_BUILD)
    return str(server.client.admin.ReadLog(request))


@pytest.mark.parametrize(("runtime", "length"), [("python2.7", len(SECRET.encode())), ("python3.6", len(SECRET))])
def test_the_model_and_its_children_have_the_secret(
    server: RunningServer, repo: Repo, source: str, name: str, runtime: str, length: int
) -> None:
    repo.commit({"main.py": PYTHON})
    server.deploy(name, source, runtime=runtime, secret_env={"DB_PASSWORD": SECRET}, env={"DB_USER": "ada"})

    assert server.predict(name, "names") == ["DB_PASSWORD", "DB_USER"]
    assert server.predict(name, "child") == length
    assert server.predict(name, "print") == length


def test_r_has_the_secret_and_its_words_are_masked(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.R": R})
    server.deploy(name, source, runtime=server.runtime_of_r(), secret_env={"DB_PASSWORD": SECRET}, unbox=True)

    assert server.predict(name, "print") == len(SECRET.encode())
    with pytest.raises(ModelHostError) as caught:
        server.predict(name, "raise")
    assert SECRET not in str(caught.value)
    assert "cannot log in with ***" in str(caught.value)
    eventually(lambda: "the secret is ***" in server.run_log(name))


def test_no_answer_log_error_or_process_list_has_the_value(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PYTHON})
    created = server.create(name, source, secret_env={"DB_PASSWORD": SECRET})
    assert server.start(name).state == Deployment.STATE_RUNNING

    server.predict(name, "print")
    with pytest.raises(ModelHostError) as caught:
        server.predict(name, "raise")
    assert "cannot log in with ***" in str(caught.value)
    request = deployment_pb2.DebugDeploymentRequest(name=name, parameters_json='"raise"')
    debugged = server.client.admin.DebugDeployment(request)
    printed = server.client.admin.DebugDeployment(
        deployment_pb2.DebugDeploymentRequest(name=name, parameters_json='"print"')
    )
    assert printed.stdout == "the secret is ***\n"
    eventually(lambda: "ValueError: cannot log in with ***" in server.run_log(name))
    assert "on stderr: ***" in server.run_log(name)
    got = server.get(name)
    assert list(got.settings.secret_env_names) == ["DB_PASSWORD"]
    revision = server.client.admin.GetRevision(
        deployment_pb2.GetRevisionRequest(name=f"deployments/{name}/revisions/1")
    )
    said = [str(one) for one in (created, got, revision, debugged, printed)]
    said += [server.run_log(name), build_entries(server, name), str(caught.value), str(caught.value.metadata)]
    for form in forms(SECRET):
        assert form.decode() not in "".join(said)
        assert form not in everywhere(server.state_dir)
        for process in Path("/proc").glob("[0-9]*"):
            if (process / "status").exists() and os.access(process / "environ", os.R_OK) and is_ours(process, server):
                assert form not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()


def is_ours(process: Path, server: RunningServer) -> bool:
    """Whether it is one of the server's workers."""
    try:
        return str(server.state_dir).encode() in (process / "environ").read_bytes()
    except OSError:
        return False


def test_there_is_a_worker_to_look_at(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.py": PYTHON})
    server.deploy(name, source, secret_env={"DB_PASSWORD": SECRET})

    assert any(is_ours(process, server) for process in Path("/proc").glob("[0-9]*"))


@pytest.mark.parametrize(
    "text",
    [
        b"import os\nraise RuntimeError('while loading: ' + os.environ['DB_PASSWORD'])\n",
        b"import os\nos.write(2, b'dying with ' + os.environb[b'DB_PASSWORD'])\nos._exit(1)\n",
        b"import os\ndef predict(parameters):\n    return os.environ['DB_PASSWORD']\n",
    ],
    ids=["raises", "dies", "wrong-result"],
)
def test_a_failed_start_does_not_tell_the_value(
    server: RunningServer, repo: Repo, source: str, name: str, text: bytes
) -> None:
    repo.commit({"main.py": text, "modelhost.toml": b"[test]\nparameters = 1\nexpected = 2\n"})
    server.create(name, source, secret_env={"DB_PASSWORD": SECRET})

    failed = server.start(name)

    assert failed.state == Deployment.STATE_FAILED
    assert "***" in failed.failure.message
    said = str(failed) + failed.failure.message + build_entries(server, name) + server.run_log(name)
    assert not any(form.decode() in said for form in forms(SECRET))


CUT = b"""
import os, sys, time

def predict(parameters):
    secret, where = os.environ["DB_PASSWORD"], parameters["before"]
    text = "." * where + secret + "y" * 10
    if parameters["how"] == "print":
        for piece in (text[:parameters["pieces"]], text[parameters["pieces"]:] + "z" * 100000):
            sys.stdout.write(piece)
            sys.stdout.flush()
            time.sleep(0.2)
    if parameters["how"] == "raise":
        raise ValueError(text)
    return len(text)
"""


@pytest.mark.parametrize(("how", "limit"), [("print", 8 * 1024), ("raise", 1_000), ("captured", 64 * 1024)])
@pytest.mark.parametrize("part", [5, 14, 23])
def test_a_secret_across_a_cut_is_not_told_by_its_halves(
    server: RunningServer, repo: Repo, source: str, name: str, how: str, limit: int, part: int
) -> None:
    repo.commit({"main.py": CUT})
    server.deploy(name, source, secret_env={"DB_PASSWORD": SECRET})
    parameters = {"how": "print" if how == "captured" else how, "before": limit - part, "pieces": 8 * 1024 + 1}
    said = ""
    if how == "captured":
        request = deployment_pb2.DebugDeploymentRequest(name=name, parameters_json=json.dumps(parameters))
        said = server.client.admin.DebugDeployment(request).stdout
    elif how == "print":
        assert server.predict(name, parameters)
        eventually(lambda: "zzz" in server.run_log(name))  # in the next piece
        said = server.run_log(name)
    else:
        with pytest.raises(ModelHostError) as caught:
            server.predict(name, parameters)
        eventually(lambda: "ValueError" in server.run_log(name))
        said = str(caught.value) + str(caught.value.metadata) + server.run_log(name)

    assert "..." in said
    assert not any(SECRET[start : start + 4] in said for start in range(len(SECRET) - 3))


# ---- changes


def test_an_update_sets_removes_and_leaves(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.py": PYTHON})
    server.deploy(name, source, secret_env={"DB_PASSWORD": SECRET, "DB_TOKEN": ANOTHER})

    first = server.predict(name, "hash")
    left = server.update(name, unbox=True)
    assert list(left.settings.secret_env_names) == ["DB_PASSWORD", "DB_TOKEN"]
    assert server.predict(name, "hash") == first
    changed = server.update(name, secret_env={"DB_PASSWORD": ANOTHER, "DB_TOKEN": ""})

    assert changed.active_revision == 3
    assert list(changed.settings.secret_env_names) == ["DB_PASSWORD"]
    assert server.predict(name, "hash") != first
    assert server.predict(name, "names") == ["DB_PASSWORD"]


def test_a_rollback_brings_the_secrets_of_that_revision_back(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PYTHON})
    server.deploy(name, source, secret_env={"DB_PASSWORD": SECRET})
    first = server.predict(name, "hash")
    server.update(name, secret_env={"DB_PASSWORD": ANOTHER})
    assert server.predict(name, "hash") != first

    server.client.admin.RollbackDeployment(deployment_pb2.RollbackDeploymentRequest(name=name, revision=1))

    eventually(lambda: server.predict(name, "hash") == first)


def test_a_diff_says_that_a_secret_was_set_anew_and_not_to_what(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PYTHON})
    server.deploy(name, source, secret_env={"DB_PASSWORD": SECRET, "DB_TOKEN": SECRET})
    server.update(name, secret_env={"DB_PASSWORD": ANOTHER})

    request = deployment_pb2.DiffRevisionsRequest(name=f"deployments/{name}/revisions/2")
    found = server.client.admin.DiffRevisions(request)

    assert [one.name for one in found.settings] == ["secret_env.DB_PASSWORD"]
    assert SECRET not in str(found)
    assert ANOTHER not in str(found)


def test_a_repeat_with_another_value_is_another_request(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"main.py": PYTHON})
    server.create(name, source)

    def update(value: str) -> Deployment:
        settings = deployment_pb2.ModelSettings(secret_env={"DB_PASSWORD": value})
        return server.client.admin.UpdateDeployment(
            deployment_pb2.UpdateDeploymentRequest(
                deployment=Deployment(name=f"deployments/{name}", settings=settings),
                request_id="11111111-2222-4333-8444-" + name[-8:] + "0000",
            )
        )

    assert update(SECRET) == update(SECRET)
    assert reason_of(lambda: update(ANOTHER)) == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    "secret_env",
    [{"DB_PASSWORD": "abc"}, {"": SECRET}, {"A=B": SECRET}, {"A": SECRET + "\0"}, {"MODELHOST_X": SECRET}],
    ids=["short", "no-name", "equals", "nul", "reserved"],
)
def test_what_cannot_be_a_secret_variable_is_refused_without_its_value(
    server: RunningServer, repo: Repo, source: str, name: str, secret_env: dict[str, str]
) -> None:
    repo.commit({"main.py": PYTHON})

    with pytest.raises(ModelHostError) as caught:
        server.create(name, source, secret_env=secret_env)

    assert caught.value.reason == "FIELD_INVALID"
    assert caught.value.metadata["field"] == "deployment.settings.secret_env"
    assert not any(value in str(caught.value) + str(caught.value.metadata) for value in secret_env.values())


def test_a_name_is_a_variable_or_a_secret_one(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.py": PYTHON})
    both = {"DB_PASSWORD": "no secret after all"}

    assert reason_of(lambda: server.create(name, source, env=both, secret_env=both)) == "FIELD_INVALID"
    server.create(name, source, secret_env=both)
    assert reason_of(lambda: server.update(name, env=both)) == "FIELD_INVALID"
    assert server.get(name).target_revision == 1
    moved = server.update(name, env=both, secret_env={"DB_PASSWORD": ""})
    assert not moved.settings.secret_env_names


# ---- at rest


def test_another_key_does_not_open_what_is_stored(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.commit({"main.py": PYTHON})
    with RunningServer(tmp_path / "state") as server:
        server.add_source("models", repo)
        server.deploy("churn", "models", secret_env={"DB_PASSWORD": SECRET})
        key = tmp_path / "state" / "secret.key"
        assert key.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(tmp_path / "state" / "modelhost.db") as database:
        [(stored,)] = database.execute("SELECT settings FROM deployments")
    assert json.loads(stored)["secret_env"]["DB_PASSWORD"].startswith("v1:")

    kept = key.read_bytes()
    key.unlink()
    with RunningServer(tmp_path / "state") as server:
        failed = server.wait("churn", Deployment.STATE_FAILED)
        assert reason_name(failed.failure.reason) == "SECRET_UNREADABLE"
        assert "secret.key" in failed.failure.message + failed.failure.hint
    key.write_bytes(kept)
    with RunningServer(tmp_path / "state") as server:
        assert server.start("churn").state == Deployment.STATE_RUNNING
        assert server.predict("churn", "names") == ["DB_PASSWORD"]


def test_a_key_that_is_none_keeps_the_server_from_starting(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "state"):
        pass
    (tmp_path / "state" / "secret.key").write_text("rubbish\n")

    with (
        pytest.raises(ValueError, match=r"secret\.key does not hold a key of 32 bytes"),
        RunningServer(tmp_path / "state"),
    ):
        pass

    assert (tmp_path / "state" / "secret.key").read_text() == "rubbish\n"
