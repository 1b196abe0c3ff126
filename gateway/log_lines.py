"""Log lines as JSON objects, cheap enough for one a request: orjson, and several lines to a write.

A line of level warning or above goes out at once, with everything before it. One below may wait for WRITE_EVERY_S, so
that a killed process loses at most that much of them; a process that ends otherwise loses none.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

WRITE_EVERY_S = 0.1
MAX_HELD_LINES = 256
"""More are written at once: under load this many come sooner than the time is over."""
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}
"""What every record has; the rest is the caller's `extra`."""


class JsonFormatter(logging.Formatter):
    """`level`, `logger`, `message`, `timestamp` (UTC), the caller's `extra`, and the trace if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end; what JSON does not know is written as text."""
        line: dict[str, Any] = {
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            **{name: value for name, value in record.__dict__.items() if name not in _OWN},
        }
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # A lone surrogate, or an integer beyond 64 bits: orjson writes neither.
            return orjson.dumps({name: ascii(value) for name, value in line.items()}).decode()


class BatchHandler(logging.StreamHandler[TextIO]):
    """Writes to standard error as the module says."""

    def __init__(self) -> None:
        """Lines wait in memory; a timer, which runs only while some do, writes them."""
        super().__init__()
        self._lines: list[str] = []
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take the record; the caller holds the handler's lock."""
        try:
            self._lines.append(self.format(record))
            if record.levelno >= logging.WARNING or len(self._lines) >= MAX_HELD_LINES:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(WRITE_EVERY_S, self.flush)
                self._timer.daemon = True
                self._timer.start()
        except Exception:  # noqa: BLE001 - as every handler: a line that cannot be written must not fail a request
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits; also called when the process ends."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if lines:
                self.stream.write("\n".join(lines) + "\n")
            super().flush()
        finally:
            self.release()
