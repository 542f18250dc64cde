"""What the Python worker reads and writes: parameters and results as JSON, names and messages as text.

Lies beside python_worker.py and is as that file: nothing but the standard library, the same for CPython 2.7 to 3.13.
"""

import json
import os
import re
import sys

PY2 = sys.version_info[0] == 2
TEXT = type(u"")  # fmt: skip
_STRINGS = (str, TEXT)
_INTEGERS = (int, type(sys.maxsize + 1))  # the second is 2.7's `long`


class Refusal(Exception):
    """An objection of the worker's own: its words say it all, the answer names no exception."""


class NoSuchOutput(Refusal):
    """The caller wants an output that the model does not have."""


def attempt(function, *arguments):
    """What `function` returns; None if it raises anything at all."""
    try:
        return function(*arguments)
    except:  # noqa: E722 - a model's __str__ may raise SystemExit
        return None


def _no_constant(name):
    raise ValueError("%s is not a number in JSON" % name)


_decoder = json.JSONDecoder(parse_constant=_no_constant)


def decode(data):
    """What JSON text in UTF-8 says. Its ValueError says what is wrong."""
    text = data.decode("utf-8")
    try:
        value, end = _decoder.raw_decode(text)
        if not text[end:].strip(" \t\n\r"):
            return value
    except ValueError:
        pass
    return _decoder.decode(text)  # there is space before it, or something is wrong


def native(text):
    """Text from a header as a file's name is here, whatever the locale."""
    return text.encode("utf-8") if PY2 else os.fsdecode(text.encode("utf-8"))


def as_bytes(value):
    """`value` with every text in it as a str of 2.7, in UTF-8."""
    if isinstance(value, TEXT):
        return value.encode("utf-8")
    if isinstance(value, list):
        return [as_bytes(item) for item in value]
    if isinstance(value, dict):
        return {as_bytes(key): as_bytes(item) for key, item in value.items()}
    return value


def to_json(value, path=None):
    """`value` as JSON text in UTF-8; Refusal where JSON cannot hold it. `path` is its place, if that is in another.

    Two ways lead to the same text: the library's encoder, in C, for nearly everything, and `_write` for what that one
    cannot do (NaN, keys of NumPy's). `_write` also finds the place of what neither can.
    """
    text = attempt(_encode, value)
    if text is not None:
        return text
    try:
        return _write(value, path, set()).encode("utf-8")
    except RuntimeError as error:
        if "recursion" not in message(error):
            raise
        raise Refusal("result is nested too deeply for JSON")


# What JSONEncoder makes for each text, at a cost that short ones feel.
_make_encoder = json.encoder.c_make_encoder
_quote_ascii = json.encoder.encode_basestring_ascii
_quote = _quote_ascii if PY2 else json.encoder.encode_basestring
_encode_header = _make_encoder(None, None, _quote_ascii, None, ":", ",", False, False, True)
_converted_key = re.compile(r'"(?:-?\d[^"]*|[Tt]rue|[Ff]alse|null)":').search
half_pair = re.compile(u"[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")  # fmt: skip


def to_header(value):
    """A header of the worker's own as JSON text in ASCII."""
    return "".join(_encode_header(value, 0)).encode("ascii")


def _encode(value):
    """The quick way; None where its text may be wrong, as with a key that is there twice, {1: "a", "1": "b"}."""
    # The first is for the containers around a value; it keeps what was in them when one cannot be encoded.
    text = "".join(_make_encoder({}, nearer, _quote, None, ":", ",", False, False, False)(value, 0))
    if PY2:
        decode(text)  # it writes whatever str() makes of an int, as of an IntEnum
        if "\\ud" in text:  # perhaps a lone surrogate
            return None
    return None if _converted_key(text) else text.encode("utf-8")


def _write(value, path, above):
    """The text of `value`, at `path`, in the containers whose ids are `above`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _STRINGS):
        return _write_text(value, path)
    if isinstance(value, _INTEGERS):
        return "%d" % value
    if isinstance(value, float):
        if value - value == 0:
            return float.__repr__(value)
        if value != value:
            return "null"
        raise _refusal(path, "is %s" % float.__repr__(value))
    if not isinstance(value, (dict, list, tuple)):
        return _write(nearer(value, path), path, above)
    if id(value) in above:
        raise _refusal(path, "contains itself")
    above.add(id(value))
    if isinstance(value, dict):
        text = "{%s}" % ",".join(_write_members(value, path, above))
    else:
        text = "[%s]" % ",".join([_write(item, (path, index), above) for index, item in enumerate(value)])
    above.discard(id(value))
    return text


def _write_members(value, path, above):
    names = set()
    for key, item in value.items():
        if isinstance(key, _STRINGS):
            name = _write_text(key, path)
        else:
            key = key.item() if _is(key, "numpy", "integer", "bool_") else key
            if not (key is None or isinstance(key, _INTEGERS) or (isinstance(key, float) and key - key == 0)):
                raise _refusal(path, "has a key that is %s" % (key if isinstance(key, float) else described(key)))
            name = '"%s"' % _write(key, path, above)
        if name in names:
            raise _refusal(path, "has the key %s twice" % name)
        names.add(name)
        yield "%s:%s" % (name, _write(item, (path, key), above))


def _write_text(value, path):
    text = attempt(value.decode, "utf-8") if isinstance(value, bytes) else value  # bytes: 2.7's str
    if text is None or half_pair.search(text):
        raise _refusal(path, "is text that is not UTF-8" if text is None else "is text with a lone surrogate in it")
    return _quote(text)


def nearer(value, path=None):
    """`value`, of a type that JSON does not have, as one nearer to what it has: a step, which may not be the last."""
    if _is(value, "numpy", "generic", "ndarray"):
        return _nearer_array(value, path)
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if _is(value, "datetime", "date", "time"):  # a datetime is a date
        return value.isoformat()
    if _is(value, "pandas", "Series", "Index", "Categorical"):
        return value.tolist()
    if _is(value, "pandas", "DataFrame"):
        names = value.columns.tolist()
        if len(set(names)) < len(names):
            raise _refusal(path, "has columns of the same name")
        columns = [value[name].tolist() for name in names]
        return [dict(zip(names, row)) for row in zip(*columns)]  # noqa: B905 - 2.7 knows no strict
    if _is(value, "decimal", "Decimal"):
        # Whole numbers exactly, as far as doubles reach; others as the nearest double, for that is how they are read.
        whole = value.is_finite() and value.as_tuple().exponent >= 0 and value.adjusted() <= 308
        return int(value) if whole else float(value)
    raise _refusal(path, "is %s" % described(value))


def _nearer_array(value, path):
    numpy, kind = sys.modules["numpy"], value.dtype.kind
    if kind == "M":  # of nanoseconds tolist() makes plain numbers
        texts = numpy.datetime_as_string(numpy.ma.filled(value, numpy.datetime64("NaT")))
        value = numpy.asarray(texts).astype(object)
        value[value == "NaT"] = None
    elif kind in "mV":  # it makes numbers of durations, of whatever unit, and drops the names of structures
        raise _refusal(path, "is %s of %s" % (described(value), value.dtype))
    elif kind == "f" and value.dtype.itemsize > 8:  # it leaves these as they are
        value = value.astype(float)
    return value.tolist()


def _is(value, module, *names):
    """Whether `value` is of one of these classes. If it is, the model has imported `module`; the worker never does."""
    module = sys.modules.get(module)
    return module is not None and isinstance(value, tuple([getattr(module, name, ()) for name in names]))


def _refusal(path, what):
    """`path` is (path of what it is in, its key there), or None for the result itself."""
    keys = []
    while path is not None:
        path, key = path
        keys.append("[%s]" % repr(key).lstrip("u"))
    if len(keys) > 20:
        keys[10:-10] = [" ... "]
    return Refusal("result%s %s, which JSON cannot hold" % ("".join(reversed(keys)), what))


def described(value):
    """Its class with an article: "a Forest", "an Iris"."""
    name = clean(value.__class__.__name__)
    return "%s %s" % ("an" if name[:1].lower() in "aeiou" else "a", name)


def message(error):
    """What an exception says, if it says anything."""
    text = attempt(str, error)
    text = attempt(TEXT, error) if text is None else text  # as 2.7 has it for text outside ASCII
    return "(it has no text: its __str__ fails)" if text is None else clean(text)


def clean(text):
    """`text`, whatever it holds, as text that UTF-8 can hold."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return half_pair.sub("?", text)
