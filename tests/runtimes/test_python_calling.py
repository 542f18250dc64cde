"""What a model gets in a call, and what becomes of what it raises."""

import json

import pytest

PYTHON2 = pytest.mark.parametrize("interpreter", ["2.7"], indirect=True)
PYTHON3 = pytest.mark.parametrize("interpreter", ["3.6", "3.13"], indirect=True)

ECHO = "def predict(parameters):\n    return parameters\n"


# ---- parameters

TYPES = """
def names(value):
    if isinstance(value, dict):
        return sorted([names(key), names(item)] for key, item in value.items())
    if isinstance(value, list):
        return [names(item) for item in value]
    return type(value).__name__
def predict(parameters):
    return names(parameters)
"""


def test_parameters_are_json_as_python_has_it(serve, interpreter):
    text = "unicode" if interpreter.is_python2 else "str"
    worker = serve(TYPES)
    assert worker.call([1, 1.0, True, None, "é", {"ö": ["x"]}]).value == [
        *["int", "float", "bool", "NoneType", text],
        [[text, [text]]],
    ]


@pytest.mark.parametrize("space", [" ", "\n", " \t\r\n "])
def test_space_around_parameters_is_json_too(serve, space):
    worker = serve(ECHO)
    for text in ("1", "[1, 2]", '{"a": " b "}'):
        for body in (space + text, text + space, space + text + space):
            assert worker.call_raw(body.encode()).value == json.loads(text)


@PYTHON2
def test_text_is_bytes_all_through_where_the_model_asks_for_it(serve):
    worker = serve(TYPES, text="bytes")
    assert worker.call(["é", {"ö": ["x", {"y": "z"}]}, 1]).value == ["str", [["str", ["str", [["str", "str"]]]]], "int"]
    assert worker.call_raw(b'"plain"').value == "str"


@PYTHON3
def test_text_is_text_on_python_3_whatever_is_asked(serve):
    assert serve(TYPES, text="bytes").call("é").value == "str"


@PYTHON2
def test_bytes_in_utf8_come_back_as_text(serve):
    assert serve(ECHO, text="bytes").call({"ö": "é"}).value == {"ö": "é"}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"{", b"nul", b"[1,]", b"[NaN]", b"-Infinity", b"1 2", b"[1]]", b'"\xff"', b"[" * 100_000),
        *(b"\xc2\xa01", b"\xef\xbb\xbf1"),  # space and marks that JSON does not have
    ],
)
def test_parameters_that_are_not_json_are_invalid(serve, body):
    worker = serve(ECHO)
    answer = worker.call_raw(body)
    assert (answer.type, answer["reason"]) == ("failed", "parameters_invalid")
    assert answer["message"].startswith("the parameters are not JSON: ")
    assert (answer["exception"], answer["traceback"]) == ("", "")
    assert worker.call(1).value == 1


def test_the_time_inside_the_function_is_told(serve):
    worker = serve("import time\ndef predict(seconds):\n    time.sleep(seconds)\n")
    assert worker.call(0.05)["run_ns"] >= 50_000_000


# ---- what the model raises


def test_an_exception_is_shown_from_the_models_first_line(serve, root):
    source = "def predict(parameters):\n    return inner(parameters)\ndef inner(x):\n    raise ValueError('no ' + x)\n"
    answer = serve(source).call("way")
    assert answer.type == "failed"
    assert (answer["reason"], answer["exception"], answer["message"]) == ("model_raised", "ValueError", "no way")
    lines = [line for line in answer["traceback"].splitlines() if "^" not in line]
    assert lines == [
        "Traceback (most recent call last):",
        f'  File "{root}/main.py", line 2, in predict',
        "    return inner(parameters)",
        f'  File "{root}/main.py", line 4, in inner',
        "    raise ValueError('no ' + x)",
        "ValueError: no way",
    ]


@PYTHON3
def test_what_led_to_an_exception_is_shown_too(serve):
    source = "def predict(p):\n    try:\n        1 / 0\n    except Exception:\n        raise KeyError('x')\n"
    answer = serve(source).call(1)
    assert "ZeroDivisionError" in answer["traceback"]
    assert "python_worker" not in answer["traceback"]


@pytest.mark.parametrize("base", ["Exception", "ValueError", "BaseException"])
def test_invalid_parameters_are_the_callers_fault(serve, base):
    worker = serve(
        f"""
class InvalidParameters({base}):
    pass
class TooOld(InvalidParameters):
    pass
def predict(age):
    if age > 120:
        raise TooOld("age %d" % age)
    return age
"""
    )
    answer = worker.call(130)
    assert (answer["reason"], answer["exception"], answer["message"]) == ("parameters_invalid", "TooOld", "age 130")
    assert worker.call(30).value == 30


@PYTHON2
def test_exceptions_of_old_style_classes_are_exceptions(serve):
    worker = serve("class InvalidParameters:\n    pass\ndef predict(p):\n    raise InvalidParameters()\n")
    assert worker.call(1)["reason"] == "parameters_invalid"


@pytest.mark.parametrize("statement", ["sys.exit(3)", "raise KeyboardInterrupt", "raise GeneratorExit", "exit()"])
def test_nothing_that_a_model_raises_ends_its_worker(serve, statement):
    worker = serve(f"import sys\ndef predict(p):\n    if p: {statement}\n    return 'fine'\n")
    assert worker.call(True)["reason"] == "model_raised"
    assert worker.call(False).value == "fine"


def test_endless_recursion_is_an_exception(serve):
    worker = serve("def predict(p):\n    return predict(p) if p else 'fine'\n")
    assert worker.call(True)["exception"] in ("RuntimeError", "RecursionError")
    assert worker.call(False).value == "fine"


@pytest.mark.parametrize("cry", ["raise ValueError", "return 1", "raise SystemExit", "raise self", "return str(self)"])
def test_an_exception_whose_text_cannot_be_had(serve, cry):
    worker = serve(
        f"""
class Mute(Exception):
    def __str__(self):
        {cry}
    __repr__ = __unicode__ = __str__
def predict(parameters):
    raise Mute()
"""
    )
    answer = worker.call(None)
    assert (answer["reason"], answer["exception"]) == ("model_raised", "Mute")
    assert answer["message"] == "(it has no text: its __str__ fails)"
    assert "in predict\n" in answer["traceback"]


@pytest.mark.parametrize(
    "text",
    ["u'caf\\xe9'", "u'half \\ud800'", "b'\\xff\\xfe'", "u'\\x00'", "'\\n'", "u'\\U0001f600'", "('a', u'\\xe9')"],
)
def test_the_text_of_an_exception_is_always_valid(serve, text):
    answer = serve(f"def predict(p):\n    raise ValueError({text})\n").call(None)
    assert answer["exception"] == "ValueError"
    for field in ("message", "traceback"):
        answer[field].encode()


def test_text_outside_ascii_arrives(serve):
    answer = serve("# coding: utf-8\ndef predict(p):\n    raise ValueError('café')\n").call(None)
    assert answer["message"] == "café"
    assert "raise ValueError('café')" in answer["traceback"]


def test_long_texts_are_cut(serve):
    answer = serve("def predict(p):\n    raise type('E' * 5000, (Exception,), {})('x' * 50000)\n").call(None)
    assert answer["message"] == "x" * 1000
    assert answer["exception"] == "E" * 1000
    assert answer["traceback"] == "x" * 15_999 + "\n"


def test_a_failed_call_does_not_keep_what_it_was_given(serve):
    worker = serve(
        """
import gc, weakref
gc.disable()
class Big(object):
    pass
kept = []
def predict(parameters):
    if parameters == "kept":
        return len([1 for ref in kept if ref() is not None])
    big = Big()
    kept.append(weakref.ref(big))
    if parameters == "raise":
        raise ValueError
    return {"a": {1, 2}}
"""
    )
    worker.call("raise")
    worker.call("set")
    assert worker.call("kept").value == 0
