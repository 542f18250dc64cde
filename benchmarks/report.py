"""What a run found, as tables for people: printed, and kept in Markdown."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path

from benchmarks.bars import BARS
from benchmarks.deploying import Cost
from benchmarks.rounds import LOADS, SHARES, How, Samples

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TRIALS = ROOT / "build" / "benchmarks"
# What a bar is over, and what there is of it: the bar is over the one that does best.
STRONGEST = {
    "kserve": ("kserve",),
    "pytriton": ("pytriton",),
    "mlserver": ("mlserver", "mlserver_plain"),
    "ray_serve": ("ray_serve", "ray_plain"),
    "triton": ("triton",),
}
OURS = "modelhost"
NOT_HERE = "not here:"
BEGUN = "begun.json"
CPU_AT = (How.MANY, How.TURN, How.EIGHT, How.ONE)  # the first of these that was measured
VERSIONS = ("modelhost", "grpcio", "protobuf", "uvloop")


@dataclass
class Findings:
    """All that a run found. `reasons` say, by the name of a bar, why it was not measured."""

    samples: Samples = field(default_factory=Samples)
    costs: list[Cost] = field(default_factory=list)
    peers: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def miss(self, peer: str, why: str) -> None:
        """Know of a peer that cannot be measured."""
        first = (why.strip().splitlines() or [""])[0].replace("|", "/")
        self.peers[peer] = self.reasons[peer] = f"{NOT_HERE} {first}"

    def misses(self, peer: str) -> bool:
        """Whether it cannot be measured."""
        return self.peers.get(peer, "").startswith(NOT_HERE)

    def save(self, folder: Path) -> None:
        """Write down all but the samples, for another process."""
        costs = [asdict(cost) for cost in self.costs]
        text = json.dumps({"costs": costs, "peers": self.peers, "reasons": self.reasons})
        (folder / BEGUN).write_text(text)

    @classmethod
    def load(cls, folder: Path) -> "Findings":
        """Read what was saved."""
        begun = json.loads((folder / BEGUN).read_text())
        return cls(costs=[Cost(**cost) for cost in begun["costs"]], peers=begun["peers"], reasons=begun["reasons"])

    def measures(self) -> dict[str, float | None]:
        """What each bar is about."""
        ratio, at = self.samples.ratio, How.MANY
        ours = (OURS, "sum", at)
        found: dict[str, float | None] = {
            "ceiling": ratio(ours, ("ceiling", "sum", at)),
            "json": ratio((OURS, "json", at), ours),
            "tensor_1mib": ratio((OURS, "mib1", How.ONE), ("ceiling", "mib1", How.ONE)),
            "plumber": ratio((OURS, "lm", How.EIGHT), ("plumber", "lm", How.EIGHT)),
            "many": ratio((OURS, "many", How.TURN), (OURS, "sum", How.TURN)),
        }
        for peer, variants in STRONGEST.items():
            asked_for = [variant for variant in variants if variant in self.peers] or variants
            ratios = [ratio(ours, (variant, "sum", at)) for variant in asked_for]
            measured = [each for each in ratios if each is not None]
            found[peer] = min(measured) if len(measured) == len(ratios) else None  # the missing one might be the better
        return found | {cost.name: cost.value for cost in self.costs}

    def reason(self, bar: str) -> str:
        """Why a bar was not measured."""
        return self.reasons.get(bar, "it was not asked for, or all segments failed")

    def bar_lines(self) -> list[str]:
        """One line for each bar, before them the reasons of those that were not measured."""
        measures = self.measures()
        reasons = [
            f"not measured: {bar.name}: {self.reason(bar.name)}" for bar in BARS if measures.get(bar.name) is None
        ]
        return reasons + [bar.line(measures.get(bar.name)) for bar in BARS]


def markdown(found: Findings, *, command: str, rounds: int, seconds: float) -> str:
    """The whole report."""
    ran = f"{rounds} rounds of {seconds:g} s a segment, medians; ratios are medians of the rounds' ratios"
    parts = [
        f"# Benchmarks, {date.today().isoformat()}",
        f"`{command}`, {ran}. CONTRIBUTING.md says how it is measured.",
        "\n".join(f"- {line}" for line in (*_host(), *(f"{name}: {said}" for name, said in found.peers.items()))),
        "## Answers per second\n\nBy calls under way, or all bodies in turn with 32 under way.\n\n"
        + _rates(found.samples),
        "## ModelHost over others, answers per second\n\n" + _ratios(found.samples),
        "## Milliseconds, p50 / p99\n\nOne call at a time, then at random times at a share of the server's own peak, "
        "counted from when a call was due.\n\n" + _latencies(found.samples),
        "## CPU seconds per 1,000 calls\n\nOf the process that takes calls, and of all its others.\n\n"
        + _cpu(found.samples),
        "## Deploying\n\n" + _table(("what", "measured"), [(cost.what, _cost(cost)) for cost in found.costs]),
        "## Bars\n\n" + _bars(found),
    ]
    if found.samples.problems:
        lost = "\n".join(f"- {problem}" for problem in found.samples.problems)
        parts.insert(-1, f"## Segments that have no figure\n\n{lost}")
    return "\n\n".join(parts) + "\n"


def keep(text: str, *, is_result: bool) -> Path:
    """Write a report to where results are kept, each of them, or trials, a day's last one."""
    folder = RESULTS if is_result else TRIALS
    folder.mkdir(parents=True, exist_ok=True)
    today = date.today().isoformat()
    path, number = folder / f"{today}.md", 1
    while is_result and path.exists():
        number += 1
        path = folder / f"{today}-{number}.md"
    path.write_text(text)
    return path


def _host() -> list[str]:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    load = os.getloadavg()[0]
    return [
        f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, load average {load:.1f} at the end",
        f"commit {_commit()}, Python {platform.python_version()}, {versions}",
    ]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _commit() -> str:
    def git(*arguments: str) -> str:
        said = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return said.stdout.strip()

    changed = " and changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed


def _rates(samples: Samples) -> str:
    columns = [how for how in How if how not in SHARES]
    rows = []
    for server, work in _subjects(samples):
        rates = [samples.rate((server, work, how)) for how in columns]
        if any(rates):
            rows.append((server, work, *("" if rate is None else f"{rate:,.0f}" for rate in rates)))
    return _table(("server", "work", *(how.value for how in columns)), rows)


def _ratios(samples: Samples) -> str:
    columns = [how for how in How if how not in SHARES]
    rows = []
    for server, work in _subjects(samples):
        ratios = [samples.ratio((OURS, work, how), (server, work, how)) for how in columns]
        if server != OURS and any(ratios):
            rows.append((server, work, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)))
    return _table(("other", "work", *(how.value for how in columns)), rows)


def _latencies(samples: Samples) -> str:
    columns = (How.ONE, *SHARES)
    rows = []
    for server, work in _subjects(samples):
        cells = []
        for how in columns:
            key = (server, work, how)
            low, high, rate = samples.milliseconds(key, 50), samples.milliseconds(key, 99), samples.rate(key)
            at = f" ({rate:,.0f}/s)" if how in SHARES and rate else ""
            cells.append("" if low is None or high is None else f"{low:.2f} / {high:.2f}{at}")
        if any(cells):
            rows.append((server, work, *cells))
    return _table(("server", "work", *(how.value for how in columns)), rows)


def _cpu(samples: Samples) -> str:
    rows = []
    for server, work in _subjects(samples):
        for how in CPU_AT:
            if cost := samples.cpu((server, work, how)):
                rows.append((server, work, how.value, f"{cost.server:.3f}", f"{cost.workers:.3f}"))
                break
    return _table(("server", "work", "under way", "server", "workers"), rows)


def _subjects(samples: Samples) -> list[tuple[str, str]]:
    """Servers and what they did, each work's servers next to each other."""
    seen = list(dict.fromkeys((server, work) for server, work, _ in samples.measured()))
    works = list(LOADS)
    return sorted(seen, key=lambda each: (works.index(each[1]), seen.index(each)))


def _bars(found: Findings) -> str:
    measures = found.measures()
    rows = []
    for bar in BARS:
        measured = measures.get(bar.name)
        verdict = (
            f"not measured: {found.reason(bar.name)}" if measured is None else "ok" if bar.is_met(measured) else "short"
        )
        rows.append(
            (bar.name, bar.what, bar.shown(measured), f"{bar.rule.value} {bar.needed:g}", f"{bar.aim:g}", verdict)
        )
    return _table(("bar", "what", "measured", "needed", "aim", ""), rows)


def _cost(cost: Cost) -> str:
    return f"{cost.value:.2f} {cost.unit}".strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Not measured."
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
