"""What is made of the end of each call."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelhost.client import Client, ModelHostError
from modelhost.client.prediction import Prediction
from tests.chaos.causes import ANSWER, Causes, Outcome, allowed
from tests.chaos.journal import Journal
from tests.chaos.models import fault_of
from tests.chaos.tally import Tally

HUNG_SECONDS = 5.0  # past the deadline


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
        return self.made(call, lambda: self.answered(call, client.predict(call.deployment, call.sent, timeout=timeout)))

    def made(self, call: Call, make: Callable[[], None]) -> Outcome:
        """Make a call with `make`, which judges what comes, and judge how it fails; returns how it ended."""
        with self._lock:
            self._under_way.add(call)
        try:
            make()
        except ModelHostError as error:
            outcome = (error.code.name, error.reason)
            self.failed(call, outcome, str(error))
            return outcome
        finally:
            with self._lock:
                self._under_way.discard(call)
        return ANSWER

    def answered(self, call: Call, prediction: Prediction) -> None:
        """An answer has come."""
        self.tally.answered()
        fault = fault_of(call.sent, prediction.result)
        fault = fault or self.fault_of_revision(call, prediction.revision, prediction.result["constant"])
        if fault:
            self.wrong(call, f"{fault}: {prediction}")
        else:
            self.right(call, prediction.result["pid"])

    def wrong(self, call: Call, fault: str) -> None:
        """What came is not what should have."""
        self.tally.wrong.append(self._in_words(call, fault))

    def right(self, call: Call, pid: int) -> None:
        """What came, from that worker, is what should have; 0 if nothing came, and nothing was waited for."""
        if ANSWER not in call.allowed:
            self.tally.unexpected.append(self._in_words(call, f"an answer came, not {call.allowed}"))
        if pid:
            self._causes.answered(call.deployment, call.begun, pid)

    def failed(self, call: Call, outcome: Outcome, message: str) -> None:
        """It has failed."""
        self.tally.failed(call.deployment, outcome)
        in_play = self._causes.in_play(call.deployment, call.begun, time.monotonic())
        if outcome not in call.allowed and not allowed(outcome, in_play):
            self.tally.unexpected.append(self._in_words(call, f"{outcome}: {message}"))

    def fault_of_revision(self, call: Call, number: int, constant: int) -> str:
        """What is wrong with an answer of that revision; empty if nothing is."""
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
