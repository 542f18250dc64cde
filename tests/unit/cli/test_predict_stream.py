"""`modelhost predict --stream`: an item a line, and an end that reaches the model."""

import itertools
import signal
import time

from tests.unit.client.fake_server import Code

PATIENCE = 30


def test_each_item_is_a_line_as_the_server_sent_it(server, cli):
    server.items = lambda parameters: ['{"score":0.10000000000000001}', parameters, '"' + "x" * 200 + '"']
    result = cli("predict", "churn", "1152921504606846977", "--stream")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == ['{"score":0.10000000000000001}', "1152921504606846977", '"' + "x" * 200 + '"']


def test_with_json_each_line_says_which_item_of_which_call_it_is(server, cli):
    server.items = lambda parameters: ["[1]", "[2]"]
    assert cli("predict", "churn", "1", "--stream", "--json", "--request-id", "order-4711").json_lines == [
        {"result": [1], "index": 0, "revision": 3, "request_id": "order-4711"},
        {"result": [2], "index": 1, "revision": 3, "request_id": "order-4711"},
    ]


def test_a_stream_of_nothing_prints_nothing(server, cli):
    server.items = lambda parameters: []
    result = cli("predict", "churn", "1", "--stream")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_items_are_printed_before_what_ends_them(server, cli):
    def items(_):
        yield "1"
        raise ValueError

    server.items = items
    result = cli("predict", "churn", "1", "--stream")
    assert result.out == "1\n"
    assert result.code == 1


def test_a_failure_of_the_model_is_the_models(server, cli):
    server.refuse("PredictStream", Code.UNKNOWN, "the model raised ValueError: no", "MODEL_RAISED", request_id="r-1")
    result = cli("predict", "churn", "1", "--stream")
    assert result.code == 7
    assert "the model raised ValueError: no" in result.err


def test_a_stream_is_given_up_when_its_time_is_over(server, cli):
    server.items = lambda parameters: (time.sleep(0.01) or str(number) for number in itertools.count())
    assert cli("predict", "churn", "1", "--stream", "--timeout", "0.3").code == 1
    assert server.stream_ended.wait(PATIENCE)


def test_ctrl_c_ends_the_models_work(server, background):
    server.items = lambda parameters: map(str, itertools.count())
    with background("predict", "churn", "1", "--stream") as process:
        assert process.stdout.readline() == "0\n"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(PATIENCE) == 130
    assert server.stream_ended.wait(PATIENCE)


def test_a_reader_who_goes_away_ends_the_models_work(server, background):
    server.items = lambda parameters: map(str, itertools.count())
    with background("predict", "churn", "1", "--stream") as process:
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        process.wait(PATIENCE)
    assert server.stream_ended.wait(PATIENCE)


def test_a_reader_who_does_not_read_holds_the_model_up(server, background):
    server.items = lambda parameters: ('"' + "x" * 100_000 + '"' for _ in itertools.count())
    with background("predict", "churn", "1", "--stream") as process:
        seen, same = -1, 0
        while same < 10:
            time.sleep(0.05)
            seen, same = server.made, same + 1 if server.made == seen and seen > 0 else 0
        assert seen < 1000  # 100 MB: gRPC's windows and the system's buffers grow to some 30
        assert process.poll() is None


def test_a_debug_call_has_all_items_at_once(server, cli):
    result = cli("predict", "churn", "1", "--stream", "--debug")
    assert result.code == 2
    assert "do not go together" in result.err
    assert server.calls == []
