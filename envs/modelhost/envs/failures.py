"""From what a failed command wrote to the one line that matters and a hint that a person can act on."""

import re
import signal
from collections.abc import Iterable, Sequence
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
_RETRYING = re.compile(r"Retrying \(Retry|Could not fetch URL")
_NETWORK = re.compile(
    r"Failed to establish a new connection[^'\"]*|[^'\"]*name resolution|Tunnel connection failed[^'\"]*"
    r"|CERTIFICATE_VERIFY_FAILED[^'\"]*|[^'\"]*timed out"
)
# Places in the flattened file, which the author never saw.
_FROM_LINE = re.compile(r" \(from -[rc] \S+ \(line \d+\)\)")
_LINE = re.compile(r"-r \S+ \(line (\d+)\)")

_INDEX_HINT = "check the host's network, proxy and certificates, and the index in the server's pip configuration"
_COMPILE_HINT = (
    "a package is compiled because no wheel of this version fits {name}: install the compiler or header that the log"
    " names, or ask for a version that has a wheel"
)
_CONFLICT_HINT = "requirements exclude each other, the log says which: loosen one of them"
_OTHER_PYTHON_HINT = "ask for a version of the package that still runs on Python {version}, or use another runtime"
_PACKAGE_HINT = "the package's own build failed, see the log; it may be meant for another Python than {version}"
_LIBRARY_HINT = "a system library or its header is missing: install it on the host, the log names it"
_CONFIGURE_HINT = "a system library is missing: the log says which one, and mostly which package of the system has it"

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
        r"|can't find Rust compiler|CMake must be installed|command '[^']*(gcc|g\+\+|cc|clang)' failed"
        r"|cannot find -l\w+",
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
    _cause(r"Configuration failed", "environment", _CONFIGURE_HINT),
    _cause(r"configuration failed", "environment", _CONFIGURE_HINT),
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


def explain_pip(error: CommandFailed, interpreter: Interpreter, requirements: Sequence[str] = ()) -> BuildFailed:
    """Say why pip failed; `requirements` are the lines it was given."""
    if odd := _ended_oddly(error, "pip"):
        return odd
    error = CommandFailed(error.argv, error.exit_code, [_without_places(line, requirements) for line in error.output])
    if found := _first(_PIP, error, interpreter):
        return found
    if line := _find(_NO_MATCH, error.output):
        if retrying := _find(_RETRYING, error.output):
            network = _NETWORK.search(retrying)
            message = f"the package index cannot be reached: {network[0].strip() if network else retrying}"
            return _failed(message, "environment", _INDEX_HINT, interpreter, error)
        return _failed(line, "requirements", _versions_hint(error.output), interpreter, error)
    if found := _first((_PYTHON_ERROR,), error, interpreter):
        return found
    line = _find(re.compile(r"^\s*ERROR:"), error.output) or error.last_line or "pip failed"
    return _failed(line, "environment", "see the log", interpreter, error)


def _without_places(line: str, requirements: Sequence[str]) -> str:
    def requirement(place: re.Match[str]) -> str:
        number = int(place[1])
        return requirements[number - 1] if 1 <= number <= len(requirements) else place[0]

    return _LINE.sub(requirement, _FROM_LINE.sub("", line))


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
    hint = hint.format(name=interpreter.name, version=interpreter.version, path=interpreter.path)
    return BuildFailed(message[:_LINE_LIMIT], kind, hint, error.output)
