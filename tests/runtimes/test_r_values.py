"""What a model in R sees of JSON, and what its caller sees of R's values: the tables behind the model contract."""

import json

import pytest

from tests.runtimes.r_fixtures import r_model, r_worker

# Runs R code and returns its value; returns what it got; or compares what it got with R code.
MODEL = """
library(stats4)  # S4 classes to refuse
score <- function(parameters) {
    if (is.character(parameters)) return(eval(parse(text = parameters)))
    if (identical(names(parameters), "echo")) return(parameters$echo)
    expected <- eval(parse(text = parameters$code))
    if (identical(parameters$value, expected)) "identical"
    else c(deparse(parameters$value), "is not", deparse(expected))
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    (folder / "main.R").write_text(MODEL)
    return folder


@pytest.fixture(scope="module")
def worker(folder):
    with r_worker(env={"TZ": "Europe/Zurich"}) as worker:
        assert worker.load(root=folder, **r_model()).type == "loaded"
        yield worker


@pytest.fixture(scope="module")
def unboxing_worker(folder):
    with r_worker() as worker:
        assert worker.load(root=folder, **r_model(unbox=True)).type == "loaded"
        yield worker


# ---- in

FRAME = "data.frame({}, check.names = FALSE, stringsAsFactors = FALSE)"

INTO_R = {
    # scalars are vectors of length one
    "1": "1L",
    "1.0": "1",
    "-2147483647": "-2147483647L",
    "-2147483648": "-2147483648",  # R's integers end before it: that number is NA
    "2147483648": "2147483648",
    "9007199254740993": "9007199254740992",  # doubles beyond 2^53 are sparse
    "0.1": "0.1",
    "5e-324": "4.9406564584124654e-324",
    "true": "TRUE",
    '"text"': '"text"',
    '""': '""',
    '"Zürich \\ud83d\\ude00 \\u4e2d"': '"Z\\u00fcrich \\U0001f600 \\u4e2d"',
    '"NA"': '"NA"',
    "null": "NULL",
    # uniform arrays are vectors, null in them is NA
    "[1, 2, 3]": "1:3",
    "[1, 2.5]": "c(1, 2.5)",
    "[1, 2147483648]": "c(1, 2147483648)",
    "[true, false]": "c(TRUE, FALSE)",
    '["a", "b"]': 'c("a", "b")',
    "[1, null]": "c(1L, NA)",
    "[1.5, null]": "c(1.5, NA)",
    "[true, null]": "c(TRUE, NA)",
    '["a", null]': 'c("a", NA)',
    "[null, null]": "c(NA, NA)",
    "[]": "list()",
    # others are lists, null in them is NULL
    '[1, "a"]': 'list(1L, "a")',
    "[1, true]": "list(1L, TRUE)",
    '[1, "a", null]': 'list(1L, "a", NULL)',
    '[{"a": 1}, null]': "list(list(a = 1L), NULL)",
    "[[1], 2]": "list(1L, 2L)",
    # arrays of equal length make matrices and arrays
    "[[1, 2], [3, 4]]": "matrix(1:4, 2, byrow = TRUE)",
    "[[1, 2, 3]]": "matrix(1:3, 1)",
    "[[1], [2], [3]]": "matrix(1:3, 3)",
    "[[1, 2], [3, 4.5]]": "matrix(c(1, 3, 2, 4.5), 2)",
    "[[1, null], [3, 4]]": "matrix(c(1L, 3L, NA, 4L), 2)",
    '[["a", "b"], ["c", "d"]]': 'matrix(c("a", "c", "b", "d"), 2)',
    "[[true], [null]]": "matrix(c(TRUE, NA), 2)",
    "[[[1, 2, 3], [4, 5, 6]]]": "array(c(1L, 4L, 2L, 5L, 3L, 6L), c(1, 2, 3))",
    "[[[[1, 2]], [[3, 4]]]]": "array(1:4, c(1, 2, 1, 2))[, 2:1, , , drop = FALSE][, 2:1, , c(1, 2), drop = FALSE] -> x;"
    "x[1, 1, 1, ] <- 1:2; x[1, 2, 1, ] <- 3:4; x",
    # or lists, if they are not that
    "[[1, 2], [3]]": "list(1:2, 3L)",
    '[[1, 2], ["a", "b"]]': 'list(1:2, c("a", "b"))',
    '[[1, "a"], [2, "b"]]': 'list(list(1L, "a"), list(2L, "b"))',
    "[[], []]": "list(list(), list())",
    "[[1, 2], null]": "list(1:2, NULL)",
    "[[[1, 2], [3, 4]], [[5]]]": "list(matrix(1:4, 2, byrow = TRUE), matrix(5L))",
    # objects are named lists
    "{}": "structure(list(), names = character())",
    '{"b": 1, "a": [1, 2]}': "list(b = 1L, a = 1:2)",
    '{"a": null}': "list(a = NULL)",
    '{"a": {"b": [{}]}}': "list(a = list(b = data.frame(x = 1)[, FALSE]))",
    '{"größe in cm": 1, "": 2}': 'structure(list(1L, 2L), names = c("gr\\u00f6\\u00dfe in cm", ""))',
    # arrays of objects are data frames: columns as they first appear, what is missing is NA
    '[{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]': FRAME.format('x = 1:2, y = c("a", "b")'),
    '[{"x": 1}]': FRAME.format("x = 1L"),
    '[{"b": 1}, {"a": true, "b": 2.5}]': FRAME.format("b = c(1, 2.5), a = c(NA, TRUE)"),
    '[{"a b": 1}, {"a b": null}]': FRAME.format("`a b` = c(1L, NA)"),
    '[{"x": null}, {}]': FRAME.format("x = c(NA, NA)"),
    # with list columns for what is not of one kind, missing or null in them is NULL
    '[{"x": 1}, {"x": "a"}, {}]': FRAME.format('x = I(list(1L, "a", NULL))') + " -> f; class(f$x) <- NULL; f",
    '[{"x": [1, 2]}, {"x": [3, 4]}]': FRAME.format("x = I(list(1:2, 3:4))") + " -> f; class(f$x) <- NULL; f",
    '[{"x": {"y": 1}}]': FRAME.format("x = I(list(list(y = 1L)))") + " -> f; class(f$x) <- NULL; f",
}


@pytest.mark.parametrize(("sent", "code"), INTO_R.items(), ids=INTO_R)
def test_a_model_gets_json_as_r_has_it(worker, sent, code):
    body = f'{{"value": {sent}, "code": {json.dumps(code)}}}'
    assert worker.call_raw(body.encode()).value == ["identical"]


def test_nested_arrays_are_indexed_alike_in_json_and_in_r(worker):
    tensor = [[[100 * i + 10 * j + k for k in range(4)] for j in range(3)] for i in range(2)]
    code = "a <- array(0L, c(2, 3, 4)); for (i in 1:2) for (j in 1:3) for (k in 1:4) a[i, j, k] <- \
            as.integer(100 * (i - 1) + 10 * (j - 1) + k - 1); a"
    assert worker.call({"value": tensor, "code": code}).value == ["identical"]


def test_a_null_number_is_na_and_not_nan(worker):
    assert worker.call({"value": [0.5, None], "code": "c(0.5, NA_real_)"}).value == ["identical"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"[1, 2", "not JSON"),
        (b"NaN", "NaN is no number in JSON"),
        (b"[Infinity]", "Infinity is no number in JSON"),
        (b'"\xff"', "not JSON"),
        (b'["a\\u0000b"]', "U+0000"),
        (b'{"a\\u0000": 1}', "U+0000"),
        (b'["\\ud800"]', "surrogates not allowed"),
        (b"[1" + b"0" * 400 + b"]", "R cannot hold"),
        (b"[" * 100_000, "not JSON"),
        (b"[" * 900 + b"]" * 900, "nested too deeply"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_parameters_that_r_cannot_have_are_refused(worker, body, words):
    answer = worker.call_raw(body)
    assert (answer["reason"], answer["exception"]) == ("parameters_invalid", "")
    assert words in answer["message"]


# ---- out

FROM_R = {
    # vectors are arrays, of length one and none too
    "1L": [1],
    "1:3": [1, 2, 3],
    "c(1.5, NA, NaN)": [1.5, None, None],
    "c(1L, NA)": [1, None],
    "c(TRUE, FALSE, NA)": [True, False, None],
    'c("a", NA, "NA")': ["a", None, "NA"],
    "numeric()": [],
    "integer()": [],
    "character()": [],
    "logical()": [],
    "NA": [None],
    "NULL": None,
    "as.character(1:3)": ["1", "2", "3"],  # R makes these texts when they are first asked for
    "rev(seq_len(5))": [5, 4, 3, 2, 1],
    # to the last bit
    "0.1 + 0.2": [0.30000000000000004],
    "c(1/3, pi, 1e-300, 5e-324, .Machine$double.xmax, 123456789012345680)": [
        1 / 3,
        3.141592653589793,
        1e-300,
        5e-324,
        1.7976931348623157e308,
        123456789012345680.0,
    ],
    # names of vectors are dropped, as those of predict() are
    "c(a = 1, b = 2)": [1, 2],
    "predict(lm(y ~ x, data.frame(x = 1:3, y = 2 * 1:3)), data.frame(x = 4))[[1]] - 8 < 1e-9": [True],
    "length(predict(lm(dist ~ speed, cars)))": [50],
    # text is UTF-8, whatever R had it in
    '"Z\\u00fcrich \\U0001f600"': ["Zürich \U0001f600"],
    '`Encoding<-`("Z\\xfcrich \\x80", "latin1")': ["Zürich €"],
    '"\\xff"': ["\ufffd"],
    '"a\\"b\\\\\\n\\t"': ['a"b\\\n\t'],
    # lists are arrays, or objects if they have names
    "list()": [],
    "structure(list(), names = character())": {},
    "list(1, 'a', NULL)": [[1], ["a"], None],
    "list(b = 1, a = list(c = NULL))": {"b": [1], "a": {"c": None}},
    "structure(list(1, 2), names = c('', ''))": [[1], [2]],
    "list(`a b` = 1L)": {"a b": [1]},
    # matrices are arrays of rows
    "matrix(1:6, 2)": [[1, 3, 5], [2, 4, 6]],
    "matrix(1:3, 1)": [[1, 2, 3]],
    "matrix(c('a', NA), 2, dimnames = list(c('x', 'y'), 'z'))": [["a"], [None]],
    "matrix(0, 0, 3)": [],
    "matrix(0, 2, 0)": [[], []],
    "matrix(list(1, 'a', TRUE, NULL), 2)": [[[1], [True]], [["a"], None]],
    "array(1:8, c(2, 2, 2))": [[[1, 5], [3, 7]], [[2, 6], [4, 8]]],
    "array(1:2, 2)": [1, 2],
    "table(c('a', 'b', 'a'))": [2, 1],
    "table(c(1, 1), c(2, 3))": [[1, 1]],
    # data frames are records, one row or none included
    "data.frame(x = 1:2, y = c('a', NA))": [{"x": 1, "y": "a"}, {"x": 2, "y": None}],
    "data.frame(x = 0.5)": [{"x": 0.5}],
    "data.frame(x = 1:2)[0, , drop = FALSE]": [],
    "data.frame()": [],
    "data.frame(row.names = c('a', 'b'))": [{}, {}],
    "head(iris[c(1, 5)], 1)": [{"Sepal.Length": 5.1, "Species": "setosa"}],
    "list(f = data.frame(x = 1))": {"f": [{"x": 1}]},
    "data.frame(x = I(list(1:2, NULL)), n = 1:2)": [{"x": [1, 2], "n": 1}, {"x": None, "n": 2}],
    "f <- data.frame(n = 1:2); f$m <- matrix(1:4, 2); f$d <- data.frame(a = 5:6); f": [
        {"n": 1, "m": [1, 3], "d": {"a": 5}},
        {"n": 2, "m": [2, 4], "d": {"a": 6}},
    ],
    "structure(data.frame(x = 1), class = c('tbl_df', 'tbl', 'data.frame'))": [{"x": 1}],
    # factors are labels
    "factor(c('b', 'a', NA))": ["b", "a", None],
    "factor('Z\\u00fcrich')": ["Zürich"],
    "structure(c(0L, 1L, 7L), class = 'factor', levels = 'a')": [None, "a", None],
    "data.frame(f = factor(c('lo', 'hi'), levels = c('lo', 'hi'), ordered = TRUE))": [{"f": "lo"}, {"f": "hi"}],
    # dates and times are ISO 8601
    "as.Date(c('2020-02-29', NA))": ["2020-02-29", None],
    "as.Date(18321L, origin = '1970-01-01')": ["2020-02-29"],
    "as.Date(character())": [],
    "as.POSIXct('2020-01-31 12:34:56', tz = 'UTC')": ["2020-01-31T12:34:56Z"],
    "as.POSIXct('2020-07-01 12:00:00', tz = 'America/New_York')": ["2020-07-01T12:00:00-04:00"],
    "as.POSIXct(c('2020-01-01 00:00:00', '2020-07-01 00:00:00', NA))": [
        "2020-01-01T00:00:00+01:00",  # the deployment's TZ
        "2020-07-01T00:00:00+02:00",
        None,
    ],
    "as.POSIXct(1e9 + c(0.1, 0.000001, 0.9999999), origin = '1970-01-01', tz = 'UTC')": [
        "2001-09-09T01:46:40.1Z",
        "2001-09-09T01:46:40.000001Z",
        "2001-09-09T01:46:41Z",
    ],
    "as.POSIXct(-0.5, origin = '1970-01-01', tz = 'GMT')": ["1969-12-31T23:59:59.5Z"],
    "as.POSIXlt('2020-01-31 12:00:00', tz = 'UTC')": ["2020-01-31T12:00:00Z"],
    "as.POSIXct(character())": [],
    "data.frame(d = as.Date('2020-01-02'), t = as.POSIXct(0, origin = '1970-01-01', tz = 'UTC'))": [
        {"d": "2020-01-02", "t": "1970-01-01T00:00:00Z"}
    ],
    "as.Date('2020-03-01') - as.Date('2020-02-01')": [29],
    # classes of well-known packages
    "structure(c(4.9406564584124654e-324, -0), class = 'integer64')": [1, None],  # bits 1, and those of its NA
    "structure(1, class = c('scalar', 'numeric'))": 1,  # what jsonlite::unbox makes
    "structure(factor('a'), class = c('scalar', 'factor'))": "a",
    "structure(as.Date('2020-01-02'), class = c('scalar', 'Date'))": "2020-01-02",
    "structure(data.frame(x = 1), class = c('scalar', 'data.frame'))": {"x": 1},
    "list(a = structure(NA, class = c('scalar', 'logical')), b = 1)": {"a": None, "b": [1]},
    "structure('{\"a\":[1,2.5,null]}', class = 'json')": {"a": [1, 2.5, None]},  # what jsonlite::toJSON makes
    # other classes are what is below them
    "structure(list(a = 1), class = 'myclass')": {"a": [1]},
    "ts(c(1, 2), start = 2000)": [1, 2],
    "I('a')": ["a"],
    "as.hexmode(255)": [255],
}


@pytest.mark.parametrize(("code", "expected"), FROM_R.items(), ids=FROM_R)
def test_a_caller_gets_the_value_of(worker, code, expected):
    assert worker.call(code).value == expected


def test_logicals_and_numbers_are_told_apart(worker):
    assert worker.call("list(TRUE, 1L, 1)").body == b"[[true],[1],[1.0]]"


UNBOXED = {
    "1L": 1,
    "c(1, 2)": [1, 2],
    "numeric()": [],
    "NA": None,
    "list(a = 1, b = 'x', c = list(TRUE), d = 1:2)": {"a": 1, "b": "x", "c": [True], "d": [1, 2]},
    "factor('a')": "a",
    "as.Date('2020-01-02')": "2020-01-02",
    "as.POSIXlt('2020-01-31 12:00:00', tz = 'UTC')": "2020-01-31T12:00:00Z",
    "matrix(1)": [[1]],
    "data.frame(x = 1)": [{"x": 1}],
    "data.frame(x = I(list(1)))": [{"x": 1}],
    "list(1)": [1],
    "I(1)": [1],
}


@pytest.mark.parametrize(("code", "expected"), UNBOXED.items(), ids=UNBOXED)
def test_a_caller_who_wants_vectors_unboxed_gets(unboxing_worker, code, expected):
    assert unboxing_worker.call(code).value == expected


REFUSED = {
    "Inf": "result[1] is Inf",
    "list(a = list(1, c(0, -Inf)))": "result$a[[2]][2] is -Inf",
    "data.frame(ok = 1:2, p = c(1, Inf))": "result$p[2] is Inf",
    "1i": "result is of complex numbers",
    "as.raw(1)": "result is of raw bytes",
    "list(f = function(x) x)": "result$f is a function",
    "list(sum)": "result[[1]] is a function",
    "globalenv()": "result is an environment",
    "quote(x)": "result is a name",
    "y ~ x": "result is a call or formula",
    "expression(x)": "result is an expression",
    "lm(dist ~ speed, cars)": "result$call is a call or formula",
    "mle(function(x = 1) x^2)": "result is an S4 object",
    "setClass('P', contains = 'numeric')(1)": "result is an S4 object",
    "list(a = 1, a = 2)": "result has more than one element called 'a'",
    "list(x = list(1, b = 2))": "result$x has names, but not for element 1",
    "setNames(list(1, 2), c('a', NA))": "result has names, but not for element 2",
    "data.frame(a = 1, a = 2, check.names = FALSE)": "result has more than one column called 'a'",
    "structure(1, class = 'data.frame')": "result is of class data.frame, but not a list",
    "structure(1L, class = 'factor', levels = 1:3)": "result has labels or names that are not text",
    "structure('{', class = 'json')": "result is of class json, but not JSON",
    "structure('x', class = 'Date')": "result is of a class for dates and is none",
    "structure(list(1:2, 1:3), names = c('a', 'b'), class = 'data.frame')": "result has columns of different lengths",
}


@pytest.mark.parametrize(("code", "words"), REFUSED.items(), ids=REFUSED)
def test_a_result_that_json_cannot_hold_is_refused_with_its_place(worker, code, words):
    answer = worker.call(code)
    assert (answer.type, answer["reason"], answer["exception"]) == ("failed", "result_not_serialisable", "")
    assert answer["message"].startswith(words)
    assert answer["message"].endswith("which JSON cannot hold")


def test_a_result_nested_too_deeply_is_refused(worker):
    answer = worker.call("x <- list(); for (i in 1:5000) x <- list(x); x")
    assert answer["reason"] == "result_not_serialisable"
    assert answer["message"] == "result is nested too deeply, which JSON cannot hold"
    assert worker.call("1").value == [1]


# ---- there and back

TORTURE = """
compiler::enableJIT(0)  # the compiler is a slow victim
score <- function(parameters) { if (identical(parameters, "torture")) gctorture(TRUE); parameters }
"""


def test_values_survive_a_collection_at_every_allocation(folder):
    value = {
        "matrix": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
        "frame": [{"i": i, "t": f"text {i}", "l": [f"{i}", f"{-i}"]} for i in range(5)],
        "vectors": {"numbers": [0.5, None], "texts": ["a", None], "logical": [True, None], "empty": []},
    }
    (folder / "torture.R").write_text(TORTURE)
    with r_worker() as worker:
        worker.load(root=folder, **r_model(main_file="torture.R"))
        worker.call("torture")
        for _ in range(3):
            assert worker.call(value).value == value


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2, 3], "b": {"c": ["x", None]}},
        [[1.5, 2.5], [3.5, None]],
        [{"x": 1, "y": "a"}, {"x": None, "y": "b"}],
        [0.1, 1e22, 1.7976931348623157e308, 5e-324, -0.0, 2**53],
        ["", "Zürich", "\U0001f600", "NA", None],
        [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]],
        [],
        {},
        None,
    ],
    ids=str,
)
def test_what_a_model_returns_as_it_came_is_what_was_sent(worker, value):
    assert worker.call({"echo": value}).value == value


def test_a_hundred_thousand_of_each_kind_come_back_as_they_went(worker):
    n = 100_000
    value = {
        "numbers": [i / 7 for i in range(n)],
        "integers": list(range(n)),
        "texts": [f"text {i}" for i in range(n)],
        "rows": [[i, i + 1] for i in range(n)],
        "records": [{"i": i, "even": i % 2 == 0} for i in range(n)],
    }
    assert worker.call({"echo": value}).value == value
