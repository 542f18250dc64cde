"""Callers without a pause, and what is made of each answer."""

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import grpc

from modelhost.client import Client, ModelHostError
from modelhost.client.prediction import Prediction, request_for
from modelhost.client.transport import rpc_error
from tests.chaos.causes import ANSWER, CANCELLED, DIED, Causes, Outcome, allowed
from tests.chaos.journal import Journal
from tests.chaos.models import CALL_TIMEOUT_SECONDS, fault_of, parameters
from tests.chaos.tally import Tally

DEADLINE_SECONDS = 5.0
HUNG_SECONDS = 5.0  # past the deadline
# A call without a deadline has its end all the same: it waits for a worker, and runs, for call_timeout each; and once
# more, where the worker that it was given had just died.
LONGEST_SECONDS = 3.0 * CALL_TIMEOUT_SECONDS
LONGEST_PAUSE_SECONDS = 0.04
PAUSE_AFTER_FAILURE_SECONDS = 0.05


@dataclass(eq=False)
class Call:
    """A call under way; `deadline` is when it must be over, on the monotonic clock."""

    deployment: str
    sent: dict[str, Any]
    deadline: float
    allowed: set[Outcome] = field(default_factory=lambda: {ANSWER})
    begun: float = field(default_factory=time.monotonic)
    told: bool = False  # that it hangs


class Judge:
    """Looks at every call's end. From any thread."""

    def __init__(self, tally: Tally, causes: Causes, journal: Journal) -> None:
        self.tally = tally
        self._causes = causes
        self._journal = journal
        self._under_way: set[Call] = set()
        self._later: set[tuple[str, int, int]] = set()  # deployment, revision and constant, to be looked at in the end
        self._lock = threading.Lock()

    def call(self, client: Client, call: Call, timeout: float | None) -> Outcome:
        """Make a call and judge its end; returns how it ended."""
        with self._lock:
            self._under_way.add(call)
        try:
            prediction = client.predict(call.deployment, call.sent, timeout=timeout)
        except ModelHostError as error:
            outcome = (error.code.name, error.reason)
            self.failed(call, outcome, str(error))
        else:
            outcome = ANSWER
            self.answered(call, prediction)
        finally:
            with self._lock:
                self._under_way.discard(call)
        return outcome

    def answered(self, call: Call, prediction: Prediction) -> None:
        """An answer has come."""
        self.tally.answered()
        fault = fault_of(call.sent, prediction.result)
        fault = fault or self._fault_of_revision(call, prediction.revision, prediction.result["constant"])
        if fault:
            self.tally.wrong.append(self._in_words(call, f"{fault}: {prediction}"))
            return
        if ANSWER not in call.allowed:
            self.tally.unexpected.append(self._in_words(call, f"an answer came, not {call.allowed}"))
        self._causes.answered(call.deployment, call.begun, prediction.result["pid"])

    def failed(self, call: Call, outcome: Outcome, message: str) -> None:
        """It has failed."""
        self.tally.failed(call.deployment, outcome)
        in_play = self._causes.in_play(call.deployment, call.begun, time.monotonic())
        if outcome not in call.allowed and not allowed(outcome, in_play):
            self.tally.unexpected.append(self._in_words(call, f"{outcome}: {message}"))

    def look_for_hung(self) -> None:
        """Count the calls that should long be over."""
        now = time.monotonic()
        with self._lock:
            hung = [call for call in self._under_way if now > call.deadline + HUNG_SECONDS and not call.told]
        for call in hung:
            call.told = True
            self.tally.hung.append(self._in_words(call, "no answer"))

    def look_at_revisions(self) -> None:
        """Judge the answers of revisions that had not been acknowledged yet when they came."""
        for deployment, number, constant in sorted(self._later):
            known = self._journal.entry(deployment).revisions.get(number)
            if known != constant:
                self.tally.wrong.append(f"{deployment}: revision {number} answered with {constant}, not {known}")

    def _fault_of_revision(self, call: Call, number: int, constant: int) -> str:
        entry = self._journal.entry(call.deployment)
        known = entry.revisions.get(number)
        if known is None:
            self._later.add((call.deployment, number, constant))
        elif known != constant:
            return f"revision {number} answers with {known}"
        settled = entry.settled
        if settled and settled[1] <= call.begun and number != settled[0]:
            return f"revision {settled[0]} is the one that serves"
        return ""

    def _in_words(self, call: Call, what: str) -> str:
        now = time.monotonic()
        in_play = [
            f"{cause.kind.name} {now - cause.begun:.2f} s ago"
            for cause in self._causes.in_play(call.deployment, call.begun, now)
        ]
        return (
            f"{call.deployment}: {what}; call {call.sent} begun {now - call.begun:.3f} s ago;"
            f" in play: {', '.join(in_play) or 'nothing'}"
        )


class Caller(threading.Thread):
    """Calls one deployment again and again, in most calls with a deadline."""

    def __init__(self, number: int, deployment: str, judge: Judge, clients: tuple[Client, Client], seed: int) -> None:
        """`clients` has one with a deadline for every call, and one without any."""
        super().__init__(name=f"caller {number}", daemon=True)
        self._number = number
        self._deployment = deployment
        self._judge = judge
        self._hurried, self._patient = clients
        self._chance = random.Random(seed * 1000 + number)
        self.done = threading.Event()

    def run(self) -> None:
        """Until `done`."""
        serial = 0
        while not self.done.is_set():
            serial += 1
            hurried = self._chance.random() < 0.75
            more = {"sleep": self._chance.uniform(0, 0.03)} if self._chance.random() < 0.3 else {}
            sent = parameters(self._chance, self._number * 10**6 + serial, **more)
            limit = DEADLINE_SECONDS if hurried else LONGEST_SECONDS
            call = Call(self._deployment, sent, time.monotonic() + limit)
            outcome = self._judge.call(self._hurried if hurried else self._patient, call, limit if hurried else None)
            pause = self._chance.uniform(0, LONGEST_PAUSE_SECONDS)
            self.done.wait(pause if outcome in (ANSWER, DIED) else pause + PAUSE_AFTER_FAILURE_SECONDS)


def cancel_under_way(client: Client, judge: Judge, call: Call, after: float) -> None:
    """Make a call, and give it up `after` seconds."""
    request = request_for(call.deployment, call.sent)
    future = client.predict_stub.Predict.future(request, timeout=DEADLINE_SECONDS)
    time.sleep(after)
    future.cancel()
    try:
        answer = future.result()
    except grpc.FutureCancelledError:
        judge.tally.failed(call.deployment, CANCELLED)
    except grpc.RpcError as error:
        failure = rpc_error(error, "the server")
        judge.failed(call, (failure.code.name, failure.reason), str(failure))
    else:
        judge.answered(call, Prediction.of(answer))
