"""How an R worker calls a model, one by one and in batches, and tells what it raises."""

import pytest

from tests.runtimes import r_fixtures
from tests.runtimes.r_fixtures import ECHO

start, model, serve = r_fixtures.start, r_fixtures.model, r_fixtures.serve


def test_the_time_inside_the_function_is_told(serve):
    worker = serve("score <- function(parameters) Sys.sleep(parameters)")
    assert 20_000_000 <= worker.call(0.02)["run_ns"] < 10_000_000_000


def test_an_error_is_shown_with_the_calls_that_led_to_it(serve):
    worker = serve(
        """score <- function(parameters) {
            inner(parameters$x)
        }
        inner <- function(x) {
            if (x > 0) stop("x is ", x) else log("a")
        }
        """
    )
    answer = worker.call({"x": 1})
    assert (answer["reason"], answer["exception"], answer["message"]) == ("model_raised", "simpleError", "x is 1")
    assert answer["traceback"].splitlines() == [
        "Calls, outermost first:",
        "  score(parameters)",
        "  main.R:2: inner(parameters$x)",
        '  main.R:5: stop("x is ", x)',
        "Error in inner(parameters$x): x is 1",
    ]
    assert worker.call({"x": 0})["traceback"].splitlines() == [
        "Calls, outermost first:",
        "  score(parameters)",
        "  main.R:2: inner(parameters$x)",
        'main.R:5: Error in log("a"): non-numeric argument to mathematical function',
    ]


@pytest.mark.parametrize("classes", ["'InvalidParameters', 'error', 'condition'", "'InvalidParameters', 'condition'"])
def test_invalid_parameters_are_the_callers_fault(serve, classes):
    worker = serve(
        f"""score <- function(parameters) {{
            stop(structure(class = c({classes}), list(message = "age is missing", call = sys.call())))
        }}"""
    )
    answer = worker.call({})
    assert (answer["reason"], answer["exception"]) == ("parameters_invalid", "InvalidParameters")
    assert answer["message"] == "age is missing"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("quit(status = 3)", "cannot quit R"),
        ("stop(structure(class = c('odd', 'condition'), list(message = 'no error', call = NULL)))", "no error"),
        ("stop(structure(class = c('a', 'error', 'condition'), list(message = NULL, call = 1)))", ""),
        ("stop(structure(class = c('a', 'error', 'condition'), list(message = letters, call = NULL)))", "a\nb"),
        ("stop(structure(class = c('broken', 'error', 'condition'), list()))", "cannot be had"),
        ("stop('Z\\u00fcrich')", "Zürich"),
        ("stop('\\xff is no UTF-8')", "\ufffd is no UTF-8"),
        ("stop(strrep('x', 1e6))", "xxx"),
        ("options(warn = 2); warning('as an error')", "as an error"),
        ("invokeRestart('abort')", ""),
        ("f <- function(n) f(n + 1); f(1)", ""),
        ("f <- function(n) sapply(n, f); f(1)", ""),
        ("do.call(stop, list(cars))", ""),
        ("rlang_like <- simpleError('bulleted\n* list'); stop(rlang_like)", "bulleted\n* list"),
    ],
)
def test_nothing_that_a_model_raises_ends_its_worker(serve, statement, words):
    worker = serve(
        f"""tellings <- 0
        conditionMessage.broken <- function(c) if ((tellings <<- tellings + 1) > 1) stop("not twice") else "once"
        score <- function(parameters) if (parameters) {{ {statement} }} else 'fine'"""
    )
    answer = worker.call(True)
    assert answer["reason"] == "model_raised"
    assert words in answer["message"]
    assert answer["exception"]
    assert len(answer["message"]) <= 1000
    assert len(answer["traceback"]) <= 16_000
    assert worker.call(False).value == ["fine"]


def test_what_a_model_catches_is_its_own_business(serve):
    worker = serve(
        """
        score <- function(parameters) {
            a <- tryCatch(stop("caught"), error = conditionMessage)
            try(stop("tried"), silent = TRUE)
            b <- withCallingHandlers(
                { warning("muffled"); "went on" },
                warning = function(w) invokeRestart("muffleWarning")
            )
            c(a, b)
        }
        """
    )
    assert worker.call(None).value == ["caught", "went on"]
    assert worker.stderr == ""


def test_a_model_may_define_what_the_worker_uses(serve):
    masks = "tryCatch <- withCallingHandlers <- identical <- list <- eval <- function(...) stop('masked')\n"
    worker = serve(masks + "score <- function(parameters) if (parameters) parameters else stop('wrong')")
    assert worker.call(True).value == [True]
    assert worker.call(False)["message"] == "wrong"


def test_a_failed_call_does_not_keep_what_it_was_given(serve):
    worker = serve(
        """
        freed <- 0
        score <- function(parameters) {
            invisible(gc())
            if (is.null(parameters)) return(freed)
            e <- new.env()
            reg.finalizer(e, function(e) freed <<- freed + 1)
            stop("failed")
        }
        """
    )
    for _ in range(3):
        assert worker.call(1)["message"] == "failed"
    assert worker.call(None).value == [3]


# ---- batches


def test_a_batch_goes_to_the_batch_function_as_a_list(serve):
    worker = serve(
        """
        setup <- function() 10
        score <- function(parameters, k) stop("not called")
        score_batch <- function(batch, k) lapply(batch, function(p) list(n = k * p$x))
        """
    )
    assert worker.call([{"x": 1}, {"x": 2}], batch=True).value == [{"n": [10]}, {"n": [20]}]
    assert worker.call([], batch=True).value == []


@pytest.mark.parametrize(
    ("returned", "results"),
    [
        ("list(1, NULL)", [[1], None]),
        ("c(a = 1.5, b = 2.5)", [[1.5], [2.5]]),
        ("factor(c('x', 'y'))", [["x"], ["y"]]),
        ("matrix(1:4, 2)", [[1, 3], [2, 4]]),
        ("data.frame(x = 1:2)", [[{"x": 1}], [{"x": 2}]]),
    ],
)
def test_a_batch_function_returns_a_list_or_what_has_a_row_for_each(serve, returned, results):
    worker = serve(f"{ECHO}score_batch <- function(batch) {returned}")
    assert worker.call([1, 2], batch=True).value == results


@pytest.mark.parametrize("returned", ["NULL", "list(1)", "1:3", "data.frame(x = 1, y = 2)"])
def test_a_batch_function_answers_for_each(serve, returned):
    answer = serve(f"{ECHO}score_batch <- function(batch) {returned}").call([1, 2], batch=True)
    assert (answer["reason"], answer["exception"]) == ("model_raised", "")
    assert "a list of 2 results" in answer["message"]


def test_a_batch_goes_one_by_one_to_a_model_without_a_batch_function(serve):
    worker = serve("score <- function(parameters) if (parameters > 0) parameters else stop('no')")
    assert worker.call([1, 2], batch=True).value == [[1], [2]]
    assert worker.call([1, 0], batch=True)["message"] == "no"


def test_a_batch_is_an_array(serve):
    assert serve(ECHO).call({"a": 1}, batch=True)["reason"] == "parameters_invalid"
