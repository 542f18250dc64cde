"""The catalogue of causes: what people read is what the tools print, recognised."""

import re
from pathlib import Path

import pytest

from modelhost.envs import Cause, CommandFailed, Interpreter, Language
from modelhost.envs.failures import explain_creation, explain_pip, explain_r
from modelhost.server.catalogue import ENTRIES, Entry, Step, hint_for, named, of_build_failure, of_load_failure
from modelhost.server.errors import reason_name

RECORDED = Path(__file__).parent / "recorded_loads"
PYTHON = Interpreter("python3.6", Language.PYTHON, "3.6.15", Path("/usr/bin/python3.6"), "PATH")
R = Interpreter("r3.6", Language.R, "3.6.3", Path("/usr/lib/R/bin/R"), "PATH")
# What install_packages.R leaves beside its output.
R_KINDS = {
    Cause.R_PACKAGE_NOT_FOUND: "unavailable",
    Cause.R_VERSION: "r-version",
    Cause.R_INDEX_UNREACHABLE: "unreachable",
    Cause.R_INSTALL: "install",
    Cause.R_LOAD: "load",
    Cause.R_CONFLICT: "install",
}
OF_BUILDS = [entry for entry in ENTRIES if entry.cause and entry.seen]
OF_LOADS = [entry for entry in ENTRIES if entry.step is Step.LOAD and entry.seen and "\n" in entry.seen]


def ids(entry: Entry) -> str:
    return entry.title


def error_of(traceback: str) -> str:
    """A traceback's error as workers tell it: in one line, in R without the call."""
    lines = traceback.splitlines()
    if not lines[0].startswith("Traceback"):
        return re.sub(r"^Error( in .*\))?: ", "", lines[-1])
    first = max(number for number, line in enumerate(lines) if re.match(r"[\w.]+: ", line))
    return re.sub(r"^_pickle\.", "", " ".join(lines[first:]))


@pytest.mark.parametrize("entry", OF_BUILDS, ids=ids)
def test_what_an_installer_prints_is_recognised_as_its_entry_says(entry: Entry) -> None:
    error = CommandFailed(["pip"], 1, entry.seen.splitlines())
    if entry.cause is Cause.INTERPRETER:
        failure = explain_creation(error, PYTHON)
    elif entry.cause in R_KINDS:
        failure = explain_r(error, R_KINDS[entry.cause], "x", R)
    else:
        failure = explain_pip(error, PYTHON)

    found = of_build_failure(failure)

    assert found.entry == entry
    assert found.hint == entry.cure.format_map(entry.values)


@pytest.mark.parametrize("entry", OF_LOADS, ids=ids)
def test_what_a_worker_tells_is_recognised_as_its_entry_says(entry: Entry) -> None:
    found = of_load_failure(error_of(entry.seen), entry.seen)

    assert found
    assert found.entry == entry
    assert found.hint == entry.cure.format_map(entry.values)


def test_every_cause_of_a_build_has_one_entry() -> None:
    assert sorted(entry.cause for entry in ENTRIES if entry.cause) == sorted(Cause)


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_an_entry_says_why_and_what_to_do_in_sentences(entry: Entry) -> None:
    assert re.search(r"[.?]$", entry.why)
    assert re.search(r"[.?]$", entry.cure)
    assert not re.search(r"[.]$", entry.title)
    assert "{" not in hint_for(entry.reason)


def test_titles_are_headings_of_their_own() -> None:
    titles = [entry.title for entry in ENTRIES]

    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("path", sorted(RECORDED.iterdir()), ids=lambda path: path.stem)
def test_a_real_traceback_is_recognised(path: Path) -> None:
    """A recording's first line has the reason and a part of the hint, or `-` if it is of no known cause."""
    expected, _, traceback = path.read_text(encoding="utf-8").partition("\n")
    reason, _, hint = expected.partition("|")

    found = of_load_failure(error_of(traceback), traceback)

    assert (reason_name(found.entry.reason) if found else "-") == reason
    assert not found or hint in found.hint


def test_the_commands_of_a_hint_have_the_names_of_the_deployment_and_its_source() -> None:
    hint = "NAME is set by `modelhost update NAME --ref REF`; `modelhost source test SOURCE` tries SOURCE."

    assert named(hint, "churn", "models") == (
        "NAME is set by `modelhost update churn --ref REF`; `modelhost source test models` tries SOURCE."
    )
