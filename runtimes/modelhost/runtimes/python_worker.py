"""Runs one Python model: loads its main file, then answers calls on the link until the server hangs up.

What is said on the link is in PROTOCOL.md. This file, and python_capture.py, python_items.py, python_tensors.py and
python_values.py beside it, use nothing but the standard library and are the same for CPython 2.7 to 3.13. All imports
are here and none comes later: a call should not pay for one, and once a model is loaded its own folders come first on
the path. Only python_tensors.py is read when it is needed: there is no bytecode, and to compile it takes as long as all
else here.
"""

import errno
import fcntl
import functools
import io
import os
import struct
import sys
import time
import traceback

_writes_no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # beside these files
import python_capture  # noqa: E402
import python_items  # noqa: E402
import python_values  # noqa: E402
from python_capture import Capture, flush  # noqa: E402
from python_items import GENERATOR, Items  # noqa: E402
from python_values import (  # noqa: E402
    PY2,
    NoSuchOutput,
    Refusal,
    as_bytes,
    attempt,
    clean,
    decode,
    described,
    message,
    native,
    nearer,
    to_header,
    to_json,
)

sys.dont_write_bytecode = _writes_no_bytecode
EXIT_BROKEN, EXIT_NO_LINK = 70, 71

_clock = getattr(time, "perf_counter", time.time)

_own = [
    globals(),
    vars(python_capture),
    vars(python_items),
    vars(python_values),
]  # frames of these are no part of a model's traceback

# The model's module takes this one's place as __main__. Without another reference 2.7 would then clear this one: every
# name above and below would be None.
_worker = sys.modules[__name__]
for _name in ("python_capture", "python_items", "python_values"):  # a model may have modules of these names
    sys.modules.pop(_name)


# ---- the link


class End(Exception):
    """The conversation is over: (exit code, what to say about it)."""


class Link(object):
    """Frames over the inherited socket. What the system calls raise comes through as it is."""

    _PREFIX = struct.Struct("<IQ")
    _PIECE = 1 << 18 if PY2 else sys.maxsize

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
        header = attempt(decode, self._stream.read(header_length))
        if isinstance(header, dict) and "tensors" in header:
            body = bytearray(body_length)  # arrays lie in it, and models may write to them
            length = self._read_into(memoryview(body))
        else:
            body = self._stream.read(body_length)
            length = len(body)
        if not isinstance(header, dict) or length < body_length:
            raise End(EXIT_BROKEN, "a frame that is not whole, or whose header is not a JSON object")
        return header, body

    def _read_into(self, view):
        """Fills the view; how much of it, should the stream end. In pieces on 2.7, which copies what it reads."""
        length = 0
        while length < len(view):
            read = self._stream.readinto(view[length : length + self._PIECE])
            if not read:
                break
            length += read
        return length

    def has_news(self):
        """Whether a frame is there to be received, or has begun to come: in our buffer or in the socket."""
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        try:
            return bool(self._stream.peek(1))
        finally:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags)

    def send(self, header, body=b""):
        """Sends one frame."""
        if os.getpid() != self._pid:
            raise End(EXIT_BROKEN, "a forked child came back from the model's function: it has no business here")
        text = to_header(header)
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


class Model(object):
    """A model's function and its hooks."""

    loaded = batches = False
    items = None  # of the call that runs, if its function has returned a generator
    started = ended = 0  # when the function last was, by the clock
    stage = "main_file_not_found"  # what a failure now would be called, in the protocol's words
    _defines = ()
    _tensors = None

    def answer(self, step, *arguments):
        """The answer of `load` or `call`, as (header, body); if that fails, the failure."""
        try:
            return step(*arguments)
        except:  # noqa: E722 - SystemExit too, and 2.7's old-style classes
            return self._failed(*sys.exc_info()), b""

    def load(self, request):
        """Imports the main file, finds the function and the hooks, runs setup()."""
        os.environ.update([(native(name), native(value)) for name, value in (request.get("env") or {}).items()])
        self._text_as_bytes = request.get("text") == "bytes"
        self._bytes = PY2 and self._text_as_bytes
        self.limit = request.get("result_limit", 1 << 62)
        self._main_file, name, self._warnings = request["main_file"], request["function"], []
        module = self._import(request)
        self.stage = "function_not_found"
        function = self._find(module, name)
        setup, batch = self._hook(module, "setup"), self._hook(module, name + "_batch")
        self._numpy = self._import_numpy() if request.get("tensors") == "numpy" else None
        self.stage = "setup_failed"
        state = (setup(),) if setup else ()
        self._outputs = request.get("outputs") or []
        if self._outputs or self._numpy:
            self._tensors = _read_tensors()
        # What to call for one set of parameters, and for a batch of them; each with its further arguments.
        self._one = function, state if len(_required(function)) > 1 else ()
        self._many = batch, state if batch and len(_required(batch)) > 1 else ()
        self.loaded, self.batches = True, bool(batch)
        return {"type": "loaded", "setup": bool(state), "batch": bool(batch), "warnings": self._warnings}, b""

    def call(self, body):
        """Decodes parameters, runs the model's function on them, encodes the result."""
        self.stage = "parameters_invalid"
        result, took = self._run(self._one, self._parameters(body))
        if isinstance(result, GENERATOR):
            self.items = Items(self, result, took / 1e9)
            return {}, b""  # it has only begun
        self.stage = "result_not_serialisable"
        return {"type": "result", "run_ns": took}, to_json(result)

    def call_batch(self, body, sizes):
        """Runs the batch hook on the parameters of several calls; each has its own result, or its own failure."""
        self.stage, end, parts = "parameters_invalid", 0, []
        for size in sizes:
            parts.append(self._or_failure(self._parameters, body[end : end + size]))
            end += size
        taken = [parameters for parameters, failure in parts if failure is None]
        results, took = self._run(self._many, taken) if taken else ((), 0)
        results = results if isinstance(results, (list, tuple)) else nearer(results)
        if not isinstance(results, (list, tuple)) or len(results) != len(taken):
            raise Refusal("the batch function has to return a list with a result for each of %d" % len(taken))
        left = iter(results)
        parts = [self._encoded(next(left)) if failure is None else (None, failure) for _, failure in parts]
        failed = [index for index, (_, failure) in enumerate(parts) if failure is not None]
        texts = [text if failure is None else to_header(failure) for text, failure in parts]
        header = {"type": "result", "run_ns": took, "sizes": [len(text) for text in texts], "failed": failed}
        return header, b"".join(texts)

    def _run(self, entry, parameters):
        """What the model's function or hook returns, and the nanoseconds that it took."""
        self.stage = "model_raised"
        function, further = entry
        self.started, started = time.time(), _clock()
        try:
            result = function(parameters, *further)
        finally:
            took, self.ended = _clock() - started, time.time()
        return result, max(int(took * 1e9), 0)

    def _encoded(self, result):
        """One result of a batch as JSON, and its failure or None: an exception among the results is its call's."""
        if isinstance(result, BaseException):
            self.stage = "model_raised"
            return None, self._failed(type(result), result, getattr(result, "__traceback__", None))
        self.stage = "result_not_serialisable"
        return self._or_failure(to_json, result)

    def _or_failure(self, step, argument):
        """What `step` makes of the argument and None, or None and the failure."""
        try:
            return step(argument), None
        except:  # noqa: E722 - as in `answer`
            return None, self._failed(*sys.exc_info())

    def infer(self, request, body):
        """Runs the model's function on tensors; its result as tensors."""
        self._tensors = self._tensors or _read_tensors()
        self.stage = "parameters_invalid"
        parameters = self._tensors.inputs(request, body, self._numpy, self._text_as_bytes)
        result, took = self._run(self._one, parameters)
        self.stage = "result_not_serialisable"
        if isinstance(result, GENERATOR):
            raise Refusal("the function is a generator, and tensors do not stream: call it with PredictStream")
        fields, body = self._tensors.outputs(result, request.get("outputs"), self._outputs)
        return dict(fields, type="result", run_ns=took), body

    def _import(self, request):
        """The main file's module: a script's in all but the name, so that what is for __main__ alone does not run."""
        root = os.path.normpath(native(request["root"]))
        path = os.path.normpath(os.path.join(root, native(self._main_file)))
        try:
            with io.open(path, "rb") as opened:
                source = opened.read()
            self.stage = "import_failed"
            os.chdir(os.path.join(root, native(request.get("working_dir") or ".")))
        except EnvironmentError as error:
            raise Refusal("%s: %s" % (os.path.relpath(error.filename or path, root), os.strerror(error.errno)))
        self.stage = "syntax_error"
        # From bytes, so that the declared encoding counts, and without what this file has of __future__.
        code = compile(source, path, "exec", 0, True)
        self.stage = "import_failed"
        own = os.path.dirname(os.path.realpath(__file__))
        folders = [os.path.dirname(path), root]
        folders += [os.path.normpath(os.path.join(root, native(more))) for more in request.get("import_paths") or ()]
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

    def _import_numpy(self):
        self.stage = "import_failed"
        try:
            return __import__("numpy")
        except ImportError as error:
            raise Refusal(
                'the model is to get tensors as NumPy arrays (tensors = "numpy"), and NumPy cannot be imported: %s;'
                " add numpy to the requirements" % message(error)
            )

    def _find(self, module, name):
        function = vars(module).get(name)
        if callable(function):
            return function
        functions = [(key, f) for key, f in vars(module).items() if type(f) is type(attempt)]
        found = [(f.__code__.co_firstlineno, key) for key, f in functions if f.__module__ == module.__name__]
        self._defines = [clean(key) for _, key in sorted(found)][:1000]
        if name in vars(module):
            raise Refusal("%s: '%s' is %s, not a function" % (self._main_file, clean(name), described(function)))
        known = "it defines: " + ", ".join(self._defines) if self._defines else "it defines no functions"
        raise Refusal("%s has no function '%s'; %s" % (self._main_file, clean(name), known))

    def _hook(self, module, name):
        """The main file's own function of that name: `from pickle import load` makes no hook of load."""
        hook = vars(module).get(name)
        if callable(hook) and getattr(hook, "__module__", None) != module.__name__:
            self._warnings.append("%s does not define '%s' itself: it is not called" % (self._main_file, clean(name)))
            return None
        return hook if callable(hook) else None

    def _parameters(self, body):
        try:
            parameters = decode(body)
        except (ValueError, RuntimeError) as error:  # RuntimeError: nested too deeply
            raise Refusal("the parameters are not JSON: %s" % error)
        return as_bytes(parameters) if self._bytes else parameters

    def _failed(self, kind, error, trace):
        name, words, trace, reason = clean(kind.__name__), message(error), _trace(kind, error, trace), self.stage
        if kind is Refusal:
            name = trace = ""
        elif reason == "syntax_error":
            line = getattr(error, "lineno", None)
            name, words = self._main_file + (" line %d" % line if line else ""), getattr(error, "msg", words)
        elif kind is NoSuchOutput:
            name, trace, reason = "", "", "output_not_found"
        elif reason == "model_raised" and "InvalidParameters" in [c.__name__ for c in getattr(kind, "__mro__", [kind])]:
            reason = "parameters_invalid"
        if self.loaded:
            failed = {"type": "failed", "exception": name[:1000], "message": words[:1000]}
        else:
            words = " ".join(": ".join([part for part in (name, words) if part]).split("\n"))
            failed = {"type": "load_failed", "message": words[:1000], "defines": self._defines}
        return dict(failed, reason=reason, traceback=trace)


def _read_tensors():
    """The module python_tensors, whatever modules of its name and of python_values's the model has."""
    module = type(sys)("python_tensors")
    path = os.path.join(os.path.dirname(os.path.realpath(__file__)), "python_tensors.py")
    with io.open(path, "rb") as opened:
        code = compile(opened.read(), path, "exec", 0, True)
    theirs = sys.modules.get("python_values")
    sys.modules["python_values"] = python_values
    try:
        exec(code, vars(module))
    finally:
        sys.modules.pop("python_values")
        if theirs is not None:
            sys.modules["python_values"] = theirs
    _own.append(vars(module))
    return module


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


def _trace(kind, error, trace):
    """The traceback as Python prints it, from the model's first frame on."""
    while trace is not None and any(trace.tb_frame.f_globals is own for own in _own):
        trace = trace.tb_next
    lines = attempt(traceback.format_exception, kind, error, trace) or traceback.format_tb(trace)
    return "".join([clean(line) for line in lines])[-16000:]


# ---- the conversation


def converse(link, token):
    """Greets the server, loads the model and serves it, until End is raised."""
    version = ".".join([str(part) for part in sys.version_info[:3]])
    hello = {"type": "hello", "protocol": 1, "token": token, "pid": os.getpid(), "features": ["stream", "tensors"]}
    link.send(dict(hello, language="python", version=version, executable=clean(sys.executable or "")))
    welcome, _ = link.receive()
    if (welcome.get("type"), welcome.get("protocol")) != ("welcome", 1):
        raise End(EXIT_BROKEN, "no welcome that this worker understands")
    model, asked_to_load = Model(), False
    while True:
        header, body = link.receive()
        kind = header.get("type")
        if kind == "call" and (model.batches if "sizes" in header else model.loaded):
            capture = Capture() if header.get("capture") else None
            if "tensors" in header:
                answer, text = model.answer(model.infer, header, body)
            elif "sizes" in header:
                answer, text = model.answer(model.call_batch, body, header["sizes"])
            else:
                answer, text = model.answer(model.call, body)
            if model.items:
                answer, text = stream(link, model, header)
            if capture:
                answer.update(capture.end(), started=model.started, ended=model.ended)
        elif kind == "load" and not asked_to_load:
            asked_to_load = True
            answer, text = model.answer(model.load, header)
        elif kind == "ping":
            answer, text = {"type": "pong"}, b""
        elif kind in ("more", "cancel"):
            continue  # it has crossed the end of its stream
        elif kind == "stop":
            raise End(0, "")
        else:
            raise End(EXIT_BROKEN, "a message of type %r, out of place" % kind)
        if "id" in header:
            answer["id"] = header["id"]
            flush()  # what a call wrote is out before its answer
        link.send(answer, text)
        del body, text  # they may be large, and the next call long in coming


def stream(link, model, header):
    """Sends the items of a generator as the server has room for them; returns what is to be said at the end.

    A call that is no stream has all items in its answer.
    """
    room, items = header.get("stream"), model.items
    try:
        if not room:
            return model.answer(items.all, model.limit)
        while True:
            room = _room(link, room["items"], room["bytes"])
            answer, text = model.answer(items.next if room else items.cancel)
            if answer["type"] != "item":
                return answer, text
            flush()
            link.send(dict(answer, id=header["id"]), text)
            room = {"items": room["items"] - 1, "bytes": room["bytes"] - len(text)}
            del text  # the next one may be long in coming
    finally:
        items.drop()
        model.items = None


def _room(link, items, size):
    """Waits until there is room for an item; how much there is then, or None if the server wants no more of them."""
    while items <= 0 or size <= 0 or link.has_news():
        header, _ = link.receive()
        kind = header.get("type")
        if kind == "more":
            items, size = items + header["items"], size + header["bytes"]
        elif kind == "cancel":
            return None
        elif kind == "stop":
            raise End(0, "")
        else:
            raise End(EXIT_BROKEN, "a message of type %r in a stream, out of place" % kind)
    return {"items": items, "bytes": size}


def main():
    """Runs the worker and ends the process at once, without waiting for the model's threads."""
    address, token = [os.environ.pop(name, "") for name in ("MODELHOST_LINK", "MODELHOST_LINK_TOKEN")]
    code, words = EXIT_NO_LINK, "no link at '%s'" % address
    link = attempt(Link, address)
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
        attempt(lambda: sys.stderr.write("modelhost worker: %s\n" % words))
    flush()
    os._exit(code)


if __name__ == "__main__":
    main()
