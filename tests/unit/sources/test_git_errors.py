"""What is made of Git's own words. Each text was printed by a real git, ssh or host."""

import pytest

from modelhost.envs.process import CommandFailed
from modelhost.server.sources.git.errors import cause, explain, refuses_one_commit
from modelhost.server.sources.git.place import Repository
from modelhost.v1.error_reason_pb2 import ErrorReason

REPOSITORY = Repository("https://h/authentication failed", "https://h/model", "model")
NOISE = ["fatal: Could not read from remote repository.", "", "Please make sure you have the correct access rights"]


def failure(*lines: str, timed_out: bool = False) -> CommandFailed:
    return CommandFailed(["git", "fetch"], 128, lines, timed_out=timed_out)


@pytest.mark.parametrize(
    ("line", "reason", "sentence"),
    [
        ("ssh: Could not resolve hostname h: Name or service not known", "SOURCE_UNREACHABLE", "no known address"),
        ("fatal: unable to access 'u': Could not resolve host: h", "SOURCE_UNREACHABLE", "no known address"),
        (
            "fatal: unable to look up h (port 9418) (Name or service not known)",
            "SOURCE_UNREACHABLE",
            "no known address",
        ),
        ("ssh: connect to host h port 22: Connection refused", "SOURCE_UNREACHABLE", "cannot be reached"),
        ("fatal: unable to access 'u': Failed to connect to h port 1", "SOURCE_UNREACHABLE", "cannot be reached"),
        (
            "fatal: unable to access 'u': The requested URL returned error: 503",
            "SOURCE_UNREACHABLE",
            "returned error: 503",
        ),
        ("fatal: unable to access 'u': SSL certificate problem: expired", "SOURCE_UNREACHABLE", "secure connection"),
        (
            "fatal: unable to access 'u': The requested URL returned error: 403",
            "SOURCE_ACCESS_DENIED",
            "refused access",
        ),
        ("fatal: Authentication failed for 'u'", "SOURCE_ACCESS_DENIED", "refused access"),
        ("fatal: could not read Username for 'u': terminal prompts disabled", "SOURCE_ACCESS_DENIED", "refused access"),
        ("git@h: Permission denied (publickey).", "SOURCE_ACCESS_DENIED", "refused access"),
        ("Host key verification failed.", "SOURCE_ACCESS_DENIED", "known hosts"),
        ("fatal: detected dubious ownership in repository at '/x'", "SOURCE_ACCESS_DENIED", "another user"),
        ("fatal: repository 'u' not found", "PROJECT_NOT_FOUND", "not a Git repository"),
        ("fatal: '/x' does not appear to be a git repository", "PROJECT_NOT_FOUND", "not a Git repository"),
        (
            "fatal: remote error: access denied or repository not exported: /x",
            "PROJECT_NOT_FOUND",
            "not a Git repository",
        ),
    ],
)
def test_a_failure_has_a_reason_and_a_sentence(line: str, reason: str, sentence: str) -> None:
    error = explain(failure(line, *NOISE), REPOSITORY, 60)
    assert error is not None
    assert error.reason == ErrorReason.Value(f"ERROR_REASON_{reason}")
    assert sentence in error.message
    assert "https://h/model" in error.message


def test_a_timeout_says_how_long_was_waited() -> None:
    error = explain(failure(timed_out=True), REPOSITORY, 60)
    assert error is not None
    assert "60 s" in error.message


def test_the_name_of_a_project_explains_nothing() -> None:
    assert explain(failure("fatal: strange: https://h/authentication failed"), REPOSITORY, 60) is None


def test_the_cause_is_the_line_that_says_the_most() -> None:
    assert cause(failure("remote: busy", "ssh: connect: refused", *NOISE)) == "ssh: connect: refused"
    assert cause(failure("something", "fatal: bad thing", "")) == "bad thing"
    assert cause(failure()) == "exit code 128"


@pytest.mark.parametrize(
    ("line", "refuses"),
    [
        ("error: Server does not allow request for unadvertised object 1234", True),
        ("fatal: remote error: upload-pack: not our ref 1234", True),
        ("fatal: remote error: want 12ab not valid", True),
        ("fatal: dumb http transport does not support shallow capabilities", True),
        ("fatal: Authentication failed for 'u'", False),
    ],
)
def test_a_host_that_gives_no_single_commits_is_known_by_its_words(line: str, refuses: bool) -> None:
    assert refuses_one_commit(failure(line)) is refuses
