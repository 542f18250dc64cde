"""The audit as a stream: what cannot be written is said, and holds up nobody."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import structlog

from modelhost.server.identities import AuditEvent
from modelhost.server.observing import audit_stream
from modelhost.server.observing.audit_stream import AuditStream
from tests.running import eventually

EVENT = AuditEvent(1, 0.0, "operators/admin", "m", "r", "p", "id", "", "{}")


def errors(said: list[Any]) -> list[str]:
    return [entry["event"] for entry in said if entry["log_level"] == "error"]


@pytest.fixture
def fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that takes nothing before somebody reads it, and little then."""
    monkeypatch.setattr(audit_stream, "WAITING_EVENTS", 10)
    monkeypatch.setattr(audit_stream, "CLOSE_SECONDS", 0.1)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_a_stream_that_hangs_is_said_at_once_and_when_it_ends(fifo: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    stream = AuditStream(str(fifo))
    with structlog.testing.capture_logs() as said:
        for _ in range(5000):  # more than a pipe and the queue hold
            stream.tell(EVENT)
        assert errors(said) == ["the audit's stream does not keep up: events are left out; ListAuditEvents has all"]
        stream.close()

    assert len(errors(said)) == 2
    assert said[-1]["left_out"] > 4000
    os.set_blocking(reader, True)
    drained = threading.Thread(target=lambda: all(iter(lambda: os.read(reader, 65536), b"")), daemon=True)
    drained.start()
    eventually(lambda: not any(thread.name == "audit" for thread in threading.enumerate()))
    drained.join(10)  # it reads until the writer has closed
    os.close(reader)


def test_a_file_that_cannot_be_opened_again_is_said_and_written_again_once_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    stream = AuditStream(str(folder / "audit"))
    with structlog.testing.capture_logs() as said:
        folder.rename(tmp_path / "elsewhere")
        stream.tell(EVENT)
        eventually(lambda: errors(said))
        folder.mkdir()
        stream.tell(EVENT)
        eventually(lambda: (folder / "audit").exists() and (folder / "audit").read_text().count("\n") == 1)
        stream.close()

    assert len(errors(said)) == 1
