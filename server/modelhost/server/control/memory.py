"""Which declared memory fits the host: a pool that does not is refused before it is loaded."""

import os
from contextlib import suppress
from pathlib import Path

from modelhost.server.errors import StepFailed
from modelhost.server.text import bytes_shown
from modelhost.v1.error_reason_pb2 import ErrorReason

_CGROUP = Path("/sys/fs/cgroup")


class MemoryBudget:
    """What loaded pools have declared, of `total` bytes. On the event loop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._declared: dict[MemoryShare, int] = {}

    def share(self, per_worker: int) -> "MemoryShare":
        """A pool's part of it, nothing at first; `per_worker` in bytes, 0 where none is declared."""
        return MemoryShare(self, per_worker)

    def declare(self, share: "MemoryShare", wanted: int) -> None:
        """Have a share be so many bytes. Raises `StepFailed` MEMORY_NOT_AVAILABLE; it is then what it was."""
        others = sum(declared for each, declared in self._declared.items() if each is not share)
        if wanted > max(self.total - others, self._declared.get(share, 0)):  # giving some back is always possible
            raise StepFailed(
                ErrorReason.ERROR_REASON_MEMORY_NOT_AVAILABLE,
                "its workers may use {wanted}, and of the host's {total} others that are loaded may use {declared}:"
                " {free} are left",
                wanted=bytes_shown(wanted),
                total=bytes_shown(self.total),
                declared=bytes_shown(others),
                free=bytes_shown(self.total - others),
            )
        self._declared[share] = wanted
        if not wanted:
            del self._declared[share]


class MemoryShare:
    """What one pool has declared."""

    def __init__(self, budget: MemoryBudget, per_worker: int) -> None:
        self._budget = budget
        self._per_worker = per_worker

    def hold(self, workers: int) -> None:
        """Have room for so many workers. Raises `StepFailed` MEMORY_NOT_AVAILABLE, and holds what it held."""
        self._budget.declare(self, workers * self._per_worker)


def host_memory() -> int:
    """Bytes that the host has, or the control group that the server is in, if that may use less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                limits += _limits(_CGROUP, path, "memory.max")
            elif "memory" in controllers.split(","):
                limits += _limits(_CGROUP / "memory", path, "memory.limit_in_bytes")
    return min(limits)


def _limits(root: Path, path: str, name: str) -> list[int]:
    """Those of a group and of all above it, as far as they are seen from here."""
    groups = [root / path.lstrip("/"), *(root / path.lstrip("/")).parents]
    found = []
    for group in groups:
        if group.is_relative_to(root):
            with suppress(OSError, ValueError):  # "max" is no number
                found.append(int((group / name).read_text()))
    return found
