"""Tensors in Python models: what a model sees of them and what its caller gets, on every interpreter, NumPy or not."""

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelhost.runtimes import PYTHON_WORKER
from tests.runtimes.elements import SHAPES, SIX, numbers, texts
from tests.runtimes.interpreters import VERSIONS, Interpreter, find_interpreter, scientific_interpreter
from tests.runtimes.link import Frame, WorkerProcess

# Answers with what the tensor `code` says, as a text if it is no tensor, or with the tensors themselves.
MODEL = """
import struct, sys
from collections import OrderedDict
from datetime import date
from decimal import Decimal
inf, nan = float("inf"), float("nan")
try:
    text = unicode
except NameError:
    text = str
class InvalidParameters(ValueError):
    pass
class Forest(object):
    pass
def reject():
    raise InvalidParameters("too warm")
def circular():
    value = []
    value.append(value)
    return value
def predict(t):
    if "code" not in t:
        return t
    code = t["code"][0]
    if not isinstance(code, str):
        code = code.encode("utf-8") if str is bytes else code.decode("utf-8")
    return eval(code, dict(globals(), t=t))
"""
NUMPY = MODEL + "import numpy as np, pandas as pd\n"

Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


def starter(interpreter: Interpreter, folder: Path, source: str, running: ExitStack, **always: str) -> Start:
    """Gives workers with the model, one for each set of LOAD's fields."""
    (folder / "main.py").write_text(source)
    started: dict[str, WorkerProcess] = {}

    def start(**fields: object) -> WorkerProcess:
        fields = {**always, **fields}
        key = repr(sorted(fields.items()))
        if key not in started:
            worker = running.enter_context(WorkerProcess([interpreter.path, PYTHON_WORKER]))
            assert worker.load(root=folder, **fields).type == "loaded", worker.loaded.header
            started[key] = worker
        return started[key]

    return start


@pytest.fixture(scope="module")
def plain(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Workers without NumPy."""
    with ExitStack() as running:
        yield starter(find_interpreter(version), tmp_path_factory.mktemp("plain"), MODEL, running)


@pytest.fixture(scope="module")
def scientific(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Workers whose model wants arrays of NumPy."""
    with ExitStack() as running:
        folder = tmp_path_factory.mktemp("scientific")
        yield starter(scientific_interpreter(version), folder, NUMPY, running, tensors="numpy")


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


def test_a_worker_says_that_it_takes_tensors(plain: Start) -> None:
    assert plain().hello["features"] == ["stream", "tensors"]


# ---- in and out again


@pytest.mark.parametrize("datatype", SIX)
def test_every_datatype_comes_back_bit_by_bit(plain: Start, datatype: str) -> None:
    worker = plain(outputs=declared(datatype, [-1]))

    for shape in SHAPES:
        tensor = ("x", datatype, shape, SIX[datatype])
        assert worker.infer(tensor).tensors == [tensor]


@pytest.mark.parametrize("datatype", SIX)
def test_every_datatype_comes_back_bit_by_bit_from_numpy(scientific: Start, datatype: str) -> None:
    worker = scientific(outputs=declared("BF16", [-1])) if datatype == "BF16" else scientific()

    for shape in SHAPES:
        tensor = ("x", datatype, shape, SIX[datatype])
        assert worker.infer(tensor).tensors == [tensor]


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_what_is_no_number_stays_none(plain: Start, scientific: Start, datatype: str) -> None:
    data = {"FP16": numbers("H", 0x7E00), "BF16": numbers("H", 0x7FC0)}.get(datatype, b"")
    data = data or numbers({"FP32": "f", "FP64": "d"}[datatype], float("nan"))
    tensor = ("x", datatype, [1], data)

    for worker in (plain(outputs=declared(datatype, [1])), scientific(outputs=declared(datatype, [1]))):
        assert worker.infer(tensor).tensors == [tensor]


def test_every_half_is_what_python_takes_it_for(plain: Start) -> None:
    """On 2.7 they are read and written by hand."""
    bits = [*range(0x7C01), *range(0x8000, 0xFC01)]
    tensor = ("x", "FP16", [len(bits)], numbers("H", *bits))

    as_doubles = plain().infer(tensor).tensors[0]
    assert as_doubles == ("x", "FP64", tensor[2], numbers("d", *struct.unpack(f"<{len(bits)}e", tensor[3])))
    assert plain(outputs=declared("FP16", [-1])).infer(tensor).tensors == [tensor]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_doubles_are_rounded_to_the_nearest_half_and_to_the_even_one_of_two(plain: Start, datatype: str) -> None:
    values = [1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 2**-25, 3 * 2**-25, 0.1, -65503.9, 1 / 3]
    if datatype == "FP16":
        expected = numbers("e", *values)
    else:
        expected = numbers("H", 0x3F80, 0x3F80, 0x3F80, 0x3F82, 0x3300, 0x33C0, 0x3DCD, 0xC780, 0x3EAB)

    answer = plain(outputs=declared(datatype, [-1])).infer(("x", "FP64", [len(values)], numbers("d", *values)))

    assert only(answer) == (datatype, [len(values)], expected)


@pytest.mark.parametrize("shape", [[0], [0, 3], [2, 0], [1, 0, 2]], ids=str)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "BOOL", "BF16"])
def test_tensors_may_be_empty(plain: Start, scientific: Start, datatype: str, shape: list[int]) -> None:
    seen = [0] if 0 in shape[:1] else shape[: shape.index(0) + 1]  # lists cannot say more

    assert plain(outputs=declared(datatype, [-1])).infer(("x", datatype, shape, b"")).tensors == [
        ("x", datatype, seen, b"")
    ]
    worker = scientific(outputs=declared(datatype, [-1]))
    assert worker.infer(("x", datatype, shape, b"")).tensors == [("x", datatype, shape, b"")]


# ---- what a model sees


@pytest.mark.parametrize(
    ("tensor", "seen"),
    [
        (("INT32", [2, 3], numbers("i", 1, 2, 3, 4, 5, 6)), "[[1, 2, 3], [4, 5, 6]]"),
        (("UINT8", [2, 1, 2], bytes([1, 2, 3, 4])), "[[[1, 2]], [[3, 4]]]"),
        (("FP64", [2], numbers("d", 1.0, 2.5)), "[1.0, 2.5]"),
        (("FP16", [1, 2], numbers("e", 1.0, -0.5)), "[[1.0, -0.5]]"),
        (("BOOL", [3], bytes([0, 1, 2])), "[False, True, True]"),
        (("FP32", [], numbers("f", 2.5)), "2.5"),
        (("BYTES", [2], texts("a", "b")), "[text('a'), text('b')]"),
        (("BYTES", [1, 1], texts("ä")), "[[b'\\xc3\\xa4'.decode('utf-8')]]"),
        (("BYTES", [2], texts("a", b"\xff")), "[b'a', b'\\xff']"),  # all as bytes, where one is no text
    ],
)
def test_a_model_sees_nested_lists(plain: Start, tensor: tuple[str, list[int], bytes], seen: str) -> None:
    answer = plain().infer(("x", *tensor), code(f"'%r, not %s' % (t['x'], {seen!r}) if t['x'] != {seen} else 'same'"))

    assert said(answer) == "same"


def test_numbers_have_pythons_own_types(plain: Start) -> None:
    tensors = [(name, name, [1], data[: len(data) // 6]) for name, data in SIX.items() if name != "BYTES"]

    answer = plain().infer(*tensors, code("' '.join('%s=%s' % (k, type(t[k][0]).__name__) for k in sorted(t))"))

    kinds = dict(pair.split("=") for pair in said(answer).split())
    assert kinds["BOOL"] == "bool"
    assert {kinds[name] for name in ("FP16", "BF16", "FP32", "FP64")} == {"float"}
    assert {kinds[name] for name in kinds if "INT" in name} <= {"int", "long"}


def test_bytes_stay_bytes_where_the_model_wants_them(plain: Start, scientific: Start) -> None:
    for worker in (plain(text="bytes"), scientific(text="bytes")):
        answer = worker.infer(("x", "BYTES", [1], texts("ä")), code("text(type(t['x'][0]) is bytes)"))
        assert said(answer) == "True"


def test_what_comes_beside_the_tensors_is_an_attribute_of_what_the_model_gets(plain: Start) -> None:
    beside = {"n": 3, "x": 0.5, "yes": True, "word": "ä"}

    answer = plain().infer(code("[t.parameters[k] for k in ('n', 'x')]"), parameters=beside)

    assert only(answer) == ("FP64", [2], numbers("d", 3, 0.5))
    assert said(plain().infer(code("t.parameters['word']"), parameters=beside)) == "ä"
    assert said(plain().infer(code("repr(t.parameters)"))) == "{}"


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [*((name, name.lower()) for name in SIX if "INT" in name), ("BOOL", "bool"), ("FP16", "float16"),
     ("BF16", "float32"), ("FP32", "float32"), ("FP64", "float64"), ("BYTES", "object")],
)  # fmt: skip
def test_a_model_that_wants_numpy_sees_arrays(scientific: Start, datatype: str, dtype: str) -> None:
    answer = scientific().infer(
        ("x", datatype, [2, 3], SIX[datatype]),
        code("'%s %s %s' % (t['x'].dtype, t['x'].shape, t['x'].flags.aligned)"),
    )

    assert said(answer) == f"{dtype} (2, 3) True"


def test_arrays_can_be_written_to_and_are_aligned_wherever_they_lie(scientific: Start) -> None:
    """Extension modules refuse arrays that are not aligned."""
    odd = ("a", "UINT8", [1], b"\1")
    tensor = ("x", "FP64", [2], numbers("d", 1, 2))

    for order in ([odd, tensor], [tensor, odd]):
        answer = scientific().infer(*order, code("(t['x'].__iadd__(1), text(t['x'].flags.aligned))[1]"))
        assert said(answer) == "True"
        assert said(scientific().infer(*order, code("text(t['x'].tolist())"))) == "[1.0, 2.0]"


def test_a_scalar_is_an_array_without_dimensions(scientific: Start) -> None:
    assert said(scientific().infer(("x", "FP64", [], numbers("d", 2.5)), code("text(t['x'].shape)"))) == "()"


# ---- what a caller gets

RESULTS = {
    "True": ("BOOL", [1], b"\1"),
    "7": ("INT64", [1], numbers("q", 7)),
    "-7.5": ("FP64", [1], numbers("d", -7.5)),
    "inf": ("FP64", [1], numbers("d", float("inf"))),
    "[1, 2]": ("INT64", [2], numbers("q", 1, 2)),
    "[1, True]": ("INT64", [2], numbers("q", 1, 1)),
    "[2**63, 1]": ("UINT64", [2], numbers("Q", 2**63, 1)),
    "(1, 2.5)": ("FP64", [2], numbers("d", 1, 2.5)),
    "[[1, 2], (3, 4)]": ("INT64", [2, 2], numbers("q", 1, 2, 3, 4)),
    "[[True], [False]]": ("BOOL", [2, 1], b"\1\0"),
    "'one'": ("BYTES", [1], texts("one")),
    "[b'\\xff', b'']": ("BYTES", [2], texts(b"\xff", "")),
    "[]": ("FP64", [0], b""),
    "[[], []]": ("FP64", [2, 0], b""),
    "[date(2020, 1, 2)]": ("BYTES", [1], texts("2020-01-02")),
    "[Decimal('1.5')]": ("FP64", [1], numbers("d", 1.5)),
}  # fmt: skip

RESULTS_OF_NUMPY = {
    "np.float32(1.5)": ("FP32", [1], numbers("f", 1.5)),
    "np.array(7)": ("INT64", [1], numbers("q", 7)),
    "np.arange(6, dtype='int16').reshape(2, 3)": ("INT16", [2, 3], numbers("h", 0, 1, 2, 3, 4, 5)),
    "np.arange(6.).reshape(2, 3).T": ("FP64", [3, 2], numbers("d", 0, 3, 1, 4, 2, 5)),
    "np.arange(6.)[::-2]": ("FP64", [3], numbers("d", 5, 3, 1)),
    "np.arange(6, dtype='>f8').reshape(2, 3)[:, ::2]": ("FP64", [2, 2], numbers("d", 0, 2, 3, 5)),
    "np.array([[1, 0, 1], [0, 0, 0]], bool)[:, ::2]": ("BOOL", [2, 2], b"\1\1\0\0"),
    "np.matrix([[1.5, 2]])": ("FP64", [1, 2], numbers("d", 1.5, 2)),
    "np.arange(3, dtype='>u4')": ("UINT32", [3], numbers("I", 0, 1, 2)),
    "np.array([1, 2], 'float16')": ("FP16", [2], numbers("e", 1, 2)),
    "np.array([1, 2], 'longdouble')": ("FP64", [2], numbers("d", 1, 2)),
    "np.array([[True, False]])": ("BOOL", [1, 2], b"\1\0"),
    "np.array(['a', 'bc'])": ("BYTES", [2], texts("a", "bc")),
    "np.array([b'a', b'\\xff'])": ("BYTES", [2], texts("a", b"\xff")),
    "np.array(['a', None, 'b'])[[0, 2]]": ("BYTES", [2], texts("a", "b")),
    "np.array([1, 2.5], object)": ("FP64", [2], numbers("d", 1, 2.5)),
    "np.array(['2020-01-02'], 'datetime64[D]')": ("BYTES", [1], texts("2020-01-02")),
    "np.ma.array([1, 2], mask=[0, 1])": ("FP64", [2], numbers("d", 1, float("nan"))),
    "[np.float32(1), np.float32(2)]": ("FP32", [2], numbers("f", 1, 2)),
    "[np.array([1, 2], 'int8'), np.array([3, 4], 'int8')]": ("INT8", [2, 2], bytes([1, 2, 3, 4])),
    "[np.array([1, 2]), [3, 4]]": ("INT64", [2, 2], numbers("q", 1, 2, 3, 4)),
    "np.empty((0, 3))": ("FP64", [0, 3], b""),
    "pd.Series([1, 2])": ("INT64", [2], numbers("q", 1, 2)),
    "pd.Series(['a', 'b'])": ("BYTES", [2], texts("a", "b")),
    "pd.Categorical(['a', 'b'])": ("BYTES", [2], texts("a", "b")),
}  # fmt: skip


@pytest.mark.parametrize("expression", RESULTS)
def test_results_become_tensors(plain: Start, expression: str) -> None:
    assert only(plain().infer(code(expression))) == RESULTS[expression]


@pytest.mark.parametrize("expression", [*RESULTS, *RESULTS_OF_NUMPY])
def test_results_of_numpy_become_tensors(scientific: Start, expression: str) -> None:
    expected = (RESULTS | RESULTS_OF_NUMPY)[expression]

    assert only(scientific().infer(code(expression))) == expected


LARGE = 1 << 18  # elements, more than is copied to be sent


@pytest.mark.parametrize(
    ("expression", "datatype", "elements"),
    [
        ("np.arange(%d.)", "FP64", numbers("d", *range(LARGE))),
        ("np.arange(%d, dtype='>i4')", "INT32", numbers("i", *range(LARGE))),
        ("np.arange(2 * %d, dtype='u4')[::2]", "UINT32", numbers("I", *range(0, 2 * LARGE, 2))),
        ("np.arange(%d) %% 3 == 0", "BOOL", (b"\1\0\0" * LARGE)[:LARGE]),
        ("np.asarray(np.frombuffer(b'ab' * (%d // 2), 'u1'))", "UINT8", b"ab" * (LARGE // 2)),
    ],
    ids=["doubles", "big-endian", "every second", "bools", "read-only"],
)
def test_large_arrays_are_sent_as_small_ones(
    scientific: Start, expression: str, datatype: str, elements: bytes
) -> None:
    expression %= LARGE

    assert only(scientific().infer(code(expression))) == (datatype, [LARGE], elements)
    assert only(scientific().infer(code(f"({expression}).reshape(2, -1)"))) == (datatype, [2, LARGE // 2], elements)
    assert scientific().infer(code(f"OrderedDict([('a', [1]), ('b', {expression})])")).tensors == [
        ("a", "INT64", [1], numbers("q", 1)),
        ("b", datatype, [LARGE], elements),
    ]


def test_large_columns_are_sent_row_by_row(scientific: Start) -> None:
    turned = numbers("d", *(column * LARGE + row for row in range(LARGE) for column in range(2)))

    answer = scientific().infer(code(f"np.arange(2. * {LARGE}).reshape(2, -1).T"))

    assert only(answer) == ("FP64", [LARGE, 2], turned)


@pytest.mark.parametrize("name", ["größe", '"\\\n', "\U0001f600", "%s %d", "x" * 1000])
def test_tensors_may_have_any_name(plain: Start, scientific: Start, name: str) -> None:
    tensor = (name, "INT64", [2], numbers("q", 1, 2))

    assert plain().infer(tensor).tensors == [tensor]
    assert scientific().infer(tensor).tensors == [tensor]


def test_a_dict_gives_outputs_by_name_and_anything_else_one(plain: Start) -> None:
    by_name = plain().infer(code("OrderedDict([('label', 'a'), ('p', [0.5])])"))

    assert by_name.tensors == [("label", "BYTES", [1], texts("a")), ("p", "FP64", [1], numbers("d", 0.5))]
    assert plain().infer(code("[0.5]")).tensors == [("output", "FP64", [1], numbers("d", 0.5))]
    assert plain().infer(code("{}")).tensors == []


def test_a_data_frame_gives_its_columns_by_name(scientific: Start) -> None:
    answer = scientific().infer(code("pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']}, columns=['a', 'b'])"))

    assert answer.tensors == [("a", "INT64", [2], numbers("q", 1, 2)), ("b", "BYTES", [2], texts("x", "y"))]


def test_only_the_outputs_that_are_wanted_come_in_that_order(plain: Start) -> None:
    answer = plain().infer(code("{'a': 1, 'b': 2, 'c': {}}"), outputs=["b", "a"])

    assert answer.tensors == [("b", "INT64", [1], numbers("q", 2)), ("a", "INT64", [1], numbers("q", 1))]


def test_an_output_that_the_model_does_not_have_is_the_callers_mistake(plain: Start) -> None:
    answer = plain().infer(code("{'a': 1}"), outputs=["z"])

    assert (answer.type, answer["reason"], answer["exception"]) == ("failed", "output_not_found", "")
    assert answer["message"] == "the model has no output 'z'; it has returned 'a'"


@pytest.mark.parametrize(
    ("expression", "datatype", "expected"),
    [
        ("[1, 2]", "FP32", numbers("f", 1, 2)),
        ("[1.0, 2.0]", "INT8", numbers("b", 1, 2)),
        ("[True, False]", "UINT8", b"\1\0"),
        ("[1, 0.0]", "BOOL", b"\1\0"),
        ("[None, 1]", "FP64", numbers("d", float("nan"), 1)),
        ("[0.1, 2]", "FP16", numbers("e", 0.1, 2)),
    ],
)
def test_results_are_cast_to_what_is_declared(
    plain: Start, scientific: Start, expression: str, datatype: str, expected: bytes
) -> None:
    outputs = declared(datatype, [2])

    assert plain(outputs=outputs).infer(code(expression)).tensors == [("x", datatype, [2], expected)]
    if "None" not in expression:
        array = scientific(outputs=outputs).infer(code(f"np.array({expression})"))
        assert array.tensors == [("x", datatype, [2], expected)]


@pytest.mark.parametrize(
    ("expression", "datatype", "words"),
    [
        ("[1.5]", "INT64", "not INT64"),
        ("[nan]", "INT64", "not INT64"),
        ("[inf]", "UINT8", "not UINT8"),
        ("[300]", "UINT8", "UINT8"),
        ("[-1]", "UINT64", "UINT64"),
        ("[2**63]", "INT64", "INT64"),
        ("[2]", "BOOL", "not BOOL"),
        ("[1e300]", "FP32", "out of the range of FP32"),
        ("[70000.0]", "FP16", "out of the range of FP16"),
        ("[3.4e38]", "BF16", "out of the range of BF16"),
        ("[1]", "BYTES", "BYTES need text"),
    ],
)
def test_results_that_do_not_fit_what_is_declared_are_refused(
    plain: Start, scientific: Start, expression: str, datatype: str, words: str
) -> None:
    outputs = declared(datatype, [1])

    for answer in (
        plain(outputs=outputs).infer(code(expression)),
        scientific(outputs=outputs).infer(code(f"np.array({expression})")),
    ):
        assert (answer.type, answer["reason"], answer["exception"]) == ("failed", "result_not_serialisable", "")
        assert words in answer["message"]


def test_declared_outputs_come_and_no_others(plain: Start) -> None:
    outputs = [*declared("INT64", [1]), {"name": "y", "datatype": "BYTES", "shape": [1]}]
    worker = plain(outputs=outputs)

    answer = worker.infer(code("{'y': 'a', 'more': {}, 'x': 1}"))
    assert answer.tensors == [("x", "INT64", [1], numbers("q", 1)), ("y", "BYTES", [1], texts("a"))]
    assert worker.infer(code("{'y': 'a', 'x': 1}"), outputs=["y"]).tensors == [("y", "BYTES", [1], texts("a"))]
    missing = worker.infer(code("{'y': 'a'}"))
    assert missing["message"] == "the model declares the output 'x' and has not returned it"
    assert missing["reason"] == "result_not_serialisable"


def test_a_scalar_has_no_dimensions_where_that_is_declared(plain: Start) -> None:
    assert plain(outputs=declared("FP64", [])).infer(code("2.5")).tensors == [("x", "FP64", [], numbers("d", 2.5))]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("[[1], [2, 3]]", "result has rows of different lengths"),
        ("[1, [2]]", "result has rows beside single values"),
        ("[1, 'a']", "result has text beside other values"),
        ("{'a': {'b': 1}}", "result['a'] has a dict in it"),
        ("{1: 2}", "result has a key that is an int"),
        ("{'': 2}", "outputs have names that are text"),
        ("{b'\\xff\\xfe': 2}", "outputs have names that are text"),
        (
            "{b'\\xed\\xa0\\x80'.decode('utf-8', *([] if str is bytes else ['surrogatepass'])): 2}",
            "names that are text",
        ),
        ("Forest()", "result is, or has in it, a Forest"),
        ("{'a': [Forest()]}", "result['a'] is, or has in it, a Forest"),
        ("circular()", "too many dimensions"),
        ("[-1, 2**63]", "out of the range of INT64"),
        ("[2**64]", "out of the range of UINT64"),
        ("{'a': [None, 'b']}", "result['a'] has text beside other values"),
    ],
)
def test_what_is_no_tensor_is_refused_with_its_place(plain: Start, expression: str, words: str) -> None:
    answer = plain().infer(code(expression))

    assert (answer.type, answer["reason"], answer["exception"]) == ("failed", "result_not_serialisable", "")
    assert words in answer["message"]
    assert only(plain().infer(code("1"))) == ("INT64", [1], numbers("q", 1))


@pytest.mark.parametrize(
    ("expression", "words"),
    [("np.array([1j])", "a complex"), ("np.zeros(1, 'm8[s]')", "timedelta"), ("[np.zeros(1), np.zeros(2)]", "rows")],
)
def test_arrays_that_are_no_tensor_are_refused(scientific: Start, expression: str, words: str) -> None:
    answer = scientific().infer(code(expression))

    assert (answer.type, answer["reason"]) == ("failed", "result_not_serialisable")
    assert words in answer["message"]


def test_a_model_that_raises_fails_as_with_json(plain: Start) -> None:
    rejected, raised = plain().infer(code("reject()")), plain().infer(code("1 / 0"))

    assert (rejected["reason"], rejected["message"]) == ("parameters_invalid", "too warm")
    assert (raised["reason"], raised["exception"]) == ("model_raised", "ZeroDivisionError")
    assert "python_tensors" not in raised["traceback"]


def test_json_goes_on_beside_tensors(plain: Start, scientific: Start) -> None:
    for worker in (plain(), scientific()):
        assert worker.call({"code": ["t['x'] + [1]"], "x": [0]}).value == [0, 1]
        assert only(worker.infer(code("1")))[0] == "INT64"


# ---- load


def test_a_model_that_wants_numpy_where_there_is_none_is_not_loaded(version: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MODEL)

    with WorkerProcess([find_interpreter(version).path, PYTHON_WORKER]) as worker:
        answer = worker.load(root=tmp_path, tensors="numpy")

    assert (answer.type, answer["reason"]) == ("load_failed", "import_failed")
    assert 'tensors = "numpy"' in answer["message"]
    assert "add numpy to the requirements" in answer["message"]


def test_modules_of_the_models_may_have_the_names_of_the_workers(version: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import python_tensors\ndef predict(t):\n    import python_values\n"
        "    return [python_tensors.WORD, python_values.WORD]\n"
    )
    (tmp_path / "python_tensors.py").write_text("WORD = 'own'\n")
    (tmp_path / "python_values.py").write_text("WORD = 'ours'\n")

    with WorkerProcess([find_interpreter(version).path, PYTHON_WORKER]) as worker:
        worker.load(root=tmp_path)
        for _ in range(2):
            assert only(worker.infer()) == ("BYTES", [2], texts("own", "ours"))
