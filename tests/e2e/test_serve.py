"""`modelhost serve`: what it makes, what it refuses, and what it says."""

import json
import os
import re
import socket
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from modelhost.client import Client, ModelHostError
from modelhost.server.serving.isolation import landlock_abi
from tests.e2e.daemon import STOP_SECONDS, Daemon, python
from tests.e2e.steps import Operator
from tests.git_repos import Repo
from tests.integration.serving.stage import is_running

MODELS = Path(__file__).parents[1] / "models"
MODEL = b"def predict(parameters):\n    return 'here'\n"

MakeDaemon = Callable[..., Daemon]


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def refusal(daemon: Daemon) -> str:
    """What a server says that ends at once: one sentence, exit code 1, no traceback."""
    ended = daemon.refused()
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr.removeprefix("error: ").rstrip("\n")


# -- the first start, and the second -----------------------------------------------------------------------------------


def test_the_first_start_makes_a_state_that_is_its_owners_alone(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()

    state = daemon.state_dir
    assert mode(state) == ("0711" if os.geteuid() == 0 else "0700")  # to be passed through by workers' users
    assert mode(state / "admin.token") == "0600"
    assert mode(state / "modelhost.db") == "0600"
    assert daemon.token.startswith("mha_")
    assert len(daemon.token) > 40
    others_may_read = [path.name for path in state.iterdir() if path.is_file() and path.stat().st_mode & 0o077]
    assert others_may_read == []
    assert {mode(state / name) for name in ("snapshots", "logs", "cache") if os.geteuid() == 0} <= {"0700"}


def test_the_second_start_keeps_the_token(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    token = daemon.token
    daemon.stop()

    daemon.start()

    assert daemon.token == token
    assert Operator(daemon).names() == []


def test_an_empty_token_file_lets_nobody_in(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.state_dir.mkdir(mode=0o700)
    (daemon.state_dir / "admin.token").touch(0o600)

    sentence = refusal(daemon)

    assert sentence == f"there is no token in {daemon.state_dir}/admin.token; remove the file to have one made"


def test_the_port_can_be_had_again_right_after_a_kill(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    assert Operator(daemon).names() == []
    daemon.listen = address = daemon.address

    daemon.restart()

    assert daemon.address == address
    assert Operator(daemon).names() == []


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_second_server_on_the_same_state_is_refused_and_the_first_goes_on(make_daemon: MakeDaemon) -> None:
    first = make_daemon().start()

    sentence = refusal(first)

    assert sentence == (
        f"another modelhost server (pid {first.pid}) uses {first.state_dir}; "
        "stop it, or give this one another --state-dir"
    )
    assert Operator(first).names() == []


def test_a_host_for_data_sources_that_is_none_is_refused_with_what_it_may_be(make_daemon: MakeDaemon) -> None:
    by_flag = make_daemon("flag", "--git-host", "https://gitlab.example.com/")
    by_variable = make_daemon("variable", environment={"MODELHOST_GIT_HOSTS": "gitlab.example.com 10.0.0.5/8"})

    assert refusal(by_flag).endswith("not 'https://gitlab.example.com/': is gitlab.example.com meant?")
    assert refusal(by_variable).endswith("not '10.0.0.5/8': is 10.0.0.0/8 meant?")


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "models.example.com:0"])
def test_an_address_that_is_not_loopback_is_refused_without_insecure(make_daemon: MakeDaemon, listen: str) -> None:
    daemon = make_daemon()
    daemon.listen = listen

    sentence = refusal(daemon)

    assert sentence.endswith(
        "listen on 127.0.0.1, encrypt them with --tls-cert and --tls-key, or say --insecure if the network is trusted"
    )
    assert not daemon.state_dir.exists()


def test_with_insecure_every_address_is_listened_on(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("host", "--insecure")
    daemon.listen = "0.0.0.0:0"

    daemon.start()

    port = daemon.address.rpartition(":")[2]
    with Client(f"127.0.0.1:{port}", daemon.token) as client:
        assert client.admin.ListDeployments(Operator.list_request()).deployments == []


def test_a_port_in_use_is_refused_by_name(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon.listen = f"127.0.0.1:{taken.getsockname()[1]}"

        sentence = refusal(daemon)

    assert sentence == f"cannot listen on {daemon.listen}: Address already in use"


@pytest.mark.parametrize("listen", ["8470", "127.0.0.1:http", "127.0.0.1:99999"])
def test_what_is_no_address_is_refused(make_daemon: MakeDaemon, listen: str) -> None:
    daemon = make_daemon()
    daemon.listen = listen

    assert refusal(daemon) == f"--listen must be host:port, the port from 0 to 65535, not {listen!r}"


def test_a_file_in_the_place_of_the_state_is_refused(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.state_dir.write_text("precious")

    assert refusal(daemon) == f"--state-dir: there is a file where {daemon.state_dir} needs a directory"
    assert daemon.state_dir.read_text() == "precious"


def test_a_database_of_a_newer_server_is_refused_and_the_state_is_left_as_it_was(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    daemon.stop()
    with sqlite3.connect(daemon.state_dir / "modelhost.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    unknown = daemon.state_dir / "environments" / "of-a-newer-kind"
    unknown.mkdir(parents=True)
    before = (daemon.state_dir / "modelhost.db").read_bytes()

    sentence = refusal(daemon)

    assert re.fullmatch(r"the database has schema 99, this server knows up to \d+: run a newer modelhost", sentence)
    assert (daemon.state_dir / "modelhost.db").read_bytes() == before
    assert unknown.exists()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"not a database" * 1000, id="something else"),
        pytest.param(lambda content: content[:8192], id="cut short"),
        pytest.param(lambda content: content[:4096] + b"\xab" * (len(content) - 4096), id="bad pages"),
    ],
)
def test_a_damaged_database_is_refused_and_not_overwritten(
    make_daemon: MakeDaemon, damage: Callable[[bytes], bytes]
) -> None:
    daemon = make_daemon().start()
    daemon.stop()
    database = daemon.state_dir / "modelhost.db"
    damaged = damage(database.read_bytes())
    database.write_bytes(damaged)

    sentence = refusal(daemon)

    assert sentence.startswith(f"the database {database} cannot be used: ")
    assert "then `modelhost restore` puts that of a backup in its place" in sentence
    assert database.read_bytes() == damaged


# -- what it says ------------------------------------------------------------------------------------------------------


def test_its_log_is_json_lines_and_holds_no_secret(daemon: Daemon, operator: Operator, repo: Repo) -> None:
    repo.commit({"main.py": b"import os\nprint(sorted(os.environ.items()))\n" + MODEL})
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    with Client(daemon.address, "mha_wrong-but-secret") as stranger, pytest.raises(ModelHostError):
        stranger.predict("model", None)
    environments = [Path(f"/proc/{process.pid}/environ").read_text() for process in daemon.processes()]
    assert len(environments) == 1
    daemon.stop()

    entries = [json.loads(line) for line in daemon.log_text().splitlines()]
    assert {"serving", "revision is served", "stopped"} <= {entry["event"] for entry in entries}
    assert all({"event", "level", "timestamp"} <= entry.keys() for entry in entries)
    logs = "".join(path.read_text() for path in (daemon.state_dir / "logs").rglob("*.jsonl"))
    assert "MODELHOST_LINK" not in logs, "what a worker was given to speak to the server is not the model's to see"
    for text in (daemon.log_text(), logs, *environments):
        assert daemon.token not in text
        assert "wrong-but-secret" not in text


def test_its_log_on_a_terminal_is_for_people(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        daemon.command, env=daemon.environment, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    try:
        shown = b""
        while b"serving" not in shown:
            shown += os.read(controller, 4096)
    finally:
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0
        os.close(controller)

    assert str(daemon.state_dir).encode() in shown
    assert not shown.lstrip().startswith(b"{")


def test_interpreters_are_named_that_the_host_is_told_of(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("host", "--interpreter", str(python("2.7")), "--interpreter", "/no/such/python").start()

    found = Operator(daemon).runtimes()

    assert found["python2.7"].usable
    assert found["python2.7"].found_by == "configuration"
    assert "/no/such/python" in {runtime.path for runtime in found.values() if not runtime.usable}


# ---- isolation


def test_it_says_what_keeps_models_from_it(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("host", "--require-isolation", "--worker-uids", "310000-310099").start()

    (event,) = (line for line in map(json.loads, daemon.log_text().splitlines()) if "isolated" in line["event"])
    assert event["level"] == "info"
    assert event["event"].startswith("workers are isolated: ")
    if os.geteuid() == 0:
        assert "a uid each, of 310000 to 310099" in event["event"]


# A root that has no capability is like anybody else: it cannot give away its uid, nor cover a folder.
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


@pytest.mark.skipif(landlock_abi() < 6, reason="Landlock keeps signals back since Linux 6.12")
def test_a_server_without_privileges_keeps_its_secrets_and_itself_by_landlock(
    make_daemon: MakeDaemon, repo: Repo
) -> None:
    options = ("--require-isolation", "--interpreter", str(python("3.6")))
    daemon = make_daemon("host", *options, prefix=POWERLESS).start()
    assert '"workers are isolated: Landlock' in daemon.log_text()
    assert "but for /dev/shm, which models share" in daemon.log_text()
    operator = Operator(daemon)
    repo.commit({"main.py": (MODELS / "prowls.py").read_bytes()})
    operator.add_source("models", repo)
    operator.deploy("prowler", "models")
    operator.deploy("neighbour", "models")
    neighbour = operator.predict("neighbour", {"do": "me"})["pid"]

    for name in ("secret.key", "admin.token", "modelhost.db"):
        assert operator.predict("prowler", {"do": "read", "path": str(daemon.state_dir / name)}) == "EACCES"
    for pid in (daemon.pid, neighbour):
        assert operator.predict("prowler", {"do": "kill", "pid": pid}) == "EPERM"
    assert operator.predict("neighbour", {"do": "me"})["pid"] == neighbour
    assert daemon.stop() == 0


def test_what_a_model_hides_is_gone_when_a_server_without_privileges_is_killed_and_started_again(
    make_daemon: MakeDaemon, repo: Repo
) -> None:
    daemon = make_daemon("host", "--interpreter", str(python("3.6")), prefix=POWERLESS).start()
    operator = Operator(daemon)
    repo.commit({"main.py": (MODELS / "leaves_children.py").read_bytes()})
    operator.add_source("models", repo)
    operator.deploy("model", "models")
    strangers = [operator.predict("model", "stranger") for _ in range(2)]

    daemon.kill()
    assert all(map(is_running, strangers))
    daemon.start()

    assert not any(map(is_running, strangers))
    stranger = operator.predict_when_up("model", "stranger")
    assert is_running(stranger)
    assert daemon.stop() == 0
    assert not is_running(stranger)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--worker-uids", "5"], "--worker-uids must be FIRST-LAST"),
        (["--worker-uids", "9-5"], "--worker-uids must be FIRST-LAST"),
        (["--worker-uids", "0-5"], "--worker-uids must be FIRST-LAST"),
        (["--worker-memory", "much"], "'much' is no size"),
        (["--shared-folder", "relative"], "--shared-folder must be the absolute path of a folder, not 'relative'"),
        (["--shared-folder", "/"], "--shared-folder / must not have the state directory in it"),
    ],
)
def test_options_about_workers_that_make_no_sense_are_refused(
    make_daemon: MakeDaemon, options: list[str], words: str
) -> None:
    assert words in refusal(make_daemon("host", *options))
