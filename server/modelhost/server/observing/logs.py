"""The server's log: one line for each event on stderr, for people on a terminal, as JSON elsewhere.

What libraries say, through `logging` and `warnings`, and what threads end with becomes such lines too. Lines have what
was bound where they were written (`structlog.contextvars`): `deployment`, `revision`, `request_id`.
"""

import logging
import os
import threading
from enum import StrEnum
from typing import Any

import structlog

STDERR = 2
LIBRARIES_LEVEL = logging.WARNING  # what they have to say below that is of use to their developers

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class LogFormat(StrEnum):
    """What a line looks like."""

    AUTO = "auto"  # HUMAN on a terminal, else JSON
    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    """What is worth a line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """As `logging` has it."""
        return logging.getLevelNamesMapping()[self.upper()]


class _Stderr(logging.Handler):
    """Writes each line at once, and keeps nothing of one that cannot be written: Python would fail with it later."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; where that fails, for the disk is full, it is lost, and the server goes on."""
        try:
            data = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
            while data:
                data = data[os.write(STDERR, data) :]
        except Exception:
            self.handleError(record)


def configure_logs(log_format: LogFormat, level: LogLevel) -> None:
    """Send all lines of this process to stderr, in a format and from a level on."""
    terminal = os.isatty(STDERR)
    human = log_format is LogFormat.HUMAN or (log_format is LogFormat.AUTO and terminal)
    context: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    structlog.configure(
        processors=[*context, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level.number),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*context, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_for_people(colors=terminal and "NO_COLOR" not in os.environ) if human else _for_machines()),
            ],
        )
    )
    logging.raiseExceptions = False  # a line that is lost is no reason to print a traceback where it is lost too
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LIBRARIES_LEVEL)
    logging.getLogger("modelhost").setLevel(level.number)
    logging.captureWarnings(True)
    threading.excepthook = _thread_ended


def _for_people(*, colors: bool) -> list[Any]:
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _for_machines() -> list[Any]:
    # Without local variables, which hold tokens and parameters, and not without end.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=50)
    return [structlog.processors.ExceptionRenderer(tracebacks), _in_order, structlog.processors.JSONRenderer()]


def _in_order(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        error = (ended.exc_type, ended.exc_value, ended.exc_traceback)
        log.critical("a thread ended with an error", thread=ended.thread and ended.thread.name, exc_info=error)
