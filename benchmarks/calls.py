"""Measures calls: ModelHost with the ceiling, then with each peer, of which never two run at the same time."""

import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from benchmarks.checking import WrongAnswer
from benchmarks.ours import Ours
from benchmarks.peers.peer import NotHere, Peer
from benchmarks.report import Findings
from benchmarks.rounds import LOADS, How, Step, run
from benchmarks.servers import Ceiling, Server, Targets
from benchmarks.work import echo_of, large_tensor, tensor_sum

NO_INFER = "this ModelHost has no Open Inference Protocol"
OF_TENSORS = ("ceiling", "json", "tensor_1mib", "many", "kserve", "pytriton", "mlserver", "ray_serve", "triton")


def say(what: str) -> None:
    """Tell whoever waits."""
    print(what, file=sys.stderr, flush=True)


class Calls:
    """Measures into `found`, in so many rounds of so many seconds for each segment."""

    def __init__(self, found: Findings, folder: Path, *, rounds: int, seconds: float) -> None:
        self._found = found
        self._rounds = rounds
        self._seconds = seconds
        self._targets = Targets(folder)

    def measure(self, ours: Ours, wanted: Callable[[str], bool], peers: Iterable[Peer]) -> None:
        """Measure the kinds of work that are wanted, and these peers."""
        for work in ours.works.values():
            self._targets.prepare(ours, work)
        if not ours.has_infer:
            self._found.reasons |= dict.fromkeys(OF_TENSORS, NO_INFER)
        names = {name for name in LOADS if wanted(name)}
        if names & {"json", "many"}:
            names.add("sum")  # what they are compared with
        works = [name for name in LOADS if name in names and name in ours.works]
        if works:
            self._with_ceiling(ours, works)
        for peer in peers:
            self._with_peer(ours, peer)

    def _with_ceiling(self, ours: Ours, works: list[str]) -> None:
        echoed = {work.name: echo_of(work) for work in (tensor_sum(), large_tensor(1), large_tensor(16))}
        with closing(Ceiling(echoed)) as ceiling:
            for work in echoed.values():
                self._targets.prepare(ceiling, work)
            say("measuring ModelHost beside the ceiling")
            servers: tuple[Server, ...] = (ours, ceiling)
            self._run(
                [Step(server, work, how) for work in works for server in servers if _does(server, work, how)]
                for how in How
            )

    def _with_peer(self, ours: Ours, peer: Peer) -> None:
        say(f"starting {peer.title}")
        try:
            running = peer.start()
        except NotHere as error:
            self._found.miss(peer.name, str(error))
            say(f"{peer.name}: not here: {error}")
            return
        with closing(running):
            try:
                for work in peer.works:
                    self._targets.prepare(running, work)
            except WrongAnswer as error:
                self._found.miss(peer.name, str(error))
                say(f"{peer.name}: not measured: {error}")
                return
            servers: tuple[Server, ...] = (ours, running)
            self._run(
                [Step(server, work.name, how) for server in servers if _does(server, work.name, how)]
                for work in peer.works
                for how in How
            )

    def _run(self, groups: Iterable[list[Step]]) -> None:
        steps = [group for group in groups if group]
        run(steps, self._targets, self._found.samples, rounds=self._rounds, seconds=self._seconds)


def _does(server: Server, work: str, how: How) -> bool:
    return work in server.works and how in LOADS[work]
