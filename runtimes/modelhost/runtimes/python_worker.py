"""Runs one Python model: loads its main file, then answers calls on the link until the server hangs up.

What is said on the link is in PROTOCOL.md. One file, nothing but the standard library, the same for CPython 2.7 to
3.13. All imports are here and none comes later: a call should not pay for one, and once a model is loaded, its own
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
    """The conversation is over: with what exit code and, if there is something to say, why."""

    def __init__(self, code, words=""):
        Exception.__init__(self, words)
        self.code = code


class Link(object):
    """Frames over the socket that the worker inherited."""

    _PREFIX = struct.Struct("<IQ")

    def __init__(self, address):
        try:
            kind, _, number = address.partition(":")
            inherited = int(number if kind == "fd" else "")
            # First of all: no child of the model's may inherit the link. Then away from where code writes or closes
            # that takes low descriptors for its own.
            fcntl.fcntl(inherited, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            self._fd = fcntl.fcntl(inherited, fcntl.F_DUPFD, 64)
            fcntl.fcntl(self._fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            os.close(inherited)
            self._stream = io.open(self._fd, "rb", 1 << 16)
        except (ValueError, EnvironmentError) as error:
            raise End(EXIT_NO_LINK, "no link at '%s': %s" % (address, error))
        self._pid = os.getpid()

    def receive(self):
        """The next frame, as (header, body)."""
        prefix = self._read(self._PREFIX.size)
        if len(prefix) < self._PREFIX.size:
            raise End(EXIT_BROKEN, "the stream ended within a frame") if prefix else End(0)
        header_length, body_length = self._PREFIX.unpack(prefix)
        if header_length > 1 << 20:
            raise End(EXIT_BROKEN, "a header of %d bytes" % header_length)
        text, body = self._read(header_length), self._read(body_length)
        header = _attempt(lambda: json.loads(text.decode("utf-8")))
        if not isinstance(header, dict) or len(body) < body_length:
            raise End(EXIT_BROKEN, "a frame that is not whole, or whose header is not a JSON object")
        return header, body

    def send(self, header, body=b""):
        """Sends one frame."""
        if os.getpid() != self._pid:
            raise End(EXIT_BROKEN, "a forked child came back from the model's function: it has no business here")
        text = _encode_header(header).encode("ascii")
        frame = self._PREFIX.pack(len(text), len(body)) + text
        if len(body) < 1 << 16:
            self._write(frame + body)
        else:  # a second system call costs less than the copy
            self._write(frame)
            self._write(body)

    def _read(self, length):
        try:
            return self._stream.read(length)
        except EnvironmentError as error:
            raise self._lost(error)
        except (MemoryError, OverflowError):
            raise End(EXIT_BROKEN, "a frame of %d bytes" % length)

    def _write(self, data):
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except EnvironmentError as error:
                if error.errno != errno.EINTR:  # 2.7 leaves it to us to go on after a signal
                    raise self._lost(error)

    @staticmethod
    def _lost(error):
        hung_up = error.errno in (errno.EPIPE, errno.ECONNRESET)
        return End(0) if hung_up else End(EXIT_BROKEN, "the link is lost: %s" % error)


_encode_header = json.JSONEncoder(separators=(",", ":")).encode


# ---- the model


class Refusal(Exception):
    """An objection of the worker's own. Its words say it all: the answer has no exception's name."""

    def __init__(self, words, trace=""):
        Exception.__init__(self, words)
        self.trace = trace


class Model(object):
    """A model's function and its hooks. `stage` is what a failure now would be called, in the protocol's words."""

    def __init__(self):
        self.loaded = False
        self.stage = "main_file_not_found"
        self._defines = []
        self._warnings = []

    def answer(self, step, *arguments):
        """The answer of `load` or `call`, as (header, body); if it fails, that is the answer."""
        try:
            return step(*arguments)
        except:  # noqa: E722 - SystemExit too, and 2.7's old-style classes
            return self._failed(*sys.exc_info()), b""

    def load(self, request):
        """Imports the main file, finds the function and the hooks, runs setup()."""
        self._bytes = _PY2 and request.get("text") == "bytes"
        self._main_file, name = request["main_file"], _native(request["function"])
        module = self._import(request)
        self.stage = "function_not_found"
        function = self._find(module, name)
        setup, batch = self._hook(module, "setup"), self._hook(module, name + "_batch")
        self.stage = "setup_failed"
        state = (setup(),) if setup else ()
        # What to call for one set of parameters and for a batch of them, and with which further arguments.
        self._one = function, self._further(function, name, state)
        self._many = (batch, self._further(batch, name + "_batch", state)) if batch else (self._each, ())
        self.loaded = True
        has = {"setup": setup is not None, "batch": batch is not None}
        return dict(has, type="loaded", warnings=self._warnings), b""

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
            result = _same_length(result, len(parameters))
        self.stage = "result_not_serialisable"
        return {"type": "result", "run_ns": max(int(took * 1e9), 0)}, to_json(result)

    def _import(self, request):
        """The main file's module, run as a script is, but under its own name: what is for __main__ only does not run."""
        root = os.path.normpath(_native(request["root"]))
        path = os.path.normpath(os.path.join(root, _native(self._main_file)))
        try:
            with io.open(path, "rb") as opened:
                source = opened.read()
        except EnvironmentError as error:
            raise Refusal("%s: %s" % (self._main_file, os.strerror(error.errno)))

        self.stage = "syntax_error"
        try:  # from bytes, so that the declared encoding counts, and without this file's own __future__
            code = compile(source, path, "exec", 0, True)
        except Exception as error:
            line = " line %d" % error.lineno if getattr(error, "lineno", None) else ""
            words = "%s%s: %s" % (self._main_file, line, getattr(error, "msg", error))
            raise Refusal(words, _trace(*sys.exc_info()))

        self.stage = "import_failed"
        folder = request.get("working_dir") or "."
        try:
            os.chdir(os.path.join(root, _native(folder)))
        except EnvironmentError as error:
            raise Refusal("working directory %s: %s" % (folder, os.strerror(error.errno)))
        path_entries = [os.path.dirname(path), root]
        path_entries += [os.path.normpath(os.path.join(root, _native(p))) for p in request.get("import_paths") or ()]
        own = os.path.dirname(os.path.realpath(__file__))
        path_entries += [entry for entry in sys.path if os.path.realpath(entry) != own]
        sys.path[:] = [entry for index, entry in enumerate(path_entries) if entry not in path_entries[:index]]
        sys.argv[:] = [path]

        name = os.path.splitext(os.path.basename(path))[0]
        if name == "__main__":
            name = "__mp_main__"  # as multiprocessing calls it for the same reason
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
        pairs = [(key, value) for key, value in vars(module).items() if type(value) is type(_attempt)]
        pairs = [pair for pair in pairs if pair[1].__module__ == module.__name__]
        if _PY2:  # dicts have no order there
            pairs.sort(key=lambda pair: pair[1].__code__.co_firstlineno)
        self._defines = [_clean(key) for key, _ in pairs][:1000]
        if name in vars(module):
            raise Refusal("%s: '%s' is %s, not a function" % (self._main_file, _clean(name), _a(function)))
        known = "it defines: " + ", ".join(self._defines) if self._defines else "it defines no functions"
        raise Refusal("%s has no function '%s'; %s" % (self._main_file, _clean(name), known))

    def _hook(self, module, name):
        """The main file's own function of that name: `from pickle import load` makes no hook of load."""
        hook = vars(module).get(name)
        if not callable(hook):
            return None
        if getattr(hook, "__module__", None) == module.__name__:
            return hook
        self._warnings.append("%s does not define '%s' itself: it is not called" % (self._main_file, _clean(name)))
        return None

    def _further(self, function, name, state):
        """What `function` gets besides the parameters: setup()'s result, where it insists on a second argument."""
        required = len(_required(function))
        given = state if required > 1 else ()
        if required > 1 + len(given):
            words = "%s: '%s' requires %d arguments and is called with %d"
            self._warnings.append(words % (self._main_file, _clean(name), required, 1 + len(given)))
        return given

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
        name, words = _clean(kind.__name__), _message(error)
        reason = self.stage
        if reason == "model_raised" and "InvalidParameters" in _lineage(kind):
            reason = "parameters_invalid"
        name, trace = ("", error.trace) if kind is Refusal else (name, _trace(kind, error, trace))
        if self.loaded:
            failed = {"type": "failed", "exception": name[:1000], "message": words[:1000]}
        else:
            words = " ".join(": ".join(part for part in (name, words) if part).split("\n"))
            failed = {"type": "load_failed", "message": words[:1000], "defines": self._defines}
        return dict(failed, reason=reason, traceback=trace)


def _required(function):
    """The positional parameters that `function` cannot do without, as far as it tells. (`inspect` costs a megabyte.)"""
    if isinstance(function, functools.partial):
        rest = _required(function.func)[len(function.args) :]
        return [name for name in rest if name not in (function.keywords or {})]
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


def _same_length(results, asked):
    if not isinstance(results, (list, tuple)):
        results = _nearer(results)
    if not isinstance(results, (list, tuple)) or len(results) != asked:
        raise Refusal("the batch function has to return a list of %d results, one for each in the batch" % asked)
    return results


# ---- values in


def _no_constant(name):
    raise ValueError("%s is not a number in JSON" % name)


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def _native(text):
    """Text from a header as file names and identifiers are here, whatever the locale."""
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


# ---- values out


def to_json(value):
    """`value` as JSON text in UTF-8; Refusal where JSON cannot hold it.

    Two ways to the same text: the library's encoder, in C, for nearly all there is, and `_write` for what that cannot
    do (NaN, keys of NumPy's), which also finds the place of what nobody can.
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
_converted_key = re.compile(r'"(?:-?\d[^"]*|true|false|null)":').search
_half_pair = re.compile(u"[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")  # fmt: skip


def _encode(value):
    """The quick way; None where the text may be wrong: a key there twice, {1: "a", "1": "b"}, a lone surrogate of 2.7's."""
    text = _encoder.encode(value)
    return None if _converted_key(text) or (_PY2 and "\\ud" in text) else text.encode("utf-8")


def _write(value, path, above):
    """The text of `value`, at `path`, in the containers whose ids are `above`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, _TEXT)):
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
        if _is(key, "numpy", "integer", "bool_"):
            key = key.item()
        if isinstance(key, (str, _TEXT)):
            name = _write_text(key, path)
        elif key is None or isinstance(key, _INTEGERS) or (isinstance(key, float) and key - key == 0):
            name = '"%s"' % _write(key, path, above)
        else:
            raise _refusal(path, "has a key that is %s" % (key if isinstance(key, float) else _a(key)))
        if name in names:
            raise _refusal(path, "has the key %s twice" % name)
        names.add(name)
        yield "%s:%s" % (name, _write(item, (path, key), above))


def _write_text(value, path):
    if isinstance(value, bytes):  # 2.7's str
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            raise _refusal(path, "is text that is not UTF-8")
    if _half_pair.search(value):
        raise _refusal(path, "is text with half a character in it, a lone surrogate")
    return _quote(value)


def _nearer(value, path=None):
    """`value`, of a type that JSON does not have, as one that is nearer to what it has: a step, which may not be the last.

    Nothing is imported for it: a value of NumPy's means that the model has imported NumPy.
    """
    if _is(value, "numpy", "ndarray", "generic"):
        return _nearer_array(sys.modules["numpy"], value, path)
    if _is(value, "pandas", "DataFrame"):
        names = value.columns.tolist()
        if len(set(names)) < len(names):
            raise _refusal(path, "has columns of the same name")
        columns = [value.iloc[:, index].tolist() for index in range(len(names))]
        return [dict(zip(names, row)) for row in zip(*columns)]  # noqa: B905 - not on 2.7
    if _is(value, "pandas", "Series", "Index", "Categorical"):
        return value.tolist()
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if _is(value, "datetime", "date", "time"):  # a datetime is a date
        return value.isoformat()
    if _is(value, "decimal", "Decimal"):
        if value.is_nan():
            return None
        # Whole numbers exactly, as far as doubles reach; others as the nearest double, for that is how they are read.
        whole = not value.is_infinite() and value.as_tuple().exponent >= 0 and value.adjusted() <= 308
        return int(value) if whole else float(value)
    raise _refusal(path, "is %s" % _a(value))


def _nearer_array(numpy, value, path):
    array = numpy.asanyarray(value)
    kind = array.dtype.kind
    if kind == "M":  # of nanoseconds tolist() makes plain numbers
        texts = numpy.datetime_as_string(numpy.ma.filled(array, numpy.datetime64("NaT")))
        texts = numpy.asarray(texts).astype(object)
        texts[texts == "NaT"] = None
        return texts.tolist()
    if kind in "mV":  # it makes numbers of durations, of whatever unit, and drops the names of structures
        raise _refusal(path, "is %s of %s" % (_a(value), array.dtype))
    if kind == "f" and array.dtype.itemsize > 8:  # it leaves these as they are
        array = array.astype(float)
    return array.tolist()


def _is(value, module, *names):
    """Whether `value` is of one of these classes of `module`, which need not have been imported."""
    module = sys.modules.get(module)
    return any(isinstance(value, getattr(module, name, ())) for name in names)


def _refusal(path, what):
    """`path` is (path of what it is in, its key there), or None for the result itself."""
    keys = []
    while path is not None:
        path, key = path
        keys.append("[%s]" % repr(key).lstrip("u"))
    if len(keys) > 20:
        keys[10:-10] = [" ... "]
    return Refusal("result%s %s, which JSON cannot hold" % ("".join(reversed(keys)), what))


# ---- words


def _a(value):
    name = _clean(value.__class__.__name__)
    return "%s %s" % ("an" if name[:1].lower() in "aeiou" else "a", name)


def _message(error):
    for convert in (str, _TEXT):  # 2.7 has text outside ASCII from the second only
        text = _attempt(convert, error)
        if text is not None:
            return _clean(text)
    return "(it has no text: its __str__ fails)"


def _trace(kind, error, trace):
    """The traceback as Python prints it, from the model's first frame on."""
    while trace is not None and trace.tb_frame.f_globals is globals():
        trace = trace.tb_next
    lines = _attempt(traceback.format_exception, kind, error, trace)
    if lines is None:
        lines = traceback.format_tb(trace) + ["%s\n" % kind.__name__]
    return "".join([_clean(line) for line in lines])[-16000:]


def _lineage(kind):
    """The names of a class and of its ancestors; 2.7's old-style classes have no __mro__."""
    names = [kind.__name__]
    for base in kind.__bases__:
        names += _lineage(base)
    return names


def _clean(text):
    """`text`, whatever it holds, as text that UTF-8 can hold."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
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
            raise End(0)
        else:
            raise End(EXIT_BROKEN, "a message of type %r, out of place" % kind)
        if "id" in header:
            answer["id"] = header["id"]
        link.send(answer, text)
        del body, text  # they may be large, and the next call long in coming


def main():
    """Runs the worker and ends the process at once, without waiting for threads of the model's."""
    address, token = [os.environ.pop(name, "") for name in ("MODELHOST_LINK", "MODELHOST_LINK_TOKEN")]
    try:
        converse(Link(address), token)
    except End as end:
        code, words = end.code, str(end)
    except:  # noqa: E722 - raised by a signal handler of the model's, or by a mistake in this file
        code, words = EXIT_BROKEN, _trace(*sys.exc_info())
    if words:
        _attempt(lambda: sys.stderr.write("modelhost worker: %s\n" % words))
    _attempt(lambda: sys.stdout.flush())
    _attempt(lambda: sys.stderr.flush())
    os._exit(code)


if __name__ == "__main__":
    main()
