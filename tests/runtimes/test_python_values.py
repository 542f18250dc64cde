"""What comes out of a Python model: a table of expressions and the JSON that they become, on every interpreter.

A row is evaluated inside a worker; one worker per interpreter does all of them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelhost.runtimes import PYTHON_WORKER
from tests.runtimes.interpreters import VERSIONS, Interpreter, find_interpreter, scientific_interpreter
from tests.runtimes.link import Frame, WorkerProcess

EVALUATES = """
from __future__ import unicode_literals
import sys
from collections import Counter, OrderedDict, namedtuple
from datetime import date, datetime, time, timedelta
from decimal import Decimal
inf, nan, none = float("inf"), float("nan"), None
Point = namedtuple(str("Point"), str("x y"))
class LinearRegression(object):
    pass
class Text(type("")):
    pass
class Whole(int):
    def __repr__(self):
        return "Whole"
    __str__ = __repr__
class Real(float):
    __repr__ = Whole.__repr__
    __str__ = __repr__
class Broken(dict):
    def items(self):
        raise ValueError("no items")
    iteritems = items
def circular():
    value = {"a": [1]}
    value["a"].append(value)
    return value
def deep(levels):
    value = nan
    for _ in range(levels):
        value = [value]
    return value
def predict(expression):
    return eval(expression)
"""


@contextmanager
def evaluating(interpreter: Interpreter, folder: Path, source: str) -> Iterator[WorkerProcess]:
    (folder / "main.py").write_text(source)
    with WorkerProcess([interpreter.path, PYTHON_WORKER]) as worker:
        assert worker.load(root=folder).type == "loaded", worker.loaded.header
        yield worker


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def plain(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with evaluating(find_interpreter(version), tmp_path_factory.mktemp("plain"), EVALUATES) as worker:
        yield worker


@pytest.fixture(scope="module")
def scientific(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    source = EVALUATES + "import numpy as np, pandas as pd\n"
    with evaluating(scientific_interpreter(version), tmp_path_factory.mktemp("scientific"), source) as worker:
        yield worker


def text_of(answer: Frame) -> str:
    """The JSON with ordered keys and nothing escaped, which is where interpreters differ; numbers stay as they are."""
    return json.dumps(answer.value, sort_keys=True, ensure_ascii=False)


BIG = "12345678901234567890123456789"

PLAIN = {
    # what JSON has
    "None": "null",
    "True": "true",
    "1": "1",
    BIG: BIG,
    "-0.1": "-0.1",
    "1e300": "1e+300",
    "1/3.0": "0.3333333333333333",
    "'caf\\xe9 \\u4e2d \\U0001f600 \\x00'": '"café 中 😀 \\u0000"',
    "[]": "[]",
    "{}": "{}",
    "[1, [2.0, {'a': None}]]": '[1, [2.0, {"a": null}]]',
    # what is nearly that
    "(1, 2)": "[1, 2]",
    "Point(1, 2)": "[1, 2]",
    "OrderedDict([('b', 1), ('a', 2)])": '{"a": 2, "b": 1}',
    "Counter('aab')": '{"a": 2, "b": 1}',
    "Text('x')": '"x"',
    "Whole(3)": "3",
    "Real(0.5)": "0.5",
    "[Text('x'), Whole(3), Real(0.5), Point(1, 2), nan]": '["x", 3, 0.5, [1, 2], null]',
    "sys.maxsize + 1": "9223372036854775808",
    "[sys.maxsize + 1, nan]": "[9223372036854775808, null]",
    # not a number
    "nan": "null",
    "[1.5, nan, {'a': (nan, 'b', True, None, 0.1, 1)}]": '[1.5, null, {"a": [null, "b", true, null, 0.1, 1]}]',
    "{'\\u4e2d': nan, 'q\"\\\\': 'q\"\\\\\\n'}": '{"q\\"\\\\": "q\\"\\\\\\n", "中": null}',
    # keys
    "{1: 'a', -2: 'b'}": '{"-2": "b", "1": "a"}',
    "{1.5: 'a', 1e300: 'b'}": '{"1.5": "a", "1e+300": "b"}',
    "{True: 'a', False: 'b'}": '{"false": "b", "true": "a"}',
    "{None: 'a'}": '{"null": "a"}',
    "{1: nan, 2.5: 1, None: 1, True: 1} and {7: nan, 2.5: 1, None: 1, False: 1}": (
        '{"2.5": 1, "7": null, "false": 1, "null": 1}'
    ),
    "{'1': 'a', '2': 'b'}": '{"1": "a", "2": "b"}',
    "{'true': {'1': nan}}": '{"true": {"1": null}}',
    # times
    "date(2020, 2, 29)": '"2020-02-29"',
    "datetime(2020, 2, 29, 12, 30)": '"2020-02-29T12:30:00"',
    "datetime(2020, 2, 29, 12, 30, 1, 5)": '"2020-02-29T12:30:01.000005"',
    "time(12, 30)": '"12:30:00"',
    "[date(2020, 2, 29), nan]": '["2020-02-29", null]',
    # decimals
    "Decimal('1.10')": "1.1",
    "Decimal('42')": "42",
    "Decimal('0.1')": "0.1",
    f"Decimal('{BIG}')": BIG,
    "Decimal('1E+3')": "1000",
    "Decimal('1E-400')": "0.0",
    "Decimal('NaN')": "null",
    "deep(100)": "[" * 100 + "null" + "]" * 100,
}

PLAIN_REFUSED = {
    "inf": "result is inf",
    "[-inf]": "result[0] is -inf",
    "Decimal('Infinity')": "result is inf",
    "Decimal('1E+400')": "result is inf",
    "LinearRegression()": "result is a LinearRegression",
    "{'model': [1, 2, LinearRegression()]}": "result['model'][2] is a LinearRegression",
    "OrderedDict": "result is a type",
    "{1, 2}": "result is a set",
    "[frozenset()]": "result[0] is a frozenset",
    "[(x for x in [1])]": "result[0] is a generator",
    "bytearray(b'x')": "result is a bytearray",
    "1j": "result is a complex",
    "timedelta(1)": "result is a timedelta",
    "{'caf\\xe9': {1: {None: 1j}}}": {
        "2.7": "result['caf\\xe9'][1][None] is a complex",
        "3": "result['café'][1][None] is a complex",
    },
    "[{(1, 2): 3}]": "result[0] has a key that is a tuple",
    "{nan: 1}": "result has a key that is nan",
    "{inf: 1}": "result has a key that is inf",
    "{date(2020, 1, 1): 1}": "result has a key that is a date",
    "{1: 'a', '1': 'b'}": 'result has the key "1" twice',
    "{'x': {None: 'a', 'null': 'b'}}": "result['x'] has the key \"null\" twice",
    "{2.5: 'a', '2.5': 'b'}": 'result has the key "2.5" twice',
    "{True: 'a', 'true': 'b'}": 'result has the key "true" twice',
    "circular()": "result['a'][1] contains itself",
    "'half \\ud800'": "result is text with a lone surrogate in it",
    "{'\\udc00': 1}": "result is text with a lone surrogate in it",
}

PLAIN_REFUSED_2 = {
    "[b'\\xff']": "result[0] is text that is not UTF-8",
    "{b'\\xff': 1}": "result is text that is not UTF-8",
}

PLAIN_REFUSED_3 = {
    "b'x'": "result is a bytes",
    "{b'x': 1}": "result has a key that is a bytes",
    "{}.keys()": "result is a dict_keys",
    "range(3)": "result is a range",
    "map(str, [])": "result is a map",
}

SCIENTIFIC = {
    # NumPy's scalars
    "np.int64(3)": "3",
    "np.uint64(2**64 - 1)": "18446744073709551615",
    "np.float64(0.1)": "0.1",
    "np.float32(0.5)": "0.5",
    "np.float16(0.5)": "0.5",
    "np.longdouble(0.5)": "0.5",
    "np.float64('nan')": "null",
    "np.float32('nan')": "null",
    "np.bool_(True)": "true",
    "np.str_('e')": '"e"',
    "np.datetime64('2020-01-02')": '"2020-01-02"',
    "np.datetime64('2020-01-02T03:04:05')": '"2020-01-02T03:04:05"',
    "np.datetime64('NaT')": "null",
    # arrays
    "np.array(5)": "5",
    "np.array([1, 2])": "[1, 2]",
    "np.arange(6.0).reshape(2, 3)": "[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]",
    "np.zeros((2, 0))": "[[], []]",
    "np.array([1.5, nan])": "[1.5, null]",
    "np.array([[True], [False]])": "[[true], [false]]",
    "np.array(['a', 'é'])": '["a", "é"]',
    "np.array([1, 'a', None, np.float32(0.5), np.arange(2)], dtype=object)": '[1, "a", null, 0.5, [0, 1]]',
    "np.array([0.5], dtype=np.longdouble)": "[0.5]",
    "np.array(['2020-01-02', 'NaT'], dtype='M8[D]')": '["2020-01-02", null]',
    "np.array([['2020-01-02T03:04:05.678']], dtype='M8[ns]')": '[["2020-01-02T03:04:05.678000000"]]',
    "np.array('2020-01-02', dtype='M8[D]')": '"2020-01-02"',
    "np.array([], dtype='M8[s]')": "[]",
    "np.ma.array([1, 2], mask=[0, 1])": "[1, null]",
    "np.ma.masked": "null",
    "np.ma.array(np.array(['2020-01-02'] * 2, dtype='M8[D]'), mask=[0, 1])": '["2020-01-02", null]',
    "np.matrix([[1, 2]])": "[[1, 2]]",
    "{'a': [np.int32(1), {'b': np.array([nan])}]}": '{"a": [1, {"b": [null]}]}',
    # keys
    "{np.int64(1): 'a'}": '{"1": "a"}',
    "{np.int8(1): np.array([nan])}": '{"1": [null]}',
    "{np.bool_(True): 'a'}": '{"true": "a"}',
    "{np.float64(1.5): 'a'}": '{"1.5": "a"}',
    "{np.str_('a'): 1}": '{"a": 1}',
    # pandas
    "pd.DataFrame({'a': [1, 2], 'b': [0.5, nan]})": '[{"a": 1, "b": 0.5}, {"a": 2, "b": null}]',
    "pd.DataFrame({'a': [1], 'b': ['x']})": '[{"a": 1, "b": "x"}]',
    "pd.DataFrame({'a': []})": "[]",
    "pd.DataFrame([[1, 2.5]])": '[{"0": 1, "1": 2.5}]',
    "pd.DataFrame({'a': pd.to_datetime(['2020-01-02', None])})": '[{"a": "2020-01-02T00:00:00"}, {"a": null}]',
    "pd.DataFrame({'a': pd.Categorical(['x', 'y'])})": '[{"a": "x"}, {"a": "y"}]',
    "pd.DataFrame({'a': [1, 2]}, index=['x', 'y'])": '[{"a": 1}, {"a": 2}]',
    "pd.Series([1, 2], index=['x', 'y'])": "[1, 2]",
    "pd.Series([1.5, None])": "[1.5, null]",
    "pd.Series(['a', None])": '["a", null]',
    "pd.Series([1, None], dtype='Int64')": "[1, null]",
    "pd.Series([True])": "[true]",
    "pd.Series(['2020-01-02']).astype('M8[ns]')": '["2020-01-02T00:00:00"]',
    "pd.Index(['a', 'b'])": '["a", "b"]',
    "pd.RangeIndex(2)": "[0, 1]",
    "pd.DatetimeIndex(['2020-01-02'])": '["2020-01-02T00:00:00"]',
    "pd.MultiIndex.from_product([['a'], [1]])": '[["a", 1]]',
    "pd.Categorical(['x', None])": '["x", null]',
    "pd.Timestamp('2020-01-02 03:04:05.000006')": '"2020-01-02T03:04:05.000006"',
    "pd.Timestamp('2020-01-02', tz='UTC')": '"2020-01-02T00:00:00+00:00"',
    "pd.NaT": "null",
    "[pd.NaT, {'a': pd.NaT}]": '[null, {"a": null}]',
    "getattr(pd, 'NA', None)": "null",
    "{'frame': pd.DataFrame({'a': [nan]})}": '{"frame": [{"a": null}]}',
}

SCIENTIFIC_REFUSED = {
    "np.array([1.0, inf])": "result[1] is inf",
    "np.float32(-inf)": "result is -inf",
    "np.complex128(1)": "result is a complex",
    "np.timedelta64(1, 's')": "result is a timedelta64 of timedelta64[s]",
    "np.zeros(1, dtype='m8[s]')": "result is a ndarray of timedelta64[s]",
    "np.array([LinearRegression()])": "result[0] is a LinearRegression",
    "pd.DataFrame({'a': [1, inf]})": "result[1]['a'] is inf",
    "pd.DataFrame([[1, 2]], columns=['a', 'a'])": "result has columns of the same name",
    "pd.DataFrame([[1, 2]], columns=['1', 1])": 'result[0] has the key "1" twice',
    "pd.Series([timedelta(1)])": "result[0] is a Timedelta",
    "pd.DataFrame({('a', 'b'): [1]})": "result[0] has a key that is a tuple",
    "{np.float32(0.5): 1}": "result has a key that is a float32",
    "{pd.Timestamp('2020-01-02'): 1}": "result has a key that is a Timestamp",
}


@pytest.mark.parametrize(("expression", "expected"), PLAIN.items())
def test_values_become_json(plain, expression, expected):
    assert text_of(plain.call(expression)) == expected


@pytest.mark.parametrize(("expression", "expected"), SCIENTIFIC.items())
def test_values_of_numpy_and_pandas_become_json(scientific, expression, expected):
    assert text_of(scientific.call(expression)) == expected


def assert_refused(answer: Frame, expected: str) -> None:
    assert (answer.type, answer["reason"]) == ("failed", "result_not_serialisable")
    assert answer["message"] == f"{expected}, which JSON cannot hold"
    assert (answer["exception"], answer["traceback"]) == ("", "")


@pytest.mark.parametrize(("expression", "expected"), PLAIN_REFUSED.items())
def test_what_json_cannot_hold_is_refused_and_found(plain, version, expression, expected):
    if isinstance(expected, dict):
        expected = expected["2.7" if version == "2.7" else "3"]
    assert_refused(plain.call(expression), expected)


@pytest.mark.parametrize(("expression", "expected"), SCIENTIFIC_REFUSED.items())
def test_what_json_cannot_hold_of_numpy_and_pandas_is_refused_and_found(scientific, expression, expected):
    assert_refused(scientific.call(expression), expected)


@pytest.mark.parametrize("version", ["2.7"], indirect=True)
@pytest.mark.parametrize(("expression", "expected"), PLAIN_REFUSED_2.items())
def test_bytes_that_are_no_text_are_refused_on_python_2(plain, expression, expected):
    assert_refused(plain.call(expression), expected)


@pytest.mark.parametrize("version", ["2.7"], indirect=True)
def test_bytes_in_utf8_are_text_on_python_2(plain):
    assert plain.call("[b'caf\\xc3\\xa9', {b'caf\\xc3\\xa9': nan}]").value == ["café", {"café": None}]


@pytest.mark.parametrize("version", ["3.6", "3.13"], indirect=True)
@pytest.mark.parametrize(("expression", "expected"), PLAIN_REFUSED_3.items())
def test_what_is_no_text_and_no_list_is_refused_on_python_3(plain, expression, expected):
    assert_refused(plain.call(expression), expected)


def test_what_is_too_deep_is_refused(plain):
    answer = plain.call("deep(100000)")
    assert answer["message"] == "result is nested too deeply for JSON"
    assert answer["reason"] == "result_not_serialisable"


def test_an_exception_of_a_values_own_is_told(plain):
    answer = plain.call("[nan, Broken(a=1)]")
    assert (answer["reason"], answer["exception"]) == ("result_not_serialisable", "ValueError")
    assert answer["message"] == "no items"


def test_a_long_path_is_shortened(plain):
    answer = plain.call("[deep(300), inf] and eval('[' * 80 + 'inf' + ']' * 80)")
    assert answer["message"] == f"result{'[0]' * 10} ... {'[0]' * 10} is inf, which JSON cannot hold"


def test_numpy_is_not_imported_for_the_sake_of_looking(plain):
    assert plain.call("[nan, Decimal(1), sorted(set(sys.modules) & set(['numpy', 'pandas']))]").value == [None, 1, []]


def test_a_batch_may_come_back_as_an_array(scientific, version, tmp_path):
    source = "import numpy as np\ndef predict(x): pass\ndef predict_batch(batch):\n    return np.array(batch) * 0.5\n"
    with evaluating(scientific_interpreter(version), tmp_path, source) as worker:
        assert worker.call_batch([1, 2]).parts == [0.5, 1.0]
        assert worker.call_batch([1, 2, 3]).parts == [0.5, 1.0, 1.5]
