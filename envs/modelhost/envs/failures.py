"""From what a failed command wrote to the one line that matters and a hint that a person can act on."""

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from modelhost.envs.errors import BuildFailed, FailureKind
from modelhost.envs.process import CommandFailed
from modelhost.envs.values import Interpreter


@dataclass(frozen=True)
class _Cause:
    """A known cause: it is recognised by a line, which is then also the message."""

    line: re.Pattern[str]
    kind: FailureKind
    hint: str


def _cause(pattern: str, kind: FailureKind, hint: str) -> _Cause:
    return _Cause(re.compile(pattern), kind, hint)


_LINE_LIMIT = 500  # characters of a message
_NO_MATCH = re.compile(r"No matching distribution found for")
_NETWORK = re.compile(
    r"Failed to establish a new connection[^'\"]*|[^'\"]*name resolution|Tunnel connection failed[^'\"]*"
    r"|CERTIFICATE_VERIFY_FAILED[^'\"]*|[^'\"]* timed out|Retrying \(Retry.*"
)
_REQUIRED_BY_FILE = re.compile(r" \(from -[rc] \S+ \(line \d+\)\)")  # of a file that the author never saw

_INDEX_HINT = "check the host's network, proxy and certificates, and the index in the server's pip configuration"
_COMPILE_HINT = (
    "a package is compiled because no wheel of this version fits {name}: install the compiler or header that the log"
    " names, or ask for a version that has a wheel"
)
_CONFLICT_HINT = "requirements exclude each other, the log says which: loosen one of them"
_OTHER_PYTHON_HINT = "ask for a version of the package that still runs on Python {version}, or use another runtime"
_PACKAGE_HINT = "the package's own build failed, see the log; it may be meant for another Python than {version}"
_LIBRARY_HINT = "a system library or its header is missing: install it on the host, the log names it"

_HOST = (
    _cause(r"No space left on device|Disk quota exceeded", "environment", "make room in the server's state directory"),
    _cause(r"MemoryError|Cannot allocate memory", "environment", "the host has too little memory for this build"),
)

# The first cause that some line shows is it.
_PIP = (
    *_HOST,
    _cause(
        r"(401|403) (Client )?Error|\b40[13] (Unauthorized|Forbidden)",
        "environment",
        "the package index refuses access: check the credentials in the server's pip configuration",
    ),
    _cause(r"fatal error: .*: No such file", "environment", _COMPILE_HINT),
    _cause(
        r"unable to execute|[Nn]o Fortran compiler|(gcc|g\+\+|cc|gfortran|cmake|rustc|cargo): (command )?not found"
        r"|can't find Rust compiler|CMake must be installed|command '[^']*(gcc|g\+\+|cc|clang)' failed|cannot find -l\w+",
        "environment",
        _COMPILE_HINT,
    ),
    _cause(r"requires a different Python", "requirements", _OTHER_PYTHON_HINT),
    _cause(r"conflicting dependencies|Double requirement given", "requirements", _CONFLICT_HINT),
    _cause(r"ResolutionImpossible", "requirements", _CONFLICT_HINT),
    _cause(r"DO NOT MATCH THE HASHES|Hashes are required", "requirements", "correct the hashes in the requirements"),
    _cause(r"Invalid requirement", "requirements", "correct the line: package==1.2.3"),
    _cause(r"Could not install packages due to an (OSError|EnvironmentError).*Pool", "environment", _INDEX_HINT),
)
_PYTHON_ERROR = _cause(
    r"^\s*(\w+\.)*\w*(Error|Exception): (?!subprocess-exited|metadata-generation)", "requirements", _PACKAGE_HINT
)

_R_INSTALL = (
    *_HOST,
    _cause(r"fatal error: .*: No such file|cannot find -l\w+", "environment", _LIBRARY_HINT),
    _cause(r"cannot open shared object file", "environment", _LIBRARY_HINT),
    _cause(
        r"(gcc|g\+\+|gfortran|make|cmake): ((command )?not found|No such file)",
        "environment",
        "install the compiler that the log names on the host",
    ),
    _cause(
        r"[Cc]onfiguration failed",
        "environment",
        "a system library is missing: the lines before say which one, and mostly which package of the system has it",
    ),
    _cause(
        r"namespace .* is (already loaded|being loaded), but .* is required",
        "requirements",
        "two packages need different versions of a third: pin versions of one time",
    ),
)

# By the kind that install_packages.R leaves.
_R_KINDS: dict[str, tuple[FailureKind, str]] = {
    "unreachable": ("environment", "check the host's network and proxy, and the R repositories of the server"),
    "unavailable": ("requirements", "check the name, and the version against the repository's archive"),
    "r-version": (
        "requirements",
        "pin a version of {name}'s time (pkg==1.2.3), or use a repository as it was then, such as a dated snapshot",
    ),
    "load": ("requirements", "the package was installed but does not load, see the log"),
    "install": ("requirements", "see the log; a version of {name}'s time may build"),
}


def explain_pip(error: CommandFailed, interpreter: Interpreter) -> BuildFailed:
    """Say why pip failed."""
    if odd := _ended_oddly(error, "pip"):
        return odd
    if found := _first(_PIP, error, interpreter):
        return found
    if line := _find(_NO_MATCH, error.output):
        if network := _NETWORK.search(_find(_NETWORK, error.output)):
            message = f"the package index cannot be reached: {network[0].strip()}"
            return _failed(message, "environment", _INDEX_HINT, interpreter, error)
        return _failed(line, "requirements", _versions_hint(error.output), interpreter, error)
    if found := _first((_PYTHON_ERROR,), error, interpreter):
        return found
    line = _find(re.compile(r"^\s*ERROR:"), error.output) or error.last_line or "pip failed"
    return _failed(line, "environment", "see the log", interpreter, error)


def _versions_hint(output: Iterable[str]) -> str:
    """pip lists what it found for this Python: name the newest, or say that there is none."""
    listed = ""
    for line in output:
        if match := re.search(r"\(from versions: ([^)]*)\)", line):
            listed = match[1]
    final = [version for version in listed.split(", ") if re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", version)]
    if final:
        return f"the newest version for Python {{version}} is {final[-1]}"
    return "no version of it can be installed on Python {version}: check the name, or look for another package"


def explain_creation(error: CommandFailed, interpreter: Interpreter) -> BuildFailed:
    """Say why the empty environment could not be made."""
    if odd := _ended_oddly(error, "creating the environment"):
        return odd
    if found := _first(_HOST, error, interpreter):
        return found
    line = error.last_line or str(error)
    return _failed(line, "environment", "check the interpreter {path} on the host", interpreter, error)


def explain_r(error: CommandFailed, kind: str, message: str, interpreter: Interpreter) -> BuildFailed:
    """Say why `install_packages.R` failed: `kind` and `message` are what it left, "" if it did not get that far."""
    if odd := _ended_oddly(error, "installing R packages"):
        return odd
    if kind in {"install", "load", ""} and (found := _first(_R_INSTALL, error, interpreter, message)):
        return found
    failure_kind, hint = _R_KINDS.get(kind, ("environment", "see the log"))
    return _failed(message or error.last_line or str(error), failure_kind, hint, interpreter, error)


def _first(
    causes: Iterable[_Cause], error: CommandFailed, interpreter: Interpreter, context: str = ""
) -> BuildFailed | None:
    for cause in causes:
        if line := _find(cause.line, error.output):
            message = f"{context}: {line}" if context and line not in context else context or line
            return _failed(message, cause.kind, cause.hint, interpreter, error)
    return None


def _ended_oddly(error: CommandFailed, what: str) -> BuildFailed | None:
    if error.timed_out:
        return BuildFailed(f"{what} took too long and was ended", "environment", "see the log", error.output)
    if error.exit_code < 0:
        hint = "the host may have run out of memory" if error.exit_code == -signal.SIGKILL else "see the log"
        return BuildFailed(f"{what} was ended by signal {-error.exit_code}", "environment", hint, error.output)
    return None


def _find(pattern: re.Pattern[str], output: Iterable[str]) -> str:
    """The last line that fits, without the prefix that pip, R and compilers put before it; "" if none does."""
    found = next((line for line in reversed(list(output)) if pattern.search(line)), "")
    return re.sub(r"^\s*(ERROR|Error|error):\s*", "", found).strip()


def _failed(message: str, kind: FailureKind, hint: str, interpreter: Interpreter, error: CommandFailed) -> BuildFailed:
    message = _REQUIRED_BY_FILE.sub("", message)[:_LINE_LIMIT]
    hint = hint.format(name=interpreter.name, version=interpreter.version, path=interpreter.path)
    return BuildFailed(message, kind, hint, error.output)
