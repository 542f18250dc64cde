"""Which Pythons and Rs this host has: look where they are usually installed, run each candidate, keep the best."""

import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from modelhost.envs.probe import Answer, ask_python, ask_r
from modelhost.envs.values import Interpreter, Language

PROBES_AT_ONCE = 8
HOPS = 3  # wrapper script, virtual environment, interpreter
CONFIGURATION = "configuration"
_PYTHON_NAME = re.compile(r"python(\d(\.\d+)?)?")
_PROGRAM_NAME = re.compile(r"python[\d.]*m?|R")
# Where Posit's and other builds put R side by side, Debian's place, and that of `make install`.
_R_PLACES = (("/opt/R", "*/bin/R"), ("/usr/lib/R", "bin/R"), ("/usr/local/lib/R", "bin/R"))


@dataclass(frozen=True)
class _Candidate:
    program: Path
    language: Language
    found_by: str


def find_interpreters(
    configured: Sequence[Path] = (),
    *,
    languages: Container[Language] = tuple(Language),
    environ: Mapping[str, str] = os.environ,
) -> list[Interpreter]:
    """Find every CPython and R, or those of some languages, one per name, sorted by language and version.

    Looks at `configured` programs, the PATH, pyenv's versions (`PYENV_ROOT`, `~/.pyenv`), `/opt/R`, `/usr/lib/R` and
    `/usr/local/lib/R`. Every candidate is run, several at a time, for 10 seconds at most each. A virtual environment
    stands for the Python it was made from. For one name the configured program wins (the first of several, and also
    one that cannot be used: its `problem` says why), then a usable one, then the highest patch version.

    What is not an interpreter is passed over; a configured one that does not answer is listed under its path, with the
    problem.
    """
    candidates = [each for each in _distinct(_candidates(configured, environ)) if each.language in languages]
    with ThreadPoolExecutor(PROBES_AT_ONCE, thread_name_prefix="probe") as pool:
        answers = list(pool.map(lambda candidate: _ask(candidate, environ), candidates))
    found = [answer for answer in answers if answer is not None]
    best: dict[str, Interpreter] = {}
    for interpreter in found:
        rival = best.get(interpreter.name)
        if rival is None or _rank(interpreter) > _rank(rival):
            best[interpreter.name] = interpreter
    return sorted(best.values(), key=lambda one: (one.language, one.version_info, one.name))


def _rank(interpreter: Interpreter) -> tuple[bool, bool, tuple[int, ...]]:
    """Higher is better; of equals the one found first stays."""
    if interpreter.found_by == CONFIGURATION:
        return True, True, ()
    return False, interpreter.usable, interpreter.version_info


def _ask(candidate: _Candidate, environ: Mapping[str, str]) -> Interpreter | None:
    ask = ask_r if candidate.language is Language.R else ask_python
    program = candidate.program
    for _ in range(HOPS):
        answer: Answer | None = ask(program, candidate.found_by, environ)
        if answer is None:
            break
        if answer.elsewhere is None:
            return answer.interpreter
        program = answer.elsewhere
    if candidate.found_by != CONFIGURATION:
        return None
    what = "R" if candidate.language is Language.R else "CPython"
    return Interpreter(
        name=str(candidate.program),
        language=candidate.language,
        version="",
        path=candidate.program,
        found_by=CONFIGURATION,
        problem=f"{candidate.program} does not answer as {what}"
        if os.path.exists(candidate.program)
        else "no such file",
    )


def _candidates(configured: Iterable[Path], environ: Mapping[str, str]) -> Iterator[_Candidate]:
    """Every program worth asking, the preferred places first."""
    for program in configured:
        is_r = program.name in {"R", "Rscript"}
        yield _Candidate(
            Path(os.path.abspath(program.with_name("R") if is_r else program)),
            Language.R if is_r else Language.PYTHON,
            CONFIGURATION,
        )
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.isabs(folder):  # an empty or relative entry means wherever the server was started
            yield from _in_folder(Path(folder), "PATH")
    roots = [Path(environ["PYENV_ROOT"])] if environ.get("PYENV_ROOT") else []
    if environ.get("HOME"):
        roots.append(Path(environ["HOME"], ".pyenv"))
    for root in roots:
        for program in sorted(root.glob("versions/*/bin/python")):
            yield _Candidate(program, Language.PYTHON, "pyenv")
    for place, pattern in _R_PLACES:
        for program in sorted(Path(place).glob(pattern)):
            yield _Candidate(program, Language.R, place)


def _in_folder(folder: Path, found_by: str) -> Iterator[_Candidate]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if name == "R":
            yield _Candidate(folder / name, Language.R, found_by)
        elif _PYTHON_NAME.fullmatch(name):
            yield _Candidate(folder / name, Language.PYTHON, found_by)


def _distinct(candidates: Iterable[_Candidate]) -> Iterator[_Candidate]:
    """Leave out what leads to the same file by another name: `/bin` is often `/usr/bin`, `python3` a link."""
    seen: set[Path] = set()
    for candidate in candidates:
        real = Path(os.path.realpath(candidate.program))
        # A link to an interpreter is as good as what it leads to; what a link to a shim starts, its own name decides.
        program = real if _PROGRAM_NAME.fullmatch(real.name) else candidate.program
        executable = os.path.isfile(program) and os.access(program, os.X_OK)
        if candidate.found_by == CONFIGURATION or (executable and program not in seen):
            yield replace(candidate, program=program) if executable else candidate
        seen.add(program)
