"""What the tests of environments stand on: interpreters, a store without an index, a model with wheels."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelhost.envs import EnvironmentStore, Interpreter, find_interpreters
from tests.integration.environments.workshop import PYTHONS, make_wheel


@pytest.fixture(scope="session")
def interpreters() -> Mapping[str, Interpreter]:
    found = {interpreter.name: interpreter for interpreter in find_interpreters()}
    for name in PYTHONS:
        assert name in found, f"these tests need {name} on the PATH or in pyenv"
        assert found[name].usable, found[name].problem
    return found


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """The environment of a server whose pip has no index."""
    (tmp_path / "home").mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }


@pytest.fixture
def store(tmp_path: Path, cache: Path, offline: dict[str, str]) -> EnvironmentStore:
    return EnvironmentStore(tmp_path / "environments", cache=cache, environ=offline)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's files, with wheels of `tiny` 1.0 and 2.0 and of `needy` 1.0, which needs `tiny`."""
    folder = tmp_path / "model"
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    for version in ("1.0", "2.0"):
        make_wheel(wheels, "tiny", version)
    make_wheel(wheels, "needy", "1.0", requires="tiny")
    make_wheel(wheels, "strict", "1.0", requires="tiny==2.0")
    return folder
