"""The benchmark: `make bench`, and with other servers `make bench-peers`.

    python -m benchmarks.bench [--peers] [--only json,warm_start,kserve]

`--only` names kinds of work (`work.py`), costs (`deploying.py`) and peers. BENCH_ROUNDS (7) and BENCH_SECONDS (1.5, of
a segment) make it longer or shorter; a run that is too short, or not of everything, is kept as a trial.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks import report
from benchmarks.deploying import MEASURES
from benchmarks.load import need_h2load
from benchmarks.ours import Ours
from benchmarks.peers.known import PEERS
from benchmarks.peers.peer import NotHere, Peer
from benchmarks.report import Findings
from benchmarks.rounds import LOADS, How, Step, run
from benchmarks.servers import Ceiling, Server, Targets
from benchmarks.work import echo_of, large_tensor, tensor_sum
from tests.e2e.daemon import find_python

LEAST_ROUNDS, LEAST_SECONDS = 5, 1.0  # of a result
NO_INFER = "this ModelHost has no Open Inference Protocol yet"
OF_TENSORS = ("ceiling", "json", "tensor_1mib", "many", "kserve", "pytriton", "mlserver", "ray_serve", "triton")


class Bench:
    """A run: what is asked for, where its files are, what it has found so far."""

    def __init__(self, folder: Path, interpreter: Path, only: set[str], rounds: int, seconds: float) -> None:
        self.found = Findings()
        self._folder = folder
        self._interpreter = interpreter
        self._only = only
        self._rounds = rounds
        self._seconds = seconds
        self._targets = Targets(folder)

    def wants(self, name: str) -> bool:
        """Whether something was asked for."""
        return not self._only or name in self._only

    def calls(self, peers: Iterable[Peer]) -> None:
        """Measure calls: ModelHost with the ceiling, then with each peer on its own, so that none is in another's way."""
        peers = [peer for peer in peers if self.wants(peer.name)]
        if not peers and not any(map(self.wants, LOADS)):
            return
        with ExitStack() as stack:
            _say("deploying models")
            with_r = self.wants("lm") or any(peer.name == "plumber" for peer in peers)
            place = self._place("ours")
            ours = Ours(place, self._interpreter, with_many=self.wants("many"), with_r=with_r)
            stack.enter_context(closing(ours))
            for work in ours.works.values():
                self._targets.prepare(ours, work)
            if not ours.has_infer:
                self.found.reasons |= dict.fromkeys(OF_TENSORS, NO_INFER)
            works = [name for name in LOADS if self.wants(name) and name in ours.works]
            if "many" in works and "sum" in ours.works and "sum" not in works:
                works.append("sum")
            self._with_ceiling(ours, works)
            for peer in peers:
                self._with_peer(ours, peer)

    def _with_ceiling(self, ours: Ours, works: list[str]) -> None:
        if not works:
            return
        echoed = {work.name: echo_of(work) for work in (tensor_sum(), large_tensor(1), large_tensor(16))}
        with closing(Ceiling(echoed)) as ceiling:
            for work in echoed.values():
                self._targets.prepare(ceiling, work)
            _say("measuring ModelHost beside the ceiling")
            groups = [
                [Step(server, work, how) for work in works for server in (ours, ceiling) if _does(server, work, how)]
                for how in How
            ]
            self._run(groups)

    def _with_peer(self, ours: Ours, peer: Peer) -> None:
        try:
            version = peer.install()
            _say(f"starting {peer.title} ({version})")
            running = peer.start(self._folder / peer.name)
        except NotHere as error:
            self.found.peers[peer.name] = self.found.reasons[peer.name] = f"not here: {error}"
            _say(f"{peer.name}: not here: {error}")
            return
        with closing(running):
            for work in peer.works:
                self._targets.prepare(running, work)
            self.found.peers[peer.name] = f"{version}; {peer.settings}"
            self._run(
                [Step(server, work.name, how) for server in (ours, running) if work.name in server.works]
                for work in peer.works
                for how in LOADS[work.name]
                if how is not How.TURN
            )

    def _run(self, groups: Iterable[list[Step]]) -> None:
        run(
            [group for group in groups if group],
            self._targets,
            self.found.samples,
            rounds=self._rounds,
            seconds=self._seconds,
        )

    def costs(self) -> None:
        """Measure what deploying costs."""
        for name, measure in MEASURES.items():
            if self.wants(name):
                _say(f"measuring {name}")
                self.found.costs += measure(self._place(name), self._interpreter)

    def _place(self, name: str) -> Path:
        place = self._folder / name
        place.mkdir(mode=0o711)
        return place


def _does(server: Server, work: str, how: How) -> bool:
    return work in server.works and how in LOADS[work]


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    """Measure; returns the exit code, which says nothing of the bars."""
    parser = argparse.ArgumentParser(prog="benchmarks.bench")
    parser.add_argument("--peers", action="store_true", help="measure other servers too")
    parser.add_argument("--only", default="", help="comma-separated names of work, costs and peers")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    known = {*LOADS, *MEASURES, *(peer.name for peer in PEERS)}
    if only - known:
        parser.error(f"--only knows {', '.join(sorted(known))}")
    interpreter = find_python("3.6")
    if interpreter is None:
        print("no Python 3.6: `pyenv install 3.6.15` builds one", file=sys.stderr)
        return 2
    if not need_h2load():
        return 2
    rounds, seconds = int(os.environ.get("BENCH_ROUNDS", "7")), float(os.environ.get("BENCH_SECONDS", "1.5"))
    with tempfile.TemporaryDirectory(prefix="modelhost-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        bench = Bench(folder, interpreter, only, rounds, seconds)
        bench.costs()
        bench.calls(PEERS if options.peers or only & {peer.name for peer in PEERS} else ())
    if not options.peers:
        bench.found.reasons |= {
            peer.name: "`make bench-peers` measures it" for peer in PEERS if peer.name not in bench.found.peers
        }
    command = "make bench-peers" if options.peers else "make bench"
    text = report.markdown(bench.found, command=command, rounds=rounds, seconds=seconds)
    path = report.keep(text, is_result=not only and rounds >= LEAST_ROUNDS and seconds >= LEAST_SECONDS)
    print(f"{text}\nkept as {path.relative_to(report.ROOT)}\n")
    print("\n".join(bench.found.bar_lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
