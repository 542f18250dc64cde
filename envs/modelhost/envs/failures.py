"""From what a failed command wrote to the one line that matters and the cause that it tells of."""

import re
import signal
from collections.abc import Iterable, Sequence

from modelhost.envs.errors import BuildFailed, Cause
from modelhost.envs.files import DISK_FULL, LITTLE_ROOM_BYTES, NO_ROOM_BYTES
from modelhost.envs.missing import missing_from_system
from modelhost.envs.process import CommandFailed
from modelhost.envs.values import Interpreter

# A known cause is recognised by a line, which is then also the message; its groups are the cause's values.
_Pattern = tuple[Cause, re.Pattern[str]]


def _pattern(cause: Cause, pattern: str) -> _Pattern:
    return cause, re.compile(pattern)


_LINE_LIMIT = 500  # characters of a message
_NO_MATCH = re.compile(r"No matching distribution found for")
_IGNORED = re.compile(r"Ignored the following versions that require a different python version")
_RETRYING = re.compile(r"Retrying \(Retry|Could not fetch URL")
_NETWORK = re.compile(
    r"Failed to establish a new connection[^'\"]*|[^'\"]*name resolution|Tunnel connection failed[^'\"]*"
    r"|CERTIFICATE_VERIFY_FAILED[^'\"]*|[^'\"]*timed out"
)
# Places in the flattened file, which the author never saw.
_FROM_LINE = re.compile(r" \(from -[rc] \S+ \(line \d+\)\)")
_LINE = re.compile(r"-r \S+ \(line (\d+)\)")

_HOST = (
    _pattern(Cause.DISK_FULL, r"No space left on device|Disk quota exceeded"),
    _pattern(Cause.MEMORY, r"MemoryError|Cannot allocate memory"),
)

# The first cause that some line shows is it: what is wrong with the host, with the list, then with one package.
_PIP = (
    *_HOST,
    _pattern(Cause.INDEX_REFUSES, r"(401|403) (Client )?Error|\b40[13] (Unauthorized|Forbidden)"),
    _pattern(Cause.CONFLICT, r"conflicting dependencies|Double requirement given"),
    _pattern(Cause.CONFLICT, r"ResolutionImpossible"),
    _pattern(Cause.HASHES, r"DO NOT MATCH THE HASHES|Hashes are required"),
    _pattern(Cause.LINE_INVALID, r"Invalid requirement"),
    _pattern(Cause.STUB, r"use 'pip install (?P<package>[\w.-]+)' rather than 'pip install [\w.-]+'"),
    _pattern(
        Cause.OTHER_PYTHON,
        r"requires a different Python|[Bb]ackport is (meant )?(for|only for) Python 2|fatal error: longintrepr\.h"
        r"|(?i:requires|needs|only (supports|works with|for)|not support(ed)?( by| on)?|at least) Python (version )?"
        r"[<>=]* ?\d[\d.]*|Python (>=|version >=|2 is not|3 is not|[\d.]+ is not|[\d.]+ or (later|newer|above) is) ?",
    ),
    _pattern(Cause.BUILD_TOO_OLD, r"use_2to3 is invalid"),
    _pattern(Cause.BUILD_NEEDS_PACKAGE, r"fatal error: '?(?P<package>numpy)/"),
)
# A line of a package's own script. pip's own lines of that form tell nothing.
_PYTHON_ERROR = (
    _pattern(
        Cause.BUILD_NEEDS_PACKAGE, r"^\s*(ModuleNotFound|Import)Error: No module named '?(?P<package>[A-Za-z]\w*)"
    ),
    _pattern(Cause.BUILD_RAISED, r"^\s*(\w+\.)*\w*(Error|Exception): (?!subprocess-exited|metadata-generation)"),
)
_COMPILER = (
    _pattern(Cause.COMPILATION, r"\.\w+:\d+(:\d+)?: error:"),
    _pattern(Cause.COMPILATION, r"[Cc]ommand ['\"][^'\"]*(gcc|g\+\+|cc|clang)\b.* failed"),
)
_BUILDING = re.compile(
    r"Command errored out|subprocess-exited-with-error|metadata-generation-failed|Failed building wheel"
)

_R_INSTALL = (
    *_HOST,
    _pattern(Cause.LIBRARY_UNNAMED, r"Configuration failed"),
    _pattern(Cause.LIBRARY_UNNAMED, r"configuration failed"),
    _pattern(Cause.R_CONFLICT, r"namespace .* is (already loaded|being loaded), but .* is required"),
)

# Above the package that a configure script of R names.
_CONFIGURATION = re.compile(r"[Cc]onfiguration failed because")

# By the kind that install_packages.R leaves.
_R_KINDS = {
    "unreachable": Cause.R_INDEX_UNREACHABLE,
    "unavailable": Cause.R_PACKAGE_NOT_FOUND,
    "r-version": Cause.R_VERSION,
    "load": Cause.R_LOAD,
    "install": Cause.R_INSTALL,
    "locked": Cause.LOCK_UNMET,
}
_UNEXPLAINED = (Cause.INTERPRETER, Cause.UNKNOWN, Cause.R_INSTALL, Cause.R_INDEX_UNREACHABLE)
# What "not to be had" looks like. Of a lock it means that it cannot be followed any more.
_NOT_TO_BE_HAD = (Cause.VERSION_NOT_FOUND, Cause.PACKAGE_NOT_FOUND, Cause.OTHER_PYTHON)


def explain_pip(error: CommandFailed, interpreter: Interpreter, requirements: Sequence[str] = ()) -> BuildFailed:
    """Say why pip failed; `requirements` are the lines it was given."""
    if odd := _ended_oddly(error, "pip"):
        return odd
    error = CommandFailed(error.argv, error.exit_code, [_without_places(line, requirements) for line in error.output])
    if found := _first(_PIP, error, interpreter) or _missing(error, interpreter):
        return found
    # pip for Python 3.6 ends with "no matching distribution" where the package's own script failed.
    built = any(_BUILDING.search(line) for line in error.output)
    if built and (found := _first((*_COMPILER, *_PYTHON_ERROR), error, interpreter)):
        return found
    if line := _find(_NO_MATCH, error.output):
        return _not_found(line, error, interpreter)
    if found := _first(_PYTHON_ERROR, error, interpreter):
        return found
    line = _find(re.compile(r"^\s*ERROR:"), error.output) or error.last_line or "pip failed"
    return _failed(line, Cause.UNKNOWN, interpreter, error)


def _without_places(line: str, requirements: Sequence[str]) -> str:
    def requirement(place: re.Match[str]) -> str:
        number = int(place[1])
        return requirements[number - 1] if 1 <= number <= len(requirements) else place[0]

    return _LINE.sub(requirement, _FROM_LINE.sub("", line))


def _not_found(line: str, error: CommandFailed, interpreter: Interpreter) -> BuildFailed:
    """pip lists what it found for this Python: name the newest, or say that there is none."""
    if retrying := _find(_RETRYING, error.output):
        network = _NETWORK.search(retrying)
        message = f"the package index cannot be reached: {network[0].strip() if network else retrying}"
        return _failed(message, Cause.INDEX_UNREACHABLE, interpreter, error)
    if any(
        _IGNORED.search(shown) and f" {line.rpartition('==')[2]} Requires-Python" in shown for shown in error.output
    ):
        return _failed(line, Cause.OTHER_PYTHON, interpreter, error)
    listed = ""
    for shown in error.output:
        if match := re.search(r"\(from versions: ([^)]*)\)", shown):
            listed = match[1]
    final = [version for version in listed.split(", ") if re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", version)]
    if final:
        return _failed(line, Cause.VERSION_NOT_FOUND, interpreter, error, newest=final[-1])
    return _failed(line, Cause.PACKAGE_NOT_FOUND, interpreter, error)


def room_for(error: BaseException) -> int:
    """How many free bytes there must be for a failure not to be the disk's.

    venv and R hide what went wrong, and have removed their own files by the time that they have failed.
    """
    unexplained = isinstance(error, BuildFailed) and error.cause in _UNEXPLAINED
    return LITTLE_ROOM_BYTES if unexplained else NO_ROOM_BYTES


def explain_build(error: BaseException, *, full: bool, locked: bool) -> BaseException:
    """What a build failed for, seen from outside: the disk may be `full`, and a lock may have been followed."""
    if isinstance(error, OSError):
        full = full or error.errno in DISK_FULL
        error = BuildFailed(str(error), Cause.INTERPRETER)
    if not isinstance(error, BuildFailed):
        return error
    if full and error.cause is not Cause.DISK_FULL:
        return BuildFailed(
            f"the disk has no room, or hardly any: {error.message}"[:_LINE_LIMIT], Cause.DISK_FULL, error.output
        )
    if locked and error.cause in _NOT_TO_BE_HAD:
        message = f"a package that was locked cannot be had any more: {error.message}"
        return BuildFailed(message[:_LINE_LIMIT], Cause.LOCK_UNMET, error.output, **error.values)
    return error


def explain_creation(error: CommandFailed, interpreter: Interpreter) -> BuildFailed:
    """Say why the empty environment could not be made."""
    if odd := _ended_oddly(error, "creating the environment"):
        return odd
    if found := _first(_HOST, error, interpreter):
        return found
    return _failed(error.last_line or str(error), Cause.INTERPRETER, interpreter, error)


def explain_r(error: CommandFailed, kind: str, message: str, interpreter: Interpreter) -> BuildFailed:
    """Say why `install_packages.R` failed: `kind` and `message` are what it left, "" if it did not get that far."""
    if odd := _ended_oddly(error, "installing R packages"):
        return odd
    if kind in {"install", "load", ""}:
        found = _first(_HOST, error, interpreter, message) or _missing(error, interpreter, message)
        if found := found or _first(_R_INSTALL, error, interpreter, message):
            return found
    cause = _R_KINDS.get(kind, Cause.UNKNOWN)
    return _failed(message or error.last_line or str(error), cause, interpreter, error)


def _missing(error: CommandFailed, interpreter: Interpreter, context: str = "") -> BuildFailed | None:
    line, missing, package = missing_from_system(error.output, interpreter.version)
    if not line:
        return None
    cause = Cause.LIBRARY_MISSING if package else Cause.LIBRARY_UNNAMED
    because = _find(_CONFIGURATION, error.output) if missing == package else ""
    message = _in_context(because or _stripped(line), context)
    return _failed(message, cause, interpreter, error, missing=missing, package=package)


def _first(
    patterns: Iterable[_Pattern], error: CommandFailed, interpreter: Interpreter, context: str = ""
) -> BuildFailed | None:
    for cause, pattern in patterns:
        for shown in reversed(error.output):
            if match := pattern.search(shown):
                message = _in_context(_stripped(shown), context)
                return _failed(message, cause, interpreter, error, **match.groupdict(default=""))
    return None


def _in_context(line: str, context: str) -> str:
    return f"{context}: {line}" if context and line not in context else context or line


def _ended_oddly(error: CommandFailed, what: str) -> BuildFailed | None:
    if error.timed_out:
        return BuildFailed(f"{what} took too long and was ended", Cause.TOOK_TOO_LONG, error.output)
    if error.exit_code < 0:
        cause = Cause.KILLED if error.exit_code == -signal.SIGKILL else Cause.UNKNOWN
        return BuildFailed(f"{what} was ended by signal {-error.exit_code}", cause, error.output)
    return None


def _find(pattern: re.Pattern[str], output: Iterable[str]) -> str:
    """The last line that fits, without what stands before it; "" if none does."""
    return _stripped(next((line for line in reversed(list(output)) if pattern.search(line)), ""))


def _stripped(line: str) -> str:
    """A line without the prefix that pip, R and compilers put before it."""
    return re.sub(r"^\s*(ERROR|Error|error):\s*", "", line).strip()


def _failed(message: str, cause: Cause, interpreter: Interpreter, error: CommandFailed, **values: str) -> BuildFailed:
    about = {"name": interpreter.name, "version": interpreter.version}
    return BuildFailed(message[:_LINE_LIMIT], cause, error.output, **about, **values)
