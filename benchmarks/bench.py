"""The benchmark: `make bench`, and with other servers `make bench-peers`.

    python -m benchmarks.bench [--peers] [--only json,warm_start,kserve]

`--only` names kinds of work (`work.py`), costs (`deploying.py`) and peers. BENCH_ROUNDS (7) and BENCH_SECONDS (1.5, of
a segment) make it longer or shorter; a run that is too short, or not of everything, is kept as a trial.

What needs the package index comes first: peers and environments. Then calls are measured by a process of its own in a
network of its own, if that can be had (`network.py`), which knows of the first part from a file.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from benchmarks import network, report
from benchmarks.calls import Calls, say
from benchmarks.deploying import MEASURES
from benchmarks.load import need_h2load
from benchmarks.ours import Ours, prepare
from benchmarks.peers.known import PEERS
from benchmarks.peers.peer import NotHere, Peer
from benchmarks.report import Findings
from benchmarks.rounds import LOADS
from tests.e2e.daemon import find_python

ROOT = Path(__file__).parents[1]
LEAST_ROUNDS, LEAST_SECONDS = 5, 1.0  # of a result
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "1.5"))


KNOWN = frozenset({*LOADS, *MEASURES, *(peer.name for peer in PEERS)})


class Wanted:
    """What a run is to measure."""

    def __init__(self, only: str, *, with_peers: bool) -> None:
        """Raises `ValueError` for a name that is none."""
        self.names = frozenset(filter(None, map(str.strip, only.split(","))))
        if unknown := self.names - KNOWN:
            raise ValueError(f"nothing is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(KNOWN))}")
        self._with_peers = with_peers

    def __contains__(self, name: str) -> bool:
        return not self.names or name in self.names

    def peers(self) -> list[Peer]:
        """Peers to measure."""
        return [peer for peer in PEERS if peer.name in self.names or (self._with_peers and not self.names)]

    def has_calls(self) -> bool:
        """Whether calls are to be measured."""
        return bool(self.peers()) or any(name in self for name in LOADS)


def begin(wanted: Wanted, folder: Path, interpreter: Path) -> Findings:
    """Install peers, measure what deploying costs, build the environment of the models."""
    found = Findings()
    for peer in wanted.peers():
        try:
            found.peers[peer.name] = f"{peer.install()}; {peer.settings}"
        except NotHere as error:
            found.miss(peer.name, str(error))
    for peer in PEERS:
        if peer.name not in found.peers:
            found.reasons[peer.name] = "`make bench-peers` measures it"
    for name, measure in MEASURES.items():
        if name in wanted:
            say(f"measuring {name}")
            place = folder / name
            place.mkdir(mode=0o711)
            found.costs += measure(place, interpreter)
    if wanted.has_calls():
        say("building the environment of the models")
        prepare(folder, interpreter)
    return found


def measure_calls(found: Findings, wanted: Wanted, folder: Path, interpreter: Path) -> None:
    """Measure calls, in a network of this process's own if it is in one."""
    if network.is_private():
        network.raise_loopback()
    peers = list(_that_are_here(wanted.peers(), found))
    say("deploying models")
    with_r = "lm" in wanted or any(peer.name == "plumber" for peer in peers)
    with closing(Ours(folder, interpreter, with_many="many" in wanted, with_r=with_r)) as ours:
        Calls(found, folder, rounds=ROUNDS, seconds=SECONDS).measure(ours, wanted.__contains__, peers)


def _that_are_here(peers: Iterable[Peer], found: Findings) -> Iterable[Peer]:
    for peer in peers:
        if peer.listens_everywhere and not network.is_private():
            found.miss(peer.name, "it listens on every address, and it takes root to keep it to a network of its own")
        if not found.misses(peer.name):
            yield peer


def finish(found: Findings, wanted: Wanted, command: str) -> None:
    """Print and keep the report; the bars come last."""
    is_whole = not wanted.names and ROUNDS >= LEAST_ROUNDS and SECONDS >= LEAST_SECONDS
    text = report.markdown(found, command=command, rounds=ROUNDS, seconds=SECONDS)
    path = report.keep(text, is_result=is_whole)
    print(f"{text}\nkept as {path.relative_to(ROOT)}\n")
    print("\n".join(found.bar_lines()), flush=True)


def main() -> int:
    """Measure; returns the exit code, which says nothing of the bars."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.bench",
        description="Measures calls and what deploying costs, and prints a line for each bar.",
        epilog="BENCH_ROUNDS (7) and BENCH_SECONDS (1.5, of a segment) make it longer or shorter. The exit code says "
        "nothing of the bars. Of `make`, `--only` is BENCH_ONLY.",
    )
    parser.add_argument("--peers", action="store_true", help="measure other servers too, half an hour")
    parser.add_argument("--only", default="", metavar="NAMES", help=f"some of {','.join(sorted(KNOWN))}")
    parser.add_argument("--go-on-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        wanted = Wanted(options.only, with_peers=options.peers)
    except ValueError as error:
        parser.error(str(error))
    interpreter = find_python("3.6")
    if interpreter is None:
        print("no Python 3.6: `pyenv install 3.6.15` builds one", file=sys.stderr)
        return 2
    if not need_h2load():
        return 2
    command = "make bench-peers" if options.peers else "make bench"
    command += f" BENCH_ONLY={shlex.quote(options.only)}" if options.only else ""
    if options.go_on_in:
        found = Findings.load(options.go_on_in)
        measure_calls(found, wanted, options.go_on_in, interpreter)
        finish(found, wanted, command)
        return 0
    with tempfile.TemporaryDirectory(prefix="modelhost-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        found = begin(wanted, folder, interpreter)
        if not wanted.has_calls():
            finish(found, wanted, command)
            return 0
        found.save(folder)
        again = [sys.executable, "-m", "benchmarks.bench", *sys.argv[1:], "--go-on-in", name]
        return subprocess.run([*network.prefix(), *again], check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
