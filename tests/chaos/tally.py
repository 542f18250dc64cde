"""What is counted in a run, and its last line."""

import statistics
import threading
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.causes import Outcome


@dataclass
class Tally:
    """Counts, and in words all that should not have been. From any thread."""

    seed: int
    calls: int = 0
    ok: int = 0
    streams: int = 0  # that are among the calls
    items: int = 0  # of streams
    tensors: int = 0  # calls with tensors, that are among the calls
    failures: Counter[Outcome] = field(default_factory=Counter)
    died: Counter[str] = field(default_factory=Counter)  # calls that failed with WORKER_DIED, by deployment
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)  # whatever else is a fault
    recoveries: list[float] = field(default_factory=list)  # seconds, of a deployment whose only worker was killed
    server_recoveries: list[float] = field(default_factory=list)  # seconds, of a deployment whose server was
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self) -> None:
        """A call was answered."""
        with self.lock:
            self.calls += 1
            self.ok += 1

    def failed(self, deployment: str, outcome: Outcome) -> None:
        """A call failed."""
        with self.lock:
            self.calls += 1
            self.failures[outcome] += 1
            self.died[deployment] += outcome[1] == "WORKER_DIED"

    def streamed(self, items: int) -> None:
        """A stream has ended, or was left, after so many items."""
        with self.lock:
            self.streams += 1
            self.items += items

    def inferred(self) -> None:
        """A call with tensors has ended."""
        with self.lock:
            self.tensors += 1

    @property
    def is_good(self) -> bool:
        """Whether nothing was as it should not be."""
        return not (self.wrong or self.hung or self.lost or self.orphans or self.unexpected)

    @property
    def problems(self) -> list[str]:
        """All that should not have been, one line each."""
        kinds = ("wrong", "hung", "lost", "orphans", "unexpected")
        return [f"{kind}: {each}" for kind in kinds for each in getattr(self, kind)]

    def counts(self) -> str:
        """For lines meanwhile."""
        with self.lock:
            how = ", ".join(f"{reason or code} {count}" for (code, reason), count in self.failures.most_common())
            return self._calls() + (f" ({how})" if how else "")

    def servers_line(self) -> str:
        """How long it took after SIGKILLs of the server."""
        half, most = _milliseconds(self.server_recoveries)
        count = len(self.server_recoveries)
        return f"after SIGKILL of the server: deployments={count} recover_p50_ms={half} recover_max_ms={most}"

    def last_line(self) -> str:
        """The summary."""
        half, most = _milliseconds(self.recoveries)
        return (
            f"chaos: seed={self.seed} {self._calls()}"
            f" wrong={len(self.wrong)} hung={len(self.hung)} lost={len(self.lost)} orphans={len(self.orphans)}"
            f" recover_p50_ms={half} recover_max_ms={most}"
        )

    def _calls(self) -> str:
        return (
            f"calls={self.calls} streams={self.streams} items={self.items} tensors={self.tensors}"
            f" ok={self.ok} failed={self.failures.total()}"
        )


def _milliseconds(seconds: list[float]) -> tuple[str, str]:
    if not seconds:
        return "-", "-"
    return str(round(statistics.median(seconds) * 1000)), str(round(max(seconds) * 1000))
