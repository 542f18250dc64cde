"""What benchmarks say is what was measured: loads are read right, wrong answers show, verdicts follow the rules."""

import importlib
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import report, rounds
from benchmarks.bars import BARS, Bar, Rule
from benchmarks.bench import Wanted
from benchmarks.calls import Calls
from benchmarks.checking import WrongAnswer
from benchmarks.deploying import Cost
from benchmarks.frames import frame, infer_request, infer_response
from benchmarks.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    GOAWAY,
    HEADERS,
    LARGEST_BODY,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    header_blocks,
    http2_frame,
    integer,
)
from benchmarks.load import Load, parse
from benchmarks.peers.peer import Peer
from benchmarks.processes import TICKS, Cpu, parse_rollup, parse_stat
from benchmarks.replay import arrivals
from benchmarks.report import Findings, markdown
from benchmarks.rounds import How, Sample, Samples, Step
from benchmarks.servers import Targets
from benchmarks.work import NUMBERS, http_lm, json_sum, lm, many, tensor_sum
from modelhost.v1 import predict_pb2

LOADED = """
finished in {took}, {rate} req/s, 384.26KB/s
requests: {calls} total, 575 started, {calls} done, {right} succeeded, {failed} failed, {errored} errored, 0 timeout
status codes: {right} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 192.13KB (196742) total, 1.88KB (1929) headers (space savings 95.61%), 161.73KB ({data}) data
                     min         max         mean         sd        +/- sd
time for request:     3.00ms    227.71ms     29.04ms     42.76ms    94.11%
"""


def printed(**changes: object) -> str:
    said = {"took": "501.69ms", "rate": "8.00", "calls": 4, "right": 4, "failed": 0, "errored": 0, "data": 4 * 105}
    return LOADED.format(**{**said, **changes})


LOGGED = "".join(f"17958745725598{number}\t200\t{took}\n" for number, took in enumerate((4000, 1000, 3000, 2000)))


# ---- h2load


@pytest.mark.parametrize("took", ["501.69ms", "1.00s", "830us"])
def test_a_load_is_read_from_what_h2load_prints_and_logs(took: str) -> None:
    load = parse(printed(took=took), LOGGED, 100)

    assert load == Load(8.0, 4, (0.001, 0.002, 0.003, 0.004))


def test_percentiles_are_of_calls_that_were_made() -> None:
    load = Load(1, 200, tuple(number / 1000 for number in range(1, 201)))

    assert [load.percentile(percent) for percent in (0, 50, 99, 100)] == [0.001, 0.101, 0.199, 0.2]


@pytest.mark.parametrize(
    ("output", "log"),
    [
        (printed(failed=1), LOGGED),
        (printed(errored=1), LOGGED),
        (printed(data=4 * 105 - 105), LOGGED),  # one of them answered with an error: no message
        (printed(), LOGGED.replace("\t200\t4000", "\t503\t4000")),
        (printed(), LOGGED.replace("\t200\t4000", "\t-1\t4000")),
        (printed(calls=0, right=0, data=0), ""),
        ("h2load: could not connect", ""),
    ],
)
def test_a_load_whose_calls_were_not_all_answered_is_none(output: str, log: str) -> None:
    with pytest.raises(RuntimeError):
        parse(output, log, 100)


# ---- what is sent


def test_a_frame_is_a_flag_a_length_and_the_message() -> None:
    assert frame(b"x" * 258) == b"\0\0\0\1\2" + b"x" * 258


def test_a_tensor_is_sent_as_the_protocol_has_it() -> None:
    sent = infer_request("m", "t", (2, 1), b"\1" * 16)

    tensor = b"\x0a\1t" + b"\x12\4FP64" + b"\x1a\2\2\1"
    assert sent == b"\x0a\1m" + b"\x2a" + bytes([len(tensor)]) + tensor + b"\x3a\x10" + b"\1" * 16


def test_answers_are_read_raw_and_typed() -> None:
    head = b"\x0a\1s" + b"\x12\4FP64" + b"\x1a\1\1"
    eight = bytes.fromhex("0000000000002040")

    def answer(tensor: bytes, raw: bytes = b"") -> bytes:
        return b"\x2a" + bytes([len(tensor)]) + tensor + raw

    assert infer_response(answer(head, b"\x32\x08" + eight)) == ([1], [8.0])
    assert infer_response(answer(head + b"\x2a\x0a\x3a\x08" + eight)) == ([1], [8.0])
    with pytest.raises(ValueError, match="INT64"):
        infer_response(answer(head.replace(b"\4FP64", b"\5INT64"), b"\x32\x08" + eight))


def test_wrong_answers_are_seen() -> None:
    def answer(json: str) -> bytes:
        return predict_pb2.PredictResponse(result_json=json).SerializeToString()

    assert json_sum().is_right(answer(str(sum(NUMBERS))))
    assert not json_sum().is_right(answer("449.9"))
    assert lm().is_right(answer("[23.57232907]"))
    assert not lm().is_right(answer("[23.4]"))
    assert not lm().is_right(answer("23.57232907"))
    assert http_lm().is_right(b"[23.5723]")
    assert not tensor_sum().is_right(infer_request("m", "t", (1,), b"\0" * 8))


def test_fifty_deployments_are_called_in_turn() -> None:
    assert len(set(many().bodies)) == 50


# ---- HTTP/2


def test_integers_and_headers_are_those_of_the_rfc() -> None:
    assert integer(10, 5, 0) == b"\x0a"  # RFC 7541, C.1
    assert integer(1337, 5, 0) == b"\x1f\x9a\x0a"
    first, again = header_blocks([("a", "1"), ("b", "2")])
    assert first == b"\x83\x86" + b"\x40\1a\x011" + b"\x40\1b\x012"
    assert again == b"\x83\x86" + bytes([0x80 | 63, 0x80 | 62])


@contextmanager
def connected() -> Iterator[tuple[Connection, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = Connection(f"127.0.0.1:{listening.getsockname()[1]}", "a.B/C", [])
        server, _ = listening.accept()
        with server:
            yield connection, server
            connection.close()


def frames_of(server: socket.socket, connection: Connection) -> list[tuple[int, int, int, bytes]]:
    """What the connection sends: kind, flags, stream, payload."""
    server.settimeout(0.2)
    connection.flush()
    data = b""
    try:
        while chunk := server.recv(65536):
            data += chunk
            connection.flush()
    except TimeoutError:
        pass
    data = data.removeprefix(PREFACE)
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def told(server: socket.socket, connection: Connection, *frames: bytes) -> list[tuple[int, int]]:
    """Calls that have ended when a server has sent these frames, cut into pieces that are none."""
    data = b"".join(frames)
    ended = []
    for at in range(0, len(data), 7):
        server.sendall(data[at : at + 7])
        assert select.select([connection], [], [], 5)[0]
        ended += list(connection.receive())
    return ended


def test_calls_are_sent_and_counted_when_their_answers_end() -> None:
    with connected() as (connection, server):
        assert [connection.call(b"one"), connection.call(b"two")] == [1, 3]
        sent = [each for each in frames_of(server, connection) if each[2]]
        ended = told(
            server,
            connection,
            http2_frame(HEADERS, END_HEADERS, 3, b"x"),
            http2_frame(DATA, 0, 3, b"12345"),
            http2_frame(DATA, 0, 3, b"678"),
            http2_frame(HEADERS, END_HEADERS | END_STREAM, 3, b"x"),
            http2_frame(HEADERS, END_HEADERS | END_STREAM, 1, b"an error has no data"),
        )

    kinds = [(kind, flags, stream) for kind, flags, stream, _ in sent]
    assert kinds == [(HEADERS, END_HEADERS, 1), (DATA, END_STREAM, 1), (HEADERS, END_HEADERS, 3), (DATA, END_STREAM, 3)]
    assert [payload for kind, _, _, payload in sent if kind == DATA] == [b"one", b"two"]
    assert ended == [(3, 8), (1, 0)]


def test_bodies_wait_for_room_at_the_other_side() -> None:
    body = b"x" * LARGEST_BODY
    fitting = FIRST_WINDOW // len(body)
    with connected() as (connection, server):
        for _ in range(fitting + 1):
            connection.call(body)
        before = [each for each in frames_of(server, connection) if each[0] == DATA]
        told(server, connection, http2_frame(WINDOW_UPDATE, 0, 0, len(body).to_bytes(4, "big")))
        after = [each for each in frames_of(server, connection) if each[0] == DATA]

    assert [len(before), len(after)] == [fitting, 1]


def test_the_other_side_is_answered() -> None:
    with connected() as (connection, server):
        frames_of(server, connection)
        told(server, connection, http2_frame(SETTINGS, 0, 0, b""), http2_frame(PING, 0, 0, b"12345678"))
        told(server, connection, http2_frame(SETTINGS, ACK, 0, b""), http2_frame(PING, ACK, 0, b"12345678"))

        assert frames_of(server, connection) == [(SETTINGS, ACK, 0, b""), (PING, ACK, 0, b"12345678")]


def test_a_server_that_says_goodbye_is_noticed() -> None:
    with connected() as (connection, server), pytest.raises(ConnectionError, match="too_many_pings"):
        told(server, connection, http2_frame(GOAWAY, 0, 0, b"\0" * 8 + b"too_many_pings"))


def test_a_server_that_hangs_up_is_noticed() -> None:
    with connected() as (connection, server):
        server.close()
        select.select([connection], [], [], 5)
        with pytest.raises(ConnectionError):
            list(connection.receive())


def test_a_reset_call_is_no_answer() -> None:
    with connected() as (connection, server):
        stream = connection.call(b"one")
        with pytest.raises(ConnectionError, match="reset"):
            told(server, connection, http2_frame(RST_STREAM, 0, stream, b"\0\0\0\7"))


def test_calls_at_a_rate_come_at_random_but_the_same_times() -> None:
    times = arrivals(1000, 10, seed=1)

    assert times == arrivals(1000, 10, seed=1)
    assert times == sorted(times)
    assert 9_600 < len(times) < 10_400  # four standard deviations
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert 0.58 < sum(pause < 0.001 for pause in pauses) / len(pauses) < 0.68  # 1 - 1/e


# ---- processes


def test_processes_are_read_as_the_kernel_writes_them() -> None:
    line = "7 (a (name) b) S 3 7 7 0 -1 4194560 1 2 3 4 50 25 0 0 20 0 1 0 1234 99 100"

    assert parse_stat(line).name == "a (name) b"
    assert (parse_stat(line).parent, parse_stat(line).cpu, parse_stat(line).started) == (3, 75 / TICKS, "1234")
    assert parse_rollup("7f-7f ---p 0 00:00 0 [rollup]\nRss:  2048 kB\nPss:  1024 kB\n") == (2.0, 1.0)


def test_cpu_is_told_per_thousand_calls() -> None:
    assert Cpu(3.0, 1.5).since(Cpu(1.0, 1.0), calls=500) == Cpu(4.0, 1.0)


# ---- verdicts


def sample(rate: float) -> Sample:
    return Sample(Load(rate, 1, (0.001,)), Cpu(0, 0))


def test_a_ratio_is_the_median_of_the_rounds_that_have_both() -> None:
    samples = Samples()
    ours, theirs = ("modelhost", "sum", How.MANY), ("ceiling", "sum", How.MANY)
    for number, (one, other) in enumerate([(90, 100), (50, 100), (400, 500), (1000, 0)]):
        samples.add(ours, number, sample(one))
        if other:
            samples.add(theirs, number, sample(other))

    assert samples.ratio(ours, theirs) == 0.8
    assert samples.ratio(ours, ("triton", "sum", How.MANY)) is None
    assert samples.peak("modelhost", "sum") == 245


def test_rounds_beside_one_server_are_not_compared_with_rounds_beside_another() -> None:
    samples = Samples()
    ours, first, second = (("modelhost", "sum", How.MANY), ("ceiling", "sum", How.MANY), ("triton", "sum", How.MANY))
    for other, rate in ((first, 100), (second, 10)):
        for number in samples.book(3):
            samples.add(ours, number, sample(rate / 2))
            samples.add(other, number, sample(rate))

    assert [samples.ratio(ours, other) for other in (first, second)] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("rule", "below", "same", "above"),
    [(Rule.AT_LEAST, False, True, True), (Rule.AT_MOST, True, True, False), (Rule.BELOW, True, False, False)],
)
def test_a_bar_is_met_as_its_rule_has_it(rule: Rule, below: bool, same: bool, above: bool) -> None:
    bar = Bar("name", "what", 1.5, 2, rule)

    assert [bar.is_met(measured) for measured in (1.4999, 1.5, 1.5001)] == [below, same, above]
    assert not bar.is_met(None)


PROMISED = """
    ceiling 0.7 0.85 · kserve 1.4 2 · pytriton 1.2 1.8 · mlserver 4 6 · ray_serve 14 20 · triton 0.6 0.9 · json 0.8 0.95
    tensor_1mib 0.8 1.2 · plumber 5 10 · many 0.8 0.95 · warm_start 400 150 · list_scale 1.5 1.1 · idle_worker 14 10
"""


def test_bars_are_what_was_promised() -> None:
    promised = [each.split() for line in PROMISED.strip().splitlines() for each in line.split(" · ")]
    assert [(bar.name, bar.needed, bar.aim) for bar in BARS] == [(n, float(a), float(b)) for n, a, b in promised]


def test_each_measure_is_over_what_its_bar_says() -> None:
    found = Findings()
    rates = {
        ("modelhost", "sum", How.MANY): 60.0,
        ("ceiling", "sum", How.MANY): 80.0,
        ("kserve", "sum", How.MANY): 40.0,
        ("pytriton", "sum", How.MANY): 30.0,
        ("mlserver", "sum", How.MANY): 15.0,
        ("mlserver_plain", "sum", How.MANY): 20.0,
        ("ray_serve", "sum", How.MANY): 6.0,
        ("ray_plain", "sum", How.MANY): 2.0,
        ("triton", "sum", How.MANY): 120.0,
        ("modelhost", "json", How.MANY): 66.0,
        ("modelhost", "mib1", How.ONE): 7.0,
        ("ceiling", "mib1", How.ONE): 10.0,
        ("modelhost", "lm", How.EIGHT): 90.0,
        ("plumber", "lm", How.EIGHT): 9.0,
        ("modelhost", "many", How.TURN): 45.0,
        ("modelhost", "sum", How.TURN): 50.0,
    }
    for key, rate in rates.items():
        found.samples.add(key, 0, sample(rate))

    assert {name: value and round(value, 9) for name, value in found.measures().items()} == {
        "ceiling": 0.75, "kserve": 1.5, "pytriton": 2.0, "triton": 0.5,
        "mlserver": 3.0,  # over the better one of both ways to run it
        "ray_serve": 10.0,
        "json": 1.1, "tensor_1mib": 0.7, "plumber": 10.0, "many": 0.9,
    }  # fmt: skip


class Nobody:
    """A server that answers nothing."""

    name, address, headers = "ceiling", "127.0.0.1:9", ()

    def __init__(self) -> None:
        self.works = {"sum": tensor_sum()}

    def cpu(self) -> Cpu:
        return Cpu(0, 0)

    def close(self) -> None:
        self.works = {}


@pytest.mark.parametrize("error", [RuntimeError("no answer"), subprocess.TimeoutExpired("h2load", 60)])
def test_a_segment_that_fails_is_a_problem_of_its_round_and_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def fail(*_: object) -> Load:
        raise error

    monkeypatch.setattr(rounds, "_load", fail)
    found = Findings()

    rounds.run([[Step(Nobody(), "sum", How.MANY)]], Targets(tmp_path), found.samples, rounds=2, seconds=1)

    assert [each.partition(":")[0] for each in found.samples.problems] == [
        "ceiling sum 32, round 1", "ceiling sum 32, round 2"
    ]  # fmt: skip


def test_a_peer_that_answers_wrongly_is_reported_and_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise WrongAnswer("UNAVAILABLE\nand more")

    peer, running, found = Peer("triton", "Triton", "", (tensor_sum(),), ""), Nobody(), Findings()
    monkeypatch.setattr(Peer, "start", lambda _: running)
    monkeypatch.setattr(Targets, "prepare", fail)

    Calls(found, tmp_path, rounds=5, seconds=1)._with_peer(Nobody(), peer)  # type: ignore[arg-type]

    assert found.reason("triton") == "not here: UNAVAILABLE"
    assert running.works == {}


def test_a_bar_over_the_better_of_two_is_not_measured_with_one_alone() -> None:
    found = Findings(peers={"mlserver": "as it is"})
    found.samples.add(("modelhost", "sum", How.MANY), 0, sample(60))
    found.samples.add(("mlserver", "sum", How.MANY), 0, sample(20))
    assert found.measures()["mlserver"] == 3

    found.miss("mlserver_plain", "it answered | wrongly\nand more")

    assert found.measures()["mlserver"] is None
    assert found.peers["mlserver_plain"] == "not here: it answered / wrongly"


def test_a_run_ends_with_a_line_for_each_bar() -> None:
    found = Findings(costs=[Cost("warm_start", "", 399.999, "ms"), Cost("list_scale", "", 1.6, "")])
    found.miss("kserve", "no such package")
    found.samples.add(("modelhost", "sum", How.MANY), 0, sample(70))
    found.samples.add(("ceiling", "sum", How.MANY), 0, sample(100))

    lines = found.bar_lines()

    assert [line.split()[1] for line in lines[-len(BARS) :]] == [bar.name for bar in BARS]
    assert "bar ceiling measured=0.700 needed=0.7 aim=0.85 ok" in lines
    assert "bar warm_start measured=400.00 needed=400 aim=150 ok" in lines
    assert "bar list_scale measured=1.600 needed=1.5 aim=1.1 short" in lines
    assert "bar kserve measured=none needed=1.4 aim=2 short" in lines
    assert "not measured: kserve: not here: no such package" in lines


def test_a_report_has_what_was_found_and_what_was_lost() -> None:
    found = Findings(costs=[Cost("restart", "a start of the server", 2.5, "s")])
    found.samples.add(("modelhost", "json", How.ONE), 0, sample(1234))
    found.samples.problems.append("modelhost json 32, round 1: an error")

    text = markdown(found, command="make bench", rounds=5, seconds=1.5)

    assert "| modelhost | json | 1,234 |" in text
    assert "| a start of the server | 2.50 s |" in text
    assert "- modelhost json 32, round 1: an error" in text


@pytest.mark.parametrize("path", sorted(Path(report.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_each_of_them_can_be_started(path: Path) -> None:
    importlib.import_module(f"benchmarks.{path.stem}")


def test_what_is_to_be_measured_may_have_blanks_and_has_to_be_known() -> None:
    wanted = Wanted("json, warm_start", with_peers=False)
    assert ("json" in wanted, "warm_start" in wanted, "sum" in wanted) == (True, True, False)

    with pytest.raises(ValueError, match="nothing is called bogus, ceiling; there are environment, json"):
        Wanted("bogus,json,ceiling", with_peers=False)


def test_a_second_result_of_a_day_is_kept_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "TRIALS", tmp_path / "trials")

    results = [report.keep(text, is_result=True) for text in ("one", "two", "three")]
    trials = [report.keep(text, is_result=False) for text in ("one", "two")]

    assert [path.read_text() for path in results] == ["one", "two", "three"]
    assert [path.stem[10:] for path in results] == ["", "-2", "-3"]
    assert [path.read_text() for path in trials] == ["two", "two"]
