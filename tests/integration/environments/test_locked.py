"""An environment that is gone is built again from what was locked: the same packages, whatever the index has by now."""

import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from modelhost.envs import BuildFailed, Cause, EnvironmentStore, Interpreter, read_requirements
from tests.integration.environments.workshop import PYTHONS, Log, make_wheel, run, spec_of


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """What pip finds by itself; it changes with time."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder, "tiny", "1.0")
    make_wheel(folder, "needy", "1.0", requires="tiny")
    return folder


@pytest.fixture
def store(tmp_path: Path, cache: Path, offline: dict[str, str], index: Path) -> EnvironmentStore:
    environ = {**offline, "PIP_FIND_LINKS": str(index)}
    return EnvironmentStore(tmp_path / "environments", cache=cache, environ=environ)


@pytest.mark.parametrize("name", PYTHONS)
def test_what_was_locked_is_installed_again_though_the_index_has_newer_versions(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path, index: Path
) -> None:
    spec = spec_of(store, interpreters[name], model, "needy")
    before = store.build(spec, None, Log().job)
    make_wheel(index, "tiny", "2.0")
    make_wheel(index, "needy", "2.0", requires="tiny")
    store.remove(spec.digest)
    log = Log()

    again = store.build(spec, None, log.job, before.lock)

    assert again.lock == before.lock
    assert {"tiny==1.0", "needy==1.0"} <= set(again.lock)
    assert (again.digest, again.spec_digest, again.path) == (before.digest, before.spec_digest, before.path)
    assert run(again, "import tiny, needy; print(tiny.version + needy.version)") == "1.01.0"
    assert f"installing the {len(before.lock)} packages that were locked" in log.said
    store.remove(spec.digest)
    assert "tiny==2.0" in store.build(spec, None, Log().job).lock, "without a lock, the newest"


@pytest.mark.parametrize("name", PYTHONS)
def test_a_package_that_is_gone_is_named_and_the_lock_is_not_bent(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path, index: Path
) -> None:
    spec = spec_of(store, interpreters[name], model, "needy")
    before = store.build(spec, None, Log().job)
    store.remove(spec.digest)
    (index / "tiny-1.0-py2.py3-none-any.whl").unlink()
    make_wheel(index, "tiny", "2.0")

    with pytest.raises(BuildFailed, match=r"locked cannot be had any more: .*tiny==1\.0") as caught:
        store.build(spec, None, Log().job, before.lock)

    assert caught.value.cause is Cause.LOCK_UNMET
    assert store.list() == []


@pytest.mark.parametrize("name", ["python2.7", "python3.6"])
def test_the_models_own_packages_come_from_its_files_and_never_from_an_index(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path, index: Path
) -> None:
    own = model / "own"
    own.mkdir()
    (own / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='own', version='1.0', py_modules=['own'])\n"
    )
    (own / "own.py").write_text("version = 'ours'\n")
    (model / "requirements.txt").write_text("./own\n./wheels/strict-1.0-py2.py3-none-any.whl\n-f ./wheels\n")
    spec = store.specify(interpreters[name], read_requirements(interpreters[name], model, "requirements.txt"))
    before = store.build(spec, model, Log().job)
    assert {"own==1.0", "strict==1.0", "tiny==2.0"} <= set(before.lock)
    store.remove(spec.digest)
    make_wheel(index, "own", "1.0")  # a stranger of that name

    again = store.build(spec, model, Log().job, before.lock)

    assert again == replace(
        before, created=again.created, build_seconds=again.build_seconds, size_bytes=again.size_bytes
    )
    assert run(again, "import own; print(own.version)") == "ours"


@pytest.mark.parametrize("name", ["python2.7", "python3.6"])
def test_hashes_that_the_model_gives_hold_for_what_was_locked(
    name: str, interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path, index: Path
) -> None:
    wheel = index / "tiny-1.0-py2.py3-none-any.whl"
    digest = subprocess.run(["sha256sum", wheel], capture_output=True, text=True, check=True).stdout.split()[0]
    spec = spec_of(store, interpreters[name], model, f"tiny==1.0 --hash=sha256:{digest}")
    before = store.build(spec, None, Log().job)
    store.remove(spec.digest)
    assert store.build(spec, None, Log().job, before.lock).digest == before.digest
    store.remove(spec.digest)
    with zipfile.ZipFile(wheel, "a") as changed:
        changed.comment = b"not what it was"

    with pytest.raises(BuildFailed) as caught:
        store.build(spec, None, Log().job, before.lock)

    assert caught.value.cause is Cause.HASHES


def test_an_environment_of_the_same_spec_with_other_packages_stays_and_the_locked_one_lies_apart(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path, index: Path
) -> None:
    spec = spec_of(store, interpreters["python3.6"], model, "tiny")
    before = store.build(spec, None, Log().job)
    store.remove(spec.digest)
    make_wheel(index, "tiny", "2.0")
    newer = store.build(spec, None, Log().job)
    assert newer.digest != before.digest

    again = store.build(spec, None, Log().job, before.lock)

    assert again.digest == before.digest
    assert run(again, "import tiny; print(tiny.version)") == "1.0"
    assert again.spec_digest == replace(spec, apart=before.lock).digest
    assert store.find(spec.digest) == newer
    assert store.find(again.spec_digest) == again
    assert store.build(spec, None, Log().job, before.lock) == again
    assert store.build(spec, None, Log().job) == newer


def test_a_seed_that_the_lock_does_not_have_is_taken_out(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    spec = spec_of(store, interpreters["python3.6"], model, "tiny")
    before = store.build(spec, None, Log().job)
    store.remove(spec.digest)
    lock = tuple(line for line in before.lock if not line.startswith("wheel=="))

    again = store.build(spec, None, Log().job, lock)

    assert again.lock == lock != before.lock
