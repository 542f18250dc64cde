"""Environments built by the real tools: virtualenv, venv, pip and R, for real interpreters.

Packages come from tiny wheels and source packages made here, so that only the tests that say so need the index.
"""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from modelhost.envs import (
    BuildFailed,
    Cancelled,
    Cause,
    Environment,
    EnvironmentSpec,
    EnvironmentStore,
    Interpreter,
    Job,
    Language,
    Requirements,
    Stream,
    find_interpreters,
    read_requirements,
)

PYTHONS = ["python2.7", "python3.6", "python3.13"]
WAIT = 120.0  # seconds; only a hang reaches it


# ---- what the tests stand on ----


@pytest.fixture(scope="module")
def interpreters() -> Mapping[str, Interpreter]:
    found = {interpreter.name: interpreter for interpreter in find_interpreters()}
    for name in PYTHONS:
        assert name in found, f"these tests need {name} on the PATH or in pyenv"
        assert found[name].usable, found[name].problem
    return found


@pytest.fixture(scope="module")
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


def make_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """Write the smallest wheel there is (PEP 427): one module, for every Python."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f"version = '{version}'\n",
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py2-none-any\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py2.py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
            record += f"{path},sha256={digest},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


class Log:
    """A job that remembers what it was told, and lets a test wait for a line."""

    def __init__(self) -> None:
        self.lines: list[tuple[Stream, str]] = []
        self._changed = threading.Condition()
        self.job = Job(self._emit)

    def _emit(self, stream: Stream, line: str) -> None:
        with self._changed:
            self.lines.append((stream, line))
            self._changed.notify_all()

    @property
    def said(self) -> list[str]:
        return [line for stream, line in self.lines if stream is Stream.SERVER]

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def wait_for(self, words: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: words in self.text, WAIT), f"no {words!r} in:\n{self.text}"


def spec_of(store: EnvironmentStore, interpreter: Interpreter, model: Path, *lines: str) -> EnvironmentSpec:
    return store.specify(interpreter, read_requirements(interpreter, model, inline=lines))


def run(environment: Environment, code: str) -> str:
    """Run code in an environment, as a worker is: with nothing of the server's but the PATH."""
    if environment.interpreter.language is Language.R:
        argv: list[str | Path] = [environment.interpreter.path, "--slave", "-e", code]
    else:
        argv = [environment.python, "-c", code]
    variables = {"PATH": os.environ["PATH"], **environment.variables}
    return subprocess.run(argv, env=variables, check=True, capture_output=True, text=True, cwd="/").stdout.strip()


def left_on_disk(store: EnvironmentStore) -> list[str]:
    """What lies in the store, empty folders for locks left out."""
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.name != ".locks")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ---- Python ----


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


# ---- whole or not at all ----


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


# ---- several at once ----


class Gate:
    """A model's package whose installation stops until the test lets it go on."""

    def __init__(self, model: Path) -> None:
        self._running = model.parent / "running"
        self._go = model.parent / "go"
        package = model / "gate"
        package.mkdir()
        (package / "setup.py").write_text(
            "import os, time\nfrom setuptools import setup\n"
            f"with open({str(self._running) + '.part'!r}, 'w') as file: file.write(str(os.getpid()))\n"
            f"os.rename({str(self._running) + '.part'!r}, {str(self._running)!r})\n"
            f"while not os.path.exists({str(self._go)!r}): time.sleep(0.01)\n"
            "setup(name='gate', version='1')\n"
        )

    def wait(self) -> int:
        """Wait until it is being installed; return the process that does it."""
        wait_until(self._running.exists)
        return int(self._running.read_text())

    def open(self) -> None:
        self._go.touch()


@pytest.fixture
def gate(model: Path) -> Iterator[Gate]:
    gate = Gate(model)
    yield gate
    gate.open()


Build = Callable[[Log], "Future[Environment]"]


@pytest.fixture
def gated(interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path, gate: Gate) -> EnvironmentSpec:
    return spec_of(store, interpreters["python3.6"], model, "./gate")


@pytest.fixture
def build(store: EnvironmentStore, model: Path, gate: Gate, gated: EnvironmentSpec) -> Iterator[Build]:
    with ThreadPoolExecutor(4) as pool:
        yield lambda log: pool.submit(store.build, gated, model, log.job)
        gate.open()


def test_the_second_to_ask_joins_the_build_of_the_first(
    store: EnvironmentStore, gate: Gate, gated: EnvironmentSpec, build: Build
) -> None:
    one, two = Log(), Log()
    first = build(one)
    gate.wait()
    second = build(two)
    two.wait_for("joined a build already under way")
    assert store.find(gated.digest) is None
    assert not store.remove(gated.digest)
    assert store.sweep() == []
    gate.open()
    assert first.result(WAIT) == second.result(WAIT) == store.find(gated.digest)
    assert one.said[0].startswith("creating")
    assert two.said[0] == "joined a build already under way"
    assert one.lines[-len(two.lines) + 1 :] == two.lines[1:]
    assert "Successfully installed gate-1" in two.text


def test_cancelling_one_of_two_leaves_the_other_its_build(
    store: EnvironmentStore, gate: Gate, gated: EnvironmentSpec, build: Build
) -> None:
    one, two = Log(), Log()
    first = build(one)
    pid = gate.wait()
    second = build(two)
    two.wait_for("joined")
    one.job.cancel()
    with pytest.raises(Cancelled):
        first.result(WAIT)
    assert is_running(pid)
    gate.open()
    assert "gate==1" in second.result(WAIT).lock


def test_cancelling_the_last_one_ends_the_build_and_leaves_nothing(
    store: EnvironmentStore, gate: Gate, gated: EnvironmentSpec, build: Build
) -> None:
    logs = [Log(), Log()]
    futures = [build(logs[0])]
    pid = gate.wait()
    futures.append(build(logs[1]))
    logs[1].wait_for("joined")
    for log, future in zip(logs, futures, strict=True):
        log.job.cancel()
        with pytest.raises(Cancelled):
            future.result(WAIT)
    assert not is_running(pid)
    assert left_on_disk(store) == []
    gate.open()
    assert "gate==1" in build(Log()).result(WAIT).lock


def test_environments_are_built_at_the_same_time(
    interpreters: Mapping[str, Interpreter], store: EnvironmentStore, model: Path
) -> None:
    specs = [
        spec_of(store, interpreters[name], model, "-f ./wheels", f"tiny=={version}")
        for name in PYTHONS
        for version in ("1.0", "2.0")
    ]
    with ThreadPoolExecutor(len(specs)) as pool:
        built = list(pool.map(lambda spec: store.build(spec, model, Job()), specs))
    for spec, environment in zip(specs, built, strict=True):
        assert run(environment, "import tiny; print(tiny.version)") == spec.requirements[-1].partition("==")[2]
    assert len(store.list()) == len(specs)


BUILDER = """
import json, sys
from pathlib import Path
from modelhost.envs import EnvironmentStore, Job, find_interpreters, read_requirements
root, cache, model, environ, python = sys.argv[1:]
(interpreter,) = (one for one in find_interpreters([Path(python)]) if one.path == Path(python))
store = EnvironmentStore(Path(root), cache=Path(cache), environ=json.loads(environ))
spec = store.specify(interpreter, read_requirements(interpreter, Path(model), inline=["./gate"]))
store.build(spec, Path(model), Job())
"""


@pytest.fixture
def other_process(
    store: EnvironmentStore, model: Path, cache: Path, offline: dict[str, str], gated: EnvironmentSpec
) -> Iterator["subprocess.Popen[bytes]"]:
    """Another server that builds the gated environment at the same place."""
    arguments = [store.root, cache, model, json.dumps(offline), gated.interpreter.path]
    with subprocess.Popen([sys.executable, "-c", BUILDER, *map(str, arguments)]) as process:
        yield process
        process.kill()


def test_what_a_killed_server_was_building_is_swept_and_built_anew(
    store: EnvironmentStore, model: Path, gate: Gate, gated: EnvironmentSpec, other_process: "subprocess.Popen[bytes]"
) -> None:
    pid = gate.wait()
    folder = store.root / gated.digest[:32]
    assert folder.exists()
    assert store.sweep() == []  # it is alive
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    assert is_running(pid)  # pip goes on without it
    assert store.find(gated.digest) is None
    assert store.sweep() == [folder.name]
    assert not is_running(pid)
    assert left_on_disk(store) == []
    gate.open()
    assert "gate==1" in store.build(gated, model, Job()).lock


def test_a_build_after_a_killed_one_needs_no_sweep(
    store: EnvironmentStore, gate: Gate, build: Build, other_process: "subprocess.Popen[bytes]"
) -> None:
    pid = gate.wait()
    other_process.kill()
    other_process.wait()
    log = Log()
    future = build(log)
    log.wait_for("installing 1 requirement")
    assert not is_running(pid)
    gate.open()
    assert "gate==1" in future.result(WAIT).lock


def test_another_servers_build_is_waited_for(
    gate: Gate, build: Build, other_process: "subprocess.Popen[bytes]"
) -> None:
    gate.wait()
    log = Log()
    future = build(log)
    log.wait_for("waiting for another process that builds the same environment")
    gate.open()
    assert "gate==1" in future.result(WAIT).lock
    assert other_process.wait(WAIT) == 0
    assert log.said == ["waiting for another process that builds the same environment"]


def test_waiting_for_another_servers_build_can_be_cancelled(
    gate: Gate, build: Build, other_process: "subprocess.Popen[bytes]"
) -> None:
    pid = gate.wait()
    log = Log()
    future = build(log)
    log.wait_for("waiting for another process")
    log.job.cancel()
    with pytest.raises(Cancelled):
        future.result(WAIT)
    assert is_running(pid)
    gate.open()
    assert other_process.wait(WAIT) == 0


# ---- R ----


@pytest.fixture(scope="module")
def r(interpreters: Mapping[str, Interpreter]) -> Interpreter:
    found = [one for one in interpreters.values() if one.language is Language.R and one.usable]
    assert found, "these tests need an R that rpy2 can drive"
    return found[0]


def make_r_package(folder: Path, r: Interpreter, name: str, version: str, fields: str = "", **files: str) -> None:
    """Build a source package into a folder; it exports a function of its name that returns its version."""
    source = folder / "source" / name
    contents = {
        "DESCRIPTION": f"Package: {name}\nVersion: {version}\nTitle: Test\nDescription: For tests.\nLicense: GPL-3\n"
        f"Author: Tests\nMaintainer: Tests <tests@example.com>\n{fields}",
        "NAMESPACE": f"export({name})\n",
        "R/code.R": f"{name} <- function() '{version}'\n",
        **{path.replace("__", "/").replace("_", "."): text for path, text in files.items()},
    }
    for path, text in contents.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    for script in source.glob("configure"):
        script.chmod(0o755)
    subprocess.run([r.path, "CMD", "build", source], cwd=folder, check=True, capture_output=True)
    shutil.rmtree(folder / "source")


def write_index(folder: Path, r: Interpreter) -> None:
    code = "tools::write_PACKAGES('.', type = 'source')"
    subprocess.run([r.path, "--vanilla", "--slave", "-e", code], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(r: Interpreter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository like CRAN's: `alpha` 1.2.0, 1.0.0 in its archive; `beta` needs it; and some that do not install."""
    root = tmp_path_factory.mktemp("cran")
    packages = root / "src" / "contrib"
    archive = packages / "Archive" / "alpha"
    archive.mkdir(parents=True)
    make_r_package(archive, r, "alpha", "1.0.0", "Imports: stats\n")
    make_r_package(packages, r, "alpha", "1.2.0", "Imports: stats\n")
    make_r_package(packages, r, "beta", "0.1-3", "Depends: R (>= 3.5)\nImports: alpha (>= 1.0.0),\n    methods\n")
    make_r_package(packages, r, "choosy", "2.0", "Imports: alpha (>= 1.1)\n")
    make_r_package(packages, r, "modern", "9.1", "Depends: R (>= 99.0)\n")
    (archive.parent / "modern").mkdir()
    make_r_package(archive.parent / "modern", r, "modern", "9.0", "Depends: R (>= 98.0)\n")
    make_r_package(archive.parent / "modern", r, "modern", "1.0")
    make_r_package(packages, r, "compiled", "1.0", src__code_c="#include <nosuch.h>\n")
    configure = "#!/bin/sh\necho 'Configuration failed because libnosuch was not found. Try installing:'\nexit 1\n"
    make_r_package(packages, r, "configured", "1.0", configure=configure)
    write_index(packages, r)
    return root


@pytest.fixture
def r_store(tmp_path: Path, cache: Path, offline: dict[str, str], repository: Path) -> EnvironmentStore:
    return EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=offline, r_repositories=[repository.as_uri()]
    )


def build_r(store: EnvironmentStore, r: Interpreter, model: Path, *lines: str, log: Log | None = None) -> Environment:
    return store.build(spec_of(store, r, model, *lines), None, (log or Log()).job)


def test_an_r_library_holds_what_was_asked_for_and_what_that_needs(
    r: Interpreter, r_store: EnvironmentStore, model: Path
) -> None:
    (model / "DESCRIPTION").write_text("Package: model\nDepends: R (>= 3.5)\nImports: beta, stats (>= 3.0)\n")
    spec = r_store.specify(r, read_requirements(r, model, "DESCRIPTION"))
    log = Log()
    environment = r_store.build(spec, None, log.job)
    assert environment.lock == ("alpha==1.2.0", "beta==0.1-3")
    assert run(environment, "cat(beta::beta(), alpha::alpha())") == "0.1-3 1.2.0"
    assert log.said[:2] == [f"created an R {r.version} library", "installing 2 requirements"]
    assert "installing alpha 1.2.0 (1 of 2)" in log.text
    assert "* DONE (beta)" in log.text
    assert "locked 2 packages" in log.said
    assert r_store.find(spec.digest) == environment
    assert not (environment.path / ".build").exists()


def test_a_pinned_version_comes_from_the_archive_and_serves_those_that_need_the_package(
    r: Interpreter, r_store: EnvironmentStore, model: Path
) -> None:
    environment = build_r(r_store, r, model, "beta", "alpha==1.0.0")
    assert environment.lock == ("alpha==1.0.0", "beta==0.1-3")
    assert run(environment, "cat(alpha::alpha())") == "1.0.0"


def test_a_pin_of_the_current_version_needs_no_archive(r: Interpreter, r_store: EnvironmentStore, model: Path) -> None:
    assert build_r(r_store, r, model, "alpha==1.2.0").lock == ("alpha==1.2.0",)


def test_a_pin_to_an_older_version_helps_an_older_r(r: Interpreter, r_store: EnvironmentStore, model: Path) -> None:
    assert build_r(r_store, r, model, "modern==1.0").lock == ("modern==1.0",)


def test_a_pin_that_another_package_cannot_live_with_is_refused(
    r: Interpreter, r_store: EnvironmentStore, model: Path
) -> None:
    with pytest.raises(BuildFailed, match=r"alpha == 1\.0\.0 >= 1\.1 \(needed by choosy\) is not in") as raised:
        build_r(r_store, r, model, "alpha==1.0.0", "choosy")
    assert raised.value.cause is Cause.R_PACKAGE_NOT_FOUND


def test_several_repositories_are_searched_in_order(
    r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], repository: Path, model: Path
) -> None:
    packages = tmp_path / "own" / "src" / "contrib"
    packages.mkdir(parents=True)
    make_r_package(packages, r, "inhouse", "0.0.1", "Imports: alpha\n")
    write_index(packages, r)
    store = EnvironmentStore(
        tmp_path / "environments",
        cache=cache,
        environ=offline,
        r_repositories=[(tmp_path / "own").as_uri(), repository.as_uri()],
    )
    assert build_r(store, r, model, "inhouse", "alpha==1.0.0").lock == ("alpha==1.0.0", "inhouse==0.0.1")


def test_what_r_itself_has_counts_as_there_and_needs_no_repository(
    r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], model: Path
) -> None:
    store = EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=offline, r_repositories=["file:///nonexistent"]
    )
    environment = build_r(store, r, model, "stats", "utils (>= 3.5)")
    assert environment.lock == ()
    assert build_r(store, r, model).lock == ()
    with pytest.raises(BuildFailed, match=r"stats >= 99 cannot be had: stats is part of R "):
        build_r(store, r, model, "stats (>= 99)")


def test_no_other_library_of_the_host_gets_in(
    r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], repository: Path, model: Path
) -> None:
    site, source = tmp_path / "site", tmp_path / "source"
    site.mkdir()
    source.mkdir()
    make_r_package(source, r, "leak", "1.0")
    make_r_package(source, r, "alpha", "1.1.9")
    for archive in source.glob("*.tar.gz"):
        subprocess.run([r.path, "CMD", "INSTALL", "-l", site, archive], check=True, capture_output=True)
    home = Path(offline["HOME"])
    (home / ".Renviron").write_text(f"R_LIBS={site}\nR_LIBS_SITE={site}\nR_LIBS_USER={site}\n")
    (home / ".Rprofile").write_text("cat('a profile was read\\n'); quit(status = 3)\n")
    environ = {**offline, "R_LIBS": str(site), "R_LIBS_SITE": str(site), "R_PROFILE_USER": str(home / ".Rprofile")}
    store = EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=environ, r_repositories=[repository.as_uri()]
    )
    log = Log()
    environment = build_r(store, r, model, "beta", log=log)
    assert environment.lock == ("alpha==1.2.0", "beta==0.1-3")
    assert "a profile was read" not in log.text
    with pytest.raises(BuildFailed, match="leak is in none of the repositories"):
        build_r(store, r, model, "leak")
    libraries = run(environment, "cat(normalizePath(.libPaths()), sep = '\\n')").splitlines()
    base = run(environment, "cat(normalizePath(.Library))")
    assert libraries == [str(environment.library.resolve()), base]


@pytest.mark.parametrize(
    ("line", "cause", "message"),
    [
        ("nosuch", Cause.R_PACKAGE_NOT_FOUND, r"^nosuch is in none of the repositories$"),
        ("alpha==7.7", Cause.R_PACKAGE_NOT_FOUND, r"^alpha == 7\.7 is not in .*the newest version there is 1\.2\.0$"),
        ("alpha (>= 2)", Cause.R_PACKAGE_NOT_FOUND, r"^alpha >= 2 is not in the repositories"),
        ("modern", Cause.R_VERSION, r"^modern is not available for R .*9\.1, needs R >= 99\.0$"),
        ("modern==9.0", Cause.R_VERSION, r"^modern 9\.0 needs R >= 98\.0, this is R "),
        ("compiled", Cause.LIBRARY_UNNAMED, r"^compiled 1\.0 cannot be installed: .*nosuch\.h: No such file"),
        ("configured", Cause.LIBRARY_UNNAMED, r"because libnosuch was not found"),
    ],
)
def test_an_r_package_that_cannot_be_had_is_explained(
    line: str, cause: Cause, message: str, r: Interpreter, r_store: EnvironmentStore, model: Path
) -> None:
    with pytest.raises(BuildFailed, match=message) as raised:
        build_r(r_store, r, model, line)
    assert raised.value.cause is cause
    assert left_on_disk(r_store) == []


@pytest.mark.parametrize("url", ["file:///nonexistent", "http://127.0.0.1:9"])
def test_a_repository_that_cannot_be_reached_is_the_hosts_matter(
    url: str, r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], repository: Path, model: Path
) -> None:
    store = EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=offline, r_repositories=[repository.as_uri(), url]
    )
    with pytest.raises(
        BuildFailed, match=r"^a package repository cannot be read: .*(/nonexistent|127\.0\.0\.1:9)"
    ) as raised:
        build_r(store, r, model, "alpha")
    assert raised.value.cause is Cause.R_INDEX_UNREACHABLE


def test_a_cancelled_r_build_leaves_nothing(
    r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], model: Path
) -> None:
    packages = tmp_path / "own" / "src" / "contrib"
    packages.mkdir(parents=True)
    running = tmp_path / "running"
    make_r_package(packages, r, "slow", "1.0", configure=f"#!/bin/sh\necho $$ >'{running}'\nexec sleep 600\n")
    write_index(packages, r)
    store = EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=offline, r_repositories=[(tmp_path / "own").as_uri()]
    )
    log = Log()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(build_r, store, r, model, "slow", log=log)
        wait_until(lambda: running.exists() and running.read_text().endswith("\n"))
        log.job.cancel()
        with pytest.raises(Cancelled):
            future.result(WAIT)
    assert not is_running(int(running.read_text()))
    assert left_on_disk(store) == []


def test_requirements_that_are_no_packages_are_refused(r: Interpreter, r_store: EnvironmentStore) -> None:
    spec = r_store.specify(r, Requirements(Language.R, ("alpha; rm",)))
    with pytest.raises(BuildFailed, match="not a list of R packages"):
        r_store.build(spec, None, Job())
