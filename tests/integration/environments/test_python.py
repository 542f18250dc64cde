"""Environments built by the real tools: virtualenv, venv and pip, for real interpreters.

Packages come from tiny wheels and source packages made here, so that only the tests that say so need the index.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from modelhost.envs import BuildFailed, Cause, EnvironmentStore, Interpreter, Job, read_requirements
from tests.integration.environments.workshop import PYTHONS, Log, left_on_disk, make_wheel, run, spec_of


@pytest.mark.parametrize("name", PYTHONS)
def test_an_environment_holds_what_was_asked_for_and_what_that_needs(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    interpreter = interpreters[name]
    (model / "requirements.txt").write_text("--no-index\n-f ./wheels\nneedy\n-c limits.txt\n")
    (model / "limits.txt").write_text("tiny<2\n")
    spec = store.specify(interpreter, read_requirements(interpreter, model, "requirements.txt"))
    log = Log()
    environment = store.build(spec, model, log.job)

    assert run(environment, "import tiny, needy; print(tiny.version + needy.version)") == "1.01.0"
    assert run(environment, "import sys; print('.'.join(map(str, sys.version_info[:3])))") == interpreter.version
    assert {"tiny==1.0", "needy==1.0"} <= set(environment.lock)
    assert any(line.startswith("pip==") for line in environment.lock)
    assert list(environment.lock) == sorted(environment.lock, key=str.lower)
    assert log.said[:2] == [f"creating a Python {interpreter.version} environment", "installing 1 requirement"]
    assert f"locked {len(environment.lock)} packages" in log.said
    assert "Successfully installed needy-1.0 tiny-1.0" in log.text
    assert "DEPRECATION: Python" not in log.text

    assert environment.path == store.root / spec.digest[:32]
    assert environment.size_bytes > 1024 * 1024
    assert environment.created <= time.time()
    assert not list(environment.path.glob("bin/[aA]ctivate*"))
    assert not (environment.path / ".build").exists()
    assert [path.name for path in (store.root / ".locks").iterdir()] == []

    again = Log()
    assert store.find(spec.digest) == environment
    assert store.build(spec, model, again.job) == environment
    assert again.said == [f"found the environment {environment.path.name}"]
    assert store.list() == [environment]


@pytest.mark.parametrize("name", ["python2.7", "python3.6"])
def test_packages_come_from_the_index(
    name: str, interpreters: Mapping[str, Interpreter], tmp_path: Path, cache: Path, model: Path
) -> None:
    store = EnvironmentStore(tmp_path / "environments", cache=cache)
    environment = store.build(spec_of(store, interpreters[name], model, "six==1.16.0"), None, Job())
    assert "six==1.16.0" in environment.lock
    assert run(environment, "import six; print(six.__version__)") == "1.16.0"


@pytest.mark.parametrize("name", PYTHONS)
def test_pip_installs_nothing_where_nothing_is_asked_for(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    log = Log()
    environment = store.build(spec_of(store, interpreters[name], model, "--pre"), None, log.job)
    assert [line for line in log.said if "install" in line] == []
    assert any(line.startswith("pip==") for line in environment.lock)


@pytest.mark.parametrize("name", ["python2.7", "python3.6"])
def test_the_models_own_package_is_installed_and_its_files_stay_as_they_were(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    (model / "setup.py").write_text("from setuptools import setup\nsetup(name='own', version='3', py_modules=['own'])")
    (model / "own.py").write_text("value = 42")
    before = sorted(model.rglob("*"))
    environment = store.build(spec_of(store, interpreters[name], model, "-e ."), model, Job())
    assert "own==3" in environment.lock
    assert sorted(model.rglob("*")) == before
    shutil.rmtree(model)
    assert run(environment, "import own; print(own.value)") == "42"


@pytest.mark.parametrize("name", PYTHONS)
def test_a_model_may_have_modules_named_like_those_of_the_standard_library(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    for module in ("types", "json", "re", "pip"):
        (model / f"{module}.py").write_text("raise ImportError('the model shadows the standard library')")
    make_wheel(model, "own", "3")
    assert "own==3" in store.build(spec_of(store, interpreters[name], model, "-f .", "own"), model, Job()).lock


def test_packages_that_do_not_fit_together_are_warned_of(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    # pip for Python 2.7 has the old resolver, which takes the first it meets.
    log = Log()
    spec = spec_of(store, interpreters["python2.7"], model, "-f ./wheels", "tiny==1.0", "strict")
    environment = store.build(spec, model, log.job)
    assert {"tiny==1.0", "strict==1.0"} <= set(environment.lock)
    assert "warning: some packages do not fit together (pip check)" in log.said
    assert "strict 1.0 has requirement tiny==2.0, but you have tiny 1.0." in log.text


@pytest.mark.parametrize("name", PYTHONS)
def test_a_version_that_does_not_exist_fails_and_leaves_nothing(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    spec = spec_of(store, interpreters[name], model, "-f ./wheels", "tiny==9")
    with pytest.raises(BuildFailed) as raised:
        store.build(spec, model, Job())
    failure = raised.value
    assert (failure.cause, failure.message) == (Cause.VERSION_NOT_FOUND, "No matching distribution found for tiny==9")
    assert (failure.values["newest"], failure.values["version"]) == ("2.0", interpreters[name].version)
    assert failure.output
    assert left_on_disk(store) == []
    assert store.find(spec.digest) is None


@pytest.mark.parametrize("name", PYTHONS)
def test_an_index_that_cannot_be_reached_is_the_hosts_matter(
    name: str,
    interpreters: Mapping[str, Interpreter],
    tmp_path: Path,
    cache: Path,
    model: Path,
    offline: dict[str, str],
) -> None:
    del offline["PIP_NO_INDEX"]
    environ = {**offline, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    store = EnvironmentStore(tmp_path / "environments", cache=cache, environ=environ)
    with pytest.raises(BuildFailed, match=r"the package index cannot be reached: .*Connection refused") as raised:
        store.build(spec_of(store, interpreters[name], model, "six"), None, Job())
    assert raised.value.cause is Cause.INDEX_UNREACHABLE


@pytest.mark.parametrize("name", ["python2.7", "python3.6"])
def test_a_package_that_does_not_build_is_explained(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    raising, compiled = model / "raising", model / "compiled"
    for folder in (raising, compiled):
        folder.mkdir()
    (raising / "setup.py").write_text("raise RuntimeError('not on this moon')")
    (compiled / "setup.py").write_text(
        "from setuptools import Extension, setup\nsetup(name='x', ext_modules=[Extension('x', ['x.c'])])"
    )
    (compiled / "x.c").write_text("#include <nosuch.h>\n")
    with pytest.raises(BuildFailed, match="not on this moon") as raised:
        store.build(spec_of(store, interpreters[name], model, "./raising"), model, Job())
    assert raised.value.cause is Cause.BUILD_RAISED
    with pytest.raises(BuildFailed, match=r"nosuch\.h: No such file") as raised:
        store.build(spec_of(store, interpreters[name], model, "./compiled"), model, Job())
    assert (raised.value.cause, raised.value.values["missing"]) == (Cause.LIBRARY_UNNAMED, "nosuch.h")
    assert left_on_disk(store) == []


def test_nothing_of_the_servers_own_python_gets_in(
    interpreters: Mapping[str, Interpreter], tmp_path: Path, cache: Path, model: Path, offline: dict[str, str]
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text("raise SystemExit('leaked')")
    (tmp_path / "home" / "virtualenv.ini").write_text("[virtualenv]\nno-pip = true\n")
    config = tmp_path / "home" / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text("[install]\nuser = true\n")
    del offline["PIP_CONFIG_FILE"]
    environ = {
        **offline,
        "PYTHONPATH": str(tmp_path / "path"),
        "PYTHONHOME": "/nonexistent",
        "PIP_TARGET": str(tmp_path / "target"),
        "PIP_PREFIX": str(tmp_path / "prefix"),
        "VIRTUALENV_CONFIG_FILE": str(tmp_path / "home" / "virtualenv.ini"),
        "VIRTUALENV_NO_PIP": "1",
        "LD_PRELOAD": "/nonexistent.so",
    }
    store = EnvironmentStore(tmp_path / "environments", cache=cache, environ=environ)
    for name in PYTHONS:
        spec = spec_of(store, interpreters[name], model, "--no-index", "-f ./wheels", "tiny==1.0")
        environment = store.build(spec, model, Job())
        assert run(environment, "import tiny; print(tiny.version)") == "1.0"
        assert run(environment, "import tiny; print(tiny.__file__)").startswith(str(environment.path))
    assert not (tmp_path / "target").exists()


def test_other_users_can_read_an_environment_whatever_the_umask(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    before = os.umask(0o077)
    try:
        spec = spec_of(store, interpreters["python3.6"], model, "-f ./wheels", "tiny")
        environment = store.build(spec, model, Job())
    finally:
        os.umask(before)
    for path in [store.root, environment.path, *environment.path.rglob("*")]:
        if not path.is_symlink():
            needed = 0o755 if path.is_dir() or path.parent.name == "bin" else 0o644
            assert path.stat().st_mode & needed == needed, path


def test_passwords_of_an_index_are_not_kept(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    line = "--extra-index-url https://me:s3cret@127.0.0.1:9/simple"
    spec = spec_of(store, interpreters["python2.7"], model, "--no-index", "-f ./wheels", line, "tiny")
    log = Log()
    environment = store.build(spec, model, log.job)
    assert "--extra-index-url https://****@127.0.0.1:9/simple" in environment.requirements
    assert "s3cret" not in log.text
    found = subprocess.run(["grep", "-rl", "s3cret", str(store.root)], check=False, capture_output=True, text=True)
    assert found.stdout == ""


def test_an_interpreter_that_cannot_be_used_is_not_tried(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    broken = replace(interpreters["python3.6"], problem="this Python was built without ssl")
    with pytest.raises(BuildFailed, match=r"python3\.6 cannot be used: this Python was built without ssl"):
        store.build(spec_of(store, broken, model), None, Job())
    gone = replace(interpreters["python3.6"], path=Path("/nonexistent/python3.6"))
    with pytest.raises(BuildFailed) as raised:
        store.build(spec_of(store, gone, model), None, Job())
    assert raised.value.cause is Cause.INTERPRETER
    assert left_on_disk(store) == []


def test_files_that_are_needed_must_be_given(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    with pytest.raises(ValueError, match="the model's files are needed for wheels"):
        store.build(spec_of(store, interpreters["python3.6"], model, "-f ./wheels", "tiny"), None, Job())


@pytest.mark.parametrize("name", ["python2.7", "python3.6"])
def test_what_a_killed_build_left_of_its_tools_in_the_cache_fails_no_later_one(
    name: str, interpreters: Mapping[str, Interpreter], tmp_path: Path, offline: dict[str, str], model: Path
) -> None:
    store = EnvironmentStore(tmp_path / "environments", cache=tmp_path / "cache", environ=offline)
    store.build(spec_of(store, interpreters[name], model), None, Job())
    described = list((tmp_path / "cache" / "virtualenv").glob("**/*.dist-info"))
    assert described
    for folder in described:
        shutil.rmtree(folder)

    built = store.build(spec_of(store, interpreters[name], model, "--no-index"), None, Job())

    assert any(line.startswith("pip==") for line in built.lock)
