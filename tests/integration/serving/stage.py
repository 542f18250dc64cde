"""Pools of the models in `tests/models`, served by real workers on the running loop; and what they leave behind."""

import asyncio
import gc
import json
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from modelhost.runtimes import PYTHON_WORKER
from modelhost.server.control.memory import MemoryBudget
from modelhost.server.errors import DomainError, StepFailed
from modelhost.server.serving.confinement import Confinement, Unconfined
from modelhost.server.serving.crew import Room
from modelhost.server.serving.host import WorkerHost, WorkerSpec
from modelhost.server.serving.output import OutputPump
from modelhost.server.serving.pool import Pool, PoolListener
from modelhost.server.serving.process import Spawner

MODELS = Path(__file__).parents[2] / "models"
MARK = "MODELHOST_TEST"
LONG = 60.0  # more than anything here needs; only a hang reaches it
BATCH = 8  # calls
T = TypeVar("T")


def python36() -> str:
    """A Python 3.6: what the models of `tests/models` are written for, as well as for every later one."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [str(path) for path in sorted(pyenv.glob("versions/3.6.*/bin"))]
    found = shutil.which("python3.6", path=os.pathsep.join([*folders, os.environ["PATH"]]))
    assert found, f"no Python 3.6: neither in {pyenv}/versions nor on PATH; `pyenv install 3.6` builds it"
    return found


async def until(probe: Callable[[], T], *, seconds: float = 20.0, seen: Callable[[], object] = lambda: "") -> T:
    """Ask at every turn of the loop until the answer is true. The last answer and what is `seen` are in the failure."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (answer := probe()):
        assert loop.time() < deadline, f"still {answer!r} after {seconds:g} s {seen()}"
        await asyncio.sleep(0.002)
    return answer


async def ask(pool: Pool, parameters: Any, *, within: float | None = None, name: str = "") -> Any:
    """Call the model; `within` seconds from now is the deadline, `name` the call's id."""
    deadline = None if within is None else asyncio.get_running_loop().time() + within
    return json.loads(await pool.call(json.dumps(parameters).encode(), deadline, name))


async def begin(stage: "Stage", pool: Pool, word: str, gate: "Gate") -> "asyncio.Task[Any]":
    """A call that runs in a worker, and does so until the gate opens."""
    task = asyncio.create_task(ask(pool, {"note": word, "until": str(gate.path)}))
    await until(lambda: word in stage.noted())
    return task


async def queue(pool: Pool, word: str, more: dict[str, Any] | None = None, **options: Any) -> "asyncio.Task[Any]":
    """A call that waits in the queue, with `more` parameters."""
    before = pool.status.queued
    task = asyncio.create_task(ask(pool, {"note": word, **(more or {})}, **options))
    await until(lambda: pool.status.queued == before + 1)
    return task


async def failure(call: Awaitable[Any]) -> DomainError:
    """How the call fails."""
    with pytest.raises(DomainError) as caught:
        await call
    return caught.value


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only what nobody has reaped of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Gate:
    """What a model waits for, by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> None:
        self.path.touch()


class Stage:
    """A host for workers, the pools on it, and what is seen of them."""

    def __init__(self, folder: Path, confinement: Confinement | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._descriptors = set(os.listdir("/proc/self/fd"))
        self._mark = uuid.uuid4().hex
        self._faults: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self._faults.append(context))
        self.folder = folder
        self.notes = folder / "notes"
        self.host = WorkerHost(
            folder / "workers",
            Spawner(),
            OutputPump(),
            {MARK: self._mark},
            confinement or Unconfined(),
            concurrent_loads=8,
        )
        self.lines: list[tuple[str, str]] = []  # (stream, line)
        self.owners: list[tuple[str, str]] = []  # (line, the ids of the calls that it belongs to)
        self.changes = 0
        self.broken: list[StepFailed | None] = []
        self.ended: list[str] = []  # why workers did
        self.batches: list[int] = []  # how many calls each had, of pools that make them
        self._pools: list[Pool] = []

    def new_pool(
        self,
        model: str,
        *,
        size: int = 1,
        queue_size: int = 10,
        call_timeout: float = 20.0,
        load_timeout: float = 30.0,
        message_limit: int = 64 << 20,
        argv: Sequence[str] = (),
        env: dict[str, Any] | None = None,
        needs: Sequence[Path] = (),
        room: Room | None = None,
        copy: Callable[[Path, Path], object] = shutil.copy,
        **limits: Any,
    ) -> Pool:
        """A pool that is not started."""

        def prepare(directory: Path) -> Path:
            (directory / "model").mkdir()
            copy(MODELS / f"{model}.py", directory / "model" / "main.py")
            return directory / "model"

        spec = WorkerSpec(
            argv=tuple(argv) or (python36(), str(PYTHON_WORKER)),
            env={"NOTES": str(self.notes), **{name: str(value) for name, value in (env or {}).items()}},
            prepare=prepare,
            load={"main_file": "main.py", "function": "predict", "working_dir": "", "import_paths": ()},
            on_lines=self._keep_lines,
            mask=lambda text, **_: text,
            load_timeout=load_timeout,
            call_timeout=call_timeout,
            message_limit=message_limit,
            needs=(Path(python36()).parent.parent, *needs),
            **limits,
        )
        pool = Pool(
            self.host,
            spec,
            size=size,
            queue_size=queue_size,
            room=room or MemoryBudget(0).share(0),
            listener=PoolListener(
                changed=self._count_change,
                ended=self.ended.append,
                broken=lambda: self.broken.append(pool.failure),
                batched=self.batches.append,
            ),
        )
        self._pools.append(pool)
        return pool

    async def pool(self, model: str, **options: Any) -> Pool:
        """A pool that has loaded the model."""
        pool = self.new_pool(model, **options)
        await pool.start()
        return pool

    def _keep_lines(self, _: str, stream: str, lines: list[str], owner: str) -> None:
        self.lines.extend((stream, line) for line in lines)
        self.owners.extend((line, owner) for line in lines)

    def _count_change(self) -> None:
        self.changes += 1

    def noted(self) -> list[str]:
        """What `obliging` has noted, in its order."""
        return self.notes.read_text().split() if self.notes.exists() else []

    def processes(self) -> list[int]:
        """Every process that a worker is, or has started."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"{MARK}={self._mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # gone
        return [pid for pid in found if is_running(pid)]

    def directories(self) -> list[str]:
        """The directories of workers."""
        return os.listdir(self.host.directory) if self.host.directory.exists() else []

    def assert_nothing_is_left(self) -> None:
        """No process and no directory, right now."""
        assert self.processes() == []
        assert self.directories() == []

    async def close(self) -> None:
        """End all pools: nothing may be left of them, nor of what they waited for."""
        for pool in self._pools:
            await pool.close()
        self.assert_nothing_is_left()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        await asyncio.to_thread(self.host.close)
        await asyncio.to_thread(self.host.output.close)
        self.host.spawner.close()
        await until(lambda: self._leaked() == [], seen=self._leaked)
        gc.collect()  # futures whose exception nobody has looked at tell so when they are collected
        await asyncio.sleep(0)
        assert self._faults == []

    def _leaked(self) -> list[str]:
        """Descriptors that were not open at the beginning, but for the one that libuv keeps in reserve.

        Those that uvloop opens anew for each of its runs may have other numbers than at the beginning.
        """
        now = set(os.listdir("/proc/self/fd"))
        found = []
        for name in now - self._descriptors:
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
            except FileNotFoundError:
                continue  # that of the listing
        found = [path for path in found if path != os.devnull]
        return found if len(found) > len(self._descriptors - now) else []


async def batching(stage: Stage, **options: Any) -> Pool:
    """A pool that makes batches of up to 8 calls, and keeps none back."""
    return await stage.pool("batches", **{"batch_size": BATCH, **options})
