"""How following a deployment looks: a terminal has a status line under the log, a pipe only the log, JSON its lines."""

import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from modelhost.cli import api
from modelhost.cli.connection import Session
from modelhost.cli.follow import Line, Sighting, failure_of, follow, has_failed, interruptible
from modelhost.cli.output import Output, to_dict
from modelhost.cli.render import elapsed, short

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.text import Text

_STEPS = ("fetch", "provision", "load", "running")
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_LAST_LINES = 20


def follow_to_end(
    session: Session, deployment: "api.Deployment", *, since: "Timestamp | None" = None, quiet: bool = False
) -> Sighting:
    """Show how the target revision is built; return its last sighting, RUNNING.

    Log lines before `since` are of an earlier start. Raises CommandError where it fails, and on Ctrl-C, which leaves
    the deployment as it is.
    """
    name, revision = short(deployment.name), deployment.target_revision
    view = _view(session.out, name, revision, quiet=quiet)
    kept: deque[api.LogEntry] = deque(maxlen=_LAST_LINES)
    with interruptible(name), view.shown():
        for event in follow(session.admin, deployment.name, revision, since):
            if isinstance(event, Line):
                kept.append(event.entry)
                view.line(event.entry)
            else:
                view.sighting(event)
                last = event
    if has_failed(last, revision):
        if session.as_json:
            session.out.json_line({"deployment": to_dict(last.deployment)})
        error = failure_of(last.deployment)
        error.details = [_in_short(entry) for entry in kept] if quiet else []
        raise error
    return last


class View(Protocol):
    """Something that shows what happens to a deployment."""

    def shown(self) -> AbstractContextManager[object]:
        """Return what is entered while there is something to show."""

    def line(self, entry: "api.LogEntry") -> None:
        """Show a line of the build log."""

    def sighting(self, sighting: Sighting) -> None:
        """Show how far it is."""


def _view(out: Output, name: str, revision: int, *, quiet: bool) -> View:
    if out.as_json:
        return _JsonLines(out)
    if quiet:
        return _Nothing()
    return _Terminal(out, name, revision) if out.is_terminal else _Plain(out)


class _Nothing:
    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def line(self, entry: "api.LogEntry") -> None:
        pass

    def sighting(self, sighting: Sighting) -> None:
        pass


class _JsonLines(_Nothing):
    """`{"log": …}` and `{"state": {"deployment": …, "revision": …}}`, one a line."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def line(self, entry: "api.LogEntry") -> None:
        self._out.json_line({"log": to_dict(entry)})

    def sighting(self, sighting: Sighting) -> None:
        state = {"deployment": to_dict(sighting.deployment), "revision": to_dict(sighting.revision)}
        self._out.json_line({"state": state})


class _Plain(_Nothing):
    """The lines of the build log."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def line(self, entry: "api.LogEntry") -> None:
        style = "" if entry.stream == api.LogEntry.STREAM_SERVER else "dim"
        self._out.line(_in_short(entry), style=style)


class _Terminal(_Plain):
    """The lines of the build log, and under them how far it is."""

    def __init__(self, out: Output, name: str, revision: int) -> None:
        super().__init__(out)
        self._title = f"{name}, revision {revision}"
        self._step = -1
        self._began = time.monotonic()
        self._took: dict[int, float] = {}

    def shown(self) -> AbstractContextManager[object]:
        from rich.live import Live

        return Live(get_renderable=self._status, console=self._out.console, refresh_per_second=8, transient=True)

    def sighting(self, sighting: Sighting) -> None:
        step = {
            api.Revision.STATE_FETCHING: 0,
            api.Revision.STATE_PROVISIONING: 1,
            api.Revision.STATE_LOADING: 2,
            api.Revision.STATE_READY: 3,
        }.get(sighting.revision.state, self._step)
        if step > self._step:
            now = time.monotonic()
            self._took[self._step] = now - self._began
            self._step, self._began = step, now

    def _status(self) -> "Text":
        from rich.text import Text

        now = time.monotonic()
        text = Text(f"{_SPINNER[int(now * 8) % len(_SPINNER)]} {self._title}", style="bold", no_wrap=True)
        for index, name in enumerate(_STEPS):
            if index < self._step:
                took = f" {elapsed(self._took[index])}" if index in self._took else ""
                text.append(f"   ✓ {name}{took}", style="not bold green")
            elif index == self._step:
                text.append(f"   ● {name} {elapsed(now - self._began)}", style="cyan")
            else:
                text.append(f"   ○ {name}", style="not bold dim")
        return text


def _in_short(entry: "api.LogEntry") -> str:
    return f"{entry.step:<9}  {entry.text}"
