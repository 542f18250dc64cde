"""The pump: whatever is written to whatever pipe is read to its end, and nobody holds up anybody else."""

import contextlib
import os
import selectors
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import structlog

from modelhost.server.serving.output import LINE_LIMIT, OutputPump, Outputs, Sink
from tests.running import eventually


class Heard:
    """A sink that keeps what it was given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.ends = 0

    def __call__(self, lines: list[bytes], owner: str, cut: bool) -> None:
        self.lines += lines
        self.ends += not lines


@pytest.fixture
def pump() -> Iterator[OutputPump]:
    """Fails the test if it leaves a descriptor or a thread."""
    before = set(os.listdir("/proc/self/fd"))
    threads = set(threading.enumerate())
    pump = OutputPump()
    yield pump
    with contextlib.suppress(OSError):  # closed by the test
        pump.close()
    assert set(os.listdir("/proc/self/fd")) <= before
    assert set(threading.enumerate()) <= threads


def pipe(pump: OutputPump, sink: Sink) -> int:
    """The writing end of a pipe that the pump drains."""
    reader, writer = os.pipe()
    Outputs(pump).add(os.fdopen(reader, "rb"), sink)
    return writer


def write(writer: int, data: bytes) -> None:
    while data:
        data = data[os.write(writer, data) :]


def test_lines_come_without_their_ends_and_the_last_one_needs_none(pump: OutputPump) -> None:
    heard = Heard()
    writer = pipe(pump, heard)

    write(writer, b"one\n\ntwo\r\nlast")
    os.close(writer)

    eventually(lambda: heard.ends)
    assert heard.lines == [b"one", b"", b"two\r", b"last"]
    assert heard.ends == 1


def test_a_line_that_comes_in_pieces_is_one_line(pump: OutputPump) -> None:
    heard = Heard()
    writer = pipe(pump, heard)

    write(writer, b"first\nhal")
    eventually(lambda: heard.lines)
    write(writer, b"f and half\n")

    eventually(lambda: len(heard.lines) == 2)
    assert heard.lines == [b"first", b"half and half"]
    os.close(writer)


def test_an_endless_line_is_handed_on_in_pieces_and_not_kept(pump: OutputPump) -> None:
    heard = Heard()
    writer = pipe(pump, heard)

    for _ in range(64):
        write(writer, b"x" * 16_384)
    eventually(lambda: sum(map(len, heard.lines)) >= (1 << 20) - LINE_LIMIT)  # though no line has ended
    os.close(writer)

    eventually(lambda: heard.ends)
    assert b"".join(heard.lines) == b"x" * (1 << 20)


def test_every_byte_of_a_flood_arrives(pump: OutputPump) -> None:
    heard = Heard()
    writer = pipe(pump, heard)
    block = b"".join(b"%07d\n" % number for number in range(1000))

    for _ in range(500):
        write(writer, block)
    os.close(writer)

    eventually(lambda: heard.ends)
    assert len(heard.lines) == 500_000
    assert heard.lines[:1000] == heard.lines[-1000:] == block.splitlines()


def test_a_pipe_is_drained_beside_one_that_floods(pump: OutputPump) -> None:
    loud, quiet = Heard(), Heard()
    flood, trickle = pipe(pump, loud), pipe(pump, quiet)
    stop = threading.Event()

    def roar() -> None:
        while not stop.is_set():
            write(flood, b"noise\n" * 5000)

    flooding = threading.Thread(target=roar)
    flooding.start()
    try:
        for number in range(20):
            write(trickle, b"%d\n" % number)
            eventually(lambda number=number: len(quiet.lines) == number + 1)
    finally:
        stop.set()
        flooding.join()
        os.close(flood)
        os.close(trickle)
    eventually(lambda: loud.ends and quiet.ends)
    assert set(loud.lines) == {b"noise"}


def test_a_sink_that_fails_loses_its_lines_and_nobody_elses_and_is_tried_again(pump: OutputPump) -> None:
    good, heard = Heard(), Heard()
    full = threading.Event()
    full.set()

    def disk(lines: list[bytes], owner: str, cut: bool) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        heard(lines, owner, cut)

    failing, working = pipe(pump, disk), pipe(pump, good)
    write(failing, b"lost\n" * 50_000)  # more than a pipe holds: it is being drained
    write(working, b"kept\n")
    eventually(lambda: good.lines)
    full.clear()
    write(failing, b"found\n")

    eventually(lambda: b"found" in heard.lines)
    assert good.lines == [b"kept"]
    os.close(failing)
    os.close(working)
    eventually(lambda: heard.ends and good.ends)


def test_what_is_said_is_said_on_the_pumps_thread_in_its_order_and_may_fail(pump: OutputPump) -> None:
    said: list[tuple[int, str]] = []

    def fail() -> None:
        raise ValueError("what it says cannot be written")

    for number in range(50):
        pump.say(fail)
        pump.say(lambda number=number: said.append((number, threading.current_thread().name)))

    eventually(lambda: len(said) == 50)
    assert said == [(number, "output") for number in range(50)]


def test_who_says_something_does_not_wait_for_a_slow_disk(pump: OutputPump) -> None:
    disk = threading.Event()
    said: list[int] = []
    pump.say(lambda: disk.wait(60) and None)

    for number in range(50_000):  # more than the pump can be woken in advance
        pump.say(lambda number=number: said.append(number))

    assert said == []
    disk.set()
    eventually(lambda: len(said) == 50_000)


def test_closing_takes_what_is_there_and_lets_go_of_pipes_that_others_still_hold(pump: OutputPump) -> None:
    heard = Heard()
    writer = pipe(pump, heard)
    write(writer, b"there\nhalf")

    pump.close()

    assert heard.lines == [b"there", b"half"]
    assert heard.ends == 1
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"late")
    os.close(writer)


def test_a_hundred_pipes_are_drained_at_once(pump: OutputPump) -> None:
    heard = [Heard() for _ in range(100)]
    writers = [pipe(pump, each) for each in heard]

    for number, writer in enumerate(writers):
        write(writer, b"%d" % number)
        os.close(writer)

    eventually(lambda: all(each.ends for each in heard))
    assert [each.lines for each in heard] == [[b"%d" % number] for number in range(100)]


def test_a_line_belongs_to_the_owner_named_last_when_it_was_written(pump: OutputPump) -> None:
    heard: list[tuple[str, bytes]] = []
    reader, writer = os.pipe()
    outputs = Outputs(pump)
    outputs.add(os.fdopen(reader, "rb"), lambda lines, owner, _: heard.extend((owner, line) for line in lines))

    for number in range(200):
        outputs.belong_to(f"call-{number}")
        write(writer, b"%d\nand\n" % number if number % 2 else b"%d without an end" % number)
    outputs.belong_to("")
    write(writer, b"between\n")
    os.close(writer)

    eventually(lambda: ("", b"between") in heard)
    expected = []
    for number in range(200):
        texts = [b"%d" % number, b"and"] if number % 2 else [b"%d without an end" % number]
        expected += [(f"call-{number}", text) for text in texts]
    assert heard == [*expected, ("", b"between")]


def test_a_line_without_an_end_is_told_when_its_owner_is_done(pump: OutputPump) -> None:
    heard: list[tuple[str, bytes]] = []
    reader, writer = os.pipe()
    outputs = Outputs(pump)
    outputs.add(os.fdopen(reader, "rb"), lambda lines, owner, _: heard.extend((owner, line) for line in lines))
    outputs.belong_to("one")
    write(writer, b"no end")

    outputs.belong_to("")

    eventually(lambda: heard == [("one", b"no end")])
    os.close(writer)


def test_an_owner_can_be_named_when_the_pipe_has_ended(pump: OutputPump) -> None:
    heard = Heard()
    reader, writer = os.pipe()
    outputs = Outputs(pump)
    outputs.add(os.fdopen(reader, "rb"), heard)
    os.close(writer)
    eventually(lambda: heard.ends)

    outputs.belong_to("late")

    assert heard.lines == []


class Ailing(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Refuses what it is asked for as often as `refusals` says, as a kernel does that has no memory."""

    refusals: ClassVar[dict[str, int]] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.refuse("select")
        found: list[tuple[selectors.SelectorKey, int]] = super().select(timeout)
        return found

    def register(self, *arguments: Any) -> selectors.SelectorKey:
        self.refuse("register")
        key: selectors.SelectorKey = super().register(*arguments)
        return key

    def refuse(self, name: str) -> None:
        if self.refusals.get(name):
            self.refusals[name] -= 1
            raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize("refused", ["select", "register"])
def test_a_system_that_refuses_something_keeps_no_pipe_from_being_read(
    monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", Ailing)
    monkeypatch.setattr(Ailing, "refusals", {})
    pump = OutputPump()
    before, after = Heard(), Heard()
    writers = [pipe(pump, before)]
    write(writers[0], b"before\n")
    eventually(lambda: before.lines)

    with structlog.testing.capture_logs() as said:
        Ailing.refusals[refused] = 3
        writers.append(pipe(pump, after))
        for writer in writers:
            write(writer, b"since\n" * 50_000)  # more than a pipe holds: it is being drained
        eventually(lambda: after.lines and not Ailing.refusals[refused])

    assert [entry["error"] for entry in said] == ["OSError: [Errno 12] Cannot allocate memory"]
    for writer in writers:
        os.close(writer)
    eventually(lambda: before.ends and after.ends)
    pump.close()
    assert before.lines == [b"before", *[b"since"] * 50_000]
    assert after.lines == [b"since"] * 50_000


def test_a_pipe_that_could_never_be_waited_for_is_read_when_the_pump_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", Ailing)
    monkeypatch.setattr(Ailing, "refusals", {})
    pump = OutputPump()
    Ailing.refusals["register"] = 1_000_000
    heard = Heard()
    writer = pipe(pump, heard)
    write(writer, b"there\n")

    pump.close()

    assert (heard.lines, heard.ends) == ([b"there"], 1)
    os.close(writer)
