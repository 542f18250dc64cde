"""Commands that behave, and real ones that do not: floods, children that outlive them, ignored signals."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from modelhost.envs import process
from modelhost.envs.marked import end_marked, tags_of
from modelhost.envs.process import LINE_LIMIT, STDOUT_LIMIT, TAIL_LINES, Cancelled, CommandFailed, Job, Stream

ENV = {"PATH": os.environ["PATH"]}
LONG = 60.0  # more than any of these commands needs; only a hang reaches it


class Log:
    """Collects what a job reports."""

    def __init__(self) -> None:
        self.lines: list[tuple[Stream, str]] = []
        self.job = Job(lambda stream, line: self.lines.append((stream, line)))

    def of(self, stream: Stream) -> list[str]:
        return [line for where, line in self.lines if where is stream]


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-u", "-c", code]


def is_gone(pid: int) -> bool:
    """Whether a process has ended, or does so within moments. One that nobody reaped has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


# ---- what a command says ----


def test_lines_of_both_streams_are_reported_as_they_come() -> None:
    log = Log()
    code = "import sys; print('one'); print('two', file=sys.stderr); print('last', end='')"
    done = log.job.run(python(code), env=ENV, timeout=LONG)
    assert log.of(Stream.STDOUT) == ["one", "last"]
    assert log.of(Stream.STDERR) == ["two"]
    assert done.stdout == b"one\nlast"


def test_a_quiet_command_reports_stderr_only_and_returns_its_stdout_untouched() -> None:
    log = Log()
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 40000); print('note', file=sys.stderr)"
    done = log.job.run(python(code), env=ENV, timeout=LONG, quiet=True)
    assert done.stdout == bytes(range(256)) * 40000
    assert log.lines == [(Stream.STDERR, "note")]


def test_bytes_that_are_no_text_and_progress_bars_become_lines() -> None:
    log = Log()
    code = r"import sys; sys.stdout.buffer.write(b'10%\r50%\r100%\r\n\xff\xfe!\n')"
    log.job.run(python(code), env=ENV, timeout=LONG)
    assert log.of(Stream.STDOUT) == ["100%", "\ufffd\ufffd!"]


def test_a_failure_carries_what_is_needed_to_understand_it() -> None:
    argv = python("import sys; print('trying'); print('no such thing', file=sys.stderr); sys.exit(7)")
    with pytest.raises(CommandFailed) as raised:
        Job().run(argv, env=ENV, timeout=LONG)
    failure = raised.value
    assert failure.argv == tuple(argv)
    assert failure.exit_code == 7
    assert sorted(failure.output) == ["no such thing", "trying"]
    assert not failure.timed_out


def test_a_command_ended_by_a_signal_fails_with_its_number() -> None:
    with pytest.raises(CommandFailed) as raised:
        Job().run(python("import os; os.kill(os.getpid(), 9)"), env=ENV, timeout=LONG)
    assert raised.value.exit_code == -signal.SIGKILL


def test_a_program_that_does_not_exist_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        Job().run(["/nonexistent/program"], env=ENV, timeout=LONG)


def test_the_environment_is_what_was_given_and_the_marker() -> None:
    job = Job(marker={"MARK": "1"}).marked({"MORE": "2"})
    done = job.run(["env"], env={"PATH": ENV["PATH"], "A": "b"}, timeout=LONG, quiet=True)
    variables = {line for line in done.stdout.decode().splitlines() if not line.startswith(("_=", "PATH="))}
    assert variables == {"A=b", "MARK=1", "MORE=2"}


def test_what_a_command_leaves_behind_without_an_environment_has_the_jobs_tag() -> None:
    job = Job(marker={"MARK": "1"}).marked({"MORE": "2"})
    stray = "subprocess.Popen(['sleep', '600'], env={}, stdout=-3, stderr=-3, start_new_session=True)"
    code = f"import subprocess; input(); print({stray}.pid)"
    pid = int(job.run(python(code), env=ENV, timeout=LONG, stdin=b"\n").stdout)

    assert job.tag in tags_of({"MARK": "1"})
    assert job.tag != Job(marker={"MARK": "1"}).tag
    assert end_marked("MARK", "none", range(job.tag, job.tag + 1)) == [pid]
    assert is_gone(pid)


# ---- input ----


def test_input_larger_than_a_pipe_comes_through() -> None:
    data = os.urandom(3 * 1024 * 1024)
    assert Job().run(["cat"], env=ENV, timeout=LONG, stdin=data, quiet=True).stdout == data


def test_empty_input_ends_at_once() -> None:
    assert Job().run(["cat"], env=ENV, timeout=LONG, stdin=b"", quiet=True).stdout == b""


def test_a_command_need_not_read_its_input() -> None:
    done = Job().run(["echo", "fine"], env=ENV, timeout=LONG, stdin=bytes(1024 * 1024), quiet=True)
    assert done.stdout == b"fine\n"


def test_input_that_a_surviving_child_holds_unread_does_not_keep_the_command() -> None:
    argv = ["sh", "-c", "sleep 600 <&0 & echo fine"]
    assert Job().run(argv, env=ENV, timeout=LONG, stdin=bytes(1024 * 1024), quiet=True).stdout == b"fine\n"


# ---- floods ----


def test_a_flood_of_lines_is_reported_whole_and_kept_only_in_part() -> None:
    count = 0

    def emit(stream: Stream, line: str) -> None:
        nonlocal count
        count += 1

    lines = STDOUT_LIMIT // 50
    code = f"import sys\nfor i in range(10): sys.stdout.write(('x' * 99 + '\\n') * {lines // 10})\nsys.exit(1)"
    with pytest.raises(CommandFailed) as raised:
        Job(emit).run(python(code), env=ENV, timeout=LONG)
    assert count == lines // 10 * 10
    assert len(raised.value.output) == TAIL_LINES
    done = Job().run(python(code.replace("exit(1)", "exit(0)")), env=ENV, timeout=LONG)
    assert len(done.stdout) == STDOUT_LIMIT


def test_a_line_without_an_end_is_cut() -> None:
    log = Log()
    code = "import sys\nfor i in range(200): sys.stderr.write('y' * 100000)\nprint('!', file=sys.stderr)"
    log.job.run(python(code), env=ENV, timeout=LONG)
    assert log.of(Stream.STDERR) == ["y" * LINE_LIMIT]


def test_a_flood_without_an_end_is_ended_by_the_timeout() -> None:
    with pytest.raises(CommandFailed) as raised:
        Job().run(["yes"], env=ENV, timeout=0.2)
    assert raised.value.timed_out
    assert raised.value.last_line == "y"


# ---- children that outlive the command ----


def test_a_child_that_holds_the_pipes_does_not_keep_the_command_and_is_killed() -> None:
    done = Job().run(["sh", "-c", "sleep 600 & echo $!"], env=ENV, timeout=LONG, quiet=True)
    assert is_gone(int(done.stdout))


def test_a_child_that_goes_on_writing_does_not_keep_the_command() -> None:
    log = Log()
    log.job.run(["sh", "-c", "yes & echo $! >&2"], env=ENV, timeout=LONG)
    assert is_gone(int(log.of(Stream.STDERR)[0]))


def test_what_was_written_before_the_end_is_not_lost_where_a_child_holds_the_pipes() -> None:
    code = "import os, time\nif os.fork() == 0: time.sleep(600)\nprint('z' * 60000)"
    for _ in range(5):
        assert Job().run(python(code), env=ENV, timeout=LONG, quiet=True).stdout == b"z" * 60000 + b"\n"


def test_a_child_that_left_the_group_cannot_be_killed_but_does_not_keep_the_command(tmp_path: Path) -> None:
    script = "setsid sh -c 'echo $$ >pid; exec sleep 600' & while [ ! -s pid ]; do sleep 0.01; done; cat pid"
    done = Job().run(["sh", "-c", script], env=ENV, cwd=tmp_path, timeout=LONG, quiet=True)
    os.kill(int(done.stdout), signal.SIGKILL)


def test_a_command_that_closes_its_output_is_waited_for() -> None:
    code = "import os, time; os.close(1); os.close(2); time.sleep(0.3); os._exit(3)"
    with pytest.raises(CommandFailed) as raised:
        Job().run(python(code), env=ENV, timeout=LONG)
    assert raised.value.exit_code == 3


# ---- the end ----


@pytest.fixture
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_GRACE_SECONDS", 0.2)


IGNORES_TERM = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child: print(os.getpid(), child)
while True: time.sleep(1)
"""


@pytest.mark.usefixtures("_short_grace")
def test_a_command_that_ignores_term_is_killed_with_its_children_when_its_time_is_up() -> None:
    with pytest.raises(CommandFailed) as raised:
        Job().run(python(IGNORES_TERM), env=ENV, timeout=0.5)
    assert raised.value.timed_out
    assert raised.value.exit_code == -signal.SIGKILL
    assert all(is_gone(int(pid)) for pid in raised.value.last_line.split())


@pytest.mark.usefixtures("_short_grace")
def test_cancelling_ends_a_command_that_ignores_term() -> None:
    seen: list[str] = []

    def emit(stream: Stream, line: str) -> None:
        seen.append(line)
        job.cancel()

    job = Job(emit)
    with pytest.raises(Cancelled):
        job.run(python(IGNORES_TERM), env=ENV, timeout=LONG)
    assert all(is_gone(int(pid)) for pid in seen[0].split())


def test_a_command_has_time_to_tidy_up_after_term(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, pathlib\n"
        f"def end(*_): pathlib.Path({str(tmp_path / 'tidy')!r}).touch(); sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('ready')\nwhile True: time.sleep(1)"
    )
    job = Job(lambda stream, line: job.cancel())
    with pytest.raises(Cancelled):
        job.run(python(code), env=ENV, timeout=LONG)
    assert (tmp_path / "tidy").exists()


def test_a_silent_command_is_cancelled_from_another_thread(tmp_path: Path) -> None:
    job = Job()
    started = tmp_path / "started"

    def cancel_once_started() -> None:
        while not started.exists():
            time.sleep(0.01)
        job.cancel()

    canceller = threading.Thread(target=cancel_once_started)
    canceller.start()
    with pytest.raises(Cancelled):
        job.run(["sh", "-c", f"touch '{started}'; exec sleep 600"], env=ENV, timeout=LONG)
    canceller.join()


def test_a_cancelled_job_starts_nothing(tmp_path: Path) -> None:
    job = Job()
    job.marked({}).cancel()
    assert job.cancelled
    with pytest.raises(Cancelled):
        job.run(["touch", str(tmp_path / "file")], env=ENV, timeout=LONG)
    assert not (tmp_path / "file").exists()


def test_a_reporter_that_raises_ends_the_command() -> None:
    pids: list[int] = []

    def emit(stream: Stream, line: str) -> None:
        pids.append(int(line))
        raise TimeoutError("the log is full")

    with pytest.raises(TimeoutError, match="the log is full"):
        Job(emit).run(["sh", "-c", "echo $$; exec sleep 600"], env=ENV, timeout=LONG)
    assert is_gone(pids[0])


def test_no_descriptor_is_left_open() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    Job().run(["true"], env=ENV, timeout=LONG)
    before = count()
    Job().run(["cat"], env=ENV, timeout=LONG, stdin=b"x")
    with pytest.raises(CommandFailed):
        Job().run(["yes"], env=ENV, timeout=0.05, stdin=bytes(1024 * 1024))
    assert count() == before
