"""An environment is there whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from modelhost.envs import EnvironmentStore, Interpreter, Job
from tests.integration.environments.workshop import left_on_disk, spec_of


def test_an_environment_is_removed_once(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    spec = spec_of(store, interpreters["python2.7"], model)
    store.build(spec, None, Job())
    assert store.remove(spec.digest)
    assert store.find(spec.digest) is None
    assert store.list() == []
    assert left_on_disk(store) == []
    assert not store.remove(spec.digest)


def test_an_environment_whose_interpreter_is_gone_is_built_again(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    spec = spec_of(store, interpreters["python2.7"], model)
    environment = store.build(spec, None, Job())
    manifest = environment.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(environment.interpreter.path), "/nonexistent/python2.7"))
    assert store.find(spec.digest) is None
    assert [listed.spec_digest for listed in store.list()] == [spec.digest]
    again = store.build(spec, None, Job())
    assert again.interpreter.path == spec.interpreter.path
    assert store.find(spec.digest) == again


def test_the_sweep_removes_what_is_not_whole_and_nothing_else(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    assert store.sweep() == []
    environment = store.build(spec_of(store, interpreters["python2.7"], model), None, Job())
    for name in ("0" * 32, "half.removing", "stray"):
        (store.root / name / "bin").mkdir(parents=True)
    (store.root / "0" / "protected").mkdir(parents=True)
    (store.root / "0" / "protected").chmod(0)
    (store.root / "stray" / "manifest.json").write_text("{}")
    (store.root / ".locks" / "stale").touch()
    assert store.sweep() == ["0", "0" * 32, "half.removing", "stray"]
    assert store.list() == [environment]
    assert sorted(path.name for path in store.root.iterdir()) == [".locks", environment.path.name]
    assert list((store.root / ".locks").iterdir()) == []
