"""The audit as a stream: each event as a line of JSON, to a file or to syslog, as soon as it is stored.

What is stored is the record; the stream is a copy for those who collect such lines. It is written on a thread of its
own: a slow disk or a syslog that does not answer holds up nobody.
"""

import json
import logging
import logging.handlers
import os
import queue
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from modelhost.server.identities import AuditEvent

SYSLOG = "syslog"  # the host's own; `syslog://host:port` is another's, by UDP
LOCAL_SYSLOG = "/dev/log"
SYSLOG_PORT = 514
WAITING_EVENTS = 10_000  # at most; more are left out, and that is said
CLOSE_SECONDS = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class AuditStream:
    """Writes events to `target`: a file's path, `syslog` or `syslog://host:port`. Raises `OSError`, `ValueError`.

    A file is for its owner alone, and is opened anew where somebody has moved it away, as logrotate does.
    """

    def __init__(self, target: str) -> None:
        try:
            self._handler = _handler(target)
        except OSError as error:
            raise OSError(f"the audit cannot be written to {target}: {error.strerror or error}") from error
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def tell(self, event: AuditEvent) -> None:
        """Have an event written. Does not wait."""
        if self._queue.qsize() >= WAITING_EVENTS:
            self._left_out += 1
            return
        if self._left_out:
            log.error("the audit's stream did not keep up; ListAuditEvents has all", left_out=self._left_out)
            self._left_out = 0
        self._queue.put(line_of(event))

    def close(self) -> None:
        """Write what is left, as far as the other side takes it within `CLOSE_SECONDS`."""
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive() or self._left_out:
            left_out = self._left_out + self._queue.qsize()
            log.error("the audit's stream did not take the last events; ListAuditEvents has all", left_out=left_out)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            self._handler.handle(logging.LogRecord("modelhost.audit", logging.INFO, "", 0, line, None, None))
        self._handler.close()


def line_of(event: AuditEvent) -> str:
    """An event as a line of JSON, its time as RFC 3339 has it."""
    moment = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(
        {
            "time": moment,
            "event": "audit",
            "number": event.number,
            "operator": event.operator,
            "method": event.method,
            "resource": event.resource,
            "peer": event.peer,
            "request_id": event.request_id,
            "before": json.loads(event.before) if event.before else None,
            "after": json.loads(event.after) if event.after else None,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _handler(target: str) -> logging.Handler:
    if target == SYSLOG:
        return _Syslog(address=LOCAL_SYSLOG)
    if target.startswith("syslog://"):
        host, _, port = target.removeprefix("syslog://").partition(":")
        if not host or (port and not port.isdecimal()):
            raise ValueError(f"--audit-log must be a file, syslog or syslog://host:port, not {target!r}")
        return _Syslog(address=(host, int(port or SYSLOG_PORT)))
    path = Path(target)
    if not path.is_absolute():
        raise ValueError(
            f"--audit-log must be the absolute path of a file, syslog or syslog://host:port, not {target!r}"
        )
    return _File(path)


class _File(logging.handlers.WatchedFileHandler):
    def _open(self) -> Any:
        return open(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """logging: an event could not be written."""
        _not_written()


class _Syslog(logging.handlers.SysLogHandler):
    append_nul = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """logging: an event could not be written."""
        _not_written()


def _not_written() -> None:
    log.error("an event of the audit could not be written to its stream; ListAuditEvents has it", exc_info=True)
