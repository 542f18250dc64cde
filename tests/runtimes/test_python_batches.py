"""How a Python worker calls a model's batch hook: each call of a batch has its own result, or its own failure."""

import pytest

from tests.runtimes.link import Failure, LinkEnded

PYTHON2 = pytest.mark.parametrize("interpreter", ["2.7"], indirect=True)
PYTHON3 = pytest.mark.parametrize("interpreter", ["3.6", "3.13"], indirect=True)

ECHO = "def predict(parameters):\n    return parameters\n"
HOOK = ECHO + "def predict_batch(batch):\n    "


def test_a_batch_goes_to_the_batch_function(serve):
    worker = serve(HOOK + "return [sum(batch)] * len(batch)\n")
    assert worker.loaded["batch"] is True
    assert worker.call_batch([1, 2]).parts == [3, 3]
    assert worker.call([1, 2]).value == [1, 2]


def test_the_batch_function_gets_what_setup_returned(serve):
    source = "def setup():\n    return 1\ndef predict_batch(batch, one):\n    return [one] * len(batch)\n"
    assert serve(ECHO + source).call_batch(["a", "b"]).parts == [1, 1]


def test_results_may_be_of_any_kind_and_of_any_size(serve):
    worker = serve(HOOK + "return tuple(batch)\n")
    sent = [None, "é", [], {"a": [1.5]}, "x" * 100_000, 0]
    assert worker.call_batch(sent).parts == sent


@PYTHON2
def test_text_is_bytes_in_a_batch_too_where_the_model_asks_for_it(serve):
    worker = serve(HOOK + "return [type(item).__name__ for item in batch]\n", text="bytes")
    assert worker.call_batch(["é", "x"]).parts == ["str", "str"]


def test_the_time_inside_the_batch_function_is_told(serve):
    worker = serve("import time\n" + HOOK + "time.sleep(0.02)\n    return batch\n")
    assert worker.call_batch([1, 2])["run_ns"] >= 20_000_000


def test_what_the_batch_function_writes_is_out_before_the_answer(serve):
    worker = serve(HOOK + "print('for %d' % len(batch))\n    return batch\n")
    worker.call_batch([1, 2])
    assert worker.stdout_with("for 2\n")


def test_parameters_that_are_not_json_fail_their_own_call_and_the_others_are_run(serve):
    worker = serve(HOOK + "return [len(batch)] * len(batch)\n")
    first, bad, last, empty = worker.call_batch_raw([b"1", b"[NaN]", b'"\xc3\xa9"', b""]).parts
    assert (first, last) == (2, 2)
    for failure in (bad, empty):
        assert isinstance(failure, Failure)
        assert failure["reason"] == "parameters_invalid"
        assert failure["message"].startswith("the parameters are not JSON: ")
        assert (failure["exception"], failure["traceback"]) == ("", "")


def test_the_batch_function_is_not_called_for_nothing(serve):
    worker = serve(HOOK + "raise KeyError('called')\n")
    assert [part["reason"] for part in worker.call_batch_raw([b"{", b"]"]).parts] == ["parameters_invalid"] * 2


RAISING = """
class InvalidParameters(Exception):
    pass
class Negative(InvalidParameters):
    pass
def checked(x):
    if x < 0:
        raise Negative("%d is negative" % x)
    if x > 100:
        raise ValueError("too much")
    return x
def one(x):
    try:
        return checked(x)
    except Exception as error:
        return error
def predict_batch(batch):
    return [one(x) for x in batch]
"""


def test_an_exception_among_the_results_is_the_failure_of_its_call(serve):
    one, negative, much, two = serve(ECHO + RAISING).call_batch([1, -1, 101, 2]).parts
    assert (one, two) == (1, 2)
    assert (negative["reason"], negative["exception"]) == ("parameters_invalid", "Negative")
    assert negative["message"] == "-1 is negative"
    assert (much["reason"], much["exception"], much["message"]) == ("model_raised", "ValueError", "too much")
    assert much["traceback"].splitlines()[-1] == "ValueError: too much"


@PYTHON3
def test_an_exception_that_was_raised_tells_where(serve):
    (failure,) = serve(ECHO + RAISING).call_batch([101]).parts
    assert "in checked" in failure["traceback"]
    assert "python_worker" not in failure["traceback"]


def test_an_exception_that_was_never_raised_will_do_too(serve):
    good, bad = serve(HOOK + "return [0, KeyError('no')]\n").call_batch([1, 2]).parts
    assert (good, bad["exception"], bad["reason"]) == (0, "KeyError", "model_raised")


@pytest.mark.parametrize("result", ["float('inf')", "object()", "{1: 'a', '1': 'b'}"])
def test_a_result_that_json_cannot_hold_fails_its_own_call(serve, result):
    good, bad = serve(HOOK + f"return [1, {result}]\n").call_batch([1, 2]).parts
    assert good == 1
    assert (bad["reason"], bad["exception"]) == ("result_not_serialisable", "")


def test_failures_may_be_many_and_long(serve):
    """Together they are more than a frame's header holds."""
    source = HOOK + "return [ValueError(u'\\xe9' * 1000 + '%d' % x) for x in batch]\n"
    parts = serve("# coding: utf-8\n" + source).call_batch(list(range(400))).parts
    assert {part["reason"] for part in parts} == {"model_raised"}
    assert len(parts) == 400


@pytest.mark.parametrize("result", ["[1]", "[1, 2, 3]", "[]"])
def test_a_batch_function_answers_for_each(serve, result):
    worker = serve(HOOK + f"return {result}\n")
    answer = worker.call_batch([1, 2])
    assert (answer.type, answer["reason"]) == ("failed", "model_raised")
    assert answer["message"] == "the batch function has to return a list with a result for each of 2"
    assert worker.call(1).value == 1


@pytest.mark.parametrize("result", ["None", "7", "{1: 2, 3: 4}", "(x for x in batch)"])
def test_what_is_no_list_fails_the_batch_as_a_whole(serve, result):
    assert serve(HOOK + f"return {result}\n").call_batch([1, 2]).type == "failed"


def test_what_the_batch_function_raises_fails_the_batch_as_a_whole_and_the_worker_goes_on(serve):
    worker = serve(HOOK + "raise ValueError('all of it')\n")
    answer = worker.call_batch([1, 2])
    assert (answer.type, answer["reason"], answer["message"]) == ("failed", "model_raised", "all of it")
    assert "in predict_batch" in answer["traceback"]
    assert worker.call(1).value == 1


def test_a_batch_for_a_model_without_a_batch_function_is_out_of_place(serve):
    with pytest.raises(LinkEnded, match="exit code 70"):
        serve(ECHO).call_batch([1, 2])
