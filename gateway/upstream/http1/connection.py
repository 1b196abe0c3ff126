"""One connection to an engine: a request at a time, its answer, then the next or the end.

Strict where it matters for whose answer is whose: a message that frames itself in two ways, a byte more than an answer
has, an answer to a request that was not sent whole: each ends the connection, and the first its answer as well.
"""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TYPE_CHECKING, cast

import httptools

from gateway.upstream.client import EngineUnreachable, broke_off, stalled
from gateway.upstream.http1.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 64 * 1024
"""Names and values of an answer's headers and trailers, interim answers included; vLLM's are below 1 KiB."""
MAX_QUIET_BYTES = 2 * MAX_HEAD_BYTES
"""Received without any body in them: what never ends would fill the memory: a header, a trailer, a chunk extension,
interim answers."""
UNREAD_BYTES = 256 * 1024
"""Of an answer, before the engine must wait for the client."""
WRITE_BYTES = 256 * 1024
"""Of a request, handed to the socket at a time: what it takes shows that the engine still reads."""
INTERIM = range(100, 200)
FINAL = range(200, 600)
SWITCHING_PROTOCOLS = 101


class _Malformed(Exception):
    """The bytes are HTTP for llhttp, but not such that it is sure where the answer ends."""


class Connection(asyncio.Protocol):
    """An open connection; `free` is called when it may be used again, `lost` once when it is gone."""

    def __init__(
        self, *, idle_timeout_s: float, free: Callable[[Connection], None], lost: Callable[[Connection], None]
    ) -> None:
        """`idle_timeout_s` is the engine's longest silence while its answer, or a byte more of it, is awaited."""
        self.idle_since = 0.0
        self.heard = False
        """A byte has come since the request: it may have been acted on, and is no case for a second try elsewhere."""
        self._idle_timeout_s = idle_timeout_s
        self._free = free
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._unsent: memoryview | None = None
        self._last_sign = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._writable = True
        self._reset()

    def _reset(self) -> None:
        self._forget_head()
        self._head_bytes = 0
        self._quiet_bytes = 0
        self._keep_alive = False
        self._surplus = False

    def _forget_head(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._coding: bytes | None = None
        self._has_length = False
        self._begun = False
        self._interim = False

    @property
    def closing(self) -> bool:
        """Whether it can take no other request."""
        return self._transport is None or self._transport.is_closing()

    def start(self, head: bytes, body: bytes | None, *, expects_body: bool = True) -> Answer:
        """Send a request, and give the answer to be awaited. `expects_body` is False for HEAD."""
        transport = self._transport
        assert transport is not None  # noqa: S101 - the pool gives out open connections only
        assert self._answer is None  # noqa: S101 - and none that is in use
        self._reset()
        self.heard = False
        answer = self._answer = Answer(self, expects_body=expects_body)
        self._last_sign = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle_timeout_s, self._check)
        if body is None or len(body) <= WRITE_BYTES:
            transport.write(head + body if body else head)
        else:
            self._unsent = memoryview(body)
            transport.write(head)
            self._write_on()
        return answer

    def _write_on(self) -> None:
        # Ends when all is handed over, or when the transport asks to wait: it calls `pause_writing` inside `write`.
        self._writable = True
        while self._writable and self._unsent is not None and self._transport is not None:
            piece, rest = self._unsent[:WRITE_BYTES], self._unsent[WRITE_BYTES:]
            self._unsent = rest or None
            self._transport.write(piece)

    def close(self) -> None:
        """End it at once; an answer that is not complete fails. The engine sees that its client has left."""
        if self._transport is not None:
            self._transport.abort()
        self._ended(clean=False)

    def resume(self) -> None:
        """The answer has been read as far as it has come."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._last_sign = self._loop.time()  # The silence was ours.
            self._transport.resume_reading()

    def _finish(self) -> None:
        """The answer is complete: the connection is free, or of no use any more."""
        self._answer = None
        transport = self._transport
        if transport is None:
            return
        sent_whole = self._unsent is None and transport.get_write_buffer_size() == 0
        if self._keep_alive and sent_whole and not self._surplus and not transport.is_closing():
            self._free(self)
        else:
            transport.abort()

    def _refuse(self, answer: Answer) -> None:
        """The answer cannot be believed."""
        self._answer = None
        answer.fail(broke_off() if answer.has_head else EngineUnreachable("protocol"))
        if self._transport is not None:
            self._transport.abort()

    def _ended(self, *, clean: bool) -> None:
        """No more will come; `clean` says that the engine has ended it, and not an error or ourselves."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if not answer.has_head:
            answer.fail(EngineUnreachable("closed"))
        elif clean and self._coding is None and not self._has_length:
            answer.end()  # Its end is the connection's.
            answer.wake()
        else:
            answer.fail(broke_off())

    def _check(self) -> None:
        """One timer for all requests of the connection: when it goes off, it looks when the last sign of life was."""
        self._timer = None
        answer = self._answer
        if answer is None:
            return
        silent_s = 0.0 if self._paused else self._loop.time() - self._last_sign
        if silent_s < self._idle_timeout_s:
            self._timer = self._loop.call_later(self._idle_timeout_s - silent_s, self._check)
            return
        self._answer = None
        answer.fail(stalled())
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come."""
        answer = self._answer
        if answer is None:  # Nobody has asked: whatever it is, it must not become the next request's answer.
            self.close()
            return
        self.heard = True
        self._last_sign = self._loop.time()
        pieces = answer.pieces
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._surplus = True
            if not answer.complete:
                self._refuse(answer)
                return
        if answer.complete:
            self._finish()
        elif not pieces:
            self._quiet_bytes += len(data)
            if self._quiet_bytes > MAX_QUIET_BYTES or self._head_size() > MAX_HEAD_BYTES:
                self._refuse(answer)
                return
        elif self._quiet_bytes:
            self._quiet_bytes = 0
        answer.wake()
        if pieces:
            self._not_taken(answer, len(data))

    def _not_taken(self, answer: Answer, more_bytes: int) -> None:
        """Nobody has read yet what came; from UNREAD_BYTES on, the engine has to wait."""
        answer.unread_bytes += more_bytes
        if answer.unread_bytes > UNREAD_BYTES and not (answer.complete or self._paused):
            self._paused = True
            if self._transport is not None:
                self._transport.pause_reading()

    def eof_received(self) -> None:
        """asyncio: the engine sends no more."""
        self._ended(clean=True)
        if self._transport is not None:
            # Not `close`, which would wait until the engine has read the rest of a request that nobody wants answered.
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self._ended(clean=exc is None)
        self._transport = None
        self._unsent = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lost(self)

    def pause_writing(self) -> None:
        """asyncio: the socket takes no more for now."""
        self._writable = False

    def resume_writing(self) -> None:
        """asyncio: it does again, so the engine reads."""
        self._last_sign = self._loop.time()
        self._write_on()

    # httptools -------------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """httptools: a first byte; of the answer, of what follows an interim one, or of what nobody asked for."""
        if self._begun:
            self._surplus = True
            raise _Malformed
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header, or a trailer, which nobody reads."""
        self._headers.append((name.lower(), value))

    def _head_size(self) -> int:
        """Of all heads and trailers so far, with four bytes of framing for each header."""
        headers = self._headers
        return self._head_bytes + sum(map(len, chain.from_iterable(headers))) + 4 * len(headers)

    def on_headers_complete(self) -> None:
        """httptools: the empty line."""
        parser = self._parser
        self._head_bytes = self._head_size()
        headers, self._headers = self._headers, []
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _Malformed
        status = parser.get_status_code()
        if status in INTERIM and status != SWITCHING_PROTOCOLS:
            self._interim = True
            return
        version = parser.get_http_version()
        by_name = dict(headers)
        self._has_length = b"content-length" in by_name
        if b"transfer-encoding" in by_name:
            self._coding = b",".join([value for name, value in headers if name == b"transfer-encoding"])
        # llhttp itself refuses a chunked message with a length. Other codings, and HTTP/1.0's, end nobody knows where.
        if (
            status not in FINAL
            or version not in {"1.1", "1.0"}
            or (self._coding is not None and (self._coding.lower() != b"chunked" or version == "1.0"))
        ):
            raise _Malformed
        answer = self._answer
        assert answer is not None  # noqa: S101 - data without a question never reaches the parser
        self._keep_alive = parser.should_keep_alive() and answer.expects_body
        answer.begin(status, by_name.get(b"content-type", b"application/octet-stream"))
        if not answer.expects_body:
            # llhttp does not know that this answers a HEAD and would wait for the body: its end is here.
            answer.end()

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body."""
        answer = self._answer
        assert answer is not None  # noqa: S101 - as above
        if answer.complete:
            raise _Malformed
        answer.pieces.append(data)

    def on_message_complete(self) -> None:
        """httptools: the answer's end."""
        if self._interim:
            self._forget_head()
            return
        assert self._answer is not None  # noqa: S101 - as above
        self._answer.end()
