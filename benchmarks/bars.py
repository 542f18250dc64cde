"""The bars: what was promised of the measures, and whether it is so."""

from dataclasses import dataclass
from enum import Enum


class Rule(Enum):
    """How a measure is to stand to what is needed."""

    AT_LEAST = ">="
    AT_MOST = "<="
    BELOW = "<"


@dataclass(frozen=True)
class Bar:
    """A promise, of a ratio or of a measure in `unit`."""

    name: str
    what: str
    needed: float
    aim: float
    rule: Rule = Rule.AT_LEAST
    unit: str = ""

    def is_met(self, measured: float | None) -> bool:
        """Whether the measure is what is needed; what was not measured is not."""
        if measured is None:
            return False
        match self.rule:
            case Rule.AT_LEAST:
                return measured >= self.needed
            case Rule.AT_MOST:
                return measured <= self.needed
            case Rule.BELOW:
                return measured < self.needed

    def shown(self, measured: float | None) -> str:
        """The measure, `none` where there is none."""
        return "none" if measured is None else f"{measured:.2f}" if self.unit else f"{measured:.3f}"

    def line(self, measured: float | None) -> str:
        """The line that a run ends with."""
        verdict = "ok" if self.is_met(measured) else "short"
        return f"bar {self.name} measured={self.shown(measured)} needed={self.needed:g} aim={self.aim:g} {verdict}"


BARS = (
    Bar("ceiling", "sum at 32 in flight over the bare grpc.aio echo", 0.7, 0.85),
    Bar("kserve", "sum at 32 in flight over KServe's model server", 1.4, 2),
    Bar("pytriton", "sum at 32 in flight over PyTriton", 1.2, 1.8),
    Bar("mlserver", "sum at 32 in flight over MLServer", 4, 6),
    Bar("ray_serve", "sum at 32 in flight over Ray Serve's gRPC", 14, 20),
    Bar("triton", "sum at 32 in flight over Triton's Python backend", 0.6, 0.9),
    Bar("json", "json over sum, at 32 in flight", 0.8, 0.95),
    Bar("tensor_1mib", "mib1 one at a time over the echo of the same bytes", 0.8, 1.2),
    Bar("plumber", "lm at 8 in flight over plumber with the same model", 5, 10),
    Bar("many", "many (50 deployments in turn) over sum", 0.8, 0.95),
    Bar("warm_start", "start of a trivial Python 3.6 model to its first answer", 400, 150, Rule.BELOW, "ms"),
    Bar("list_scale", "a page of List with 10,000 deployments over one with 10", 1.5, 1.1, Rule.AT_MOST),
    Bar("idle_worker", "RSS of an idle Python 3.6 worker", 14, 10, Rule.AT_MOST, "MiB"),
)
