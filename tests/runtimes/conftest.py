"""Fixtures that write a model, start a worker on it under each interpreter, and end it after the test."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from modelhost.runtimes import PYTHON_WORKER
from tests.runtimes.interpreters import VERSIONS, Interpreter, find_interpreter
from tests.runtimes.link import Frame, WorkerProcess


@pytest.fixture(params=VERSIONS)
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    """Each in turn; a test of one only parametrises this indirectly."""
    return find_interpreter(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the model."""
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


@pytest.fixture
def write(root: Path) -> Callable[[str | Mapping[str, str | bytes]], None]:
    """Writes the model's files; a text alone is its main.py."""

    def write(files: str | Mapping[str, str | bytes]) -> None:
        for name, content in ({"main.py": files} if isinstance(files, str) else files).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


@pytest.fixture
def start(interpreter: Interpreter) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts a worker that is greeted and has loaded nothing."""
    with ExitStack() as running:

        def start(**options: Any) -> WorkerProcess:
            return running.enter_context(WorkerProcess([interpreter.path, PYTHON_WORKER], **options))

        yield start


@pytest.fixture
def serve(start: Callable[..., WorkerProcess], write: Callable[..., None], root: Path) -> Callable[..., WorkerProcess]:
    """Starts a worker and loads the model of these files; further arguments are LOAD's."""

    def serve(files: str | Mapping[str, str | bytes], **fields: Any) -> WorkerProcess:
        write(files)
        worker = start()
        assert worker.load(root=root, **fields).type == "loaded", worker.loaded.header
        return worker

    return serve


@pytest.fixture
def refusal(start: Callable[..., WorkerProcess], write: Callable[..., None], root: Path) -> Callable[..., Frame]:
    """The `load_failed` with which a worker answers to a model of these files."""

    def refusal(files: str | Mapping[str, str | bytes], **fields: Any) -> Frame:
        write(files)
        answer = start().load(root=root, **fields)
        assert answer.type == "load_failed", answer.header
        return answer

    return refusal
