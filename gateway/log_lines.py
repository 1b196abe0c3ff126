"""Log lines as JSON objects, cheap enough for one a request: orjson, and several lines to a write.

A line of level warning or above goes out at once, with everything before it. One below may wait for WRITE_EVERY_S, so
that a killed process loses at most that much of them; a process that ends otherwise loses none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        return as_json(line)


def as_json(line: dict[str, Any]) -> str:
    """The line's text; whatever is in it, there is one."""
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # A lone surrogate, or an integer beyond 64 bits: orjson writes neither.
        return orjson.dumps({name: ascii(value) for name, value in line.items()}).decode()


def _as_text(logger: str, message: str, created: float, facts: Mapping[str, Any]) -> str:
    time_of_it = datetime.fromtimestamp(created, UTC)
    return as_json({"level": "INFO", "logger": logger, "message": message, "timestamp": time_of_it, **facts})


class BatchHandler(logging.StreamHandler[TextIO]):
    """Writes to standard error as the module says."""

    def __init__(self) -> None:
        """Lines wait in memory until the event loop writes them; without a loop, none waits."""
        super().__init__()
        self._lines: deque[str | tuple[str, str, float, Mapping[str, Any]]] = deque()
        """Texts, or what `write` was given and when. A deque, as threads add to it while another one writes."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that will write what waits."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take the record; the caller holds the handler's lock."""
        try:
            self._lines.append(self.format(record))
            if record.levelno >= logging.WARNING or len(self._lines) >= MAX_HELD_LINES:
                self.flush()
            else:
                self._write_later()
        except Exception:  # noqa: BLE001 - as every handler: a line that cannot be written must not fail a request
            self.handleError(record)

    def write(self, logger: str, message: str, facts: Mapping[str, Any]) -> None:
        """Take a line of level INFO, whose text is made when it is written; `facts` must stay as they are."""
        self._lines.append((logger, message, time.time(), facts))
        if len(self._lines) >= MAX_HELD_LINES:
            self.flush()
        else:
            self._write_later()

    def _write_later(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # Another thread, or the process starts or ends.
            self.flush()
            return
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(WRITE_EVERY_S, self.flush)

    def flush(self) -> None:
        """Write what waits; also called when the process ends."""
        self.acquire()
        try:
            self._loop = None
            texts = []
            while self._lines:
                line = self._lines.popleft()
                texts.append(line if isinstance(line, str) else _as_text(*line))
            if texts:
                self.stream.write("\n".join(texts) + "\n")
            super().flush()
        finally:
            self.release()
