"""The build log of a revision: which step does what, what the tools print, how long each step took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelhost.envs import Job, Stream
from modelhost.server.store.logs import Log, LogEntry

# Is told of each step: its name, how it ended ("ok", "failed", "interrupted"), how many seconds it took.
StepObserver = Callable[[str, str, float], None]


class BuildLog:
    """Writes a revision's build log. From any thread."""

    def __init__(self, log: Log, revision: int, step_ended: StepObserver) -> None:
        self._log = log
        self._revision = revision
        self._step_ended = step_ended
        self.current_step = ""

    def say(self, text: str, *, stream: Stream = Stream.SERVER, seconds: float = 0) -> None:
        """Write a line of the current step; `text` may hold several."""
        now = time.time()
        self._log.append(
            *(
                LogEntry(now, self._revision, stream.value, line, step=self.current_step, seconds=seconds)
                for line in text.splitlines() or [""]
            )
        )

    def job(self, marker: dict[str, str]) -> Job:
        """A job whose lines go into this log."""
        return Job(lambda stream, line: self.say(line, stream=stream), marker=marker)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Name the step that what follows belongs to, and say how long it took."""
        self.current_step = name
        begun = time.monotonic()
        outcome = "interrupted"
        try:
            yield
            outcome = "ok"
        except Exception:
            outcome = "failed"
            raise
        finally:
            seconds = time.monotonic() - begun
            self._step_ended(name, outcome, seconds)
        self.say(f"{name} done in {seconds:.2f} s", seconds=round(seconds, 3))
