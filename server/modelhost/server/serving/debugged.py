"""A call with everything that was seen of it."""

import time
from dataclasses import dataclass
from typing import Self

from modelhost.server.errors import PredictionFailed
from modelhost.server.serving.answers import Mask, call_failure
from modelhost.server.serving.link import Header, Received


@dataclass(frozen=True)
class Debugged:
    """What a call gave, wrote and took. `result` is JSON, empty where the call failed in the model.

    Times in seconds: waiting for a worker, getting to the model's function, in the function, getting back.
    """

    result: Received
    failure: PredictionFailed | None
    stdout: str
    stderr: str
    queue: float
    send: float
    run: float
    receive: float

    @classmethod
    def nothing(cls, seconds: float) -> Self:
        """What is seen of a call that got no answer in so many seconds."""
        return cls(b"", None, "", "", seconds, 0, 0, 0)

    @classmethod
    def of(cls, header: Header, body: Received, mask: Mask, *, asked: float, sent: float) -> Self:
        """From the answer of a call with `capture`; `asked` and `sent` are by the clock, as the worker's times."""
        now = time.time()
        started, ended = float(header.get("started") or now), float(header.get("ended") or now)
        return cls(
            result=body,
            failure=call_failure(header, mask) if header.get("type") == "failed" else None,
            stdout=_written(header, "stdout", mask),
            stderr=_written(header, "stderr", mask),
            queue=max(sent - asked, 0),
            send=max(started - sent, 0),
            run=max(ended - started, 0),
            receive=max(now - ended, 0),
        )


def _written(header: Header, stream: str, mask: Mask) -> str:
    """What a call wrote, and how much of it there is not."""
    left_out = int(header.get(f"{stream}_left_out") or 0)
    text = mask(str(header.get(stream, "")), cut_after=left_out > 0)
    return f"{text}\n({left_out} bytes more)" if left_out else text
