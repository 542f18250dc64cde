"""What is made of the output of failed commands. The outputs are real ones, shortened."""
# ruff: noqa: E501 - what other programs wrote

from pathlib import Path

import pytest

from modelhost.envs import CommandFailed, Interpreter, Language
from modelhost.envs.failures import explain_creation, explain_pip, explain_r

PYTHON = Interpreter("python3.6", Language.PYTHON, "3.6.15", Path("/usr/bin/python3.6"), "PATH")
R = Interpreter("r3.6", Language.R, "3.6.3", Path("/usr/lib/R/bin/R"), "PATH")


def failed(output: str, exit_code: int = 1, *, timed_out: bool = False) -> CommandFailed:
    return CommandFailed(["pip"], exit_code, output.strip().splitlines(), timed_out=timed_out)


PIP = {
    "a version that does not exist": (
        """
ERROR: Could not find a version that satisfies the requirement scikit-learn==99 (from versions: 0.9, 0.24.1, 0.24.2, 1.0rc1)
ERROR: No matching distribution found for scikit-learn==99
""",
        "requirements",
        "No matching distribution found for scikit-learn==99",
        "the newest version for Python 3.6.15 is 0.24.2",
    ),
    "a name that does not exist, seen by Python 2.7's pip": (
        """
ERROR: Could not find a version that satisfies the requirement nope (from -r /s/.build/requirements.txt (line 1)) (from versions: none)
ERROR: No matching distribution found for nope (from -r /s/.build/requirements.txt (line 1))
""",
        "requirements",
        "No matching distribution found for nope",
        "check the name",
    ),
    "an index that cannot be reached": (
        """
WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError('<x.HTTPConnection object at 0x7f>: Failed to establish a new connection: [Errno 111] Connection refused',)': /simple/six/
ERROR: Could not find a version that satisfies the requirement six (from versions: none)
ERROR: No matching distribution found for six
""",
        "environment",
        "the package index cannot be reached: Failed to establish a new connection: [Errno 111] Connection refused",
        "network, proxy",
    ),
    "a host name that is not known": (
        """
WARNING: Retrying (Retry(total=4)) after connection broken by 'NameResolutionError("<x>: Failed to resolve 'i.example' ([Errno -3] Temporary failure in name resolution)")': /simple/six/
ERROR: No matching distribution found for six
""",
        "environment",
        "Temporary failure in name resolution",
        "network, proxy",
    ),
    "a header that is missing": (
        """
    x.c:1:10: fatal error: hdf5.h: No such file or directory
    error: command 'gcc' failed with exit status 1
ERROR: Failed building wheel for tables
""",
        "environment",
        "fatal error: hdf5.h: No such file or directory",
        "no wheel of this version fits python3.6",
    ),
    "a compiler that is missing": (
        "    unable to execute 'gcc': No such file or directory\n    error: command 'gcc' failed with exit status 1",
        "environment",
        "gcc",
        "compiler",
    ),
    "another Python": (
        """
ERROR: Package 'x' requires a different Python: 3.6.15 not in '>=3.8'
ERROR: Could not find a version that satisfies the requirement x (from versions: 1.0)
ERROR: No matching distribution found for x
""",
        "requirements",
        "Package 'x' requires a different Python: 3.6.15 not in '>=3.8'",
        "another runtime",
    ),
    "a conflict": (
        """
ERROR: Cannot install -r /s/.build/requirements.txt (line 1) and idna==2.0 because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/
""",
        "requirements",
        "Cannot install requests==2.27.1 and idna==2.0 because these package versions have conflicting dependencies.",
        "loosen one",
    ),
    "a setup.py that raises": (
        """
    ERROR: Command errored out with exit status 1:
      File "setup.py", line 1, in <module>
    SyntaxError: invalid syntax
    ----------------------------------------
ERROR: Command errored out with exit status 1: python setup.py egg_info Check the logs for full command output.
""",
        "requirements",
        "SyntaxError: invalid syntax",
        "another Python than 3.6.15",
    ),
    "a full disk": (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "environment",
        "No space left on device",
        "make room",
    ),
    "a refused password": (
        "ERROR: HTTP error 401 while getting https://x\nERROR: 401 Client Error: Unauthorized for url: https://x/simple/",
        "environment",
        "401 Client Error",
        "credentials",
    ),
    "something new": ("what\nERROR: the moon is full\nmore", "environment", "the moon is full", "see the log"),
    "silence": ("", "environment", "pip failed", "see the log"),
}


@pytest.mark.parametrize("name", PIP)
def test_why_pip_failed(name: str) -> None:
    output, kind, message, hint = PIP[name]
    failure = explain_pip(failed(output), PYTHON, ["requests==2.27.1", "idna==2.0"])
    assert failure.kind == kind
    assert message in failure.message
    assert hint in failure.hint
    assert "/.build/" not in failure.message


def test_a_message_is_no_longer_than_a_line_can_be() -> None:
    assert len(explain_pip(failed("ERROR: " + "x" * 9000), PYTHON).message) == 500


def test_a_killed_or_endless_command_says_so() -> None:
    assert "out of memory" in explain_pip(failed("", -9), PYTHON).hint
    assert "took too long" in explain_r(failed("", -15, timed_out=True), "", "", R).message
    assert "signal 11" in explain_creation(failed("", -11), PYTHON).message


def test_an_environment_that_cannot_be_made_points_to_the_interpreter() -> None:
    failure = explain_creation(failed("RuntimeError: failed to query /usr/bin/python3.6"), PYTHON)
    assert (failure.kind, failure.message) == ("environment", "RuntimeError: failed to query /usr/bin/python3.6")
    assert "/usr/bin/python3.6" in failure.hint


@pytest.mark.parametrize(
    ("output", "kind", "message", "expected", "hint"),
    [
        ("", "unreachable", "cannot open URL", ("environment", "cannot open URL"), "repositories"),
        ("", "unavailable", "x is in none of them", ("requirements", "x is in none of them"), "name"),
        ("", "r-version", "x needs R >= 4.0", ("requirements", "x needs R >= 4.0"), "r3.6's time"),
        (
            "a.c:1:10: fatal error: curl/curl.h: No such file or directory\nERROR: compilation failed",
            "install",
            "curl 4.3 cannot be installed",
            (
                "environment",
                "curl 4.3 cannot be installed: a.c:1:10: fatal error: curl/curl.h: No such file or directory",
            ),
            "system library",
        ),
        (
            "Configuration failed because libcurl was not found. Try installing:\n * deb: libcurl4-openssl-dev\n"
            "ERROR: configuration failed for package 'curl'",
            "install",
            "curl 4.3 cannot be installed",
            (
                "environment",
                "curl 4.3 cannot be installed: Configuration failed because libcurl was not found. Try installing:",
            ),
            "the log says which",
        ),
        ("Error : odd", "install", "x cannot be installed", ("requirements", "x cannot be installed"), "see the log"),
        ("Error : no R at all", "", "", ("environment", "Error : no R at all"), "see the log"),
    ],
)
def test_why_r_failed(output: str, kind: str, message: str, expected: tuple[str, str], hint: str) -> None:
    failure = explain_r(failed(output), kind, message, R)
    assert (failure.kind, failure.message) == expected
    assert hint in failure.hint
