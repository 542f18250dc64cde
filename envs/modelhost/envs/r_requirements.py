"""What a model written in R asks for: from a DESCRIPTION or from a list with one package per line.

The format of dependencies is that of "Writing R Extensions", 1.1.3 Package Dependencies.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelhost.envs.errors import RequirementsInvalid
from modelhost.envs.values import Interpreter, Language, Requirements

_FIELDS = ("Depends", "Imports", "LinkingTo")
_ENTRY = re.compile(
    r"""(?P<name>[A-Za-z][A-Za-z0-9.]*) \s*
        (?: (?P<open>\()? \s* (?P<operator>>=|<=|==|!=|>|<) \s* (?P<version>\d+([.-]\d+)*) \s* (?P<close>\))? )?""",
    re.VERBOSE,
)


def read_r_requirements(
    interpreter: Interpreter, root: Path, text: str, file: str, inline: Sequence[str]
) -> Requirements:
    """Read a DESCRIPTION or a list of packages, then lines given inline. Raises `RequirementsInvalid`.

    A requirement of R itself is checked against the interpreter and left out.
    """
    is_description = file.rpartition("/")[2] == "DESCRIPTION"
    entries = [(file, *entry) for entry in (_description(text, file) if is_description else _list(text.splitlines()))]
    entries += [("", *entry) for entry in _list(inline)]
    requirements: list[str] = []
    for source, line, entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None or (match["open"] is None) != (match["close"] is None):
            raise RequirementsInvalid(f"{entry!r} is no package: write pkg, pkg==1.2.3 or pkg (>= 1.0)", source, line)
        name, operator, version = match["name"], match["operator"] or "", match["version"] or ""
        if name == "R":
            if operator and not _satisfies(interpreter.version, operator, version):
                raise RequirementsInvalid(
                    f"needs R {operator} {version}; this is R {interpreter.version}", source, line
                )
        else:
            requirements.append(f"{name}{operator}{version}")
    return Requirements(
        language=Language.R,
        requirements=tuple(dict.fromkeys(requirements)),
        sources=(file,) if file else (),
    )


def _list(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if entry := line.partition("#")[0].strip():
            yield number, entry


def _description(text: str, file: str) -> Iterator[tuple[int, str]]:
    """Yield the dependencies of a package, each with the number of the line that its field starts on."""
    for field, number, value in _fields(text, file):
        if field == "Remotes" and value.strip():
            raise RequirementsInvalid(
                "Remotes cannot be followed: name a repository that has the packages", file, number
            )
        if field in _FIELDS:
            for entry in value.split(","):
                if entry.strip():
                    yield number, entry.strip()


def _fields(text: str, file: str) -> Iterator[tuple[str, int, str]]:
    """Take a Debian control file apart, which DESCRIPTION is: `Name: value`, continued by indented lines."""
    name, start, value = "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            if not name:
                raise RequirementsInvalid("a DESCRIPTION starts with a field, 'Name: value'", file, number)
            value += " " + line.strip()
            continue
        if name:
            yield name, start, value
        name, colon, value = line.partition(":")
        name, start = name.strip(), number
        if not colon:
            raise RequirementsInvalid(f"{line.strip()!r} is no field of a DESCRIPTION, 'Name: value'", file, number)
    if name:
        yield name, start, value


def _satisfies(version: str, operator: str, wanted: str) -> bool:
    have, want = _numbers(version), _numbers(wanted)
    return {
        ">=": have >= want,
        "<=": have <= want,
        ">": have > want,
        "<": have < want,
        "==": have == want,
        "!=": have != want,
    }[operator]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.split(r"[.-]", version))
