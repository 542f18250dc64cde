"""The values that the rest passes around: an interpreter, what a model asks for, a spec, a built environment."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

DIRECTORY_DIGITS = 32  # of the spec digest, in the name of an environment's directory

# `--vanilla` for the whole tree of processes: the children of `R CMD` look for these files again.
NO_INIT_FILES: Mapping[str, str] = dict.fromkeys(
    ("R_ENVIRON", "R_ENVIRON_USER", "R_PROFILE", "R_PROFILE_USER"), "/dev/null"
)


class Language(StrEnum):
    """What a model is written in."""

    PYTHON = "python"
    R = "r"


@dataclass(frozen=True)
class Interpreter:
    """A program that can run models, as it described itself when it was run."""

    name: str
    """Language and minor version, "python2.7" or "r3.6"; the path, where the program could not be asked."""
    language: Language
    version: str
    """Exact: "2.7.18"; "" where the program could not be asked."""
    path: Path
    """Absolute: the base Python's binary, or R's front end `<R home>/bin/R`."""
    found_by: str
    """Where it was found: "configuration", "PATH", "pyenv", "/opt/R", "/usr/lib/R" or "/usr/local/lib/R"."""
    platform: str = ""
    """What compiled packages depend on besides the version: "linux-x86_64 cp27mu", "x86_64-pc-linux-gnu"."""
    problem: str = ""
    """Why it cannot be used; "" if it can."""

    @property
    def usable(self) -> bool:
        """Whether environments can be built for it."""
        return not self.problem

    @property
    def version_info(self) -> tuple[int, ...]:
        """The version as numbers: (2, 7, 18)."""
        return tuple(int(part) for part in self.version.split(".") if part.isdigit())


@dataclass(frozen=True)
class Requirements:
    """What a model asks for, flattened: no file includes another any more."""

    language: Language
    requirements: tuple[str, ...] = ()
    """In the order given. Python: lines of a requirements file, options included. R: "pkg", "pkg==1.2", "pkg>=1.0"."""
    constraints: tuple[str, ...] = ()
    """Python: lines of a constraints file."""
    files: tuple[str, ...] = ()
    """Files and folders of the model, relative to its root, that installing reads: "wheels", "./package"."""
    files_digest: str = ""
    """SHA-256 (hex) over what lies in `files`; "" if there are none."""
    sources: tuple[str, ...] = ()
    """The files that were read, relative to the model's root, the first one first."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """Everything that decides what an environment holds. Made by `EnvironmentStore.specify`."""

    interpreter: Interpreter
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    """R: where packages come from, first one first. Python's index is the host's pip configuration."""
    files: tuple[str, ...] = ()
    files_digest: str = ""
    apart: tuple[str, ...] = ()
    """The packages of an environment that lies apart, since another one has the place of its spec: see `build`."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over canonical JSON of the above.

        Of the interpreter: name, exact version and platform, not its path: the digest means the same on every host
        and survives a move of the interpreter. An environment does point to a path; one whose interpreter has gone
        does not count as built (`EnvironmentStore.find`).
        """
        return digest_of(
            {
                "interpreter": [self.interpreter.name, self.interpreter.version, self.interpreter.platform],
                "requirements": self.requirements,
                "constraints": self.constraints,
                "repositories": self.repositories,
                "files": self.files,
                "files_digest": self.files_digest,
                **({"apart": self.apart} if self.apart else {}),
            }
        )

    def digest_with(self, lock: tuple[str, ...]) -> str:
        """The digest of the environment that has exactly these packages: wherever it lies, it is the same."""
        return digest_of([replace(self, apart=()).digest, lock, self.interpreter.version])


@dataclass(frozen=True)
class Environment:
    """A built environment, as its manifest describes it."""

    path: Path
    spec_digest: str
    """What was asked for."""
    digest: str
    """What was built: SHA-256 (hex) over spec digest, lock and interpreter version."""
    interpreter: Interpreter
    requirements: tuple[str, ...]
    """For display: passwords in URLs are masked."""
    lock: tuple[str, ...]
    """Every package inside, sorted: "numpy==1.16.6"."""
    size_bytes: int
    """Disk use, in whole blocks, when it was built."""
    created: float
    """Seconds since the epoch."""
    build_seconds: float
    repositories: tuple[str, ...] = ()
    """R: those of the spec."""

    @property
    def python(self) -> Path:
        """The program of a Python environment."""
        return self.path / "bin" / "python"

    @property
    def library(self) -> Path:
        """The private library of an R environment; `interpreter.path` is the front end to start."""
        return self.path / "library"

    @property
    def variables(self) -> Mapping[str, str]:
        """The variables a worker needs so that it sees this environment and no other library of the host."""
        return r_variables(self.library) if self.interpreter.language is Language.R else {}


def r_variables(library: Path) -> dict[str, str]:
    """Variables that leave R with `library` and its own base library, and without init files.

    R_LIBS_SITE must name something: unset or empty, R >= 4.2 and Debian's `etc/Renviron` put in the host's site
    libraries.
    """
    return {name: str(library) for name in ("R_LIBS", "R_LIBS_USER", "R_LIBS_SITE")} | dict(NO_INIT_FILES)


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a value as canonical JSON: sorted keys, no spaces, ASCII."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
