"""HTTP/1.1 towards clients: an ASGI server's protocol for uvicorn, which keeps sockets, signals and workers.

uvicorn's own costs more than the gateway's steps: a regular expression over each header's name and value, a timer made
and taken back for each request. It also waits for ever for a head that never ends. See docs/decisions/0013.

Refuses what no client of an API sends: a head above 64 KiB, an upgrade to another protocol (it is ignored).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError, body_of
from gateway.http_server.exchange import STATUS_LINES, AsgiExchange
from gateway.http_server.head import common_scope
from gateway.http_server.reader import RequestReader, UpgradeAsked

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

    from gateway.asgi import Asgi
    from gateway.http_server.head import Head

UNREAD_BYTES = 64 * 1024
"""Of a body, before the client has to wait: few bodies are read at a time (`gateway/places.py`)."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_default_head: tuple[list[tuple[bytes, bytes]], bytes] = [], b""
"""uvicorn's own headers as they were last, and as they are sent."""


class ServerProtocol:
    """One client's connection: parses requests, runs one at a time, those that were sent ahead after it.

    No subclass of asyncio.Protocol, whose methods it has all the same.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn calls it; `app_state` is the lifespan's."""
        self.write_paused = False
        self._app: Asgi = config.loaded_app
        self._keep_alive_s = float(config.timeout_keep_alive)
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._reader: RequestReader | None = None
        """Once connected."""
        self.transport: Any = None
        """Any of asyncio's or uvloop's, once connected."""
        self._exchange: AsgiExchange | None = None
        """The one that is answered now; or, until there is another, the last one."""
        self._incoming: AsgiExchange | None = None
        """The one whose body is read now: the above, or one that was sent ahead."""
        self._ahead: deque[AsgiExchange] = deque()
        self._read_paused = False
        self._writable: list[asyncio.Future[None]] = []
        self._idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - any of asyncio's or uvloop's
        """asyncio: it is open."""
        self.transport = transport
        self._server_state.connections.add(self)  # type: ignore[arg-type] # one of uvicorn's own, it says
        self._reader = RequestReader(self, common_scope(transport, self._app_state))
        self._idle_since = self._loop.time()
        self._timer = self._loop.call_later(self._keep_alive_s, self._check)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """asyncio: it is gone."""
        self._server_state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in {self._exchange, self._incoming, *self._ahead}:
            if exchange is not None:
                exchange.leave()
        self._ahead.clear()
        self.resume_writing()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def eof_received(self) -> None:
        """asyncio: the client sends no more. Its transport closes, as nobody half-closes a request's connection."""

    def pause_writing(self) -> None:
        """asyncio: the client reads slowly."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """asyncio: it takes more."""
        self.write_paused = False
        waiting, self._writable = self._writable, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come."""
        assert self._reader is not None  # noqa: S101 - it is connected
        try:
            self._reader.feed(data)
        except UpgradeAsked:
            # The request is answered as if it had not asked.
            self._close_after_last()
        except GatewayError as exc:
            self._refuse(exc)

    def shutdown(self) -> None:
        """uvicorn: the server stops; what is under way may end."""
        self._close_after_last()

    # its reader ------------------------------------------------------------------------------------------------------

    def begin(self, head: Head) -> None:
        """See Requests."""
        self._take(AsgiExchange(self, head))

    def add(self, piece: bytes) -> None:
        """See Requests; dropped when the answer has been given without it."""
        exchange = self._incoming
        if exchange is not None and not exchange.complete:
            exchange.add(piece)
            if exchange.unread_bytes > UNREAD_BYTES:
                self.pause_reading()

    def end(self) -> None:
        """See Requests."""
        exchange = self._incoming
        if exchange is not None and not exchange.complete:
            exchange.end()

    def whole(self, head: Head, body: bytes) -> None:
        """See Requests."""
        exchange = AsgiExchange(self, head)
        exchange.add_all(body)
        self._take(exchange)

    # for its exchanges -----------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """The client has to wait."""
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """It may go on."""
        if self._read_paused and not self._ahead and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    def write_continue(self) -> None:
        """Ask for the body."""
        if not self.transport.is_closing():
            self.transport.write(CONTINUE)

    def writable(self) -> asyncio.Future[None]:
        """To be awaited while `write_paused`."""
        waiter = self._loop.create_future()
        self._writable.append(waiter)
        return waiter

    def default_head(self) -> tuple[bytes, int]:
        """uvicorn's own headers, which is the date, and how many lines they are; the list is another every second."""
        global _default_head  # noqa: PLW0603 - made once for all connections
        headers = self._server_state.default_headers
        if _default_head[0] is not headers:
            _default_head = headers, b"".join([b"%b: %b\r\n" % header for header in headers])
        return _default_head[1], len(headers)

    def news(self) -> asyncio.Future[None]:
        """To be awaited by an exchange."""
        return self._loop.create_future()

    def done(self) -> None:
        """An answer is complete: the next request's turn, or nobody's for a while."""
        self._server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_since = self._loop.time()
        if self._ahead:
            self._start(self._ahead.popleft())
        self.resume_reading()

    def _take(self, exchange: AsgiExchange) -> None:
        """It is its turn, or it waits for it."""
        self._incoming = exchange
        if self._exchange is None or self._exchange.complete:
            self._start(exchange)
        else:
            self._ahead.append(exchange)
            self.pause_reading()  # A client that sends ahead waits for its answers.

    def _start(self, exchange: AsgiExchange) -> None:
        self._exchange = exchange
        tasks = self._server_state.tasks
        task = self._loop.create_task(exchange.run(self._app, tasks))
        tasks.add(task)
        exchange.task = task

    def _close_after_last(self) -> None:
        """Answer what has been asked, and nothing more."""
        last = self._incoming
        if last is None or last.complete:
            self.transport.close()
        else:
            last.keep_alive = False

    def _refuse(self, error: GatewayError) -> None:
        """What has come is no request: say so if nothing else is to be said, and end."""
        last = self._incoming
        if last is not None and last.is_read and not last.complete:
            last.keep_alive = False
            self.pause_reading()
            return
        if last is None or last.complete or (last is self._exchange and not last.started):
            body = body_of(error)
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINES[error.status] + self.default_head()[0] + head + body)
        if last is not None:
            last.leave()  # Its body will never be whole.
        self.transport.close()

    def _check(self) -> None:
        """One timer a connection: when it goes off, it looks how long nothing has been asked."""
        self._timer = None
        if self.transport.is_closing():
            return
        busy = self._exchange is not None and not self._exchange.complete
        left_s = self._keep_alive_s if busy else self._idle_since + self._keep_alive_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check)
        else:
            self.transport.close()  # Also for one that sends its head byte by byte.
