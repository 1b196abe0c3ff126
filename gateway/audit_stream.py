"""Audit records in a Redis stream: written by the audit's thread, bounded, read by `python -m gateway audit query`.

Which way it fails: while Redis is away the record in hand is tried again and the others wait in the audit's bounded
queue, so a short outage loses nothing; what no longer fits there is dropped and counted. A record whose acknowledgement
was lost is written twice, with the same `request_id`.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.redis_link import BlockingLink, LinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    _Entries = list[tuple[bytes, dict[bytes, bytes]]]

FIELD = "record"
TIMEOUT_S = 1.0
RETRY_S = 0.5
QUERY_TIMEOUT_S = 10.0
PAGE = 1000
"""Records in one round trip of a query."""

log = logging.getLogger(__name__)


class StreamAway(Exception):
    """Records are lost: the gateway ends, and Redis is away."""

    def __init__(self, lost: int) -> None:
        """`lost` is how many."""
        super().__init__(lost)
        self.lost = lost


class RedisStream(logging.Handler):
    """Appends records to a stream of about `max_records`; the oldest leave."""

    def __init__(self, url: str, stream: str, max_records: int) -> None:
        """Prepare; nothing is sent yet. ValueError when the URL is none."""
        super().__init__()
        self._link = BlockingLink(url, timeout_s=TIMEOUT_S)
        self._stream = stream
        self._max_records = max_records
        self._hurry = threading.Event()
        self._away = False

    def emit(self, record: logging.LogRecord) -> None:
        """Append each line of it; waits while Redis is away. Raises StreamAway after `hurry`."""
        lines = record.getMessage().split("\n")
        for number, line in enumerate(lines):
            if not self._appended(line):
                raise StreamAway(len(lines) - number)

    def _appended(self, line: str) -> bool:
        fields = {FIELD: line}
        while not (self._away and self._hurry.is_set()):
            try:
                # Approximate: Redis then removes whole nodes of the stream, which costs next to nothing.
                self._link.call("audit", lambda client: client.xadd(self._stream, fields, maxlen=self._max_records))
            except LinkError as exc:
                if not self._away:
                    log.warning("%s: audit records wait, and are dropped when too many do", exc)
                self._away = True
                self._hurry.wait(RETRY_S)
            else:
                if self._away:
                    log.warning("audit records are written to Redis again")
                self._away = False
                return True
        return False

    def hurry(self) -> None:
        """From now on do not wait for a Redis that is away: the gateway ends."""
        self._hurry.set()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()
        super().close()


def lines_of(url: str, stream: str, since_ms: int) -> Iterator[bytes]:
    """Every record of the stream that was written at `since_ms` (Unix) or later, oldest first.

    Raises LinkError, ValueError when the URL is none.
    """
    link = BlockingLink(url, timeout_s=QUERY_TIMEOUT_S)
    try:
        start = str(since_ms)
        while entries := link.call("audit", partial(_page, stream, start)):
            for _, fields in entries:
                yield fields.get(FIELD.encode(), b"")
            start = "(" + entries[-1][0].decode()
    finally:
        link.close()


def _page(stream: str, start: str, client: Any) -> _Entries:  # noqa: ANN401 - see RedisLink
    entries: _Entries = client.xrange(stream, min=start, count=PAGE)
    return entries
