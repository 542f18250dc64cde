"""What to ask pip for so that it installs exactly what was locked before."""

import re
from collections.abc import Iterator, Sequence

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_PER_REQUIREMENT = re.compile(r"\s--?[a-z].*$")
_USERINFO = re.compile(r"://([^/@\s]+@)([^/@\s]+)")
_HOST = re.compile(r"://([^/@\s]+)(?=/|$)")


def options(requirements: Sequence[str]) -> tuple[str, ...]:
    """The lines that say where packages come from and how they are installed; not what only narrows a choice."""
    return tuple(line for line in requirements if line.startswith("-") and not line.startswith("-c "))


def own_packages(requirements: Sequence[str]) -> tuple[str, ...]:
    """The lines that name packages among the model's files. No index must be asked for these: it may have namesakes."""
    return tuple(line for line in requirements if line.startswith("./"))


def as_requirements(locked: Sequence[str], requirements: Sequence[str]) -> tuple[str, ...]:
    """The locked lines, with the hashes and options that the model gave for a package.

    Passwords of URLs are in no lock: they are put back from a requirement of the same host.
    """
    given = dict(_given(requirements))
    passwords = {host: userinfo for line in requirements for userinfo, host in _USERINFO.findall(line)}

    def with_password(match: re.Match[str]) -> str:
        return f"://{passwords.get(match[1], '')}{match[1]}"

    return tuple(_HOST.sub(with_password, line, count=1) + given.get(name_of(line), "") for line in locked)


def name_of(line: str) -> str:
    """The name of what a line asks for, or has locked, as PEP 503 compares it; "" for a bare URL or a path."""
    match = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match and "://" not in line.partition(" ")[0] else ""


def _given(requirements: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in requirements:
        if not line.startswith(("-", "./")) and (match := _PER_REQUIREMENT.search(line)):
            yield name_of(line), match[0]
