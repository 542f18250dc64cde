"""Finding interpreters: the real ones of this host, and programs that only look like some."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from modelhost.envs import Interpreter, Language, find_interpreters, probe

PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")


@pytest.fixture(scope="module")
def found() -> dict[str, Interpreter]:
    return {interpreter.name: interpreter for interpreter in find_interpreters()}


@pytest.fixture
def python27(found: Mapping[str, Interpreter]) -> Interpreter:
    assert "python2.7" in found, "these tests need a Python 2.7 on the PATH or in pyenv"
    return found["python2.7"]


Folder = Callable[..., Path]


@pytest.fixture
def programs(tmp_path: Path) -> Folder:
    """Make a folder with programs: a text becomes a shell script, a path a link."""

    def make(folder: str = "bin", **contents: str | Path) -> Path:
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            program = place / name.replace("_", ".")
            if isinstance(content, Path):
                program.symlink_to(content)
            else:
                program.write_text(f"#!/bin/sh\n{content}\n")
                program.chmod(0o755)
        return place

    return make


def only(path: Path | str, home: Path | str = "/nonexistent") -> list[Interpreter]:
    """What is found by a PATH; the Rs of the host, which are looked for in fixed places, are left out."""
    found = find_interpreters(environ={"PATH": str(path), "HOME": str(home)})
    return [interpreter for interpreter in found if interpreter.language is Language.PYTHON]


def test_the_interpreters_this_project_is_for_are_found_and_usable(found: Mapping[str, Interpreter]) -> None:
    for name, language in (("python2.7", Language.PYTHON), ("python3.6", Language.PYTHON)):
        assert name in found, f"these tests need {name} on the PATH or in pyenv"
        assert found[name].problem == ""
        assert found[name].language is language
    rs = [interpreter for interpreter in found.values() if interpreter.language is Language.R]
    assert rs, "these tests need an R"
    assert [r.problem for r in rs if r.problem] == []


def test_an_interpreter_is_what_it_says_it_is(found: Mapping[str, Interpreter]) -> None:
    for interpreter in found.values():
        if interpreter.language is Language.PYTHON:
            code = "import platform; print(platform.python_version())"
            said = subprocess.check_output([interpreter.path, "-c", code], text=True)
        else:
            code = "cat(paste(R.version$major, R.version$minor, sep = '.'))"
            said = subprocess.check_output([interpreter.path, "--vanilla", "--slave", "-e", code], text=True)
        assert said.strip() == interpreter.version
        assert interpreter.path.is_absolute()
        assert not interpreter.path.is_symlink()
        assert interpreter.name == interpreter.language.value + interpreter.version.rpartition(".")[0]
        assert interpreter.platform


def test_the_order_is_by_language_and_version(found: Mapping[str, Interpreter]) -> None:
    keys = [(interpreter.language, interpreter.version_info) for interpreter in found.values()]
    assert keys == sorted(keys)


def test_shims_and_impostors_are_passed_over(programs: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.5)
    folder = programs(
        python2_7="echo 'pyenv: python2.7: command not found' >&2; exit 127",
        python3_4="echo Python 3.4.0",
        python3_5='echo \'<modelhost-probe>{"version": "3.5.1"}</modelhost-probe>\'',
        python3_6="echo '<modelhost-probe>[]</modelhost-probe>'",
        python3_7="exec sleep 600",
        python3_8="kill -9 $$",
        python3="exec yes",
        python3_10="exec cat /dev/zero",
    )
    (folder / "python3.9").write_text("not executable")
    (folder / "python").symlink_to("nothing")
    (folder / "python3.11").mkdir()
    (folder / "python3.12").symlink_to("python3.12")
    assert only(folder) == []


def test_a_wrapper_leads_to_the_interpreter_behind_it(programs: Folder, python27: Interpreter) -> None:
    folder = programs(python=f'echo welcome; exec {python27.path} "$@"')
    (found,) = only(folder)
    assert (found.name, found.path, found.found_by) == ("python2.7", python27.path, "PATH")


def test_a_link_leads_to_the_interpreter_behind_it(programs: Folder, python27: Interpreter) -> None:
    (found,) = only(programs(python2_7=python27.path))
    assert found.path == python27.path


def test_a_shim_that_goes_by_its_name_is_called_by_it(programs: Folder, python27: Interpreter) -> None:
    shim = programs("shims", shim=f'[ "${{0##*/}}" = python2.7 ] && exec {python27.path} "$@"') / "shim"
    (found,) = only(programs(python3_9=shim, python2_7=shim))
    assert (found.name, found.path) == ("python2.7", python27.path)


@pytest.mark.parametrize("copies", [False, True])
def test_a_virtual_environment_stands_for_its_base(
    tmp_path: Path, found: Mapping[str, Interpreter], copies: bool
) -> None:
    for name in ("python2.7", "python3.6"):
        how = ["--copies"] if copies else []
        subprocess.run(
            [sys.executable, "-m", "virtualenv", "-q", "-p", found[name].path, "--no-seed", *how, tmp_path / name],
            check=True,
        )
        (got,) = only(tmp_path / name / "bin")
        assert (got.path, got.version) == (found[name].path, found[name].version)


def test_a_folders_own_modules_do_not_fool_the_probe(
    programs: Folder, python27: Interpreter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert [found.name for found in only(programs(python2_7=python27.path))] == ["python2.7"]


def test_empty_and_relative_places_of_the_path_are_not_searched(
    programs: Folder, python27: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = programs(python2_7=python27.path)
    monkeypatch.chdir(folder)
    assert only(":.:../bin:/nonexistent") == []


def test_pyenv_is_searched_below_its_root_and_the_home(tmp_path: Path, python27: Interpreter) -> None:
    program = tmp_path / ".pyenv" / "versions" / "2.7.18" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(python27.path)
    (found,) = only("/nonexistent", home=tmp_path)
    assert found.found_by == "pyenv"
    again = find_interpreters(environ={"PATH": "", "PYENV_ROOT": str(tmp_path / ".pyenv")})
    assert found in again


def fake(version: str, path: Path, missing: str = "") -> str:
    """A shell script that says it is a CPython."""
    answer = (
        '{"implementation": "CPython", "version": "%s", "path": "%s", "base": "", "platform": "x", "missing": [%s]}'
    )
    said = answer % (version, path, f'"{missing}"' if missing else "")
    return f"echo '<modelhost-probe>{said}</modelhost-probe>'"


def test_the_highest_patch_version_wins_unless_it_cannot_be_used(programs: Folder, tmp_path: Path) -> None:
    one = programs("one", python3_6=fake("3.6.9", tmp_path / "one/python3.6"))
    two = programs("two", python3_6=fake("3.6.15", tmp_path / "two/python3.6"))
    bad = programs("bad", python3_6=fake("3.6.16", tmp_path / "bad/python3.6", missing="ssl"))
    (found,) = only(f"{one}:{bad}:{two}")
    assert found.version == "3.6.15"
    (found,) = only(f"{bad}")
    assert not found.usable
    assert found.problem == "this Python was built without ssl, which pip needs"


def test_what_is_configured_wins_in_the_order_given(programs: Folder, tmp_path: Path) -> None:
    path = programs("path", python3_6=fake("3.6.15", tmp_path / "path/python3.6"))
    one = programs("one", python3_6=fake("3.6.9", tmp_path / "one/python3.6", missing="zlib"))
    two = programs("two", python3_6=fake("3.6.10", tmp_path / "two/python3.6"))
    environ = {"PATH": str(path)}
    (found,) = [
        interpreter
        for interpreter in find_interpreters([one / "python3.6", two / "python3.6"], environ=environ)
        if interpreter.language is Language.PYTHON
    ]
    assert (found.version, found.found_by) == ("3.6.9", "configuration")
    assert "zlib" in found.problem


def test_a_configured_program_that_does_not_answer_is_listed_with_its_problem(programs: Folder) -> None:
    broken = programs(python3_6="exit 1") / "python3.6"
    missing = Path("/nonexistent/bin/R")
    found = {one.name: one for one in find_interpreters([broken, missing], environ={"PATH": ""})}
    assert found[str(broken)].problem == f"{broken} does not answer as CPython"
    assert (found[str(missing)].language, found[str(missing)].problem) == (Language.R, "no such file")
    assert not any(found[name].usable for name in (str(broken), str(missing)))


@pytest.mark.parametrize(
    ("version", "usable"), [("2.6.9", False), ("3.2.0", False), ("3.5.0", True), ("2.7.0", True), ("3.14.0", True)]
)
def test_pythons_that_no_tool_supports_are_not_usable(
    programs: Folder, tmp_path: Path, version: str, usable: bool
) -> None:
    (found,) = only(programs(python=fake(version, tmp_path / "bin/python")))
    assert found.usable is usable
    assert usable or "too old" in found.problem


def test_pypy_is_no_cpython(programs: Folder, tmp_path: Path) -> None:
    assert only(programs(python=fake("3.6.15", tmp_path / "bin/python").replace("CPython", "PyPy"))) == []


def r_script(version: str, home: Path, has_library: str = "TRUE") -> str:
    return f"printf '<modelhost-probe>{version}\\n{home}\\nx86_64\\n{has_library}</modelhost-probe>'"


def test_an_r_that_cannot_be_driven_says_why(programs: Folder, tmp_path: Path) -> None:
    old = programs("old", R=r_script("3.1.0", tmp_path)) / "R"
    static = programs("static", R=r_script("3.6.3", tmp_path, "FALSE")) / "R"
    broken = programs("broken/bin", R=f"[ $1 = CMD ] && exit 1; {r_script('3.5.1', tmp_path / 'broken')}") / "R"
    other = programs("other/bin", R=r_script("4.9.9", tmp_path / "other")) / "R"
    found = {one.name: one for one in find_interpreters([old, static, broken, other], environ={"PATH": ""})}
    assert found["r3.1"].problem == "R 3.1.0 is too old: 3.5 or newer can be used"
    assert found["r3.6"].problem == "this R has no libR.so: it must be built with --enable-R-shlib"
    assert found["r3.5"].problem.startswith("rpy2 cannot drive this R: ")
    assert found["r4.9"].problem.startswith("rpy2 drives R ")


def test_rscript_stands_for_the_r_beside_it(found: Mapping[str, Interpreter]) -> None:
    r = next(interpreter for interpreter in found.values() if interpreter.language is Language.R)
    again = {one.name: one for one in find_interpreters([r.path.with_name("Rscript")], environ={"PATH": ""})}
    assert (again[r.name].path, again[r.name].found_by) == (r.path, "configuration")
