"""Models whose function is a generator: its items one by one, as there is room for them, and how it ends."""

import json

import pytest

COUNTS = """
import itertools
made, ends = [], []
def predict(parameters):
    if parameters == "made":
        return made
    if parameters == "ends":
        return ends
    return count(parameters)
def count(parameters):
    try:
        for number in itertools.count():
            if number == parameters.get("raise"):
                raise ValueError("no %d" % number)
            if number == parameters.get("stop"):
                return
            made.append(number)
            yield parameters.get("item", number)
    except GeneratorExit:
        ends.append("closed")
        raise
    finally:
        ends.append("finally")
"""


def test_a_worker_says_that_it_streams(serve):
    assert serve(COUNTS).hello["features"] == ["stream", "tensors"]


# ---- items


def test_the_items_of_a_generator_come_one_by_one(serve):
    source = "import time\ndef predict(n):\n    for i in range(n):\n        time.sleep(0.01)\n        yield {'n': i}\n"
    worker = serve(source)
    stream = worker.stream(3)
    items = [stream.read() for _ in range(3)]
    assert [(item.type, item["seq"], json.loads(item.body)) for item in items] == [
        ("item", 0, {"n": 0}),
        ("item", 1, {"n": 1}),
        ("item", 2, {"n": 2}),
    ]
    end = stream.read()
    assert (end.type, end["items"], end.body) == ("result", 3, b"")
    assert end["run_ns"] >= 30_000_000
    assert "cancelled" not in end.header
    assert worker.stream(0).read()["items"] == 0


def test_what_is_no_generator_is_in_the_answer_of_a_stream(serve):
    worker = serve("def predict(p):\n    return p\n")
    assert worker.stream([1, 2]).read().value == [1, 2]


def test_a_generator_gets_what_setup_returned_and_may_be_imported(serve):
    worker = serve(
        {
            "main.py": "from items import predict\ndef setup():\n    return 7\n",
            "items.py": "def predict(p, state):\n    yield p\n    yield state\n",
        }
    )
    assert worker.stream("a").rest()[0] == ["a", 7]


def test_what_a_generator_writes_is_out_before_its_item(serve):
    worker = serve(
        """
import sys
def predict(p):
    for i in range(3):
        sys.stdout.write("item %d." % i)
        yield i
"""
    )
    stream = worker.stream(0, items=1)
    stream.take(1)
    assert worker.stdout == "item 0."
    stream.more(9, 0)
    stream.rest()
    assert worker.stdout == "item 0.item 1.item 2."


# ---- room


@pytest.mark.parametrize("room", [1, 2, 7])
def test_no_item_is_made_that_there_is_no_room_for(serve, room):
    worker = serve(COUNTS)
    stream = worker.stream({}, items=room)
    assert stream.take(room) == list(range(room))
    stream.more(2)
    assert stream.take(2) == [room, room + 1]
    stream.cancel()
    assert stream.read().type == "result"
    assert worker.call("made").value == list(range(room + 2))


def test_room_is_of_bytes_too_and_an_item_may_pass_it(serve):
    worker = serve(COUNTS)
    stream = worker.stream({"item": "x" * 98}, size=150)  # 100 bytes each, as JSON
    assert stream.take(2) == ["x" * 98] * 2
    stream.more(0, 50)  # none yet
    stream.more(0, 10)
    assert stream.take(1) == ["x" * 98]
    stream.cancel()
    assert stream.read()["items"] == 3
    assert worker.call("made").value == [0, 1, 2]


def test_many_items_go_through_a_small_room(serve):
    worker = serve(COUNTS)
    stream = worker.stream({"stop": 2_000}, items=16)
    for number in range(2_000):
        assert stream.take(1) == [number]
        if number % 8 == 7:
            stream.more(8)
    assert stream.read()["items"] == 2_000


# ---- the end


def test_a_cancelled_generator_is_ended_where_it_is(serve):
    worker = serve(COUNTS)
    stream = worker.stream({}, items=3)
    stream.take(3)
    stream.cancel()
    end = stream.read()
    assert (end.type, end["cancelled"], end["items"], end.body) == ("result", True, 3, b"")
    assert worker.call("ends").value == ["closed", "finally"]


def test_one_that_makes_item_after_item_is_ended_too(serve):
    worker = serve(COUNTS)
    stream = worker.stream({})
    stream.take(10)
    stream.cancel()
    _, end = stream.rest()
    assert end["cancelled"] is True
    assert worker.call("ends").value == ["closed", "finally"]


def test_a_cancel_that_comes_with_other_messages_is_not_overlooked(serve):
    worker = serve(COUNTS)
    stream = worker.stream({}, items=4)
    stream.take(4)
    more = {"type": "more", "id": 1, "items": 1 << 30, "bytes": 0}
    worker.send_all([more, more, {"type": "cancel", "id": 1}])
    items, end = stream.rest()
    assert (items, end["cancelled"]) == ([], True)
    assert worker.call("made").value == [0, 1, 2, 3]


def test_a_call_that_is_cancelled_at_once_runs_nothing_of_its_generator(serve):
    worker = serve(COUNTS)
    call = {"type": "call", "id": 1, "stream": {"items": 9, "bytes": 9}}
    worker.send_all([call, {"type": "cancel", "id": 1}], b"{}")
    end = worker.read()
    assert (end.type, end["cancelled"], end["items"]) == ("result", True, 0)


def test_what_crosses_the_end_of_its_stream_is_nothing(serve):
    worker = serve(COUNTS)
    stream = worker.stream({"stop": 1})
    stream.rest()
    stream.more(5)
    stream.cancel()
    assert worker.stream({"stop": 2}).rest()[0] == [0, 1]
    assert worker.call("ends").value == ["finally", "finally"]


def test_an_exception_comes_after_the_items_before_it(serve, root):
    worker = serve(COUNTS)
    items, end = worker.stream({"raise": 2}).rest()
    assert items == [0, 1]
    assert end.type == "failed"
    assert (end["reason"], end["exception"], end["message"]) == ("model_raised", "ValueError", "no 2")
    first, second = end["traceback"].splitlines()[:2]
    assert (first, second.split(", line")[0]) == ("Traceback (most recent call last):", f'  File "{root}/main.py"')
    assert worker.call("ends").value == ["finally"]


def test_a_generator_may_refuse_its_parameters(serve):
    worker = serve(
        "class InvalidParameters(Exception): pass\ndef predict(p):\n    raise InvalidParameters('no')\n    yield 1\n"
    )
    assert worker.stream(1).read()["reason"] == "parameters_invalid"


def test_an_item_that_json_cannot_hold_is_named_and_ends_the_generator(serve):
    worker = serve(
        """
ends = []
def predict(p):
    return items() if p is None else ends
def items():
    try:
        yield 1
        yield {"model": object()}
    finally:
        ends.append("finally")
"""
    )
    items, end = worker.stream(None).rest()
    assert items == [1]
    assert (end["reason"], end["exception"], end["traceback"]) == ("result_not_serialisable", "", "")
    assert end["message"] == "result[1]['model'] is an object, which JSON cannot hold"
    assert worker.call(1).value == ["finally"]


STUBBORN = """
def predict(p):
    return p if p else items()
def items():
    while True:
        try:
            yield 1
        except GeneratorExit:
            {then}
"""


@pytest.mark.parametrize(
    ("then", "exception", "message"),
    [("pass", "RuntimeError", "generator ignored GeneratorExit"), ("raise KeyError('x')", "KeyError", "'x'")],
)
def test_a_generator_that_does_not_end_as_it_should_has_failed_and_is_let_go(serve, then, exception, message):
    worker = serve(STUBBORN.format(then=then))
    stream = worker.stream(0, items=1)
    stream.take(1)
    stream.cancel()
    end = stream.read()
    assert (end["reason"], end["exception"], end["message"]) == ("model_raised", exception, message)
    assert worker.call("next").value == "next"


@pytest.mark.parametrize("statement", ["sys.exit(3)", "raise KeyboardInterrupt", "raise GeneratorExit"])
def test_nothing_that_a_generator_raises_ends_its_worker(serve, statement):
    worker = serve(f"import sys\ndef predict(p):\n    yield 1\n    {statement}\n")
    assert worker.stream(0).rest()[1]["reason"] == "model_raised"
    assert worker.stream(0, items=1).take(1) == [1]


def test_a_worker_that_is_stopped_or_left_in_a_stream_ends(start, write, root):
    write(COUNTS)
    for end in ("stop", "hang_up"):
        worker = start()
        worker.load(root=root)
        worker.stream({}, items=2).take(2)
        assert getattr(worker, end)() == 0


def test_another_call_in_a_stream_is_out_of_place(serve):
    worker = serve(COUNTS)
    worker.stream({}, items=2).take(2)
    worker.stream({})
    assert worker.wait() == 70


def test_a_stream_keeps_none_of_its_items(serve):
    worker = serve(
        """
import gc, weakref
gc.disable()
class Big(list):
    pass
kept = []
def predict(p):
    return items() if p == "items" else sum(1 for ref in kept if ref() is not None)
def items():
    while True:
        big = Big([1])
        kept.append(weakref.ref(big))
        yield big
"""
    )
    stream = worker.stream("items", items=3)
    stream.take(3)
    stream.cancel()
    assert stream.read()["cancelled"]
    assert worker.call("left").value == 0


# ---- calls that are no streams


def test_a_call_that_is_no_stream_has_all_items_in_a_list(serve):
    worker = serve(COUNTS)
    answer = worker.call({"stop": 3})
    assert (answer.value, answer["items"]) == ([0, 1, 2], 3)
    assert worker.call({"stop": 0}).value == []
    assert worker.call({"raise": 1})["message"] == "no 1"


def test_a_list_that_would_be_too_large_is_not_made(serve):
    worker = serve(COUNTS, result_limit=1000)
    answer = worker.call({"item": "x" * 98})
    assert (answer.type, answer["reason"], answer["exception"]) == ("failed", "result_too_large", "")
    assert "a stream has no such limit" in answer["message"]
    assert worker.call("made").value == list(range(10))
    assert worker.call("ends").value == ["closed", "finally"]


def test_a_captured_call_has_what_all_items_wrote(serve):
    worker = serve("def predict(p):\n    print('one')\n    yield 1\n    print('two')\n    yield 2\n")
    worker.send({"type": "call", "id": 1, "capture": True}, b"0")
    answer = worker.read()
    assert (answer.value, answer["stdout"]) == ([1, 2], "one\ntwo\n")
    assert 0 < answer["started"] <= answer["ended"]
