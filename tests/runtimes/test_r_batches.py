"""How an R worker calls a model's batch hook: each call of a batch has its own result, or its own failure."""

import pytest

from tests.runtimes import r_fixtures
from tests.runtimes.link import Failure, LinkEnded
from tests.runtimes.r_fixtures import ECHO

start, model, serve = r_fixtures.start, r_fixtures.model, r_fixtures.serve

HOOK = ECHO + "score_batch <- function(batch) "


def test_a_batch_goes_to_the_batch_function_as_a_list(serve):
    worker = serve(
        """
        setup <- function() 10
        score <- function(parameters, k) stop("not called")
        score_batch <- function(batch, k) lapply(batch, function(p) list(n = k * p$x))
        """
    )
    assert worker.call_batch([{"x": 1}, {"x": 2}]).parts == [{"n": [10]}, {"n": [20]}]
    assert worker.call_batch([]).parts == []


@pytest.mark.parametrize(
    ("returned", "results"),
    [
        ("list(1, NULL)", [[1], None]),
        ("c(a = 1.5, b = 2.5)", [[1.5], [2.5]]),
        ("factor(c('x', 'y'))", [["x"], ["y"]]),
        ("matrix(1:4, 2)", [[1, 3], [2, 4]]),
        ("matrix(list(1, 'a', 2, 'b'), 2)", [[[1], [2]], [["a"], ["b"]]]),
        ("data.frame(x = 1:2)", [[{"x": 1}], [{"x": 2}]]),
    ],
)
def test_a_batch_function_returns_a_list_or_what_has_a_row_for_each(serve, returned, results):
    assert serve(HOOK + returned).call_batch([1, 2]).parts == results


@pytest.mark.parametrize("returned", ["NULL", "list(1)", "1:3", "data.frame(x = 1, y = 2)"])
def test_a_batch_function_answers_for_each(serve, returned):
    answer = serve(HOOK + returned).call_batch([1, 2])
    assert (answer.type, answer["reason"], answer["exception"]) == ("failed", "model_raised", "")
    assert "a list of 2 results" in answer["message"]


def test_parameters_that_are_not_json_fail_their_own_call_and_the_others_are_run(serve):
    worker = serve(HOOK + "rep(length(batch), length(batch))")
    first, bad, last = worker.call_batch_raw([b"1", b"[NaN]", b'"a"']).parts
    assert (first, last) == ([2], [2])
    assert isinstance(bad, Failure)
    assert (bad["reason"], bad["exception"], bad["traceback"]) == ("parameters_invalid", "", "")
    assert bad["message"].startswith("the parameters are not JSON: ")


def test_the_batch_function_is_not_called_for_nothing(serve):
    worker = serve(HOOK + "stop('called')")
    assert [part["reason"] for part in worker.call_batch_raw([b"{", b"]"]).parts] == ["parameters_invalid"] * 2


CONDITIONS = """
checked <- function(x) {
    if (x < 0) stop(structure(class = c("Negative", "InvalidParameters", "error", "condition"),
                              list(message = paste(x, "is negative"), call = sys.call())))
    if (x > 100) stop("too much")
    x
}
score_batch <- function(batch) lapply(batch, function(x) tryCatch(checked(x), error = identity))
"""


def test_a_condition_among_the_results_is_the_failure_of_its_call(serve):
    worker = serve(ECHO + CONDITIONS)
    one, negative, much, two = worker.call_batch([1, -1, 101, 2]).parts
    assert (one, two) == ([1], [2])
    assert (negative["reason"], negative["exception"]) == ("parameters_invalid", "Negative")
    assert negative["message"] == "-1 is negative"
    assert (much["reason"], much["exception"], much["message"]) == ("model_raised", "simpleError", "too much")
    assert much["traceback"] == "Error in checked(x): too much"
    assert worker.call(3).value == [3]


@pytest.mark.parametrize("result", ["Inf", "function() 1", "list(a = 1, a = 2)"])
def test_a_result_that_json_cannot_hold_fails_its_own_call(serve, result):
    good, bad = serve(HOOK + f"list(1, {result})").call_batch([1, 2]).parts
    assert good == [1]
    assert (bad["reason"], bad["exception"]) == ("result_not_serialisable", "")
    assert "[[2]]" not in bad["message"]


@pytest.mark.parametrize("returned", ["c(1, Inf)", "function() 1", "simpleError('no')", "stop('all of it')"])
def test_what_cannot_be_told_apart_fails_the_batch_as_a_whole_and_the_worker_goes_on(serve, returned):
    worker = serve(HOOK + returned)
    assert worker.call_batch([1, 2]).type == "failed"
    assert worker.call(1).value == [1]


def test_parameters_that_r_cannot_hold_fail_the_batch_as_a_whole(serve):
    worker = serve(HOOK + "batch")
    answer = worker.call_batch([1, "\0"])
    assert (answer.type, answer["reason"]) == ("failed", "parameters_invalid")
    assert worker.call_batch([1, 2]).parts == [[1], [2]]


def test_a_batch_for_a_model_without_a_batch_function_is_out_of_place(serve):
    with pytest.raises(LinkEnded, match="exit code 70"):
        serve(ECHO).call_batch([1, 2])
