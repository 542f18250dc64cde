"""R workers for tests, and fixtures like those for Python's; a test module binds the names that it uses."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelhost.runtimes import R_WORKER
from tests.runtimes.link import WorkerProcess


def r_command() -> list[str | Path]:
    """How the server starts an R worker. R is what the project is for: a test without it has failed."""
    r = shutil.which("R")
    if r is None:
        pytest.fail("no R on PATH; `apt-get install r-base-core` brings it")
    if importlib.util.find_spec("rpy2") is None:
        pytest.fail(f"no rpy2 in {sys.prefix}; it comes with the project's extra `server`")
    return [r, "CMD", sys.executable, "-I", "-u", R_WORKER]


@contextmanager
def r_worker(*, env: Mapping[str, str] | None = None, **options: Any) -> Iterator[WorkerProcess]:
    """A worker that is greeted and has loaded nothing."""
    with WorkerProcess(r_command(), env={"RPY2_CFFI_MODE": "ABI", **(env or {})}, **options) as worker:
        yield worker


def r_model(**fields: Any) -> dict[str, Any]:
    """LOAD's fields with the defaults of a model in R."""
    return {"main_file": "main.R", "function": "score", **fields}


ECHO = "score <- function(parameters) parameters\n"


@pytest.fixture
def start():
    """Starts a worker that is greeted and has loaded nothing."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(r_worker(**options))


@pytest.fixture
def model(root, write):
    """Writes a model's files, a text alone being its main.R; LOAD's fields."""

    def model(files, **fields):
        write({"main.R": files} if isinstance(files, str | bytes) else files)
        return r_model(root=root, **fields)

    return model


@pytest.fixture
def serve(start, model):
    """Starts a worker and loads the model of these files."""

    def serve(files, *, env=None, **fields):
        worker = start(env=env)
        assert worker.load(**model(files, **fields)).type == "loaded", worker.loaded.header
        return worker

    return serve


@pytest.fixture
def refusal(start, model):
    """The `load_failed` with which a worker answers to a model of these files."""

    def refusal(files, **fields):
        answer = start().load(**model(files, **fields))
        assert answer.type == "load_failed", answer.header
        return answer

    return refusal
