"""Runs one Python model: loads its main file, then answers calls on the link until the server hangs up.

What is said on the link is in PROTOCOL.md. One file, nothing but the standard library, the same for CPython 2.7 to
3.13. All imports are here and none comes later: a call should not pay for one, and once a model is loaded its own
folders come first on the path.
"""

import errno
import fcntl
import functools
import io
import json
import os
import re
import struct
import sys
import time
import traceback

EXIT_BROKEN, EXIT_NO_LINK = 70, 71

_PY2 = sys.version_info[0] == 2
_TEXT = type(u"")  # fmt: skip
_STRINGS = (str, _TEXT)
_INTEGERS = (int, type(sys.maxsize + 1))  # the second is 2.7's `long`
_clock = getattr(time, "perf_counter", time.time)

# The model's module takes this one's place as __main__. Without another reference 2.7 would then clear this one: every
# name above and below would be None.
_worker = sys.modules[__name__]


def _attempt(function, *arguments):
    """What `function` returns; None if it raises anything at all."""
    try:
        return function(*arguments)
    except:  # noqa: E722 - a model's __str__ may raise SystemExit
        return None


# ---- the link


class End(Exception):
    """The conversation is over: (exit code, what to say about it)."""


class Link(object):
    """Frames over the inherited socket. What the system calls raise comes through as it is."""

    _PREFIX = struct.Struct("<IQ")

    def __init__(self, address):
        kind, _, number = address.partition(":")
        inherited = int(number if kind == "fd" else "")
        # First of all: no child of the model's may inherit the link. Then away from the low descriptors, which some
        # code closes, or writes to, without asking whose they are.
        fcntl.fcntl(inherited, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self._fd = fcntl.fcntl(inherited, fcntl.F_DUPFD, 64)
        fcntl.fcntl(self._fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        os.close(inherited)
        self._stream = io.open(self._fd, "rb", 1 << 16)
        self._pid = os.getpid()

    def receive(self):
        """The next frame, as (header, body)."""
        prefix = self._stream.read(self._PREFIX.size)
        if len(prefix) < self._PREFIX.size:
            raise End(EXIT_BROKEN, "the stream ended within a frame") if prefix else End(0, "")
        header_length, body_length = self._PREFIX.unpack(prefix)
        if header_length > 1 << 20:
            raise End(EXIT_BROKEN, "a header of %d bytes" % header_length)
        text, body = self._stream.read(header_length), self._stream.read(body_length)
        header = _attempt(lambda: json.loads(text.decode("utf-8")))
        if not isinstance(header, dict) or len(body) < body_length:
            raise End(EXIT_BROKEN, "a frame that is not whole, or whose header is not a JSON object")
        return header, body

    def send(self, header, body=b""):
        """Sends one frame."""
        if os.getpid() != self._pid:
            raise End(EXIT_BROKEN, "a forked child came back from the model's function: it has no business here")
        text = json.dumps(header).encode("ascii")
        frame = self._PREFIX.pack(len(text), len(body)) + text
        # To copy a short body costs less than a second system call, to copy a long one costs more.
        for data in (frame + body,) if len(body) < 1 << 16 else (frame, body):
            rest = memoryview(data)
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except EnvironmentError as error:
                    if error.errno != errno.EINTR:  # 2.7 leaves it to us to go on after a signal
                        raise


# ---- the model


class Refusal(Exception):
    """An objection of the worker's own: its words say it all, the answer names no exception."""


class Model(object):
    """A model's function and its hooks."""

    loaded = False
    stage = "main_file_not_found"  # what a failure now would be called, in the protocol's words
    _defines = ()

    def answer(self, step, *arguments):
        """The answer of `load` or `call`, as (header, body); if that fails, the failure."""
        try:
            return step(*arguments)
        except:  # noqa: E722 - SystemExit too, and 2.7's old-style classes
            return self._failed(*sys.exc_info()), b""

    def load(self, request):
        """Imports the main file, finds the function and the hooks, runs setup()."""
        self._bytes = _PY2 and request.get("text") == "bytes"
        self._main_file, name, self._warnings = request["main_file"], request["function"], []
        module = self._import(request)
        self.stage = "function_not_found"
        function = self._find(module, name)
        setup, batch = self._hook(module, "setup"), self._hook(module, name + "_batch")
        self.stage = "setup_failed"
        state = (setup(),) if setup else ()
        # What to call for one set of parameters, and for a batch of them; each with its further arguments.
        self._one = function, state if len(_required(function)) > 1 else ()
        self._many = (batch, state if len(_required(batch)) > 1 else ()) if batch else (self._each, ())
        self.loaded = True
        return {"type": "loaded", "setup": bool(state), "batch": bool(batch), "warnings": self._warnings}, b""

    def call(self, body, batch):
        """Decodes parameters, runs the model's function on them, encodes the result."""
        self.stage = "parameters_invalid"
        parameters = self._parameters(body, batch)
        self.stage = "model_raised"
        function, further = self._many if batch else self._one
        started = _clock()
        result = function(parameters, *further)
        took = _clock() - started
        if batch:
            result = result if isinstance(result, (list, tuple)) else _nearer(result)
            if not isinstance(result, (list, tuple)) or len(result) != len(parameters):
                raise Refusal("the batch function has to return a list with a result for each of %d" % len(parameters))
        self.stage = "result_not_serialisable"
        return {"type": "result", "run_ns": max(int(took * 1e9), 0)}, to_json(result)

    def _import(self, request):
        """The main file's module: a script's in all but the name, so that what is for __main__ alone does not run."""
        root = os.path.normpath(_native(request["root"]))
        path = os.path.normpath(os.path.join(root, _native(self._main_file)))
        try:
            with io.open(path, "rb") as opened:
                source = opened.read()
            self.stage = "import_failed"
            os.chdir(os.path.join(root, _native(request.get("working_dir") or ".")))
        except EnvironmentError as error:
            raise Refusal("%s: %s" % (os.path.relpath(error.filename or path, root), os.strerror(error.errno)))
        self.stage = "syntax_error"
        # From bytes, so that the declared encoding counts, and without what this file has of __future__.
        code = compile(source, path, "exec", 0, True)
        self.stage = "import_failed"
        own = os.path.dirname(os.path.realpath(__file__))
        folders = [os.path.dirname(path), root]
        folders += [os.path.normpath(os.path.join(root, _native(more))) for more in request.get("import_paths") or ()]
        folders += [folder for folder in sys.path if os.path.realpath(folder) != own]
        sys.path[:] = [folder for index, folder in enumerate(folders) if folder not in folders[:index]]
        sys.argv[:] = [path]
        name = os.path.splitext(os.path.basename(path))[0]
        if name == "__main__":
            name = "__mp_main__"  # as multiprocessing calls it, for the same reason
        module = type(sys)(name)
        module.__file__, module.__package__ = path, ""
        sys.modules["__main__"] = module
        sys.modules.setdefault(name, module)  # a model's json.py is not to be everybody's json
        exec(code, vars(module))
        return module

    def _find(self, module, name):
        function = vars(module).get(name)
        if callable(function):
            return function
        functions = [(key, f) for key, f in vars(module).items() if type(f) is type(_attempt)]
        found = [(f.__code__.co_firstlineno, key) for key, f in functions if f.__module__ == module.__name__]
        self._defines = [_clean(key) for _, key in sorted(found)][:1000]
        if name in vars(module):
            raise Refusal("%s: '%s' is %s, not a function" % (self._main_file, _clean(name), _a(function)))
        known = "it defines: " + ", ".join(self._defines) if self._defines else "it defines no functions"
        raise Refusal("%s has no function '%s'; %s" % (self._main_file, _clean(name), known))

    def _hook(self, module, name):
        """The main file's own function of that name: `from pickle import load` makes no hook of load."""
        hook = vars(module).get(name)
        if callable(hook) and getattr(hook, "__module__", None) != module.__name__:
            self._warnings.append("%s does not define '%s' itself: it is not called" % (self._main_file, _clean(name)))
            return None
        return hook if callable(hook) else None

    def _parameters(self, body, batch):
        try:
            parameters = _decode(body.decode("utf-8"))
        except (ValueError, RuntimeError) as error:  # RuntimeError: nested too deeply
            raise Refusal("the parameters are not JSON: %s" % error)
        if batch and not isinstance(parameters, list):
            raise Refusal("the parameters of a batch are not a JSON array")
        return _as_bytes(parameters) if self._bytes else parameters

    def _each(self, batch):
        function, further = self._one
        return [function(parameters, *further) for parameters in batch]

    def _failed(self, kind, error, trace):
        name, words, trace, reason = _clean(kind.__name__), _message(error), _trace(kind, error, trace), self.stage
        if kind is Refusal:
            name = trace = ""
        elif reason == "syntax_error":
            line = getattr(error, "lineno", None)
            name, words = self._main_file + (" line %d" % line if line else ""), getattr(error, "msg", words)
        elif reason == "model_raised" and "InvalidParameters" in [c.__name__ for c in getattr(kind, "__mro__", [kind])]:
            reason = "parameters_invalid"
        if self.loaded:
            failed = {"type": "failed", "exception": name[:1000], "message": words[:1000]}
        else:
            words = " ".join(": ".join([part for part in (name, words) if part]).split("\n"))
            failed = {"type": "load_failed", "message": words[:1000], "defines": self._defines}
        return dict(failed, reason=reason, traceback=trace)


def _required(function):
    """The positional parameters that `function` cannot do without, as far as it tells. (`inspect` costs a megabyte.)"""
    if isinstance(function, functools.partial):
        rest = _required(function.func)[len(function.args) :]
        return [name for name in rest if name not in (function.keywords or ())]
    if hasattr(function, "__func__"):
        return _required(function.__func__)[1:]
    if hasattr(function, "__wrapped__"):
        return _required(function.__wrapped__)
    if hasattr(function, "__code__"):
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        return names[: len(names) - len(getattr(function, "__defaults__", None) or ())]
    method = function.__init__ if isinstance(function, type) else type(function).__call__
    method = getattr(method, "__func__", method)  # on 2.7 it is an unbound method
    return _required(method)[1:] if hasattr(method, "__code__") else ()


# ---- values


def _no_constant(name):
    raise ValueError("%s is not a number in JSON" % name)


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def _native(text):
    """Text from a header as a file's name is here, whatever the locale."""
    return text.encode("utf-8") if _PY2 else os.fsdecode(text.encode("utf-8"))


def _as_bytes(value):
    """`value` with every text in it as a str of 2.7, in UTF-8."""
    if isinstance(value, _TEXT):
        return value.encode("utf-8")
    if isinstance(value, list):
        return [_as_bytes(item) for item in value]
    if isinstance(value, dict):
        return {_as_bytes(key): _as_bytes(item) for key, item in value.items()}
    return value


def to_json(value):
    """`value` as JSON text in UTF-8; Refusal where JSON cannot hold it.

    Two ways lead to the same text: the library's encoder, in C, for nearly everything, and `_write` for what that one
    cannot do (NaN, keys of NumPy's). `_write` also finds the place of what neither can.
    """
    text = _attempt(_encode, value)
    if text is not None:
        return text
    try:
        return _write(value, None, set()).encode("utf-8")
    except RuntimeError as error:
        if "recursion" not in _message(error):
            raise
        raise Refusal("result is nested too deeply for JSON")


_encoder = json.JSONEncoder(ensure_ascii=_PY2, allow_nan=False, separators=(",", ":"), default=lambda v: _nearer(v))
_quote = json.encoder.encode_basestring_ascii if _PY2 else json.encoder.encode_basestring
_converted_key = re.compile(r'"(?:-?\d[^"]*|[Tt]rue|[Ff]alse|null)":').search
_half_pair = re.compile(u"[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")  # fmt: skip


def _encode(value):
    """The quick way; None where its text may be wrong, as with a key that is there twice, {1: "a", "1": "b"}."""
    text = _encoder.encode(value)
    if _PY2:
        _decode(text)  # it writes whatever str() makes of an int, as of an IntEnum
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
        return _write(_nearer(value, path), path, above)
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
                raise _refusal(path, "has a key that is %s" % (key if isinstance(key, float) else _a(key)))
            name = '"%s"' % _write(key, path, above)
        if name in names:
            raise _refusal(path, "has the key %s twice" % name)
        names.add(name)
        yield "%s:%s" % (name, _write(item, (path, key), above))


def _write_text(value, path):
    text = _attempt(value.decode, "utf-8") if isinstance(value, bytes) else value  # bytes: 2.7's str
    if text is None or _half_pair.search(text):
        raise _refusal(path, "is text that is not UTF-8" if text is None else "is text with a lone surrogate in it")
    return _quote(text)


def _nearer(value, path=None):
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
    raise _refusal(path, "is %s" % _a(value))


def _nearer_array(value, path):
    numpy, kind = sys.modules["numpy"], value.dtype.kind
    if kind == "M":  # of nanoseconds tolist() makes plain numbers
        texts = numpy.datetime_as_string(numpy.ma.filled(value, numpy.datetime64("NaT")))
        value = numpy.asarray(texts).astype(object)
        value[value == "NaT"] = None
    elif kind in "mV":  # it makes numbers of durations, of whatever unit, and drops the names of structures
        raise _refusal(path, "is %s of %s" % (_a(value), value.dtype))
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


def _a(value):
    name = _clean(value.__class__.__name__)
    return "%s %s" % ("an" if name[:1].lower() in "aeiou" else "a", name)


def _message(error):
    text = _attempt(str, error)
    text = _attempt(_TEXT, error) if text is None else text  # as 2.7 has it for text outside ASCII
    return "(it has no text: its __str__ fails)" if text is None else _clean(text)


def _trace(kind, error, trace):
    """The traceback as Python prints it, from the model's first frame on."""
    while trace is not None and trace.tb_frame.f_globals is globals():
        trace = trace.tb_next
    lines = _attempt(traceback.format_exception, kind, error, trace) or traceback.format_tb(trace)
    return "".join([_clean(line) for line in lines])[-16000:]


def _clean(text):
    """`text`, whatever it holds, as text that UTF-8 can hold."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return _half_pair.sub("?", text)


# ---- the conversation


def converse(link, token):
    """Greets the server, loads the model and serves it, until End is raised."""
    version = ".".join([str(part) for part in sys.version_info[:3]])
    hello = {"type": "hello", "protocol": 1, "token": token, "pid": os.getpid(), "features": []}
    link.send(dict(hello, language="python", version=version, executable=_clean(sys.executable or "")))
    welcome, _ = link.receive()
    if (welcome.get("type"), welcome.get("protocol")) != ("welcome", 1):
        raise End(EXIT_BROKEN, "no welcome that this worker understands")
    model, asked_to_load = Model(), False
    while True:
        header, body = link.receive()
        kind = header.get("type")
        if kind == "call" and model.loaded:
            answer, text = model.answer(model.call, body, header.get("batch"))
        elif kind == "load" and not asked_to_load:
            asked_to_load = True
            answer, text = model.answer(model.load, header)
        elif kind == "ping":
            answer, text = {"type": "pong"}, b""
        elif kind == "stop":
            raise End(0, "")
        else:
            raise End(EXIT_BROKEN, "a message of type %r, out of place" % kind)
        if "id" in header:
            answer["id"] = header["id"]
            _flush()  # what a call wrote is out before its answer
        link.send(answer, text)
        del body, text  # they may be large, and the next call long in coming


def main():
    """Runs the worker and ends the process at once, without waiting for the model's threads."""
    address, token = [os.environ.pop(name, "") for name in ("MODELHOST_LINK", "MODELHOST_LINK_TOKEN")]
    code, words = EXIT_NO_LINK, "no link at '%s'" % address
    link = _attempt(Link, address)
    try:
        if link:
            converse(link, token)
    except End as end:
        code, words = end.args
    except EnvironmentError as error:  # from the link
        hung_up = error.errno in (errno.EPIPE, errno.ECONNRESET)
        code, words = (0, "") if hung_up else (EXIT_BROKEN, "the link is lost: %s" % error)
    except:  # noqa: E722 - from a signal handler of the model's, a frame larger than memory, or a mistake in this file
        code, words = EXIT_BROKEN, _trace(*sys.exc_info())
    if words:
        _attempt(lambda: sys.stderr.write("modelhost worker: %s\n" % words))
    _flush()
    os._exit(code)


def _flush():
    _attempt(lambda: sys.stdout.flush())
    _attempt(lambda: sys.stderr.flush())


if __name__ == "__main__":
    main()
