"""One run: set up, do what the plan says under load, look at everything once more, leave nothing behind."""

import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelhost.client import ModelHostError
from modelhost.v1 import data_source_pb2, deployment_pb2, runtime_pb2
from modelhost.v1.predict_pb2_grpc import PredictStub
from tests.chaos.callers import DEADLINE_SECONDS, LONGEST_SECONDS, Caller, PlainCaller
from tests.chaos.causes import ANSWER, Causes, Kind, Outcome
from tests.chaos.deeds import Deeds
from tests.chaos.host import VARIABLE, Host
from tests.chaos.journal import Deployment, Journal
from tests.chaos.judge import HUNG_SECONDS, Call, Judge
from tests.chaos.models import ABUSED, CALL_TIMEOUT_SECONDS, CHECKED, MODELS, Model, parameters
from tests.chaos.plan import plan
from tests.chaos.streams import Reading, Stream, StreamCaller, StreamOfOne
from tests.chaos.tally import Tally
from tests.chaos.tensors import TensorCaller, infer, infer_method
from tests.e2e.daemon import find_python
from tests.git_repos import Repo

LOAD_TIMEOUT_SECONDS = 30
_OWN_USER = {"OWN_USER": "yes"} if os.geteuid() == 0 else {}
SET_UP_SECONDS = 300.0
SETTLE_SECONDS = 120.0  # a frozen load takes its load_timeout
CALLERS = 2  # of each checked deployment; one of each that is abused
LAST_CALLS = 20  # of each deployment and of each kind, when all has settled
PROGRESS_SECONDS = 10.0
LOOK_SECONDS = 0.25
GET = {
    "python2.7": "Python 2.7: `pyenv install 2.7.18` builds one",
    "python3.6": "Python 3.6: `pyenv install 3.6.15` builds one",
    "r": "R: `make host` installs it on Debian and Ubuntu",
}


class Missing(Exception):
    """An interpreter that is needed is not on this host."""


class Run:
    """A run in `folder`, which must be empty and open to other users; `execute` once."""

    def __init__(self, seed: int, seconds: float, folder: Path, say: Callable[[str], None]) -> None:
        self.tally = Tally(seed)
        self._seconds = seconds
        self._folder = folder
        self._begun = time.monotonic()
        self._print = say
        self._over = threading.Event()
        self._causes = Causes()
        self._repos: dict[str, Repo] = {}
        found = [find_python(version) for version in ("2.7", "3.6")]
        self.host = Host(folder / "host", [path for path in found if path])

    def execute(self) -> Tally:
        """Do it all. Raises `Missing`; whatever happens, nothing runs any more afterwards."""
        try:
            self.host.start()
            self._journal = Journal(self.host.client())
            self._judge = Judge(self.tally, self._causes, self._journal)
            self._deeds = Deeds(
                host=self.host, journal=self._journal, judge=self._judge, causes=self._causes,
                repos=self._repos, tally=self.tally, say=self.say,
            )  # fmt: skip
            self._stubs = PredictStub(self.host.calls()), PredictStub(self.host.narrow_calls())
            self._infer = infer_method(self.host.calls())
            self._set_up()
            self._chaos()
            self._settle()
            self._end()
        finally:
            self._over.set()
            self.host.close()
        return self.tally

    def say(self, text: str) -> None:
        """A line with the time since the beginning."""
        self._print(f"chaos: {time.monotonic() - self._begun:7.2f} s  {text}")

    # -- before

    def _set_up(self) -> None:
        runtimes = self._runtimes()
        for model in MODELS.values():
            self._create(model, runtimes[model.language])
        for name in MODELS:
            self._journal.start(name)
        self._wait_until_settled(SET_UP_SECONDS)
        self.say(f"deployments run: {', '.join(MODELS)}")
        self._begun = time.monotonic()

    def _runtimes(self) -> dict[str, str]:
        client = self.host.client()
        found = client.admin.ListRuntimes(runtime_pb2.ListRuntimesRequest()).runtimes
        usable = sorted(each.name.removeprefix("runtimes/") for each in found if each.usable)
        runtimes = {language: name for language in GET for name in usable if name.startswith(language)}
        if missing := GET.keys() - runtimes.keys():
            raise Missing("; ".join(f"this host lacks {GET[language]}" for language in sorted(missing)))
        return runtimes

    def _create(self, model: Model, runtime: str) -> None:
        repo = self._repos[model.name] = Repo(self._folder / "repositories" / model.name)
        constant = self._deeds.next_constant()
        commit = self._deeds.commit(model.name, constant)
        location = data_source_pb2.GitLocation(url=str(repo.path))
        self.host.client().admin.CreateDataSource(
            data_source_pb2.CreateDataSourceRequest(
                data_source_id=model.name, data_source=data_source_pb2.DataSource(git=location)
            )
        )
        limits = deployment_pb2.Limits(memory_bytes=model.memory)
        limits.call_timeout.FromSeconds(CALL_TIMEOUT_SECONDS)
        limits.load_timeout.FromSeconds(LOAD_TIMEOUT_SECONDS)
        settings = deployment_pb2.ModelSettings(runtime=runtime, limits=limits, env={VARIABLE: model.name, **_OWN_USER})
        if model.language == "r":
            settings.unbox = True
        source = deployment_pb2.ModelSource(data_source=model.name, ref=commit)
        self._journal.create(model.name, Deployment(source=source, settings=settings), commit, constant)

    # -- while

    def _chaos(self) -> None:
        callers = self._callers()
        watching = threading.Thread(target=self._watch, daemon=True)
        for thread in (*callers, watching):
            thread.start()
        end = time.monotonic() + self._seconds
        for deed in plan(self.tally.seed):
            time.sleep(max(0.0, min(deed.pause, end - time.monotonic())))
            if time.monotonic() >= end:
                break
            self._deeds.do(deed)
        self.say("no more deeds; all deployments are to come up as they should be")
        self._come_up()
        self.tally.unexpected += [f"{caller.name} has died" for caller in callers if not caller.is_alive()]
        for caller in callers:
            caller.done.set()
        patience = time.monotonic() + LONGEST_SECONDS + HUNG_SECONDS + LOOK_SECONDS * 4
        for caller in callers:
            caller.join(max(0.0, patience - time.monotonic()))
        self._deeds.finish()
        self._judge.look_for_hung()
        self.tally.hung += [f"{caller.name} has not come back" for caller in callers if caller.is_alive()]
        if not watching.is_alive():
            self.tally.unexpected.append("nobody looked for calls that hang: the thread that does has died")

    def _callers(self) -> list[Caller]:
        judge, seed = self._judge, self.tally.seed
        clients = (self.host.client(), self.host.client(None))
        number = itertools.count(1)
        callers: list[Caller] = [
            PlainCaller(next(number), name, judge, seed, clients)
            for name in [model.name for model in CHECKED for _ in range(CALLERS)] + [model.name for model in ABUSED]
        ]
        for model in CHECKED:
            kind = StreamCaller if model.streams else StreamOfOne
            callers.append(kind(next(number), model.name, judge, seed, self._stubs))
            callers.append(TensorCaller(next(number), model.name, judge, seed, self._infer))
        return callers

    def _watch(self) -> None:
        told = time.monotonic()
        while not self._over.wait(LOOK_SECONDS):
            self._judge.look_for_hung()
            for name in MODELS:
                with suppress(ModelHostError):  # the server is down
                    self._journal.look(name)
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                wrong, hung, lost, orphans, unexpected = map(
                    len, (self.tally.wrong, self.tally.hung, self.tally.lost, self.tally.orphans, self.tally.unexpected)
                )
                self.say(f"{self.tally.counts()} {wrong=} {hung=} {lost=} {orphans=} {unexpected=}")

    # -- after

    def _come_up(self) -> None:
        self._deeds.verify()  # before anything is mended
        for name in MODELS:
            if not self._journal.entry(name).running:
                self._journal.start(name)
        self._wait_until_settled(SETTLE_SECONDS)

    def _wait_until_settled(self, seconds: float) -> None:
        """Every deployment runs the revision that it should, with as many workers; what does not in time is lost."""
        patience = time.monotonic() + seconds
        rest = set(MODELS)
        while rest and time.monotonic() < patience:
            for name in sorted(rest):
                now = self._journal.look(name)
                if self._is_settled(name, now):
                    rest.discard(name)
                elif now.state == Deployment.STATE_STOPPED:
                    self.tally.lost.append(f"{name} is stopped, and its start was acknowledged")
                    self._journal.start(name)
                elif now.update_state == Deployment.UPDATE_STATE_FAILED and self._deeds.was_disturbed(name):
                    self._journal.roll_back(name, now.target_revision)
                else:
                    self._deeds.mend(name)
            time.sleep(0.05)
        for name in sorted(rest):
            self.tally.lost.append(f"{name} has not come up as it should be: {self._journal.get(name)}")

    def _is_settled(self, name: str, now: Deployment) -> bool:
        entry = self._journal.entry(name)
        return (
            now.state == Deployment.STATE_RUNNING
            and now.active_revision == now.target_revision == entry.target
            and now.observed.live_workers == entry.workers
            and bool(entry.settled)
        )

    def _settle(self) -> None:
        """Whatever was done, all is well again: every answer comes, and from the revision that should give it."""
        client = self.host.client()
        for name in MODELS:
            for number in range(LAST_CALLS):
                call = self._last_call(name, number)
                self._must_answer(call, self._judge.call(client, call, DEADLINE_SECONDS))
                call = self._last_call(name, number, **({"items": number, "size": 10} if MODELS[name].streams else {}))
                stream = Stream(self._judge, self._stubs[0], call, Reading(), DEADLINE_SECONDS)
                self._must_answer(call, stream.read())
                call = self._last_call(name, number, x=list(range(number + 1)))
                self._must_answer(call, infer(self._judge, self._infer, call, DEADLINE_SECONDS, raw=number % 2 == 0))
        self._wait_until_idle()
        self._deeds.verify()
        self._judge.look_at_revisions()
        for name, died in self.tally.died.items():
            if died > (most := self._deeds.deaths(name)):
                self.tally.unexpected.append(f"{name}: {died} calls failed with WORKER_DIED, of {most} deaths")

    def _last_call(self, name: str, number: int, **more: Any) -> Call:
        sent = {**parameters(self._deeds.chance, number), **more}
        return Call(name, sent, time.monotonic() + DEADLINE_SECONDS)

    def _must_answer(self, call: Call, outcome: Outcome) -> None:
        if outcome != ANSWER and not self._is_frozen(call.deployment):
            self.tally.unexpected.append(f"{call.deployment} is up, and a call of it fails: {outcome}")

    def _wait_until_idle(self) -> None:
        """Nobody calls any more, whatever became of the calls and streams that were given up: all workers are free."""
        patience = time.monotonic() + LONGEST_SECONDS
        for name in MODELS:
            while (now := self._journal.get(name).observed).running_calls or now.queued_calls:
                if time.monotonic() > patience:
                    self.tally.unexpected.append(f"{name}: nobody calls it, and its workers are not free: {now}")
                    break
                time.sleep(0.05)

    def _is_frozen(self, name: str) -> bool:
        """Whether a worker of it was frozen and has had no call since: it runs into the call_timeout."""
        return any(cause.kind is Kind.FROZEN and cause.deployment == name for cause in self._causes.unfinished())

    def _end(self) -> None:
        self._over.set()
        self.tally.orphans += self.host.stop()
        for line in self.host.log.read_text(errors="replace").splitlines():
            if fault := fault_in(line):
                self.tally.unexpected.append(f"in the server's log: {fault}")


def fault_in(line: str) -> str:
    """What a line of the server's log tells of a fault of the server itself; empty if it tells of none."""
    try:
        event = json.loads(line)
    except ValueError:
        return line  # every line is JSON
    return line if event.get("level") in ("error", "critical") else ""


def clear(folder: Path) -> None:
    """Remove all that a run has written."""
    shutil.rmtree(folder)
