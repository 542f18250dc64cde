"""How an R worker loads a model, and says why it cannot."""

import pytest

from tests.runtimes import r_fixtures
from tests.runtimes.r_fixtures import ECHO

start, model, serve, refusal = r_fixtures.start, r_fixtures.model, r_fixtures.serve, r_fixtures.refusal


def test_a_loaded_model_tells_its_hooks(serve):
    loaded = {"type": "loaded", "id": 1, "warnings": []}
    assert serve(ECHO).loaded.header == {**loaded, "batch": False, "setup": False}
    hooks = "setup <- function() 1\nscore_batch <- function(batch) batch\n"
    assert serve(ECHO + hooks).loaded.header == {**loaded, "batch": True, "setup": True}


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        ("function(parameters, model) model", ["setup's"]),
        ("function(parameters, verbose = FALSE, model) model", ["setup's"]),
        ("function(parameters, ..., model) model", ["setup's"]),
        ("function(parameters, model = 'default') model", ["default"]),
        ("function(parameters, ...) length(list(...))", [0]),
        ("function(...) length(list(...))", [1]),
    ],
)
def test_a_second_required_parameter_gets_what_setup_returns(serve, function, shown):
    worker = serve(f'setup <- function() "setup\'s"\nscore <- {function}\n')
    assert worker.loaded["warnings"] == []
    assert worker.call(None).value == shown


def test_a_parameter_that_nothing_is_there_for_is_warned_of(serve):
    worker = serve("score <- function(parameters, model) model")
    assert worker.loaded["warnings"] == ["main.R: 'score' requires 2 arguments and is called with 1"]
    assert "model" in worker.call(None)["message"]


def test_setup_runs_once(serve):
    worker = serve("setup <- function() { cat('once;'); NULL }\nscore <- function(p, s) is.null(s)")
    assert [worker.call(None).value for _ in range(3)] == [[True]] * 3
    assert worker.stdout == "once;"


def test_the_model_lives_in_the_global_environment_as_on_its_authors_machine(serve, start, root):
    training = """
        logged <- function(x) log(x)
        fit <- lm(dist ~ logged(speed), cars)
        saveRDS(list(fit = fit, shift = local(function(y) adjust(y), globalenv())), "model.rds")
        print.mine <- function(x, ...) cat("printed as mine\\n")
    """
    scoring = """
        rm(list = ls())
        model <- readRDS("model.rds")
        logged <- function(x) log(x)
        adjust <- function(y) y + 1
        print.mine <- function(x, ...) cat("printed as mine\\n")
        score <- function(parameters) {
            print(structure(1, class = "mine"))
            model$shift(predict(model$fit, as.data.frame(parameters)))
        }
    """
    serve({"main.R": training + ECHO})
    worker = serve({"main.R": scoring})
    first, second = worker.call({"speed": [10, 20]}).value
    assert second > first
    assert worker.stdout == "printed as mine\n"


def test_libraries_and_helpers_may_define_the_function(serve):
    worker = serve({"main.R": "source('score.R')\n", "score.R": ECHO})
    assert worker.call(1).value == [1]


@pytest.mark.parametrize(
    ("main", "name"),
    [
        ("score <- function(p) 'Zürich'\n".encode(), "main.R"),
        ("\ufeffscore <- function(p) 'Zürich'\r\n".encode(), "main.R"),
        ("score <- function(p) 'Zürich'".encode(), "größe & co.R"),
    ],
    ids=["UTF-8", "Windows editor", "odd name"],
)
def test_main_files_of_all_sorts_are_read(serve, main, name):
    worker = serve({name: main}, main_file=name)
    assert worker.loaded["warnings"] == []
    assert worker.call(None).value == ["Zürich"]


def test_a_main_file_in_windows_1252_is_read_with_a_warning(serve):
    worker = serve("score <- function(p) 'Zürich €'".encode("cp1252"))
    assert worker.loaded["warnings"] == ["main.R is not UTF-8: it was read as Windows-1252"]
    assert worker.call(None).value == ["Zürich €"]


@pytest.mark.parametrize("name", ["my.model", "größe", "a name"])
def test_the_function_may_have_another_name(serve, name):
    worker = serve(f"`{name}` <- function(p) p\n`{name}_batch` <- function(b) b\n", function=name)
    assert worker.loaded["batch"]
    assert worker.call(1).value == [1]


# ---- what cannot be loaded


def test_a_missing_main_file(refusal):
    answer = refusal({}, main_file="no/main.R")
    assert (answer["reason"], answer["message"]) == ("main_file_not_found", "no/main.R: no such file")


def test_a_missing_working_directory(refusal):
    answer = refusal(ECHO, working_dir="nowhere")
    assert answer["reason"] == "import_failed"
    assert answer["message"] == "working directory nowhere: No such file or directory"


def test_a_syntax_error_is_placed(refusal):
    answer = refusal("x <- 1\ny <- 2 z\n")
    assert answer["reason"] == "syntax_error"
    assert answer["message"] == "main.R:2:8: unexpected symbol"
    assert "2: y <- 2 z\n          ^" in answer["traceback"]


def test_a_file_that_ends_too_soon_is_a_syntax_error(refusal):
    answer = refusal("score <- function(p) {\n")
    assert (answer["reason"], answer["message"]) == ("syntax_error", "main.R:2:0: unexpected end of input")


def test_a_missing_package(refusal):
    answer = refusal("x <- 1\nlibrary(nosuchpackage)\n")
    assert answer["reason"] == "import_failed"
    assert answer["message"] == "there is no package called ‘nosuchpackage’"
    first, second, *_, last = answer["traceback"].splitlines()
    assert first == "Calls, outermost first:"
    assert second == "  main.R:2: library(nosuchpackage)"
    assert last == "Error in library(nosuchpackage): there is no package called ‘nosuchpackage’"


def test_an_error_at_top_level_is_placed(refusal):
    answer = refusal("a <- 1\nb <- a + missing_one\n")
    assert answer["reason"] == "import_failed"
    assert answer["traceback"] == "main.R:2: Error: object 'missing_one' not found"


def test_a_syntax_error_in_a_sourced_file_names_that_file(refusal):
    answer = refusal({"main.R": "source('helpers.R')\n", "helpers.R": "f <- (\n"})
    assert answer["reason"] == "import_failed"
    assert answer["message"].startswith("helpers.R:2:0: unexpected end of input")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("quit(status = 3)", "cannot quit R"),
        ("q('no')", "cannot quit R"),
        ("base::quit()", "cannot quit R"),
        ("stop(structure(class = c('odd', 'condition'), list(message = 'no error', call = NULL)))", "no error"),
        ("f <- function(n) f(n + 1); f(1)", ""),
        ("invokeRestart('abort')", ""),
    ],
)
def test_whatever_ends_the_main_file_early_is_a_failing_import(refusal, statement, words):
    answer = refusal(f"a <- 1\n{statement}\n")
    assert answer["reason"] == "import_failed"
    assert words in answer["message"]


def test_a_failing_setup(refusal):
    answer = refusal(ECHO + "setup <- function() stop('no\nmodel')\n")
    assert (answer["reason"], answer["message"]) == ("setup_failed", "no model")
    assert "  setup()\n" in answer["traceback"]


@pytest.mark.parametrize(
    ("main", "function", "words"),
    [
        ("", "score", "main.R has no function 'score'; it defines no functions"),
        ("b <- function() 1\na <- sum\nx <- 1", "score", "main.R has no function 'score'; it defines: a, b"),
        ("score <- 'text'", "score", "main.R: 'score' is not a function"),
        (ECHO, "predict", "main.R has no function 'predict'; it defines: score"),  # stats has one
        (ECHO, "sum", "main.R has no function 'sum'; it defines: score"),
        (ECHO, "", "main.R has no function ''; it defines: score"),
    ],
)
def test_a_missing_function_is_answered_with_those_there_are(refusal, main, function, words):
    answer = refusal(main, function=function)
    assert (answer["reason"], answer["message"]) == ("function_not_found", words)
    assert all(name in words for name in answer["defines"])


@pytest.mark.parametrize(
    "function",
    [
        "function(parameters) predict(fit, parameters)",
        "function(parameters) { if (TRUE) { x <- list(a[, 1], predict(fit, parameters)) } }",
        "function(parameters) lapply(parameters, function(p, q = predict(p)) q)",
    ],
)
def test_a_function_that_hides_rs_own_and_calls_it_is_refused(refusal, function):
    answer = refusal(f"predict <- {function}\n", function="predict")
    assert answer["reason"] == "function_masks_base"
    assert "hides R's own stats::predict and calls itself" in answer["message"]
    assert "write stats::predict() there" in answer["message"]


@pytest.mark.parametrize(
    "function",
    [
        "function(parameters) stats::predict(lm(dist ~ speed, cars), data.frame(speed = parameters))[[1]] > 0",
        "function(parameters) { predict <- function(x) x > 0; predict(parameters) }",
        "function(parameters, predict = function(x) x > 0) predict(parameters)",
        "function(parameters) parameters > 0",
    ],
)
def test_a_function_that_only_hides_rs_own_is_warned_of(serve, function):
    worker = serve(f"predict <- {function}\n", function="predict")
    assert worker.loaded["warnings"] == ["main.R: 'predict' hides R's own stats::predict"]
    assert worker.call(10).value == [True]


def test_a_worker_that_could_not_load_still_stops_in_order(start, model):
    worker = start()
    assert worker.load(**model("stop()")).type == "load_failed"
    assert worker.ping().type == "pong"
    assert worker.stop() == 0
