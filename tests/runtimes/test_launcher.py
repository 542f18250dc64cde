"""What the launcher hands to a worker's program, and what it says when it cannot."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhost.runtimes import LAUNCH, LAUNCHER, PYTHON_WORKER
from tests.runtimes.link import WorkerProcess

IS_ROOT = os.geteuid() == 0
UID = 320_000

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give the program another user")


@pytest.fixture
def link() -> Iterator[int]:
    """A descriptor for the program to inherit."""
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def launch(link):
    """Runs a program through the launcher, to its end."""

    def launch(*program: str, descriptors=(), preparation="pass", **spec) -> subprocess.CompletedProcess[str]:
        spec = {"parent": os.getpid(), "link": link, "open_files": 256, **spec}
        words = [
            (name, each) for name, value in spec.items() for each in (value if isinstance(value, list) else [value])
        ]
        argv = [*LAUNCH, *[f"{name}={value}" for name, value in words], "--", *program]
        # A Python in between, which can do to itself what a server may have done.
        between = f"import os, resource, signal, sys; {preparation}; os.execv(sys.argv[1], sys.argv[1:])"
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", between, *argv],
            pass_fds=[link, *descriptors],
            capture_output=True,
            text=True,
            check=False,
        )

    return launch


def status(launch, field: str, **options) -> str:
    lines = launch("/bin/cat", "/proc/self/status", **options).stdout.splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(field + ":"))


def limits(launch, **options) -> dict[str, list[str]]:
    """Soft and hard, by their names in /proc."""
    lines = launch("/bin/cat", "/proc/self/limits", **options).stdout.splitlines()
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


# ---- what the program finds


def test_the_program_gets_its_arguments_environment_and_folder(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_VARIABLE", "välue")
    monkeypatch.chdir(tmp_path)
    done = launch("/bin/sh", "-c", 'echo "$0|$1|$MODEL_VARIABLE|$PWD"; exit 5', "a b", "--")
    assert done.stdout == f"a b|--|välue|{tmp_path}\n"
    assert done.returncode == 5


def test_only_the_link_and_the_standard_descriptors_are_open(launch, link):
    other, inheritable = os.pipe()
    descriptors = launch("/bin/ls", "/proc/self/fd", descriptors=[other, inheritable]).stdout.split()
    os.close(other)
    os.close(inheritable)
    listing = next(fd for fd in map(str, range(3, 9)) if fd != str(link))  # the one that ls itself has open
    assert sorted(descriptors) == sorted({"0", "1", "2", str(link), listing})


def test_programs_cannot_gain_privileges(launch):
    assert status(launch, "NoNewPrivs") == "1"


def test_there_are_no_core_files_and_so_many_open_ones(launch):
    found = limits(launch, open_files=123)
    assert found["Max core file size"] == ["0", "0"]
    assert found["Max open files"] == ["123", "123"]


def test_a_program_and_all_that_it_starts_have_the_tag(launch):
    tag = str((1 << 61) + 12345)
    stranger = ["/usr/bin/env", "-i", "/usr/bin/setsid", "--wait"]
    for program in ([], stranger):
        assert f"{tag} {tag} locks" in " ".join(
            launch(*program, "/bin/cat", "/proc/self/limits", tag=tag).stdout.split()
        )


def test_a_program_that_has_a_lower_tag_already_keeps_it(launch):
    other = "resource.setrlimit(10, (1 << 61, 1 << 61))"
    assert limits(launch, tag=(1 << 61) + 1, preparation=other)["Max file locks"] == [str(1 << 61)] * 2


def test_a_host_on_which_no_such_limit_can_be_set_is_no_hindrance():
    refuse = "def refuse(*_): raise PermissionError(1, 'no')"
    code = f"import sys; sys.path.insert(0, {str(LAUNCHER.parent)!r}); import launcher, resource\n{refuse}\n"
    code += "resource.setrlimit = refuse; launcher.tag({'tag': ['5']}); print('on')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("on\n", "")


def test_the_limit_of_open_files_is_never_above_the_servers_own(launch):
    lower = "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))"
    assert launch("/bin/sh", "-c", "ulimit -n", preparation=lower, open_files=100_000).stdout == "200\n"


def test_files_of_the_program_are_private(launch):
    assert launch("/bin/sh", "-c", "umask").stdout == "0077\n"


def test_a_worker_may_be_less_urgent_than_the_server(launch):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert int(launch("/usr/bin/nice").stdout) == own
    assert int(launch("/usr/bin/nice", nice=3).stdout) == min(own + 3, 19)


def test_signals_are_as_they_are_at_first_whatever_the_server_did_with_them(launch):
    ignored = (
        "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 10, 13, 15, 17, 25, 40)];"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [1, 15])"
    )
    of_the_c_library = 0b11 << 31  # signals 32 and 33: nobody else can set or reset them
    assert int(status(launch, "SigIgn", preparation=ignored), 16) & ~of_the_c_library == 0
    assert int(status(launch, "SigBlk", preparation=ignored), 16) == 0


def test_the_kernel_takes_a_worker_before_the_server_where_memory_runs_out(launch):
    assert launch("/bin/cat", "/proc/self/oom_score_adj").stdout == "500\n"


def test_the_program_has_none_of_the_servers_capabilities(launch):
    for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status(launch, field), 16) == 0


@needs_root
@pytest.mark.parametrize("spec", [{}, {"uid": UID}], ids=["same user", "own user"])
def test_nothing_that_the_program_executes_gets_a_capability(launch, spec):
    assert int(status(launch, "CapBnd", **spec), 16) == 0


@needs_root
def test_a_server_that_may_not_take_capabilities_away_launches_all_the_same(launch):
    no_setpcap = "import ctypes; ctypes.CDLL(None).prctl(24, 8, 0, 0, 0)"  # PR_CAPBSET_DROP, CAP_SETPCAP
    assert int(status(launch, "CapBnd", uid=UID, preparation=no_setpcap), 16) != 0
    assert int(status(launch, "CapEff", uid=UID, preparation=no_setpcap), 16) == 0


# ---- a user of its own


@needs_root
def test_the_program_is_run_by_its_user_with_no_other_groups(launch):
    assert status(launch, "Uid", uid=UID).split() == [str(UID)] * 4
    assert status(launch, "Gid", uid=UID).split() == [str(UID)] * 4
    assert status(launch, "Groups", uid=UID) == ""


@needs_root
def test_a_user_has_so_many_processes_at_most(launch):
    assert limits(launch, uid=UID, processes=55)["Max processes"] == ["55", "55"]


@needs_root
def test_a_closed_folder_is_covered_but_for_what_is_needed(launch, tmp_path):
    closed = next(path for path in reversed([tmp_path, *tmp_path.parents]) if not path.stat().st_mode & 0o001)
    (tmp_path / "needed" / "inner").mkdir(parents=True)
    (tmp_path / "needed" / "inner" / "file").write_text("here")
    (tmp_path / "certificate").write_text("there\n")
    (tmp_path / "other").mkdir()
    kept = [str(tmp_path / "needed"), str(tmp_path / "certificate")]

    script = "cat needed/inner/file certificate; ls other new 2>/dev/null; touch new 2>/dev/null || echo refused"
    done = launch("/bin/sh", "-c", f"cd {tmp_path}; {script}", uid=UID, cover=str(closed), keep=kept)

    assert done.stdout == "herethere\nrefused\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["certificate", "needed", "other"]


@needs_root
def test_a_folder_that_cannot_be_covered_is_named(launch, tmp_path):
    no_admin = "import ctypes; ctypes.CDLL(None).prctl(24, 21, 0, 0, 0)"  # PR_CAPBSET_DROP, CAP_SYS_ADMIN
    done = launch("/bin/true", preparation=no_admin, uid=UID, cover=str(tmp_path))
    assert done.returncode == 72
    assert f"own_view: PermissionError: others may not enter {tmp_path}" in done.stderr
    assert "CAP_SYS_ADMIN" in done.stderr


# ---- Landlock


def test_files_are_read_and_written_below_what_is_named_alone(launch, tmp_path):
    for name in ("read", "write", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    script = "for name in read write other; do cat $name/file; echo x > $name/new && echo +; done 2>/dev/null"
    system = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/no/such/folder"]

    done = launch(
        "/bin/sh", "-c", f"cd {tmp_path}; {script}", read=[*system, str(tmp_path / "read")],
        write=[str(tmp_path / "write"), "/dev/null"],
    )  # fmt: skip

    assert done.stdout == "readwrite+\n"
    assert [path.parent.name for path in tmp_path.glob("*/new")] == ["write"]


def test_files_move_between_folders_that_may_be_written(launch, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").touch()

    launch("/bin/mv", str(tmp_path / "one" / "file"), str(tmp_path), read=["/"], write=[str(tmp_path)])

    assert (tmp_path / "file").exists()


# ---- the death of the server


@pytest.mark.parametrize("user", [[], pytest.param([f"uid={UID}"], marks=needs_root)], ids=["same", "own"])
def test_the_program_dies_with_the_process_that_launched_it(link, user):
    server = """
import os, subprocess, sys
spec = sys.argv[1].format(parent=os.getpid()).split("|")
print(subprocess.Popen(spec, pass_fds=[int(sys.argv[2])]).pid, flush=True)
sys.stdin.read()
"""
    spec = "|".join([*LAUNCH, "parent={parent}", f"link={link}", "open_files=64", *user, "--", "/bin/cat", "/dev/ptmx"])
    command = [sys.executable, "-c", server, spec, str(link)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[link]) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        ended = os.pidfd_open(worker)
        launcher_done = Path(f"/proc/{worker}/comm")
        while launcher_done.read_text() != "cat\n":
            select.select([ended], [], [], 0.01)
        process.kill()
        assert select.select([ended], [], [], 30)[0]
        os.close(ended)


def test_a_server_that_is_gone_before_the_launch_is_noticed(launch):
    done = launch("/bin/true", parent=1)
    assert (done.returncode, done.stderr) == (72, "modelhost launcher: die_with_parent: OSError: process 1 is gone\n")


# ---- steps that fail


@pytest.mark.parametrize(
    ("spec", "step"),
    [
        ({"link": 77}, "close_descriptors"),
        ({"link": "x"}, "close_descriptors"),
        ({"open_files": "many"}, "limits"),
        ({"tag": "red"}, "tag"),
        ({"nice": "very"}, "priority"),
        ({"uid": "nobody"}, "identity"),
        ({"processes": "few"}, "limits"),
    ],
)
def test_a_step_that_fails_is_named(launch, spec, step):
    done = launch("/bin/true", **spec)
    assert done.returncode == 72
    assert done.stderr.startswith(f"modelhost launcher: {step}: ")
    assert done.stderr.count("\n") == 1


def test_a_program_that_is_not_there_is_named(launch):
    done = launch("/no/such/program")
    assert done.returncode == 72
    assert done.stderr == "modelhost launcher: execute: FileNotFoundError: [Errno 2] No such file or directory\n"


@pytest.mark.parametrize("words", [[], ["parent=1"], ["parent", "--", "/bin/true"], ["parent=1", "--"]])
def test_arguments_that_make_no_sense_are_told(words):
    done = subprocess.run([*LAUNCH, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 72
    assert done.stderr.startswith("modelhost launcher: ")
    assert done.stderr.count("\n") == 1


# ---- together


def test_a_worker_runs_behind_the_launcher(interpreter, write, root):
    write("import signal\ndef predict(parameters):\n    return [parameters, signal.getsignal(signal.SIGINT) != 0]\n")
    spec = [f"parent={os.getpid()}", "link={link}", "open_files=256"]
    with WorkerProcess([*LAUNCH, *spec, "--", interpreter.path, PYTHON_WORKER]) as worker:
        assert worker.hello["pid"] == worker.process.pid
        assert worker.load(root=root).type == "loaded"
        assert worker.call("hello").value == ["hello", True]
        assert worker.stop() == 0
