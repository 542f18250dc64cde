"""Logs on disk: JSON lines in numbered segments, the oldest dropped when there are too many.

A build log (one per revision) and a run log (one per deployment) are the same thing with other names and sizes. Writers
may be on any thread; readers read the files and come back later for more.
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from modelhost.server.text import cut

SEGMENT_BYTES = 4 * 1024 * 1024
SEGMENTS_KEPT = 4
TEXT_BYTES = 8 * 1024


class LogEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line. `stream` is `server`, `stdout` or `stderr`; `seconds` is how long a step took, on its last line.

    `request_id` is the call's that the line belongs to, in a run log; in a batch those of its calls, with blanks
    between them.
    """

    time: float
    revision: int
    stream: str
    text: str
    step: str = ""
    worker: str = ""
    seconds: float = 0.0
    request_id: str = ""


@dataclass(frozen=True, order=True)
class Position:
    """A place in a log: a segment's number and a byte in it."""

    segment: int = 0
    offset: int = 0


class Log:
    """One log: `<directory>/<name>-<segment>.jsonl`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._lock = threading.Lock()
        self._end: Position | None = None  # where the next line goes, if all before it is known to be whole
        self._closed = False

    def append(self, *entries: LogEntry) -> None:
        """Write lines; they can be read when this returns. Raises `OSError` (a full disk)."""
        data = b"".join(_ENCODER.encode(_cut(entry)) + b"\n" for entry in entries)
        with self._lock:
            if self._closed:
                return
            known, end = self._end is not None, self._end or self._find_end()
            self._end = None
            if end.offset and end.offset + len(data) > SEGMENT_BYTES:
                self._make_room()
                end = Position(end.segment + 1)
            with self._open(end.segment) as file:
                if not known and _ends_within_line(self._path(end.segment)):
                    data = b"\n" + data
                file.write(data)
                size = file.tell()
            self._end = Position(end.segment, size)

    def close(self) -> None:
        """Take no more lines: whoever still has some comes too late."""
        with self._lock:
            self._closed = True

    def read(self, start: Position, limit: int) -> tuple[list[tuple[Position, LogEntry]], Position]:
        """At most `limit` lines from `start`, each with the position after it, and where to go on."""
        lines: list[tuple[Position, LogEntry]] = []
        position = start
        for number, path in self._segments():
            if number < start.segment:
                continue
            offset = start.offset if number == start.segment else 0
            for end, entry in _read_segment(path, offset):
                position = Position(number, end)
                lines.append((position, entry))
                if len(lines) == limit:
                    return lines, position
        return lines, position

    def last(self, count: int, wanted: Callable[[LogEntry], bool] = lambda _: True) -> Position:
        """Where the last `count` lines that are wanted begin; for 0 the log's end."""
        starts: list[Position] = []
        end = Position()
        for number, path in reversed(self._segments()):
            found, place = [], Position(number, 0)
            for offset, entry in _read_segment(path, 0):
                if wanted(entry):
                    found.append(place)
                place = Position(number, offset)
            end = max(end, place)
            starts = found + starts
            if len(starts) >= count:
                break
        return ([*starts, end])[-(count + 1) :][0]

    def _segments(self) -> list[tuple[int, Path]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._directory):
                name, _, number = entry.name.removesuffix(".jsonl").rpartition("-")
                if name == self._name and number.isdigit():
                    found.append((int(number), Path(entry.path)))
        return sorted(found)

    def _path(self, segment: int) -> Path:
        return self._directory / f"{self._name}-{segment:06}.jsonl"

    def _open(self, segment: int) -> BinaryIO:
        path = self._path(segment)
        try:
            return path.open("ab")
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path.open("ab")

    def _find_end(self) -> Position:
        segments = self._segments()
        return Position(segments[-1][0], segments[-1][1].stat().st_size) if segments else Position(1)

    def _make_room(self) -> None:
        """Delete what is too old once there is one segment more."""
        segments = self._segments()
        for _, path in segments[: max(len(segments) + 1 - SEGMENTS_KEPT, 0)]:
            path.unlink()


class Logs:
    """All logs, below one directory: `<root>/<deployment uid>/…`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[tuple[str, str], Log] = {}

    def build(self, deployment_uid: str, revision: int) -> Log:
        """The build log of a revision."""
        return self._log(deployment_uid, f"build-{revision}")

    def run(self, deployment_uid: str) -> Log:
        """The run log of a deployment."""
        return self._log(deployment_uid, "run")

    def remove_builds(self, deployment_uid: str, revisions: list[int]) -> None:
        """Delete the build logs of revisions."""
        for number in revisions:
            if log := self._open.pop((deployment_uid, f"build-{number}"), None):
                log.close()
            for path in (self._root / deployment_uid).glob(f"build-{number}-*.jsonl"):
                path.unlink(missing_ok=True)

    def sweep(self, kept: Mapping[str, set[int]]) -> None:
        """Delete what is left of deployments and revisions that are gone; for the start. `kept` has those there are."""
        with contextlib.suppress(FileNotFoundError):
            for folder in self._root.iterdir():
                if folder.name not in kept:
                    shutil.rmtree(folder, ignore_errors=True)
                    continue
                built = {path.name.split("-")[1] for path in folder.glob("build-*-*.jsonl")}
                self.remove_builds(
                    folder.name, [int(n) for n in built if n.isdigit() and int(n) not in kept[folder.name]]
                )

    def remove(self, deployment_uid: str) -> None:
        """Delete all logs of a deployment."""
        for key in list(self._open):
            if key[0] == deployment_uid:
                self._open.pop(key).close()
        shutil.rmtree(self._root / deployment_uid, ignore_errors=True)

    def _log(self, deployment_uid: str, name: str) -> Log:
        return self._open.setdefault((deployment_uid, name), Log(self._root / deployment_uid, name))


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(LogEntry)


def _cut(entry: LogEntry) -> LogEntry:
    text = cut(entry.text, TEXT_BYTES)
    return entry if text == entry.text else msgspec.structs.replace(entry, text=text)


def _ends_within_line(path: Path) -> bool:
    """Whether the last line was half-written in a crash, or on a full disk."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        if not file.tell():
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _read_segment(path: Path, offset: int) -> Iterator[tuple[int, LogEntry]]:
    """Whole lines from a byte offset on, each with the offset after it; one half-written in a crash is passed over."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(offset)
        for line in file:
            offset += len(line)
            if not line.endswith(b"\n"):
                return
            with contextlib.suppress(msgspec.DecodeError):
                yield offset, _DECODER.decode(line)
