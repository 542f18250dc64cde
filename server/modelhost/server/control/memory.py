"""Which declared memory fits the host: a pool that does not is refused before it is loaded."""

import os
from collections.abc import Callable
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
        self._declared: dict[object, int] = {}

    def take(self, wanted: int) -> Callable[[], None]:
        """Declare so many bytes; returns what takes that back, which may be called twice.

        Raises `StepFailed` MEMORY_NOT_AVAILABLE.
        """
        declared = sum(self._declared.values())
        if wanted > self.total - declared:
            raise StepFailed(
                ErrorReason.ERROR_REASON_MEMORY_NOT_AVAILABLE,
                "its workers may use {wanted}, and of the host's {total} others that are loaded may use {declared}:"
                " {free} are left",
                wanted=bytes_shown(wanted),
                total=bytes_shown(self.total),
                declared=bytes_shown(declared),
                free=bytes_shown(self.total - declared),
            )
        key = object()
        if wanted:
            self._declared[key] = wanted

        def give_back() -> None:
            self._declared.pop(key, None)

        return give_back


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
