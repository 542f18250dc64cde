"""What a failed build has not found on this host: a header, a library, a tool."""

import re
from collections.abc import Iterable

from modelhost.envs.system_packages import debian_package

# What build tools say of a thing that is missing. The first pattern that some line fits is it; those in the second
# table count only where the thing is a known one, for scripts try much that they can do without.
_SURE = tuple(
    re.compile(pattern)
    for pattern in (
        r"^\s*\* deb: (?P<package>[\w.+-]+)",  # configure scripts of R packages
        r"unable to execute '?(?P<missing>[\w.+-]+)'?: No such file",
        r"fatal error: '?(?P<missing>[^:'\s]+)'?(: No such file| file not found)",
        r"(?P<missing>lib[\w.+-]+\.so[\d.]*): cannot open shared object file",
        r"cannot find -l(?P<missing>[\w.+-]+)",
        r"[Nn]o package '(?P<missing>[\w.+-]+)' found",
        r"Package (?P<missing>[\w.+-]+) was not found in the pkg-config search path",
        r"can't find (?P<missing>Rust) compiler",
        r"[Nn]o (?P<missing>Fortran) compiler",
        r"(?P<missing>CMake) must be installed",
    )
)
_WHERE_KNOWN = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<missing>[\w.+-]+): (command )?not found",
        r"(?P<missing>\w+_config)( executable)? not found",
        r"Could not run (?P<missing>[\w-]+)",
        r"No such file or directory: u?'(?P<missing>[\w.+-]+)'",
        r"Could not find library (?P<missing>\w+) or load",
        r"in library (?P<missing>\w+)\. Is \w+ installed",
        r"make sure the (?P<missing>\w+) and \w+ development packages",
        r"Could not find a local (?P<missing>\w+) installation",
        r"library files could not be found for (?P<missing>\w+)",
        r"(?P<missing>[\w+-]+) failed: No such file or directory",
        r"No (?P<missing>lapack)/blas resources found",
        r"Command '\['pkg-config',.*'(?P<missing>[\w.+-]+)'\]' returned non-zero",
    )
)


def missing_from_system(output: Iterable[str], python: str = "") -> tuple[str, str, str]:
    """Return the line that says so, what is missing, and the package that has it: "" if that is unknown.

    All three are "" where the output tells of nothing missing.
    """
    lines = list(output)
    for patterns, sure in ((_SURE, True), (_WHERE_KNOWN, False)):
        for pattern in patterns:
            for line in reversed(lines):
                if match := pattern.search(line):
                    found = match.groupdict()
                    missing = found.get("missing") or found["package"]
                    package = found.get("package") or debian_package(missing, python)
                    if package or sure:
                        return line, missing, package
    return "", "", ""
