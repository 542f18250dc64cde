"""Several who build: of one process and of several, to the end, cancelled or killed."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from modelhost.envs import Cancelled, Environment, EnvironmentSpec, EnvironmentStore, Interpreter, Job
from tests.integration.environments.workshop import (
    PYTHONS,
    WAIT,
    Log,
    is_running,
    left_on_disk,
    run,
    spec_of,
    wait_until,
)


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
