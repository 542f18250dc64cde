"""What all workers of a server share, and what makes those of one revision alike."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from modelhost.server.serving.answers import Mask
from modelhost.server.serving.confinement import Confinement
from modelhost.server.serving.memory import MemoryWatch, host_processes
from modelhost.server.serving.output import OutputPump
from modelhost.server.serving.process import Spawner
from modelhost.server.serving.tensors import ANY, Signature
from modelhost.server.serving.turns import Turns

FILE_THREADS = 4

OnLines = Callable[[str, str, list[str], str], None]


def _none(size: int) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that makes the workers of one revision alike.

    `prepare` fills a worker's own directory with the model's files and returns the model's root in it; it blocks.
    `needs` are what it reads besides that and the system's files: environment and interpreter.
    `shared_env` are variables that depend on how many workers share the host; `env` comes over them.
    `load` are the fields of the LOAD message but for `root`. `on_lines` gets (worker id, stream, lines, id of the call
    that they belong to) on the output thread; `mask` takes the secrets out of all that is said, in lines and errors
    alike. Times in seconds, sizes in bytes; no `memory` is no limit. A worker that has answered `recycle_calls` calls
    or uses more than `recycle_memory` is exchanged for a fresh one; 0 is never. Up to `batch_size` calls go to a
    model's batch function together, for which one may be kept back up to `batch_delay`; with `batch_dimension`, tensor
    calls go to its function as one, their rows one after the other. `signature` are the tensors
    that it declares.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    prepare: Callable[[Path], Path]
    load: Mapping[str, object]
    on_lines: OnLines
    mask: Mask
    load_timeout: float
    call_timeout: float
    message_limit: int
    needs: tuple[Path, ...] = ()
    memory: int = 0
    recycle_calls: int = 0
    recycle_memory: int = 0
    batch_size: int = 1
    batch_delay: float = 0.0
    batch_dimension: bool = False
    signature: Signature = ANY
    shared_env: Callable[[int], Mapping[str, str]] = _none


class WorkerHost:
    """Where workers' directories lie, who starts, confines and reads them, and how many pools may load at once.

    `threads` fill and empty directories: threads of their own, so that a slow Git server keeps no worker waiting.
    `turns` are for models that are loaded when deployments are started or scaled; a worker that takes a dead one's
    place waits for none.
    """

    def __init__(
        self,
        directory: Path,
        spawner: Spawner,
        output: OutputPump,
        marker: Mapping[str, str],
        confinement: Confinement,
        *,
        concurrent_loads: int,
    ) -> None:
        self.directory = directory
        self.spawner = spawner
        self.output = output
        self.marker = marker
        self.confinement = confinement
        self.turns = Turns(concurrent_loads)
        self.memory = MemoryWatch(host_processes)
        self.threads = ThreadPoolExecutor(FILE_THREADS, "worker files")

    def close(self) -> None:
        """Wait for the threads; every worker must be gone."""
        self.memory.close()
        self.threads.shutdown()
