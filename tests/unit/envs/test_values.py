"""Digests, manifests and the variables of builds and workers."""

import dataclasses
import json
from pathlib import Path

import pytest

import modelhost.envs
from modelhost.envs import Environment, EnvironmentSpec, EnvironmentStore, Interpreter, Language, Requirements
from modelhost.envs.manifest import masked, read_manifest, write_manifest
from modelhost.envs.variables import build_variables, pip_variables

PYTHON = Interpreter("python3.6", Language.PYTHON, "3.6.15", Path("/usr/bin/python3.6"), "PATH", "linux-x86_64 cp36m")
R = Interpreter("r3.6", Language.R, "3.6.3", Path("/opt/R/3.6.3/lib/R/bin/R"), "/opt/R", "x86_64-pc-linux-gnu")
SPEC = EnvironmentSpec(PYTHON, ("six==1.17.0", "attrs"), ("idna<3",), files=("wheels",), files_digest="ab")


def test_what_is_exported_is_there() -> None:
    assert sorted(modelhost.envs.__all__) == sorted(set(modelhost.envs.__all__))
    for name in modelhost.envs.__all__:
        assert getattr(modelhost.envs, name) is not None


def test_a_spec_digest_is_the_same_on_every_host() -> None:
    # Fixed: a change of this value makes every environment of every host be built again.
    assert SPEC.digest == "f4f85d42cb1bb137e930fe981f98ba8031b90a17769c6dd124aca2131d021449"
    moved = dataclasses.replace(PYTHON, path=Path("/elsewhere/python"), found_by="pyenv", problem="none")
    assert dataclasses.replace(SPEC, interpreter=moved).digest == SPEC.digest


@pytest.mark.parametrize(
    "change",
    [
        {"interpreter": dataclasses.replace(PYTHON, version="3.6.14")},
        {"interpreter": dataclasses.replace(PYTHON, platform="linux-aarch64 cp36m")},
        {"requirements": ("attrs", "six==1.17.0")},
        {"constraints": ()},
        {"repositories": ("https://example.com",)},
        {"files_digest": "cd"},
    ],
)
def test_everything_that_decides_what_is_built_is_in_the_digest(change: dict[str, object]) -> None:
    assert dataclasses.replace(SPEC, **change).digest != SPEC.digest  # type: ignore[arg-type]


def test_only_r_is_built_from_the_stores_repositories(tmp_path: Path) -> None:
    store = EnvironmentStore(tmp_path, cache=tmp_path / "cache", r_repositories=["https://example.com"])
    assert store.specify(R, Requirements(Language.R, ("glmnet",))).repositories == ("https://example.com",)
    assert store.specify(PYTHON, Requirements(Language.PYTHON, ("six",))).repositories == ()


def environment(path: Path, interpreter: Interpreter = PYTHON) -> Environment:
    return Environment(path, SPEC.digest, "d", interpreter, ("six",), ("six==1.17.0",), 4096, 1.5, 0.25)


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(environment(tmp_path))
    assert read_manifest(tmp_path) == environment(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 2}', "null"])
def test_a_manifest_that_is_none_makes_nothing_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "nothing") is None


def test_a_manifest_of_another_format_makes_nothing_whole(tmp_path: Path) -> None:
    write_manifest(environment(tmp_path))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    assert read_manifest(tmp_path) is None


def test_an_environment_that_was_moved_is_not_whole(tmp_path: Path) -> None:
    built = tmp_path / "built"
    built.mkdir()
    write_manifest(environment(built))
    (tmp_path / "link").symlink_to(tmp_path)
    assert read_manifest(tmp_path / "link" / "built") is not None
    built.rename(tmp_path / "moved")
    assert read_manifest(tmp_path / "moved") is None


def test_passwords_are_not_shown() -> None:
    assert masked("--index-url https://me:secret@example.com/simple") == "--index-url https://****@example.com/simple"
    assert masked("six==1.17.0") == "six==1.17.0"


def test_a_build_sees_the_way_to_packages_and_little_else(tmp_path: Path) -> None:
    server = {
        "PATH": "/usr/bin", "HOME": "/root", "HTTPS_PROXY": "p", "no_proxy": "n", "SSL_CERT_FILE": "c",
        "PIP_INDEX_URL": "i", "PIP_TARGET": "/tmp", "PIP_USER": "1", "PYTHONPATH": "/x", "PYTHONSTARTUP": "/x",
        "VIRTUALENV_SYSTEM_SITE_PACKAGES": "1", "R_LIBS": "/x", "LD_PRELOAD": "/x", "MODELHOST_SECRET": "s",
        "CFLAGS": "-O2", "TMPDIR": "/elsewhere",
    }  # fmt: skip
    variables = build_variables(server, ["CFLAGS"], tmp_path)
    assert variables == {
        "PATH": "/usr/bin", "HOME": "/root", "HTTPS_PROXY": "p", "no_proxy": "n", "SSL_CERT_FILE": "c",
        "PIP_INDEX_URL": "i", "CFLAGS": "-O2", "TMPDIR": str(tmp_path), "LANG": "C.UTF-8",
    }  # fmt: skip
    assert pip_variables(variables, tmp_path)["PATH"] == f"{tmp_path}/bin:/usr/bin"


def test_an_r_worker_is_told_of_no_other_library(tmp_path: Path) -> None:
    variables = environment(tmp_path, R).variables
    assert {variables[name] for name in ("R_LIBS", "R_LIBS_SITE", "R_LIBS_USER")} == {str(tmp_path / "library")}
    assert environment(tmp_path).variables == {}
