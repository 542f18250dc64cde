"""Lock files between processes, and the end of what a killed builder leaves running."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from modelhost.envs.locks import try_lock
from modelhost.envs.marked import end_marked, give_tag, tag_of, tags_of
from modelhost.envs.store import MARK

HOLD = """
import sys
from pathlib import Path
from modelhost.envs.locks import try_lock
with try_lock(Path(sys.argv[1])) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_by_one_and_leaves_no_file(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "x"
    with try_lock(lock) as first, try_lock(lock) as second:
        assert (first, second) == (True, False)
    assert not lock.exists()
    with try_lock(lock) as again:
        assert again


def test_a_lock_holds_against_another_process_until_that_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "x"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with try_lock(lock) as held:
            assert not held
        holder.kill()
        holder.wait()
    with try_lock(lock) as held:
        assert held


def test_the_lock_is_never_held_twice_though_its_file_comes_and_goes(tmp_path: Path) -> None:
    lock, inside, most, wins = tmp_path / "x", [0], [0], [0]
    guard = threading.Lock()

    def contend() -> None:
        for _ in range(300):
            with try_lock(lock) as held:
                if held:
                    with guard:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                        wins[0] += 1
                    os.sched_yield()
                    with guard:
                        inside[0] -= 1

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins[0] > 0
    assert most[0] == 1


def started(*argv: str, **variables: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(argv, env={"PATH": os.environ["PATH"], **variables}, start_new_session=True)
    while Path(f"/proc/{process.pid}/comm").read_text().strip() != Path(argv[0]).name:
        time.sleep(0.005)  # between fork and exec
    return process


def test_only_processes_of_that_build_are_ended(tmp_path: Path) -> None:
    mine = [started("sleep", "600", **{MARK: str(tmp_path / "a")}) for _ in range(2)]
    others = [started("sleep", "600", **{MARK: str(tmp_path / "ab")}), started("sleep", "600")]
    try:
        assert len(end_marked(MARK, str(tmp_path / "a"))) == 2
        assert [process.wait(30) for process in mine] == [-signal.SIGKILL] * 2
        assert [process.poll() for process in others] == [None, None]
        assert end_marked(MARK, str(tmp_path / "a")) == []
    finally:
        for process in mine + others:
            process.kill()
            process.wait()


def test_processes_are_known_by_their_tag_whatever_their_environment() -> None:
    marker, other = {"STATE": "one"}, {"STATE": "other"}
    tags = [tag_of(marker, "a"), tag_of(marker, "b"), tag_of(other, "a")]
    processes = [started("sleep", "600") for _ in tags]
    try:
        for process, tag in zip(processes, tags, strict=True):
            give_tag(process.pid, tag)
            give_tag(process.pid, tag + 1)  # which it cannot change upwards

        assert end_marked("STATE", "nobody") == []
        assert end_marked("STATE", "nobody", range(tags[1], tags[1] + 1)) == [processes[1].pid]
        assert end_marked("STATE", "nobody", tags_of(marker)) == [processes[0].pid]
        assert processes[2].poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_tags_of_a_server_are_many_and_no_other_servers() -> None:
    tags = tags_of({"STATE": "one"})

    assert len(tags) >= 2**32
    assert tags[-1] < 2**62, "it must be a number for every system call and every language"
    assert tag_of({"STATE": "one"}, "a") in tags
    assert tag_of({"STATE": "other"}, "a") not in tags
