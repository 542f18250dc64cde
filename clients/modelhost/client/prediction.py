"""Parameters on their way out, results on their way in."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from modelhost.v1.predict_pb2 import PredictRequest, PredictResponse, PredictStreamResponse


@dataclass(frozen=True)
class Prediction:
    """What a model returned, the number of the revision that answered, and the call's id, as in the run log."""

    result: Any
    revision: int
    request_id: str = ""

    @classmethod
    def of(cls, answer: PredictResponse | PredictStreamResponse) -> "Prediction":
        """Read an answer whose request sent JSON text."""
        return cls(json.loads(answer.result_json), answer.revision, answer.request_id)


class _Answers(Protocol):
    """A stream of answers."""

    def __next__(self) -> PredictStreamResponse:
        """Return the next one."""

    def cancel(self) -> object:
        """End the call."""


class PredictionStream:
    """What a model yields, as it comes: an iterator, and a context manager that ends the call.

    The model makes no more than a few items ahead of those that were taken. It is ended, where it is, by `close`, by
    leaving the context, and when nobody has the stream any more, as after a loop over it that was left.
    """

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Prediction:
        return Prediction.of(next(self._answers))

    def close(self) -> None:
        """End the call; of no effect once it is over."""
        self._answers.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncPredictionStream:
    """`PredictionStream` for asyncio: iterated with `async for`, closed with `aclose` or by leaving `async with`."""

    def __init__(self, answers: AsyncGenerator[PredictStreamResponse]) -> None:
        self._answers = answers

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Prediction:
        return Prediction.of(await anext(self._answers))

    async def aclose(self) -> None:
        """End the call; of no effect once it is over."""
        await self._answers.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def request_for(service: str, parameters: Any) -> PredictRequest:
    """Return the request of a call; raises TypeError or ValueError when JSON cannot hold the parameters."""
    text = json.dumps(parameters, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return PredictRequest(service=service, parameters_json=text)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars, pandas' Series
        return value.tolist()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}: {value!r:.100}")
