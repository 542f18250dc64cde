"""Calls at a steady rate, whether earlier ones are answered or not, as many clients together make them."""

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from modelhost.client import AsyncClient, ModelHostError, Prediction

DEADLINE_SECONDS = 60.0


@dataclass(frozen=True)
class Ended:
    """A call: when it was sent and when it was over (monotonic clock); its answer, or why it failed."""

    sent: float
    over: float
    answer: Prediction | None
    failure: str = ""


class SteadyCalls:
    """`with SteadyCalls(address, token, service, 100) as calls:` makes 100 calls a second meanwhile.

    Each has its number as its parameters, or what is given. All have ended when the block has.
    """

    def __init__(self, address: str, token: str, service: str, rate: float, parameters: Any = None) -> None:
        self.ended: list[Ended] = []
        self._connection = (address, token)
        self._service = service
        self._pause = 1 / rate
        self._parameters = parameters
        self._done = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call_all()))

    def __enter__(self) -> "SteadyCalls":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def answered(self) -> list[Ended]:
        """Those that had an answer."""
        return [each for each in self.ended if each.answer is not None]

    @property
    def failures(self) -> Counter[str]:
        """How many failed, by reason."""
        return Counter(each.failure for each in self.ended if each.answer is None)

    async def _call_all(self) -> None:
        async with AsyncClient(*self._connection, timeout=DEADLINE_SECONDS) as client:
            tasks: set[asyncio.Task[None]] = set()
            number, begun = 0, time.monotonic()
            while not self._done.is_set():
                task = asyncio.create_task(self._call(client, number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
                await asyncio.sleep(max(0.0, begun + number * self._pause - time.monotonic()))
            await asyncio.gather(*tasks)

    async def _call(self, client: AsyncClient, number: int) -> None:
        sent = time.monotonic()
        try:
            answer = await client.predict(self._service, number if self._parameters is None else self._parameters)
        except ModelHostError as error:
            self.ended.append(Ended(sent, time.monotonic(), None, error.reason or error.code.name))
        else:
            self.ended.append(Ended(sent, time.monotonic(), answer))
