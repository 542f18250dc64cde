"""What the plan's words mean: each is done to the server, and said in a line."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from modelhost.v1.predict_pb2_grpc import PredictStub
from tests.chaos.callers import DEADLINE_SECONDS, LONGEST_SECONDS, cancel_under_way
from tests.chaos.causes import DIED, OF_POISONS, Cause, Causes, Kind, Outcome
from tests.chaos.host import Host
from tests.chaos.journal import INTERRUPTED, Deployment, Journal
from tests.chaos.judge import Call, Judge
from tests.chaos.models import CHECKED, MODELS, parameters
from tests.chaos.plan import Deed
from tests.chaos.streams import IDLE_SECONDS, LARGE_BYTES, MANY, Reading, Stream
from tests.chaos.tally import Tally
from tests.git_repos import Repo

MOST_WORKERS = 3
CANCELS = 5
POISONED_ITEMS = 40
LONGEST_REST_SECONDS = 12.0
HARMLESS = ("raise", "raise in a stream", "quit", "leave")  # poisons that cost nobody else anything
START_AGAIN_SECONDS = 15.0  # in which a deployment that is being stopped has stopped
_DEADLY = (Kind.KILLED, Kind.FROZEN)


class Deeds:
    """Does them one after another, on one thread."""

    def __init__(
        self,
        *,
        host: Host,
        journal: Journal,
        judge: Judge,
        causes: Causes,
        repos: dict[str, Repo],
        tally: Tally,
        say: Callable[[str], None],
    ) -> None:
        self._host = host
        self._journal = journal
        self._judge = judge
        self._causes = causes
        self._repos = repos
        self._tally = tally
        self._say = say
        self._constants = 0
        self._deadly_calls: Counter[str] = Counter()
        self._numbers = 0
        self.chance = random.Random(tally.seed)
        self._client = host.client()
        self._patient = host.client(None)
        self._narrow = PredictStub(host.narrow_calls())
        self._threads: list[threading.Thread] = []
        self._deeds = {
            "kill worker": self.kill_worker,
            "freeze worker": self.freeze_worker,
            "grow": self.grow,
            "poison": self.poison,
            "poison stream": self.poison_stream,
            "update": self.update,
            "roll back": self.roll_back,
            "stop": self.stop,
            "start": self.start,
            "scale": self.scale,
            "cancel": self.cancel,
            "kill server": self.kill_server,
            "kill server in update": self.kill_server_in_update,
            "end server": self.end_server,
        }

    def do(self, deed: Deed) -> None:
        """Do one, and start again what a killed load has left FAILED."""
        self._deeds[deed.what](deed)
        for model in CHECKED:
            self.mend(model.name)

    def mend(self, name: str) -> None:
        """Start a deployment whose worker was killed while it was loaded for the first time."""
        if not self._journal.entry(name).running:
            return
        now = self._journal.look(name)
        if now.state == Deployment.STATE_FAILED and now.failure.reason in INTERRUPTED and self.was_disturbed(name):
            self._say(f"start {name}: {now.failure.message}")
            self._journal.start(name)

    def was_disturbed(self, name: str) -> bool:
        """Whether a worker of it may have been killed while it loaded, since all was well with it."""
        return self._causes.count(name, *_DEADLY, since=self._journal.entry(name).calm) > 0

    def deaths(self, name: str) -> int:
        """How many workers of it may have died with a call in them."""
        return self._causes.count(name, *_DEADLY) + self._deadly_calls[name]

    def next_constant(self) -> int:
        """That of a new revision."""
        self._constants += 1
        return self._constants

    def commit(self, name: str, constant: int) -> str:
        """Commit a new revision."""
        return self._repos[name].commit(MODELS[name].files(constant))

    def finish(self) -> None:
        """Wait for what is under way."""
        for thread in self._threads:
            thread.join(2 * LONGEST_SECONDS)

    # -- workers

    def kill_worker(self, deed: Deed) -> None:
        """SIGKILL."""
        self._harm(deed, Kind.KILLED, signal.SIGKILL)

    def freeze_worker(self, deed: Deed) -> None:
        """SIGSTOP, for good: the call that it has or gets runs into the call_timeout."""
        self._harm(deed, Kind.FROZEN, signal.SIGSTOP)

    def _harm(self, deed: Deed, kind: Kind, number: signal.Signals) -> None:
        workers = self._host.workers(deed.target)
        if not workers:
            self._say(f"{deed.what} of {deed.target}: there is none")
            return
        victim = workers[int(deed.chance * len(workers))]
        entry = self._journal.entry(deed.target)
        is_measured = len(workers) == entry.workers == 1 and (entry.settled or deed.target not in self._repos)
        cause = Cause(kind, deed.target, lambda: not victim.alive, victim.pid)
        if kind is Kind.KILLED and is_measured:
            cause.on_recovery = lambda seconds: self._recovered(cause, seconds, self._tally.recoveries)
        self._causes.open(cause)
        with suppress(ProcessLookupError):
            os.kill(victim.pid, number)
        self._say(f"{deed.what} of {deed.target}: process {victim.pid}, of {len(workers)}")

    def _recovered(self, cause: Cause, seconds: float, recoveries: list[float]) -> None:
        """Keep how long that took, unless something else was done to the deployment meanwhile."""
        if self._causes.in_play(cause.deployment, cause.begun, time.monotonic()) == [cause]:
            recoveries.append(seconds)

    # -- calls

    def grow(self, deed: Deed) -> None:
        """Make a worker pass its memory limit."""
        self._poison(deed.target, "grow")

    def poison(self, deed: Deed) -> None:
        """Send a call that is the worker's last, or tries to be."""
        self._poison(deed.target, deed.poison)

    def _poison(self, name: str, poison: str) -> None:
        in_r = MODELS[name].language == "r" and poison == "fall"
        call = Call(
            name,
            self._parameters(do=poison),
            time.monotonic() + LONGEST_SECONDS,
            OF_POISONS["fall in R" if in_r else poison],
        )
        self._give(call, poison, lambda: self._judge.call(self._patient, call, None))

    def poison_stream(self, deed: Deed) -> None:
        """Open a stream whose model does that in its midst, or whose caller takes no more items."""
        what: dict[str, object] = {"items": MANY, "size": LARGE_BYTES}
        reading = Reading(after_first=IDLE_SECONDS)
        if deed.poison != "idle":
            what = {"items": POISONED_ITEMS, "size": 10, "at": int(deed.chance * POISONED_ITEMS), "do": deed.poison}
            reading = Reading()
        end = time.monotonic() + LONGEST_SECONDS + reading.after_first
        call = Call(deed.target, self._parameters(**what), end, OF_POISONS[deed.poison])
        self._give(call, f"{deed.poison} in a stream", Stream(self._judge, self._narrow, call, reading, None).read)

    def _give(self, call: Call, poison: str, make: Callable[[], Outcome]) -> None:
        name = call.deployment
        over = threading.Event()
        if poison not in HARMLESS:
            self._causes.open(Cause(Kind.POISONED, name, over.is_set))
        self._deadly_calls[name] += DIED in call.allowed

        def run() -> None:
            outcome = make()
            over.set()
            self._say(f"  {poison} of {name} ended with {' '.join(outcome).strip() or 'an answer'}")

        self._say(f"poison {name}: {poison}")
        self._in_background(run)

    def cancel(self, deed: Deed) -> None:
        """Give up calls that run, and some that wait for them."""
        self._say(f"cancel calls of {deed.target}")
        for number in range(CANCELS):
            call = Call(deed.target, self._parameters(sleep=0.2), time.monotonic() + DEADLINE_SECONDS)
            after = deed.chance * 0.3 * number / CANCELS
            self._in_background(lambda call=call, after=after: cancel_under_way(self._client, self._judge, call, after))

    def _parameters(self, **more: object) -> dict[str, object]:
        self._numbers += 1
        return parameters(self.chance, -self._numbers, **more)

    def _in_background(self, act: Callable[[], None]) -> None:
        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        self._threads.append(thread)

    # -- wishes

    def update(self, deed: Deed) -> None:
        """Have a new commit run."""
        constant = self.next_constant()
        number = self._journal.update(deed.target, self.commit(deed.target, constant), constant)
        self._say(f"update {deed.target}: " + (f"revision {number}" if number else "refused"))

    def roll_back(self, deed: Deed) -> None:
        """Have an earlier revision run."""
        numbers = sorted(self._journal.entry(deed.target).revisions)
        number = numbers[int(deed.chance * len(numbers))]
        if not self._journal.entry(deed.target).running:
            self._say(f"roll {deed.target} back: it is stopped")
            return
        done = self._journal.roll_back(deed.target, number)
        self._say(f"roll {deed.target} back to revision {number}" + ("" if done else ": refused"))

    def stop(self, deed: Deed) -> None:
        """Have it stopped."""
        entry = self._journal.entry(deed.target)
        stopped = threading.Event()
        self._causes.open(Cause(Kind.STOPPED, deed.target, lambda: stopped.is_set() and entry.running))
        self._journal.stop(deed.target)
        stopped.set()
        self._say(f"stop {deed.target}")

    def start(self, deed: Deed) -> None:
        """Have it run again, as soon as it has stopped."""
        patience = time.monotonic() + START_AGAIN_SECONDS
        while not self._journal.start(deed.target) and time.monotonic() < patience:
            time.sleep(0.05)
        self._say(f"start {deed.target}")

    def scale(self, deed: Deed) -> None:
        """Have one to three workers."""
        workers = 1 + int(deed.chance * MOST_WORKERS)
        self._journal.scale(deed.target, workers)
        self._say(f"scale {deed.target} to {workers}")

    # -- the server

    def kill_server(self, deed: Deed) -> None:
        """SIGKILL it and start it again."""
        self._say("kill server")
        self._open_for_all(Kind.SERVER_KILLED)
        self._tally.orphans += self._host.restart_killed()
        self._after_restart(deed)

    def kill_server_in_update(self, deed: Deed) -> None:
        """SIGKILL it at some moment of an update."""
        constant = self.next_constant()
        commit = self.commit(deed.target, constant)
        self._say(f"update {deed.target}, and kill server {deed.chance * 0.8:.3f} s later")
        updating = threading.Thread(target=self._journal.update, args=(deed.target, commit, constant), daemon=True)
        updating.start()
        time.sleep(deed.chance * 0.8)
        self._open_for_all(Kind.SERVER_KILLED)
        self._tally.orphans += self._host.restart_killed()
        updating.join()
        self._after_restart(deed)

    def end_server(self, deed: Deed) -> None:
        """SIGTERM it and start it again."""
        self._say("end server")
        self._open_for_all(Kind.SERVER_ENDED)
        begun = time.monotonic()
        self._tally.orphans += self._host.stop()
        self._say(f"  server ended after {time.monotonic() - begun:.1f} s")
        self._host.start()
        self._after_restart(deed)

    def _open_for_all(self, kind: Kind) -> None:
        for name in MODELS:
            cause = Cause(kind, name, self._host.up.is_set)
            if kind is Kind.SERVER_KILLED and (name not in self._repos or self._journal.entry(name).running):
                cause.on_recovery = lambda seconds, cause=cause: self._recovered(
                    cause, seconds, self._tally.server_recoveries
                )
            self._causes.open(cause)

    def _after_restart(self, deed: Deed) -> None:
        """See that nothing is missing; then let it come to itself, sometimes."""
        self._say("  server is up again")
        self.verify()
        patience = time.monotonic() + deed.chance * LONGEST_REST_SECONDS
        while time.monotonic() < patience and not self._all_serve():
            time.sleep(0.05)

    def _all_serve(self) -> bool:
        wished = [name for name in MODELS if self._journal.entry(name).running]
        return all(self._journal.look(name).observed.live_workers for name in wished)

    def verify(self) -> None:
        """Nothing that was acknowledged is missing."""
        for name in MODELS:
            self._tally.lost += self._journal.missing(name, lambda name=name: self.was_disturbed(name))
