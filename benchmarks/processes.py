"""What processes cost, as the kernel counts it: /proc/<pid>/stat and smaps_rollup."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
KIB_PER_MIB = 1024


@dataclass(frozen=True)
class Stat:
    """A line of /proc/<pid>/stat: its name (15 characters at most), its parent, CPU seconds, when it was started."""

    name: str
    parent: int
    cpu: float
    started: str


def parse_stat(line: str) -> Stat:
    """Read such a line; the name may hold blanks and parentheses."""
    head, _, tail = line.rpartition(")")
    words = tail.split()
    return Stat(head.partition("(")[2], int(words[1]), (int(words[11]) + int(words[12])) / TICKS, words[19])


def stat(pid: int) -> Stat | None:
    """That process, if it is there."""
    with suppress(OSError, IndexError):
        return parse_stat((PROC / str(pid) / "stat").read_text(errors="replace"))
    return None


def tree(root: int) -> dict[int, Stat]:
    """The process and all that it and those have started, by pid."""
    everything = {int(name): seen for name in os.listdir(PROC) if name.isdigit() and (seen := stat(int(name)))}
    found: dict[int, Stat] = {}
    new = {root} & everything.keys()
    while new:
        found |= {pid: everything[pid] for pid in new}
        new = {pid for pid, seen in everything.items() if seen.parent in found} - found.keys()
    return found


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of what takes calls, and of all else that a server has."""

    server: float
    workers: float

    def since(self, earlier: "Cpu", calls: int) -> "Cpu":
        """What was used since then, in seconds per 1,000 calls."""
        return Cpu((self.server - earlier.server) * 1000 / calls, (self.workers - earlier.workers) * 1000 / calls)


def cpu_of(root: int, front: str = "") -> Cpu:
    """CPU of a tree of processes. `front` is the name of the one that takes calls, if that is not the root."""
    seen = tree(root)
    at_front = {pid for pid, each in seen.items() if (each.name == front if front else pid == root)}
    return Cpu(
        sum(seen[pid].cpu for pid in at_front),
        sum(each.cpu for pid, each in seen.items() if pid not in at_front),
    )


def memory_mib(pid: int) -> tuple[float, float]:
    """RSS and PSS of a process in MiB; the latter shares what is shared."""
    return parse_rollup((PROC / str(pid) / "smaps_rollup").read_text())


def parse_rollup(text: str) -> tuple[float, float]:
    """RSS and PSS in MiB, from a smaps_rollup."""
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith(" kB")}
    return sizes["Rss"] / KIB_PER_MIB, sizes["Pss"] / KIB_PER_MIB


def end(process: "subprocess.Popen[str]", seconds: float = 20) -> None:
    """Ask a process to end; what is left of it and of what it had started gets no choice."""
    before = tree(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    _kill(before)
    process.wait(seconds)


def _kill(processes: dict[int, Stat]) -> None:
    for pid, before in processes.items():
        now = stat(pid)
        if now is not None and now.started == before.started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(
        (now := stat(pid)) is not None and now.started == before.started and now.parent != os.getpid()
        for pid, before in processes.items()
    ):
        time.sleep(0.05)
