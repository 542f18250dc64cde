"""Logs on disk: what was written can be read, from anywhere in it, by then or later; and the disk does not fill up."""

import contextlib
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from modelhost.server.store.logs import SEGMENT_BYTES, SEGMENTS_KEPT, TEXT_BYTES, Log, LogEntry, Logs, Position


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path, "run")


def line(text: str) -> LogEntry:
    return LogEntry(1.5, 3, "stdout", text)


def write(log: Log, *texts: str) -> None:
    log.append(*map(line, texts))


def texts(log: Log, start: Position | None = None, limit: int = 10**9) -> list[str]:
    return [entry.text for _, entry in log.read(start or Position(), limit)[0]]


def rotate(log: Log, tmp_path: Path, word: str) -> None:
    """Write until a new segment has been begun."""
    before = max(tmp_path.iterdir())
    number = 0
    while max(tmp_path.iterdir()) == before:
        write(log, *[f"{word}-{number}-{i} " + "x" * 7000 for i in range(50)])
        number += 1


@contextlib.contextmanager
def disk_with_room(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


# ---- writing and reading


def test_a_line_comes_back_with_all_that_was_said_of_it(log: Log) -> None:
    entry = LogEntry(1.25, 7, "stderr", 'caf\u00e9 "quoted" \t\x00', step="load", worker="w1", seconds=0.5)

    log.append(entry)

    assert [found for _, found in log.read(Position(), 10)[0]] == [entry]


def test_a_log_that_nobody_has_written_is_empty(log: Log) -> None:
    assert log.read(Position(), 10) == ([], Position())
    assert log.last(10) == Position()


def test_who_reads_on_gets_what_has_come_since(log: Log) -> None:
    write(log, "one", "two")
    _, position = log.read(Position(), 10)
    assert texts(log, position) == []

    write(log, "three")

    assert texts(log, position) == ["three"]


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_reading_in_pages_gives_every_line_once(log: Log, limit: int) -> None:
    write(log, *"abcdefg")

    found, position = [], Position()
    while lines := log.read(position, limit)[0]:
        assert len(lines) <= limit
        found += [entry.text for _, entry in lines]
        position = lines[-1][0]

    assert found == list("abcdefg")


def test_every_line_is_followed_by_where_the_next_begins(log: Log) -> None:
    write(log, *"abcd")
    places = [place for place, _ in log.read(Position(), 10)[0]]

    assert [texts(log, place) for place in places] == [["b", "c", "d"], ["c", "d"], ["d"], []]
    assert all(before < after for before, after in pairwise(places))


def test_a_line_that_is_too_long_is_cut_and_says_so(log: Log) -> None:
    write(log, "x" * TEXT_BYTES, "é" * TEXT_BYTES)

    assert texts(log) == ["x" * TEXT_BYTES, "é" * (TEXT_BYTES // 2 - 2) + "…"]


def test_two_logs_of_a_folder_are_told_apart(tmp_path: Path) -> None:
    logs = {name: Log(tmp_path, name) for name in ("build-1", "build-11", "run", "run-1")}
    for name, log in logs.items():
        write(log, name)

    assert {name: texts(log) for name, log in logs.items()} == {name: [name] for name in logs}


# ---- the last lines


@pytest.mark.parametrize("count", range(9))
def test_the_last_lines_are_so_many(log: Log, count: int) -> None:
    write(log, *"abcdef")

    assert texts(log, log.last(count)) == list("abcdef")[max(6 - count, 0) :]


def test_the_last_lines_are_counted_across_segments(log: Log, tmp_path: Path) -> None:
    write(log, "the very first")
    rotate(log, tmp_path, "old")
    rotate(log, tmp_path, "new")
    write(log, *"abc")
    everything = texts(log)

    for count in (0, 1, 3, 4, len(everything) - 1, len(everything), len(everything) + 5):
        assert texts(log, log.last(count)) == everything[max(len(everything) - count, 0) :]


def test_last_nothing_is_the_end_and_what_comes_then_is_read(log: Log) -> None:
    write(log, "before")
    end = log.last(0)

    write(log, "after")

    assert texts(log, end) == ["after"]


# ---- rotation


def test_a_log_takes_no_more_room_than_its_segments_and_the_oldest_lines_go_first(log: Log, tmp_path: Path) -> None:
    write(log, "the very first")
    for number in range(SEGMENTS_KEPT - 1):
        rotate(log, tmp_path, str(number))
    assert texts(log, limit=1) == ["the very first"]

    rotate(log, tmp_path, "more")

    assert texts(log, limit=1)[0].startswith("0-")
    segments = list(tmp_path.iterdir())
    assert len(segments) == SEGMENTS_KEPT
    assert sum(path.stat().st_size for path in segments) <= SEGMENTS_KEPT * SEGMENT_BYTES
    rotate(log, tmp_path, "still more")
    assert len(list(tmp_path.iterdir())) == SEGMENTS_KEPT
    assert texts(log)[-1].startswith("still more")


def test_who_was_reading_what_is_gone_goes_on_with_the_oldest_there_is(log: Log, tmp_path: Path) -> None:
    write(log, "one")
    _, position = log.read(Position(), 1)

    for number in range(SEGMENTS_KEPT + 1):
        rotate(log, tmp_path, str(number))

    assert texts(log, position) == texts(log)


def test_reading_goes_on_from_one_segment_into_the_next(log: Log, tmp_path: Path) -> None:
    write(log, "one")
    _, position = log.read(Position(), 10)
    rotate(log, tmp_path, "filler")
    write(log, "last")

    found = texts(log, position)

    assert found[0].startswith("filler-0-0 ")
    assert found[-1] == "last"
    assert ["one", *found] == texts(log)


def test_another_server_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    log = Log(tmp_path, "run")
    write(log, "one")
    rotate(log, tmp_path, "two")
    segments = sorted(tmp_path.iterdir())
    everything = texts(log)

    after = Log(tmp_path, "run")
    write(after, "three")
    assert sorted(tmp_path.iterdir()) == segments
    assert texts(after) == [*everything, "three"]

    rotate(after, tmp_path, "four")
    assert len(list(tmp_path.iterdir())) == len(segments) + 1
    assert all(path.stat().st_size <= SEGMENT_BYTES for path in tmp_path.iterdir())
    assert texts(after)[: len(everything) + 1] == [*everything, "three"]


# ---- crashes and full disks


def test_a_line_that_was_half_written_in_a_crash_is_passed_over_and_spoils_none_after_it(tmp_path: Path) -> None:
    before = Log(tmp_path, "run")
    write(before, "one")
    _, position = before.read(Position(), 10)
    (segment,) = tmp_path.iterdir()
    with segment.open("ab") as file:
        file.write(b'{"time":1.5,"revision":3,"str')
    assert texts(before) == ["one"]

    after = Log(tmp_path, "run")
    write(after, "two")
    write(after, "three")

    assert texts(after) == ["one", "two", "three"]
    assert texts(after, position) == ["two", "three"]
    assert texts(after, after.last(2)) == ["two", "three"]


def test_a_full_disk_is_told_and_what_is_written_when_there_is_room_again_can_be_read(log: Log, tmp_path: Path) -> None:
    write(log, "one")
    (segment,) = tmp_path.iterdir()
    with disk_with_room(segment.stat().st_size + 20), pytest.raises(OSError, match="File too large"):
        write(log, "lost")

    write(log, "two")
    write(log, "three")

    assert texts(log) == ["one", "two", "three"]


def test_what_a_failed_write_left_counts_for_the_size_of_its_segment(log: Log, tmp_path: Path) -> None:
    write(log, "one")
    (segment,) = tmp_path.iterdir()
    room = SEGMENT_BYTES - 10_000
    with disk_with_room(room), pytest.raises(OSError, match="File too large"):
        write(log, *["x" * 7000] * 594)
    assert segment.stat().st_size == room

    write(log, "y" * 7000, "z" * 7000)

    assert segment.stat().st_size == room
    assert [text[0] for text in texts(log)[-2:]] == ["y", "z"]


def test_a_folder_that_somebody_cleared_away_is_made_again(tmp_path: Path) -> None:
    log = Log(tmp_path / "logs", "run")
    write(log, "one")
    shutil.rmtree(tmp_path / "logs")

    write(log, "two")
    write(log, "three")

    assert texts(log) == ["two", "three"]


# ---- many writers, and the end


def test_writers_on_several_threads_do_not_cut_into_each_others_lines(log: Log) -> None:
    together = threading.Barrier(4)

    def run(name: str) -> None:
        together.wait()
        for number in range(100):
            write(log, f"{name} {number} first", f"{name} {number} second")

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = texts(log)
    assert len(found) == 800
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert (first.split()[:2], first.split()[2], second.split()[2]) == (second.split()[:2], "first", "second")
    for name in "abcd":
        numbers = [int(text.split()[1]) for text in found[::2] if text.startswith(name)]
        assert numbers == list(range(100))


def test_writers_on_several_threads_do_not_get_in_each_others_way_when_segments_are_full(log: Log) -> None:
    together = threading.Barrier(4)
    errors: list[BaseException] = []

    def run() -> None:
        together.wait()
        try:
            for _ in range(25):
                write(log, *["z" * 7000] * 50)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert set(texts(log)) == {"z" * 7000}


def test_a_deployments_logs_go_together_and_the_others_stay(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs")
    write(logs.build("u1", 1), "build")
    write(logs.run("u1"), "run")
    write(logs.run("u2"), "other")

    logs.remove("u1")

    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["u2"]
    assert texts(logs.run("u2")) == ["other"]
    assert texts(logs.run("u1")) == []
    write(logs.run("u1"), "anew")
    assert texts(logs.run("u1")) == ["anew"]


def test_a_line_that_comes_after_its_log_was_removed_does_not_bring_it_back(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs")
    run = logs.run("u1")
    write(run, "one")

    logs.remove("u1")
    write(run, "from a pipe that was still being drained")

    assert list((tmp_path / "logs").iterdir()) == []


def test_a_log_is_one_object_whoever_asks_for_it(tmp_path: Path) -> None:
    logs = Logs(tmp_path)

    assert logs.run("u1") is logs.run("u1")
    assert logs.build("u1", 1) is logs.build("u1", 1)
    assert logs.build("u1", 1) is not logs.build("u1", 2)


def test_what_is_left_of_deployments_and_revisions_that_are_gone_is_swept_at_the_start(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    for uid in ("stays", "gone"):
        write(logs.run(uid), "run")
        for revision in (1, 2, 12):
            write(logs.build(uid, revision), f"build {revision}")

    Logs(tmp_path).sweep({"stays": {2}, "never logged": {1}})

    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jsonl")) == [
        "stays/build-2-000001.jsonl",
        "stays/run-000001.jsonl",
    ]
