"""Tensors in models in R: what a model sees of them and what its caller gets."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.runtimes.elements import SHAPES, SIX, numbers, texts
from tests.runtimes.link import Frame, WorkerProcess
from tests.runtimes.r_fixtures import r_model, r_worker

# Answers with the value of the code in the tensor `code`; without it, with the tensors themselves.
MODEL = """
library(stats4)
setClass("Fit", representation(x = "numeric"))
reject <- function() {
    stop(structure(class = c("InvalidParameters", "error", "condition"), list(message = "too warm", call = NULL)))
}
score <- function(t) {
    if (is.null(t$code)) return(t)
    eval(parse(text = t$code))
}
"""

Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Gives workers with the model, one for each set of LOAD's fields."""
    folder: Path = tmp_path_factory.mktemp("tensors")
    (folder / "main.R").write_text(MODEL)
    started: dict[str, WorkerProcess] = {}
    with ExitStack() as running:

        def start(**fields: object) -> WorkerProcess:
            key = repr(sorted(fields.items()))
            if key not in started:
                worker = running.enter_context(r_worker())
                assert worker.load(root=folder, **r_model(**fields)).type == "loaded", worker.loaded.header
                started[key] = worker
            return started[key]

        yield start


def code(text: str) -> tuple[str, str, list[int], bytes]:
    return "code", "BYTES", [1], texts(text)


def only(answer: Frame) -> tuple[str, list[int], bytes]:
    """Datatype, shape and elements of the one output."""
    ((_, datatype, shape, data),) = answer.tensors
    return datatype, shape, data


def said(answer: Frame) -> str:
    """The text that the model answered with."""
    datatype, shape, data = only(answer)
    assert (datatype, shape) == ("BYTES", [1])
    return data[4:].decode()


def declared(datatype: str, shape: list[int]) -> list[dict[str, object]]:
    return [{"name": "x", "datatype": datatype, "shape": shape}]


def test_a_worker_says_that_it_takes_tensors(start: Start) -> None:
    assert start().hello["features"] == ["tensors"]


# ---- in and out again


@pytest.mark.parametrize("datatype", [name for name in SIX if name not in ("INT64", "UINT64")])
def test_every_datatype_comes_back_bit_by_bit(start: Start, datatype: str) -> None:
    worker = start(outputs=declared(datatype, [-1]))

    for shape in SHAPES:
        tensor = ("x", datatype, shape, SIX[datatype])
        assert worker.infer(tensor).tensors == [tensor]


@pytest.mark.parametrize(("datatype", "code"), [("INT64", "q"), ("UINT64", "Q")])
def test_whole_numbers_that_doubles_hold_come_back(start: Start, datatype: str, code: str) -> None:
    tensor = ("x", datatype, [2, 2], numbers(code, 2**53, 0, 1, 2**62))

    assert start(outputs=declared(datatype, [-1, -1])).infer(tensor).tensors == [tensor]


@pytest.mark.parametrize("shape", [[0], [0, 3], [2, 0], [1, 0, 2]], ids=str)
@pytest.mark.parametrize("datatype", ["FP64", "BYTES", "BOOL", "INT32"])
def test_tensors_may_be_empty(start: Start, datatype: str, shape: list[int]) -> None:
    assert start().infer(("x", datatype, shape, b"")).tensors == [("x", datatype, shape, b"")]


# ---- what a model sees

TO_SIX = numbers("d", 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("tensor", "seen"),
    [
        (("FP64", [3], numbers("d", 1, 2.5, -1)), "c(1, 2.5, -1)"),
        (("FP64", [], numbers("d", 1)), "1"),
        (("FP64", [2, 3], TO_SIX), "rbind(c(1, 2, 3), c(4, 5, 6))"),
        (("FP64", [1, 6], TO_SIX), "matrix(c(1, 2, 3, 4, 5, 6), 1)"),
        (("FP64", [3, 1, 2], TO_SIX), "array(c(1, 3, 5, 2, 4, 6), c(3, 1, 2))"),
        (("INT32", [2, 2], numbers("i", 1, 2, 3, 4)), "rbind(1:2, 3:4)"),
        (("INT32", [2], numbers("i", -(2**31), 1)), "c(-2147483648, 1)"),  # R's integers end before it
        (("INT8", [2], numbers("b", -128, 127)), "c(-128L, 127L)"),
        (("UINT8", [2], bytes([0, 255])), "c(0L, 255L)"),
        (("INT16", [1], numbers("h", -32768)), "-32768L"),
        (("UINT16", [1], numbers("H", 65535)), "65535L"),
        (("UINT32", [1], numbers("I", 2**32 - 1)), "4294967295"),
        (("INT64", [2], numbers("q", -1, 2**40)), "c(-1, 1099511627776)"),
        (("UINT64", [1], numbers("Q", 2**63)), "9223372036854775808"),
        (("FP32", [2], numbers("f", 0.5, 1.25)), "c(0.5, 1.25)"),
        (("FP16", [2], numbers("e", 0.5, 1.25)), "c(0.5, 1.25)"),
        (("BF16", [2], numbers("H", 0x3F00, 0x3FA0)), "c(0.5, 1.25)"),
        (("BOOL", [1, 3], bytes([0, 1, 2])), "matrix(c(FALSE, TRUE, TRUE), 1)"),
        (("BYTES", [2, 2], texts("a", "b", "c", "ä")), 'rbind(c("a", "b"), c("c", "\\u00e4"))'),
        (("BYTES", [2], texts("a", b"\xff")), "list(as.raw(0x61), as.raw(0xff))"),
        (("BYTES", [1], texts("a\0b")), "list(as.raw(c(0x61, 0, 0x62)))"),
    ],
)
def test_a_model_sees_vectors_matrices_and_arrays(
    start: Start, tensor: tuple[str, list[int], bytes], seen: str
) -> None:
    answer = start().infer(
        ("x", *tensor), code(f"if (identical(t$x, {seen})) 'same' else paste(deparse(t$x), collapse = ' ')")
    )

    assert said(answer) == "same"


def test_bytes_stay_bytes_where_the_model_wants_them(start: Start, tmp_path: Path) -> None:
    (tmp_path / "main.R").write_text("score <- function(t) rawToChar(t$x[[1]])")
    with r_worker() as worker:
        worker.load(root=tmp_path, **r_model(text="bytes"))
        assert said(worker.infer(("x", "BYTES", [1], texts("abc")))) == "abc"


def test_what_comes_beside_the_tensors_is_an_attribute_of_what_the_model_gets(start: Start) -> None:
    beside = {"n": 3, "x": 0.5, "yes": True, "word": "ä"}

    answer = start().infer(code("deparse(attr(t, 'parameters')[c('n', 'x', 'yes')])"), parameters=beside)

    assert said(answer) == "list(n = 3L, x = 0.5, yes = TRUE)"
    assert said(start().infer(code("attr(t, 'parameters')$word"), parameters=beside)) == "ä"
    assert said(start().infer(code("deparse(attr(t, 'parameters'))"))) == "NULL"


# ---- what a caller gets

RESULTS = {
    "TRUE": ("BOOL", [1], b"\1"),
    "1:3": ("INT32", [3], numbers("i", 1, 2, 3)),
    "c(1, NA, Inf)": ("FP64", [3], None),
    "c(a = 1, b = 2)": ("FP64", [2], numbers("d", 1, 2)),
    "rbind(c(1, 2, 3), c(4, 5, 6))": ("FP64", [2, 3], TO_SIX),
    "array(1:6, c(3, 1, 2))": ("INT32", [3, 1, 2], numbers("i", 1, 4, 2, 5, 3, 6)),
    "matrix(c(TRUE, FALSE), 1)": ("BOOL", [1, 2], b"\1\0"),
    "c('a', '\\u00e4')": ("BYTES", [2], texts("a", "ä")),
    "matrix(c('a', 'b', 'c', 'd'), 2)": ("BYTES", [2, 2], texts("a", "c", "b", "d")),
    "factor(c('yes', 'no'))": ("BYTES", [2], texts("yes", "no")),
    "as.Date('2020-01-02')": ("BYTES", [1], texts("2020-01-02")),
    "as.POSIXlt('2020-01-02 03:04:05', tz = 'UTC')": ("BYTES", [1], texts("2020-01-02T03:04:05Z")),
    "as.raw(c(1, 255))": ("BYTES", [1], texts(b"\x01\xff")),
    "list(as.raw(1), raw())": ("BYTES", [2], texts(b"\x01", b"")),
    "structure(c(4.94065645841247e-324, 0), class = 'integer64')": ("INT64", [2], numbers("q", 1, 0)),
    "numeric()": ("FP64", [0], b""),
    "matrix(0, 0, 3)": ("FP64", [0, 3], b""),
}  # fmt: skip


@pytest.mark.parametrize("expression", RESULTS)
def test_results_become_tensors(start: Start, expression: str) -> None:
    datatype, shape, data = RESULTS[expression]

    found = only(start().infer(code(expression)))

    assert found[:2] == (datatype, shape)
    assert data is None or found[2] == data


def test_a_missing_double_is_nan(start: Start) -> None:
    _, _, data = only(start().infer(code("c(NA, NaN, 1)")))

    assert [data[start + 7] & 0x7F for start in (0, 8)] == [0x7F, 0x7F]
    assert data[16:] == numbers("d", 1)


def test_a_named_list_gives_outputs_by_name_and_anything_else_one(start: Start) -> None:
    by_name = start().infer(code("list(label = 'a', p = 0.5)"))

    assert by_name.tensors == [("label", "BYTES", [1], texts("a")), ("p", "FP64", [1], numbers("d", 0.5))]
    assert start().infer(code("0.5")).tensors == [("output", "FP64", [1], numbers("d", 0.5))]


def test_a_data_frame_gives_its_columns_by_name(start: Start) -> None:
    answer = start().infer(code("data.frame(a = 1:2, b = c('x', 'y'), stringsAsFactors = TRUE)"))

    assert answer.tensors == [("a", "INT32", [2], numbers("i", 1, 2)), ("b", "BYTES", [2], texts("x", "y"))]


def test_only_the_outputs_that_are_wanted_come_in_that_order(start: Start) -> None:
    answer = start().infer(code("list(a = 1L, b = 2L, c = NULL)"), outputs=["b", "a"])
    missing = start().infer(code("list(a = 1L)"), outputs=["z"])

    assert answer.tensors == [("b", "INT32", [1], numbers("i", 2)), ("a", "INT32", [1], numbers("i", 1))]
    assert (missing.type, missing["reason"], missing["exception"]) == ("failed", "output_not_found", "")
    assert missing["message"] == "the model has no output 'z'; it has returned 'a'"


@pytest.mark.parametrize(
    ("expression", "datatype", "expected"),
    [
        ("1:2", "FP32", numbers("f", 1, 2)),
        ("c(1, 2)", "INT64", numbers("q", 1, 2)),
        ("c(TRUE, FALSE)", "UINT8", b"\1\0"),
        ("c(1, 0)", "BOOL", b"\1\0"),
        ("c(NA, 1L)", "FP64", numbers("d", float("nan"), 1)),
        ("c(0.1, 2)", "FP16", numbers("e", 0.1, 2)),
    ],
)
def test_results_are_cast_to_what_is_declared(start: Start, expression: str, datatype: str, expected: bytes) -> None:
    assert start(outputs=declared(datatype, [2])).infer(code(expression)).tensors == [("x", datatype, [2], expected)]


@pytest.mark.parametrize(
    ("expression", "datatype", "words"),
    [
        ("1.5", "INT64", "not INT64"),
        ("NA", "INT32", "NA in it, which INT32 cannot hold"),
        ("300", "UINT8", "out of the range of UINT8"),
        ("2", "BOOL", "not BOOL"),
        ("1", "BYTES", "BYTES need text"),
        ("'a'", "FP64", "FP64 needs numbers"),
    ],
)
def test_results_that_do_not_fit_what_is_declared_are_refused(
    start: Start, expression: str, datatype: str, words: str
) -> None:
    answer = start(outputs=declared(datatype, [1])).infer(code(expression))

    assert (answer.type, answer["reason"], answer["exception"]) == ("failed", "result_not_serialisable", "")
    assert words in answer["message"]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("c(1L, NA)", "result has NA in it, which INT32 cannot hold"),
        ("c('a', NA)", "result has NA in it, which BYTES cannot hold"),
        ("list(a = NULL)", "result$a is NULL"),
        ("NULL", "result is NULL"),
        ("list(1, 2)", "unlist() makes a vector of it"),
        ("list(a = list(b = 1))", "result$a is a list"),
        ("list(a = data.frame(b = 1))", "result$a is a data frame within"),
        ("list(a = 1, 2)", "outputs without a name"),
        ("list(a = 1, a = 2)", "outputs of the same name"),
        ("new('Fit', x = 1)", "is an S4 object"),
        ("list(f = mean)", "result$f is a function"),
        ("1i", "complex"),
    ],
)
def test_what_is_no_tensor_is_refused_with_its_place(start: Start, expression: str, words: str) -> None:
    answer = start().infer(code(expression))

    assert (answer.type, answer["reason"], answer["exception"]) == ("failed", "result_not_serialisable", "")
    assert words in answer["message"]
    assert "JSON" not in answer["message"]


def test_a_model_that_raises_fails_as_with_json(start: Start) -> None:
    rejected, raised = start().infer(code("reject()")), start().infer(code("stop('no')"))

    assert (rejected["reason"], rejected["message"]) == ("parameters_invalid", "too warm")
    assert (raised["reason"], raised["exception"], raised["message"]) == ("model_raised", "simpleError", "no")


def test_large_arrays_are_turned_and_nothing_is_lost_to_the_collector(start: Start) -> None:
    rows, columns = 500, 400
    data = numbers("d", *range(rows * columns))

    for _ in range(3):
        answer = start().infer(("x", "FP64", [rows, columns], data), code("{ gc(); t$x }"))
        assert only(answer) == ("FP64", [rows, columns], data)


def test_json_goes_on_beside_tensors(start: Start) -> None:
    assert start().call({"code": ["t$x + 1"], "x": [1]}).value == [2]
    assert only(start().infer(code("1L")))[0] == "INT32"
