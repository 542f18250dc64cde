"""The R worker: runs one model in an R that lives inside this Python process, and speaks PROTOCOL.md.

Started as `<R> CMD <python> -I -u r_worker.py` with RPY2_CFFI_MODE=ABI: `R CMD` sets the environment that R's shared
library needs, and rpy2 opens that library and declares its C interface. Beside this file lie r_worker.R (R's side:
loading a model, calling it), r_values.py (JSON ↔ R objects) and r_tensors.py (tensors ↔ R objects), which shares
python_tensors.py with the Python worker.

MODELHOST_R_LIBRARY holds the folders of the model's packages, separated by colons, or nothing. They and R's own
library are all that the model sees; R_LIBS says the same to every R that the model starts.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

HERE = Path(__file__).resolve().parent
EXIT_BROKEN, EXIT_NO_LINK = 70, 71
SEXP = Any  # a cffi pointer to an R object


# ---- the link


class End(Exception):
    """The conversation is over: with what exit code and, if there is something to say, why."""

    def __init__(self, code: int, words: str = "") -> None:
        super().__init__(words)
        self.code = code


class Link:
    """Frames over the socket that the worker inherited."""

    _PREFIX = struct.Struct("<IQ")

    def __init__(self, address: str) -> None:
        """Takes over the socket of `fd:N`. Raises ValueError, OSError."""
        kind, _, number = address.partition(":")
        if kind != "fd":
            raise ValueError(f"{address!r} is no address that this worker understands")
        # No child of the model's may inherit the link, nor code that closes or writes to low descriptors find it.
        moved = fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, 64)
        os.close(int(number))
        self._socket = socket.socket(fileno=moved)
        self._stream = self._socket.makefile("rb", buffering=1 << 16)
        self._pid = os.getpid()

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame, as (header, body)."""
        prefix = self._read(self._PREFIX.size)
        if not prefix:
            raise End(0)
        if len(prefix) < self._PREFIX.size:
            raise End(EXIT_BROKEN, "the stream ended within a frame")
        header_length, body_length = self._PREFIX.unpack(prefix)
        if header_length > 1 << 20:
            raise End(EXIT_BROKEN, f"a header of {header_length} bytes")
        text, body = self._read(header_length), self._read(body_length)
        if len(text) + len(body) < header_length + body_length:
            raise End(EXIT_BROKEN, "the stream ended within a frame")
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise End(EXIT_BROKEN, f"a header that is not JSON: {error}") from error
        if not isinstance(header, dict):
            raise End(EXIT_BROKEN, "a header that is not a JSON object")
        return header, body

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Sends one frame."""
        if os.getpid() != self._pid:
            raise End(EXIT_BROKEN, "a forked child came back from the model's function: it has no business here")
        text = json.dumps(header).encode()
        frame = self._PREFIX.pack(len(text), len(body)) + text
        try:
            if len(body) < 1 << 16:
                self._socket.sendall(frame + body)
            else:  # a second system call costs less than the copy
                self._socket.sendall(frame)
                self._socket.sendall(body)
        except OSError as error:
            raise self._lost(error) from error

    def _read(self, length: int) -> bytes:
        try:
            return self._stream.read(length)
        except OSError as error:
            raise self._lost(error) from error
        except (MemoryError, OverflowError) as error:
            raise End(EXIT_BROKEN, f"a frame of {length} bytes") from error

    @staticmethod
    def _lost(error: OSError) -> End:
        hung_up = isinstance(error, BrokenPipeError | ConnectionResetError)
        return End(0) if hung_up else End(EXIT_BROKEN, f"the link is lost: {error}")


# ---- R


class R:
    """R, started in this process, with r_worker.R in an environment of its own."""

    def __init__(self, library: str) -> None:
        # R's start-up reads these, and gives the last two defaults if they are empty. As the site library too, so that
        # a model that calls .libPaths() with the folders of its author's machine does not lose its packages.
        folders = library or os.devnull  # what is no folder is dropped
        os.environ.update(R_LIBS=folders, R_LIBS_USER=folders, R_LIBS_SITE=folders)
        # When imported, rpy2 starts an Rscript to learn the LD_LIBRARY_PATH that `R CMD` has set already: a tenth of a
        # second, and whatever somebody's .Rprofile does. rpy2's initr() does the like; hence _start().
        import rpy2.situation

        rpy2.situation.r_ld_library_path_from_subprocess = lambda _: os.environ.get("LD_LIBRARY_PATH", "")
        from rpy2.rinterface_lib.openrlib import ffi, rlib

        self.lib, self.ffi = rlib, ffi
        self.started = self.ended = 0.0  # when a model's function last was, by the clock
        self._start()
        sys.path.insert(0, str(HERE))  # -I leaves it out
        import r_tensors
        import r_values

        del sys.path[0]
        self.values, self.tensors = r_values, r_tensors
        self._error = ffi.new("int *")
        self._space = rlib.R_BaseEnv
        self._space = self.keep(self.call("new.env", True, rlib.R_BaseNamespace))
        self.call("sys.source", str(HERE / "r_worker.R"), self._space)
        self.failed = self.get("failed")
        self._reader = r_values.Reader(self.as_text, unbox=True)

    def _start(self) -> None:
        lib = self.lib
        words = [self.ffi.new("char[]", word) for word in (b"R", b"--vanilla", b"--quiet", b"--no-readline")]
        lib.R_SignalHandlers = 1  # where C code crashes, R says in which of its functions: the last words in the log
        lib.Rf_initialize_R(len(words), words)
        lib.R_Interactive = False  # nobody is there to answer readline() and menu()
        lib.setup_Rmainloop()
        # Those handlers of R's that do more than tell: they would jump over Python's frames, or save a workspace.
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, lambda *_: None)  # SIG_IGN would be handed on to the model's children
        # R flushes what it writes; C code in packages writes to the same stdio and does not.
        libc = ctypes.CDLL(None)
        for name in ("stdout", "stderr"):
            libc.setvbuf(ctypes.c_void_p.in_dll(libc, name), None, 2, 0)  # 2 is _IONBF

    def call(self, function: str, *arguments: Any) -> SEXP:
        """Calls a function of r_worker.R's or base's with R objects or parsed JSON; the result is unprotected."""
        lib = self.lib
        made = [lib.Rf_protect(a if isinstance(a, self.ffi.CData) else self.values.to_r(a)) for a in arguments]
        code = lib.Rf_protect(getattr(lib, f"Rf_lang{len(made) + 1}")(lib.Rf_install(function.encode()), *made))
        result = self.evaluate(code)
        lib.Rf_unprotect(len(made) + 1)
        if result is None:
            raise RuntimeError(f"{function}() failed on the R worker's own account")
        return result

    def evaluate(self, code: SEXP) -> SEXP | None:
        """The value of a protected call, unprotected; None if R jumped out of it to its top level."""
        result = self.lib.R_tryEval(code, self._space, self._error)
        return None if self._error[0] else result

    def ask(self, function: str, *arguments: Any) -> dict[str, Any]:
        """Calls a function of r_worker.R's that returns a named list."""
        answer = self.lib.Rf_protect(self.call(function, *arguments))
        try:
            return self._reader.value(answer)
        finally:
            self.lib.Rf_unprotect(1)

    def get(self, name: str) -> SEXP:
        """What r_worker.R calls by that name."""
        return self.lib.Rf_findVarInFrame(self._space, self.lib.Rf_install(name.encode()))

    def keep(self, what: SEXP) -> SEXP:
        """Keeps R from collecting an object for the life of this process."""
        self.lib.R_PreserveObject(what)
        return what

    def permute(self, array: SEXP) -> SEXP:
        """An array with its dimensions in the opposite order, and its elements where they belong then."""
        return self.call("aperm", array)

    def as_text(self, moments: SEXP) -> SEXP:
        """ISO 8601 texts of R dates or times."""
        try:
            return self.call("as_text", moments)
        except RuntimeError as error:
            raise self.values.NotSerialisableError("is of a class for dates and is none") from error

    def set_command_line(self, *words: str) -> None:
        """Sets what commandArgs() returns."""
        encoded = [self.ffi.new("char[]", os.fsencode(word)) for word in words]
        self.lib.R_set_command_line_arguments(len(encoded), encoded)


# ---- the model


class Failed(Exception):
    """`fields` are the answer's; objections of the worker's own name no exception."""

    def __init__(self, reason: str, message: str, *, traceback: str = "", **fields: Any) -> None:
        super().__init__(message)
        message, traceback = message.rstrip()[:1000], traceback.rstrip()[-16000:]
        self.fields = {"reason": reason, "message": message, "traceback": traceback, **fields}

    def as_json(self) -> bytes:
        """As what it is in a batch."""
        return json.dumps({"exception": "", **self.fields}).encode()


def raised(why: dict[str, Any]) -> Failed:
    """From what r_worker.R tells of a condition."""
    reason = "parameters_invalid" if why["invalid"] else "model_raised"
    return Failed(reason, why["message"], traceback=why["traceback"], exception=why["exception"][:1000])


class Entry:
    """The model's function or batch hook: one call in R, made again and again with another argument."""

    def __init__(self, r: R, name: str) -> None:
        self._r = r
        self._code = r.keep(r.lib.Rf_lang2(r.get(name), r.lib.R_NilValue))
        self._argument = r.lib.CDR(self._code)

    def __call__(self, argument: SEXP, read: Any) -> tuple[Any, int]:
        """What `read` makes of the result, and the nanoseconds that R took. Raises Failed."""
        r = self._r
        r.lib.SETCAR(self._argument, argument)
        r.started, started = time.time(), time.perf_counter_ns()
        result = r.evaluate(self._code)
        took, r.ended = time.perf_counter_ns() - started, time.time()
        r.lib.SETCAR(self._argument, r.lib.R_NilValue)
        if result is None or result == r.failed:
            raise raised(r.ask("explain"))
        r.lib.Rf_protect(result)
        try:
            return read(result), took
        except Exception as error:
            raise self.unreadable(error) from error
        finally:
            r.lib.Rf_unprotect(1)

    def unreadable(self, error: Exception) -> Failed:
        """What is said of a result that JSON, or a tensor, cannot hold."""
        tensors = self._r.tensors
        if isinstance(error, tensors.Refusal):
            reason = "output_not_found" if isinstance(error, tensors.NoSuchOutput) else "result_not_serialisable"
            return Failed(reason, str(error))
        if isinstance(error, RecursionError):
            words = "result is nested too deeply, which JSON cannot hold"
        elif isinstance(error, self._r.values.NotSerialisableError):
            words = str(error)
        else:  # a class attribute may be on anything
            words = f"result cannot be read: {type(error).__name__}: {error}"
        return Failed("result_not_serialisable", words)


class Model:
    """A model in R: its function, its batch hook, and how its results are read."""

    def __init__(self, r: R) -> None:
        self._r = r
        self._many: Entry | None = None
        self.loaded = False

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sources the main file, finds the function and the hooks, runs setup(); the fields of `loaded`."""
        os.environ.update(request.get("env") or {})
        main_file = request["main_file"]
        path = os.path.normpath(os.path.join(request["root"], main_file))
        if not os.path.isfile(path):
            raise Failed("main_file_not_found", f"{main_file}: no such file")
        folder = request.get("working_dir") or "."
        try:
            os.chdir(os.path.join(request["root"], folder))
        except OSError as error:
            raise Failed("import_failed", f"working directory {folder}: {error.strerror}") from error
        self._r.set_command_line("R", "--no-echo", "--no-restore", f"--file={path}")  # as Rscript has it
        outcome = self._r.ask("load_model", path, main_file, request["function"])
        if "reason" in outcome:
            words = outcome.pop("message")
            # R's lines of a syntax error repeat the code; other messages may be sentences that run on.
            line = words.partition("\n")[0] if outcome["reason"] == "syntax_error" else " ".join(words.split())
            raise Failed(message=line, **outcome)
        self._reader = self._r.values.Reader(self._r.as_text, unbox=bool(request.get("unbox")))
        texts = self._r.values.Reader(self._r.as_text, unbox=False)
        self._tensors = self._r.tensors.TensorReader(self._r.permute, texts, request.get("outputs") or [])
        self._raw_bytes = request.get("text") == "bytes"
        self._one = Entry(self._r, "run")
        self._many = Entry(self._r, "run_batch") if outcome["batch"] else None
        self.loaded = True
        return outcome

    def answer(self, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """What comes of a call, one with tensors, or a batch of them."""
        if "tensors" in header:
            return self.infer(header, body)
        return self.call_batch(body, header["sizes"]) if "sizes" in header else self.call(body)

    def call(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Decodes parameters, runs the model's function on them, encodes the result; the fields of `result`."""
        result, took = self._one(self._to_r(self._parse(body)), self._reader.value)
        return {"run_ns": took}, self._r.values.to_json(result).encode()

    @property
    def batches(self) -> bool:
        """Whether there is a batch hook."""
        return self._many is not None

    def call_batch(self, body: bytes, sizes: list[int]) -> tuple[dict[str, Any], bytes]:
        """Runs the batch hook on the parameters of several calls; each has its own result, or its own failure."""
        assert self._many is not None
        ends = accumulate(sizes)
        parts = [or_failed(self._parse, body[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
        taken = [part for part in parts if not isinstance(part, Failed)]
        results, took = self._many(self._to_r(taken, batch=True), self._results) if taken else ([], 0)
        if len(results) != len(taken):
            words = "the batch function has to return a list of {} results, one for each in the batch"
            raise Failed("model_raised", words.format(len(taken)))
        left = iter(results)
        parts = [part if isinstance(part, Failed) else next(left) for part in parts]
        failed = [index for index, part in enumerate(parts) if isinstance(part, Failed)]
        encode = self._r.values.to_json
        texts = [part.as_json() if isinstance(part, Failed) else encode(part).encode() for part in parts]
        return {"run_ns": took, "sizes": [len(text) for text in texts], "failed": failed}, b"".join(texts)

    def _parse(self, body: bytes) -> Any:
        try:
            return self._r.values.from_json(body)
        except (ValueError, RecursionError) as error:
            raise Failed("parameters_invalid", f"the parameters are not JSON: {error}") from error

    def infer(self, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Runs the model's function on tensors; the fields of `result` with its result as tensors, and their body."""
        r = self._r
        try:
            made = r.tensors.tensors_to_r(request, body, r.permute, text_as_bytes=self._raw_bytes)
        except (ValueError, OverflowError) as error:
            raise Failed("parameters_invalid", f"R cannot hold the tensors: {error}") from error
        (fields, body), took = self._one(made, lambda result: self._tensors.outputs(result, request.get("outputs")))
        return {"run_ns": took, **fields}, body

    def _to_r(self, parameters: Any, *, batch: bool = False) -> SEXP:
        try:
            return self._r.values.to_list(parameters) if batch else self._r.values.to_r(parameters)
        except RecursionError as error:
            raise Failed("parameters_invalid", "the parameters are nested too deeply for R") from error
        except (ValueError, OverflowError) as error:
            raise Failed("parameters_invalid", f"R cannot hold the parameters: {error}") from error

    def _results(self, returned: SEXP) -> list[Any]:
        """What a batch hook returned, one by one; `Failed` for what is none or has no JSON."""
        assert self._many is not None
        results = self._reader.results(returned, lambda condition: raised(self._r.ask("told", condition)))
        return [
            self._many.unreadable(each) if isinstance(each, Exception) and not isinstance(each, Failed) else each
            for each in results
        ]


def or_failed(step: Callable[[Any], Any], argument: Any) -> Any:
    """What `step` makes of the argument, or the `Failed` that it raises."""
    try:
        return step(argument)
    except Failed as failed:
        return failed


# ---- what a call writes


class Capture:
    """stdout and stderr of one call, kept from the log in files of no name. Nothing of R's is buffered."""

    _LIMIT = 1 << 16

    def __init__(self) -> None:
        self._moved = [self._move(1), self._move(2)]

    def end(self) -> dict[str, Any]:
        """Gives both back to the log; the first 64 KiB of what each was, as text, and how many bytes are left out."""
        (stdout, more_out), (stderr, more_err) = map(self._back, (1, 2), self._moved)
        return {"stdout": stdout, "stdout_left_out": more_out, "stderr": stderr, "stderr_left_out": more_err}

    @staticmethod
    def _move(number: int) -> tuple[int, BinaryIO] | None:
        try:
            kept, file = os.dup(number), tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed in _back
            os.dup2(file.fileno(), number)
        except OSError:  # the model has closed it, or its folder is full
            return None
        return kept, file

    def _back(self, number: int, moved: tuple[int, BinaryIO] | None) -> tuple[str, int]:
        if moved is None:
            return "", 0
        kept, file = moved
        os.dup2(kept, number)
        os.close(kept)
        with file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            text = file.read(self._LIMIT).decode("utf-8", "replace")
        return text, max(size - self._LIMIT, 0)


# ---- the conversation


def converse(link: Link, r: R, token: str) -> None:
    """Greets the server, loads the model and serves it, until End is raised."""
    hello = {"type": "hello", "protocol": 1, "token": token, "pid": os.getpid(), "features": ["tensors"]}
    link.send({**hello, "language": "r", **r.ask("about")})
    welcome, _ = link.receive()
    if (welcome.get("type"), welcome.get("protocol")) != ("welcome", 1):
        raise End(EXIT_BROKEN, "no welcome that this worker understands")
    model, asked_to_load = Model(r), False
    while True:
        header, body = link.receive()
        kind, answered = header.get("type"), {"id": header.get("id")}
        if kind == "call" and (model.batches if "sizes" in header else model.loaded):
            capture = Capture() if header.get("capture") else None
            try:
                fields, body = model.answer(header, body)
                answer = {"type": "result", **answered, **fields}
            except Failed as failed:
                answer, body = {"type": "failed", **answered, "exception": "", **failed.fields}, b""
            if capture:
                answer.update(capture.end(), started=r.started, ended=r.ended)
            link.send(answer, body)
        elif kind == "load" and not asked_to_load:
            asked_to_load = True
            try:
                link.send({"type": "loaded", **answered, **model.load(header)})
            except Failed as failed:
                link.send({"type": "load_failed", **answered, "defines": [], **failed.fields})
        elif kind == "ping":
            link.send({"type": "pong"})
        elif kind == "stop":
            raise End(0)
        else:
            raise End(EXIT_BROKEN, f"a message of type {kind!r}, out of place")
        del body  # it may be large, and the next call long in coming


def main() -> None:
    """Runs the worker and ends the process at once, without waiting for threads of the model's."""
    token = os.environ.pop("MODELHOST_LINK_TOKEN", "")
    library = os.environ.pop("MODELHOST_R_LIBRARY", "")
    try:
        link = Link(os.environ.pop("MODELHOST_LINK", ""))
    except (ValueError, OSError) as error:
        leave(EXIT_NO_LINK, f"no link: {error}")
    try:
        r = R(library)
        os.environ.pop("RPY2_CFFI_MODE", None)
        converse(link, r, token)
    except End as end:
        if end.code == 0:
            r.lib.R_CleanTempDir()
        leave(end.code, str(end))
    except BaseException:
        leave(EXIT_BROKEN, traceback.format_exc())


def leave(code: int, words: str) -> NoReturn:
    """Ends the process; nothing is buffered."""
    if words:
        with contextlib.suppress(OSError):
            os.write(2, f"modelhost worker: {words}\n".encode())
    os._exit(code)


if __name__ == "__main__":
    main()
