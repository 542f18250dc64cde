"""Calls whose items come one by one: how they are read, and what is made of each item."""

import time
import uuid
from dataclasses import dataclass
from typing import Any

from modelhost.client.prediction import Prediction, request_for
from modelhost.client.transport import identification
from modelhost.v1.predict_pb2 import PredictStreamResponse
from tests.chaos.callers import DEADLINE_SECONDS, LONGEST_SECONDS, Caller
from tests.chaos.causes import RAISED, WAITED_TOO_LONG, Outcome
from tests.chaos.judge import Call, Judge
from tests.chaos.models import CALL_TIMEOUT_SECONDS, fault_of, items_of, parameters

LARGE_BYTES = 20_000  # of an item: a few are more than what gRPC sends ahead to a caller who reads slowly
MANY = 20_000  # items, that no caller takes
IDLE_SECONDS = 2.0 * CALL_TIMEOUT_SECONDS


@dataclass(frozen=True)
class Reading:
    """How a caller takes items: at most so many, and with pauses, in seconds, after the first and after each."""

    most: int | None = None
    after_first: float = 0.0
    after_each: float = 0.0


class Stream:
    """One stream, from its call to its end; `stub` is what has PredictStream."""

    def __init__(self, judge: Judge, stub: Any, call: Call, reading: Reading, timeout: float | None) -> None:
        self._judge = judge
        self._stub = stub
        self._call = call
        self._reading = reading
        self._timeout = timeout
        self._request_id = uuid.uuid4().hex
        self._first: Prediction | None = None
        self.count = 0  # of right items

    def read(self) -> Outcome:
        """Have it made and judged; returns how it ended, which is well where the caller has left it."""
        outcome = self._judge.made(self._call, self._read)
        self._judge.tally.streamed(self.count)
        at = self._call.sent.get("at", items_of(self._call.sent))
        if outcome == RAISED and self.count != at:
            self._judge.wrong(self._call, f"{self.count} items came before what the model raised, not {at}")
        return outcome

    def _read(self) -> None:
        request = request_for(self._call.deployment, self._call.sent)
        answers = self._stub.PredictStream(request, timeout=self._timeout, metadata=identification(self._request_id))
        try:
            while self.count != self._reading.most:
                answer = next(answers, None)
                if fault := self.fault_of(answer):
                    self._judge.tally.answered()
                    self._judge.wrong(self._call, f"{fault}: item {self.count}, {str(answer)[:500]}")
                    return
                if answer is None:
                    break
                self.count += 1
                time.sleep(self._reading.after_each + (self._reading.after_first if self.count == 1 else 0.0))
        finally:
            answers.cancel()
        self._judge.tally.answered()
        self._judge.right(self._call, self._first.result["pid"] if self._first else 0)

    def fault_of(self, answer: PredictStreamResponse | None) -> str:
        """What is wrong with the next answer, or with its being the end, which is None; empty if nothing is."""
        if answer is None:
            missing = items_of(self._call.sent) - self.count
            return f"it ends without an error, and {missing} items have not come" if missing else ""
        item = Prediction.of(answer)
        if answer.index != self.count:
            return f"it is number {answer.index}"
        if item.request_id != self._request_id:
            return f"it is of another call, and not of {self._request_id}"
        if fault := fault_of(self._call.sent, item.result, self.count):
            return fault
        self._first = first = self._first or item
        if (item.revision, item.result["pid"]) != (first.revision, first.result["pid"]):
            return f"it is of another worker than the first: {first}"
        return self._judge.fault_of_revision(self._call, item.revision, item.result["constant"])


class StreamCaller(Caller):
    """Opens one stream after the other: reads all of it, or leaves it in the middle, or is slow, or has no time."""

    def __init__(self, number: int, deployment: str, judge: Judge, seed: int, stubs: tuple[Any, Any]) -> None:
        """`stubs` has PredictStream twice; the second one is sent as little ahead as can be."""
        super().__init__(number, deployment, judge, seed)
        self._wide, self._narrow = stubs

    def _call(self) -> Outcome:
        return self._chance.choice((self._all, self._one, self._leave, self._slow, self._hurry))()

    def _all(self) -> Outcome:
        """Read all, perhaps none, without a deadline or with one that is long enough."""
        sent = {"items": self._chance.choice((0, 1, 15, 16, 17, 60)), "size": self._chance.choice((0, 5000))}
        return self._stream(sent, Reading(), self._chance.choice((None, DEADLINE_SECONDS)))

    def _one(self) -> Outcome:
        """Open a stream of what is no generator."""
        return self._stream({}, Reading(), DEADLINE_SECONDS)

    def _leave(self) -> Outcome:
        """Leave in the middle, or at once."""
        sent = {"items": MANY, "size": self._chance.choice((0, LARGE_BYTES))}
        return self._stream(sent, Reading(most=self._chance.choice((0, 1, 5, 30))), DEADLINE_SECONDS)

    def _slow(self) -> Outcome:
        """Hold the model up."""
        reading = Reading(after_each=self._chance.uniform(0, 0.01))
        return self._stream({"items": 40, "size": LARGE_BYTES}, reading, DEADLINE_SECONDS, self._narrow)

    def _hurry(self) -> Outcome:
        """Have a deadline that may pass anywhere."""
        sent = {"items": 100, "size": 10, "sleep": 0.003}
        return self._stream(sent, Reading(), self._chance.uniform(0.001, 0.4), hurried=True)

    def _stream(
        self,
        more: dict[str, Any],
        reading: Reading,
        timeout: float | None,
        stub: Any = None,
        *,
        hurried: bool = False,
    ) -> Outcome:
        sent = parameters(self._chance, self._own_number, **more)
        call = Call(self._deployment, sent, time.monotonic() + (LONGEST_SECONDS if timeout is None else timeout))
        if hurried:
            call.allowed |= WAITED_TOO_LONG
        return Stream(self._judge, stub or self._wide, call, reading, timeout).read()


class StreamOfOne(StreamCaller):
    """The same where the model is no generator."""

    def _call(self) -> Outcome:
        return self._one()
