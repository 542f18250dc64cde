"""What is made of the output of failed commands. The outputs are real ones, shortened."""
# ruff: noqa: E501 - what other programs wrote

from pathlib import Path

import pytest

from modelhost.envs import Cause, CommandFailed, Interpreter, Language
from modelhost.envs.failures import explain_creation, explain_pip, explain_r

RECORDED = Path(__file__).parent / "recorded"
PYTHON = Interpreter("python3.6", Language.PYTHON, "3.6.15", Path("/usr/bin/python3.6"), "PATH")
R = Interpreter("r3.6", Language.R, "3.6.3", Path("/usr/lib/R/bin/R"), "PATH")


def failed(output: str, exit_code: int = 1, *, timed_out: bool = False) -> CommandFailed:
    return CommandFailed(["pip"], exit_code, output.strip().splitlines(), timed_out=timed_out)


# A cause, a part of the message, and what is known besides.
PIP = {
    "an index that cannot be reached": (
        """
WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError('<x.HTTPConnection object at 0x7f>: Failed to establish a new connection: [Errno 111] Connection refused',)': /simple/six/
ERROR: Could not find a version that satisfies the requirement six (from versions: none)
ERROR: No matching distribution found for six
""",
        Cause.INDEX_UNREACHABLE,
        "the package index cannot be reached: Failed to establish a new connection: [Errno 111] Connection refused",
        {},
    ),
    "a host name that is not known": (
        """
WARNING: Retrying (Retry(total=4)) after connection broken by 'NameResolutionError("<x>: Failed to resolve 'i.example' ([Errno -3] Temporary failure in name resolution)")': /simple/six/
ERROR: No matching distribution found for six
""",
        Cause.INDEX_UNREACHABLE,
        "Temporary failure in name resolution",
        {},
    ),
    "a name that does not exist, seen by Python 2.7's pip": (
        """
ERROR: Could not find a version that satisfies the requirement nope (from -r /s/.build/requirements.txt (line 1)) (from versions: none)
ERROR: No matching distribution found for nope (from -r /s/.build/requirements.txt (line 1))
""",
        Cause.PACKAGE_NOT_FOUND,
        "No matching distribution found for nope",
        {},
    ),
    "a header of Python's own": (
        "    x.c:1:10: fatal error: Python.h: No such file or directory\n    error: command 'gcc' failed",
        Cause.LIBRARY_MISSING,
        "Python.h",
        {"missing": "Python.h", "package": "python3.6-dev"},
    ),
    "another Python": (
        """
ERROR: Package 'x' requires a different Python: 3.6.15 not in '>=3.8'
ERROR: Could not find a version that satisfies the requirement x (from versions: 1.0)
ERROR: No matching distribution found for x
""",
        Cause.OTHER_PYTHON,
        "Package 'x' requires a different Python: 3.6.15 not in '>=3.8'",
        {},
    ),
    "a conflict": (
        """
ERROR: Cannot install -r /s/.build/requirements.txt (line 1) and idna==2.0 because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/
""",
        Cause.CONFLICT,
        "Cannot install requests==2.27.1 and idna==2.0 because these package versions have conflicting dependencies.",
        {},
    ),
    "a setup.py that raises": (
        """
    ERROR: Command errored out with exit status 1:
      File "setup.py", line 1, in <module>
    SyntaxError: invalid syntax
    ----------------------------------------
ERROR: Command errored out with exit status 1: python setup.py egg_info Check the logs for full command output.
""",
        Cause.BUILD_RAISED,
        "SyntaxError: invalid syntax",
        {},
    ),
    "something new": ("what\nERROR: the moon is full\nmore", Cause.UNKNOWN, "the moon is full", {}),
    "silence": ("", Cause.UNKNOWN, "pip failed", {}),
}


@pytest.mark.parametrize("name", PIP)
def test_why_pip_failed(name: str) -> None:
    output, cause, message, values = PIP[name]
    failure = explain_pip(failed(output), PYTHON, ["requests==2.27.1", "idna==2.0"])
    assert failure.cause is cause
    assert message in failure.message
    assert failure.values == {"name": "python3.6", "version": "3.6.15", **values}
    assert "/.build/" not in failure.message


@pytest.mark.parametrize("path", sorted(RECORDED.iterdir()), ids=lambda path: path.stem)
def test_why_pip_failed_for_real(path: Path) -> None:
    """A recording's first line has what is to be found in the rest."""
    first, _, output = path.read_text(encoding="utf-8").partition("\n")
    cause, *values = first.split()
    failure = explain_pip(failed(output), PYTHON)
    assert failure.cause == cause
    known = {name: value.replace("+", " ") for name, _, value in (pair.partition("=") for pair in values)}
    assert {name: failure.values[name] for name in known} == known
    assert failure.message


def test_a_message_is_no_longer_than_a_line_can_be() -> None:
    assert len(explain_pip(failed("ERROR: " + "x" * 9000), PYTHON).message) == 500


def test_a_killed_or_endless_command_says_so() -> None:
    assert explain_pip(failed("", -9), PYTHON).cause is Cause.KILLED
    endless = explain_r(failed("", -15, timed_out=True), "", "", R)
    assert (endless.cause, "took too long" in endless.message) == (Cause.TOOK_TOO_LONG, True)
    assert "signal 11" in explain_creation(failed("", -11), PYTHON).message


def test_an_environment_that_cannot_be_made_points_to_the_interpreter() -> None:
    failure = explain_creation(failed("RuntimeError: failed to query /usr/bin/python3.6"), PYTHON)
    assert failure.cause is Cause.INTERPRETER
    assert failure.message == "RuntimeError: failed to query /usr/bin/python3.6"


@pytest.mark.parametrize(
    ("output", "kind", "message", "cause", "expected", "package"),
    [
        ("", "unreachable", "cannot open URL", Cause.R_INDEX_UNREACHABLE, "cannot open URL", ""),
        ("", "unavailable", "x is in none", Cause.R_PACKAGE_NOT_FOUND, "x is in none", ""),
        ("", "r-version", "x needs R >= 4.0", Cause.R_VERSION, "x needs R >= 4.0", ""),
        (
            "a.c:1:10: fatal error: curl/curl.h: No such file or directory\nERROR: compilation failed",
            "install",
            "curl 4.3 cannot be installed",
            Cause.LIBRARY_MISSING,
            "curl 4.3 cannot be installed: a.c:1:10: fatal error: curl/curl.h: No such file or directory",
            "libcurl4-openssl-dev",
        ),
        (
            "Configuration failed because libxml-2.0 was not found. Try installing:\n"
            " * deb: libxml2-dev (Debian, Ubuntu, etc)\n * rpm: libxml2-devel (Fedora, CentOS, RHEL)\n"
            "ERROR: configuration failed for package 'xml2'",
            "install",
            "xml2 1.3 cannot be installed",
            Cause.LIBRARY_MISSING,
            "xml2 1.3 cannot be installed: Configuration failed because libxml-2.0 was not found. Try installing:",
            "libxml2-dev",
        ),
        (
            "Configuration failed because libnosuch was not found.\nERROR: configuration failed for package 'x'",
            "install",
            "x 1.0 cannot be installed",
            Cause.LIBRARY_UNNAMED,
            "x 1.0 cannot be installed: Configuration failed because libnosuch was not found.",
            "",
        ),
        ("Error : odd", "install", "x cannot be installed", Cause.R_INSTALL, "x cannot be installed", ""),
        ("Error : no R at all", "", "", Cause.UNKNOWN, "Error : no R at all", ""),
    ],
)
def test_why_r_failed(output: str, kind: str, message: str, cause: Cause, expected: str, package: str) -> None:
    failure = explain_r(failed(output), kind, message, R)
    assert (failure.cause, failure.message) == (cause, expected)
    assert failure.values.get("package", "") == package
