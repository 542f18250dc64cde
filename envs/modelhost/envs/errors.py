"""What can go wrong while an environment is described or built.

    EnvironmentProblem
    ├── RequirementsInvalid   the model's requirements cannot be read: the author mends a file
    └── BuildFailed           the environment cannot be built: kind says whose fault it most likely is

`process.Cancelled` (nobody wants the environment any more) is no failure and stands apart.
"""

from collections.abc import Sequence
from typing import Literal

FailureKind = Literal["requirements", "environment"]


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

    `message` is the one line that says what went wrong, `hint` what a person can do about it ("" if nothing better
    than the log is known), `output` the last lines of the command that failed. `kind` is "requirements" where the
    model's author can mend it (a version that does not exist), "environment" where the host needs something (a
    compiler, a network, space on the disk).
    """

    def __init__(self, message: str, kind: FailureKind, hint: str = "", output: Sequence[str] = ()) -> None:
        self.message = message
        self.kind: FailureKind = kind
        self.hint = hint
        self.output = tuple(output)
        super().__init__(message)
