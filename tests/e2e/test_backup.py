"""A server's life goes on elsewhere: `modelhost backup` while it serves, `modelhost restore` where there is nothing."""

import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from modelhost.envs import Interpreter, Language, find_interpreters
from tests.e2e.command import Command
from tests.e2e.daemon import MODELHOST, Daemon, python
from tests.e2e.steps import Operator
from tests.git_repos import Repo
from tests.integration.environments.workshop import make_r_package, make_wheel, write_index
from tests.running import eventually

PYTHON = b"import os, tiny\n\ndef predict(parameters):\n    return [tiny.version, os.environ['PASSWORD']]\n"
R = b"score <- function(parameters) list(version = alpha::alpha())\n"

MakeDaemon = Callable[..., Daemon]


@pytest.fixture(scope="module")
def r() -> Interpreter:
    found = [each for each in find_interpreters() if each.language is Language.R and each.usable]
    assert found, "these tests need an R"
    return found[0]


@pytest.fixture
def cran(tmp_path: Path, r: Interpreter) -> Path:
    """An R repository with `alpha` 1.0.0, which `move_on` makes an old one."""
    packages = tmp_path / "cran" / "src" / "contrib"
    packages.mkdir(parents=True)
    make_r_package(packages, r, "alpha", "1.0.0")
    write_index(packages, r)
    return packages


def move_on(cran: Path, index: Path, r: Interpreter) -> None:
    """The world has newer packages."""
    archive = cran / "Archive" / "alpha"
    archive.mkdir(parents=True)
    (cran / "alpha_1.0.0.tar.gz").rename(archive / "alpha_1.0.0.tar.gz")
    make_r_package(cran, r, "alpha", "2.0.0")
    write_index(cran, r)
    make_wheel(index, "tiny", "2.0")


def test_deployments_of_python_and_r_are_back_on_another_host_with_the_packages_they_had(
    make_daemon: MakeDaemon, repo: Repo, tmp_path: Path, cran: Path, r: Interpreter
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    make_wheel(index, "tiny", "1.0")
    options = ["--interpreter", str(python("3.6")), "--r-repository", cran.parents[1].as_uri()]
    variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    repo.commit({"main.py": PYTHON, "requirements.txt": b"tiny\n", "main.R": R, "packages.txt": b"alpha\n"})
    first = make_daemon("first", *options, environment=variables).start()
    operator = Operator(first)
    modelhost = Command(first, tmp_path, {"PASSWORD": "open sesame"})
    operator.add_source("models", repo)
    modelhost.ok("deploy --quiet --name churn --source models --runtime python3.6 --secret-env PASSWORD")
    operator.deploy("scores", "models", runtime=operator.r_runtime(), unbox=True)
    operator.create("never", "models")
    answers = {"churn": ["1.0", "open sesame"], "scores": {"version": "1.0.0"}}
    assert {name: operator.predict(name) for name in answers} == answers
    services = {name: operator.get(name).service for name in operator.names()}
    digests = {name: digests_of(operator, name) for name in answers}

    saved = modelhost.ok(f"backup models.backup.tar --state-dir {first.state_dir}")

    assert "3 deployments with 3 revisions, 1 data source, and the packages of 2 environments" in saved.out
    assert "warning: the key of the secrets is in it" in saved.err
    assert stat.S_IMODE((tmp_path / "models.backup.tar").stat().st_mode) == 0o600
    first.stop()
    move_on(cran, index, r)
    second = make_daemon("second", *options, environment=variables)

    restored = modelhost.ok(f"restore models.backup.tar --state-dir {second.state_dir}")

    assert "of these, 2 deployments ran" in restored.out
    assert restored.err == ""
    assert sorted(path.name for path in second.state_dir.iterdir()) == ["lock", "modelhost.db", "secret.key"]
    second.start()
    operator = Operator(second)
    assert {name: operator.predict_when_up(name) for name in answers} == answers
    assert {name: operator.get(name).service for name in operator.names()} == services
    assert operator.state("never") == "STOPPED"
    assert {name: digests_of(operator, name) for name in answers} == digests
    assert "packages that were locked" in operator.build_log("churn")
    assert "packages that were locked" in operator.build_log("scores")
    assert second.token != first.token, "the token is not in a backup: the other host has one of its own"


def digests_of(operator: Operator, name: str) -> tuple[str, str, str]:
    revision = operator.revision(name)
    return revision.snapshot_digest, revision.environment, revision.environment_digest


def test_what_cannot_be_done_is_said_in_a_line_and_leaves_nothing(
    daemon: Daemon, operator: Operator, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    modelhost = Command(daemon, folder)
    state = daemon.state_dir

    def refusal(line: str) -> str:
        answer = modelhost(line)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.count("\n") == 1, answer.err
        return answer.err

    assert "no state of a server" in refusal("backup one.tar --state-dir nowhere")
    assert "there is no folder" in refusal(f"backup not/here/one.tar --state-dir {state}")
    assert list(folder.iterdir()) == []
    modelhost.ok(f"backup one.tar --state-dir {state} --without-key")
    assert "is there already" in refusal(f"backup one.tar --state-dir {state}")
    modelhost.ok(f"backup one.tar --state-dir {state} --without-key --force")
    assert "another modelhost server" in refusal(f"restore one.tar --state-dir {state}")
    assert "there is no file" in refusal("restore two.tar --state-dir new")
    answer = modelhost.ok("restore one.tar --state-dir new")
    assert "do not open" in answer.err
    assert "has a database already" in refusal("restore one.tar --state-dir new")
    assert sorted(path.name for path in folder.iterdir()) == ["new", "one.tar"]
    assert operator.names() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_backup_and_a_restore_that_are_told_to_end_leave_nothing(
    daemon: Daemon, tmp_path: Path, number: signal.Signals
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, and so by what is started here")
    daemon.stop()
    with closing(apsw.Connection(str(daemon.state_dir / "modelhost.db"))) as connection:
        connection.execute("CREATE TABLE ballast AS SELECT randomblob(64000000)")  # a second or two of work
    folder = tmp_path / "backups"
    folder.mkdir()
    backup = ["backup", "--state-dir", str(daemon.state_dir), str(folder / "one.tar.gz")]
    restore = ["restore", str(folder / "one.tar.gz"), "--state-dir", str(folder / "new")]

    ended = told_to_end(daemon, backup, lambda: list(folder.glob(".modelhost-backup-*/one.tar.gz")), number)
    assert ended == (128 + number, f"error: ended by {number.name}\n")
    assert list(folder.iterdir()) == []

    subprocess.run([MODELHOST, *backup], env=daemon.environment, check=True, capture_output=True)
    ended = told_to_end(daemon, restore, lambda: list(folder.glob("new/.restore-*/modelhost.db")), number)
    assert ended == (128 + number, f"error: ended by {number.name}\n")
    assert [path.name for path in folder.iterdir()] == ["one.tar.gz"]


def told_to_end(
    daemon: Daemon, words: list[str], is_at_it: Callable[[], list[Path]], number: signal.Signals
) -> tuple[int, str]:
    """Send a signal to a command once it is at it; returns its exit code, and what it said. No key may be readable."""
    # Where tests run in the background, a shell may have had Ctrl-C ignored.
    hearing = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    main = f"{hearing}; from modelhost.cli.main import main; sys.exit(main())"
    argv = [sys.executable, "-c", main, *words]
    process = subprocess.Popen(argv, env=daemon.environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        while not (draft := is_at_it()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        assert {mode(key) for key in draft[0].parent.glob("secret.key")} <= {0o600}
        assert mode(draft[0].parent) == 0o700
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()  # where it is stopped, and the test has failed
    return process.returncode, said


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_damaged_database_is_moved_away_and_restored_in_its_place(
    daemon: Daemon, operator: Operator, repo: Repo, tmp_path: Path
) -> None:
    repo.commit({"main.py": b"def predict(parameters):\n    return 'here'\n"})
    operator.add_source("models", repo)
    operator.deploy("churn", "models")
    modelhost = Command(daemon, tmp_path)
    modelhost.ok(f"backup one.tar --state-dir {daemon.state_dir}")
    built = set((daemon.state_dir / "environments").glob("*/manifest.json"))
    daemon.stop()
    database = daemon.state_dir / "modelhost.db"
    database.write_bytes(database.read_bytes()[:10_000])
    assert "`modelhost restore`" in daemon.refused().stderr
    database.rename(tmp_path / "damaged.db")

    modelhost.ok(f"restore one.tar --state-dir {daemon.state_dir}")

    daemon.start()
    assert operator.predict_when_up("churn") == "here"
    assert set((daemon.state_dir / "environments").glob("*/manifest.json")) == built != set()
    eventually(lambda: "found the environment" in operator.build_log("churn"))
