"""Callers without a pause, each of one deployment."""

import random
import threading
import time
from abc import ABC, abstractmethod

import grpc

from modelhost.client import Client
from modelhost.client.prediction import Prediction, request_for
from modelhost.client.transport import rpc_error
from tests.chaos.causes import ANSWER, CANCELLED, DIED, Outcome
from tests.chaos.judge import Call, Judge
from tests.chaos.models import CALL_TIMEOUT_SECONDS, parameters

DEADLINE_SECONDS = 5.0
# A call without a deadline has its end all the same: it waits for a worker, and runs, for call_timeout each; and once
# more, where the worker that it was given had just died.
LONGEST_SECONDS = 3.0 * CALL_TIMEOUT_SECONDS
LONGEST_PAUSE_SECONDS = 0.04
PAUSE_AFTER_FAILURE_SECONDS = 0.05


class Caller(threading.Thread, ABC):
    """Calls one deployment again and again."""

    def __init__(self, number: int, deployment: str, judge: Judge, seed: int) -> None:
        super().__init__(name=f"caller {number}", daemon=True)
        self._number = number
        self._serial = 0
        self._deployment = deployment
        self._judge = judge
        self._chance = random.Random(seed * 1000 + number)
        self.done = threading.Event()

    def run(self) -> None:
        """Until `done`."""
        while not self.done.is_set():
            self._serial += 1
            outcome = self._call()
            pause = self._chance.uniform(0, LONGEST_PAUSE_SECONDS)
            self.done.wait(pause if outcome in (ANSWER, DIED) else pause + PAUSE_AFTER_FAILURE_SECONDS)

    @abstractmethod
    def _call(self) -> Outcome:
        """Call once; returns how that ended."""

    @property
    def _own_number(self) -> int:
        """That of the call; no other one has it."""
        return self._number * 10**6 + self._serial


class PlainCaller(Caller):
    """Makes calls with one answer, most of them with a deadline."""

    def __init__(self, number: int, deployment: str, judge: Judge, seed: int, clients: tuple[Client, Client]) -> None:
        """`clients` has one with a deadline for every call, and one without any."""
        super().__init__(number, deployment, judge, seed)
        self._hurried, self._patient = clients

    def _call(self) -> Outcome:
        hurried = self._chance.random() < 0.75
        more = {"sleep": self._chance.uniform(0, 0.03)} if self._chance.random() < 0.3 else {}
        sent = parameters(self._chance, self._own_number, **more)
        limit = DEADLINE_SECONDS if hurried else LONGEST_SECONDS
        call = Call(self._deployment, sent, time.monotonic() + limit)
        return self._judge.call(self._hurried if hurried else self._patient, call, limit if hurried else None)


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
