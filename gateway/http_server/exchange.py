"""One request and its answer: what ASGI calls `scope`, `receive` and `send`."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from gateway.asgi import EXTENSION

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.asgi import Asgi, Message
    from gateway.http_server.connection import ServerProtocol
    from gateway.http_server.head import Head

STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
LAST_CHUNK = b"0\r\n\r\n"
NO_BODY = frozenset({204, 304})
INTERNAL_ERROR = b"Internal Server Error"
JOINED_BYTES = 64 * 1024
"""A body up to this is copied behind its head, so that one write sends both."""

log = logging.getLogger(__name__)


class AsgiExchange:
    """One request and its answer: what ASGI calls `scope`, `receive` and `send`."""

    __slots__ = (
        "_answer_head", "_chunked", "_connection", "_continues", "_flows", "_gone", "_left_bytes", "_more_body",
        "_on_gone", "_pieces", "_told_end", "_waiter", "complete", "head", "keep_alive", "started", "task",
        "unread_bytes",
    )  # fmt: skip

    def __init__(self, connection: ServerProtocol, head: Head) -> None:
        """`head` is the request's."""
        self.head = head
        self.keep_alive = head.keep_alive
        self.complete = False
        """The answer has been given; or there is nobody to give it to."""
        self.unread_bytes = 0
        self._connection = connection
        self._gone = False
        self._continues = head.continues
        """The client waits to be asked for the body."""
        self._pieces: list[bytes] = []
        self._more_body = True
        self._told_end = False
        self._waiter: asyncio.Future[None] | None = None
        self._answer_head = b""
        """Until the answer's first piece goes out with it."""
        self.started = False
        """The answer's head has been given."""
        self._chunked = False
        self._flows = False
        """The head of a chunked answer has gone out, and the client is there: pieces need no more checks."""
        self._left_bytes = 0
        self._on_gone: Callable[[], object] | None = None
        self.task: asyncio.Task[None] | None = None
        """Which answers it."""

    # from the connection

    def add(self, piece: bytes) -> None:
        """A piece of the body is here."""
        self._pieces.append(piece)
        self.unread_bytes += len(piece)
        self._wake()

    def end(self) -> None:
        """All of it is here."""
        self._more_body = False
        self._wake()

    def add_all(self, body: bytes) -> None:
        """All of the body is here, and nobody has asked for it yet."""
        self._pieces.append(body)
        self._more_body = False

    @property
    def is_read(self) -> bool:
        """All of the body is here."""
        return not self._more_body

    def leave(self) -> None:
        """The client is gone."""
        self._gone = True
        self._flows = False
        self._wake()
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # to the application

    def when_gone(self, call: Callable[[], object] | None) -> None:
        """See asgi.Wire."""
        self._on_gone = call
        if call is not None:
            if self._gone:
                self.leave()
            else:
                self._connection.resume_reading()  # Of a connection that is not read, nobody hears that it has ended.

    async def run(self, app: Asgi, tasks: set[asyncio.Task[None]]) -> None:
        """Answer, and leave the `tasks`; a fault that the application did not see is logged and ends the connection."""
        scope = self.head.scope.copy()
        scope["state"] = scope["state"].copy()
        scope["extensions"] = {EXTENSION: self}
        try:
            await app(scope, self.receive, self.send)
        except BaseException as exc:  # The outermost rescue, as uvicorn's.
            log.error("Exception in ASGI application", exc_info=exc)  # noqa: TRY400 - it may be no Exception
            await self._give_up()
        else:
            if not self.complete and not self._gone:
                log.error("The application ended without an answer.")
                await self._give_up()
        finally:
            if self.task is not None:
                tasks.discard(self.task)
                self.task = None

    async def _give_up(self) -> None:
        if not self.started and not self._gone:
            length = b"%d" % len(INTERNAL_ERROR)
            headers = [(b"content-type", b"text/plain"), (b"content-length", length), (b"connection", b"close")]
            await self.send({"type": "http.response.start", "status": 500, "headers": headers})
            await self.send({"type": "http.response.body", "body": INTERNAL_ERROR})
        elif not self.complete:
            self._connection.transport.close()

    async def receive(self) -> Message:
        """ASGI: the body as far as it has come, then the client's leaving."""
        if self._continues:
            self._continues = False
            self._connection.write_continue()
        while not (self._gone or self.complete or self._pieces or not (self._more_body or self._told_end)):
            self._connection.resume_reading()
            waiter = self._waiter = self._connection.news()
            await waiter
        if self._gone or self.complete:
            return {"type": "http.disconnect"}
        pieces, self._pieces = self._pieces, []
        self.unread_bytes = 0
        self._told_end = not self._more_body
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    def take_body(self) -> bytes | None:
        """See asgi.Wire."""
        if self._more_body or self._told_end or self._gone:
            return None
        self._told_end = True
        self._continues = False
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self.unread_bytes = 0
        return body

    async def send(self, message: Message) -> None:
        """ASGI: the head, which waits for the first piece of the body, and the pieces."""
        kind = message["type"]
        if kind == "http.response.start" and not self.started:
            self._start_as(message["status"], tuple(message.get("headers", ())))
        elif kind != "http.response.body":
            raise RuntimeError(f"The answer cannot go on with {kind}.")
        elif (pause := self.write(message.get("body", b""), more=message.get("more_body", False))) is not None:
            await pause

    def _start_as(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin as the application says by its headers."""
        by_name = dict(headers)  # Names are in lower case, as ASGI wants them.
        if by_name.get(b"connection", b"").lower() == b"close":
            self.keep_alive = False
        if (length := by_name.get(b"content-length")) is not None:
            self._left_bytes = int(length)
        else:
            self._chunked = status not in NO_BODY and self.head.method != "HEAD"
        self._begin(status, [b": ".join(header) for header in headers if header[0] != b"connection"])

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """See asgi.Wire."""
        self._chunked = self.head.method != "HEAD"
        self._begin(status, list(map(b": ".join, headers)))

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Awaitable[None] | None:
        """See asgi.Wire."""
        self._left_bytes = len(body)
        lines = list(map(b": ".join, headers))  # No loop of Python's: there are seventeen.
        lines.append(b"content-length: %d" % len(body))
        self._begin(status, lines)
        return self.write(body, more=False)

    def _begin(self, status: int, lines: list[bytes]) -> None:
        self.started = True
        self._continues = False
        if self._chunked:
            lines.append(b"transfer-encoding: chunked")
        if not self.keep_alive:
            lines.append(b"connection: close")
        default_head, default_lines = self._connection.default_head()
        line_ends = len(lines) + default_lines + 2  # The first line and the empty one.
        head = b"".join((STATUS_LINES[status], default_head, b"\r\n".join((*lines, b"", b""))))
        if head.count(b"\r") != line_ends or head.count(b"\n") != line_ends or b"\0" in head:
            raise RuntimeError("A header of the answer holds a line break or a NUL.")
        self._answer_head = head

    def write(self, body: bytes, *, more: bool) -> Awaitable[None] | None:
        """See asgi.Wire."""
        connection = self._connection
        if self._flows and more and body and not connection.write_paused:  # A token of a stream.
            connection.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            return None
        if self._gone:
            return None
        if self.complete or not self.started:
            raise RuntimeError(f"The answer {'is complete' if self.complete else 'has no head yet'}.")
        if connection.write_paused:
            return self._write_later(body, more=more)
        self._go_on(body, more=more)
        return None

    async def _write_later(self, body: bytes, *, more: bool) -> None:
        connection = self._connection
        while connection.write_paused and not self._gone:
            await connection.writable()
        if not self._gone:
            self._go_on(body, more=more)

    def _go_on(self, body: bytes, *, more: bool) -> None:
        transport = self._connection.transport
        data = self._framed(body, more=more)
        if head := self._answer_head:
            self._answer_head = b""
            if len(data) <= JOINED_BYTES:
                data = head + data
            else:
                transport.write(head)
        if data:
            transport.write(data)
        self._flows = more and self._chunked
        if not more:
            self.complete = True
            self._wake()
            if not self.keep_alive:
                transport.close()
            self._connection.done()

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return data if more else data + LAST_CHUNK
        if self.head.method == "HEAD":
            return b""
        self._left_bytes -= len(body)
        if self._left_bytes < 0 or (self._left_bytes and not more):
            raise RuntimeError("The answer's body is not as long as its head says.")
        return body
