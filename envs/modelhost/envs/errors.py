"""What can go wrong while an environment is described or built.

    EnvironmentProblem
    ├── RequirementsInvalid   the model's requirements cannot be read: the author mends a file
    └── BuildFailed           the environment cannot be built: cause says why, as far as the output tells

`process.Cancelled` (nobody wants the environment any more) is no failure and stands apart.
"""

from collections.abc import Sequence
from enum import StrEnum


class Cause(StrEnum):
    """Why an environment could not be built, and which values `BuildFailed` has for it besides the interpreter's."""

    # pip and R: what is asked for
    VERSION_NOT_FOUND = "version_not_found"  # newest
    PACKAGE_NOT_FOUND = "package_not_found"
    OTHER_PYTHON = "other_python"
    CONFLICT = "conflict"
    LINE_INVALID = "line_invalid"
    HASHES = "hashes"
    STUB = "stub"  # package: the name under which the index has the real one
    R_PACKAGE_NOT_FOUND = "r_package_not_found"
    R_VERSION = "r_version"
    R_CONFLICT = "r_conflict"
    LOCK_UNMET = "lock_unmet"  # what was locked before cannot be installed again

    # building it
    LIBRARY_MISSING = "library_missing"  # missing, package: what Debian calls it
    LIBRARY_UNNAMED = "library_unnamed"  # missing
    BUILD_NEEDS_PACKAGE = "build_needs_package"  # package
    BUILD_TOO_OLD = "build_too_old"
    BUILD_RAISED = "build_raised"
    COMPILATION = "compilation"
    R_INSTALL = "r_install"
    R_LOAD = "r_load"

    # the host
    INDEX_UNREACHABLE = "index_unreachable"
    R_INDEX_UNREACHABLE = "r_index_unreachable"
    INDEX_REFUSES = "index_refuses"
    DISK_FULL = "disk_full"
    MEMORY = "memory"
    TOOK_TOO_LONG = "took_too_long"
    KILLED = "killed"
    INTERPRETER = "interpreter"
    UNKNOWN = "unknown"


class EnvironmentProblem(Exception):
    """Base of everything below."""


class RequirementsInvalid(EnvironmentProblem):
    """A requirements file, or a line of it, cannot be used.

    `message` is a sentence without the place; `file` is relative to the model's root ("" for requirements given
    inline), `line` counts from 1 (0: the file as a whole).
    """

    def __init__(self, message: str, file: str = "", line: int = 0) -> None:
        self.message = message
        self.file = file
        self.line = line
        place = f"{file or 'requirements'}:{line}" if line else file
        super().__init__(f"{place}: {message}" if place else message)


class BuildFailed(EnvironmentProblem):
    """An environment could not be built; nothing of it is left on disk.

    `message` is the one line that says what went wrong, `output` the last lines of the command that failed. `values`
    are what is known of the cause, by name: `Cause` says which.
    """

    def __init__(self, message: str, cause: Cause, output: Sequence[str] = (), **values: str) -> None:
        self.message = message
        self.cause = cause
        self.output = tuple(output)
        self.values = values
        super().__init__(message)
