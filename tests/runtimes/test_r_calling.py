"""How an R worker calls a model, one by one and in batches, and tells what it raises."""

import pytest

from tests.runtimes import r_fixtures

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
