"""The client: keeps connections to each origin open, hands out the one used last, and asks again when it was stale."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import TYPE_CHECKING

from gateway.upstream.client import KEEP_ALIVE_S, EngineUnreachable
from gateway.upstream.http1.connection import Connection
from gateway.upstream.http1.message import head_of, start_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.upstream.client import EngineResponse
    from gateway.upstream.http1.answer import Answer
    from gateway.upstream.http1.message import Origin


class Http1Client:
    """See EngineClient. No limit on connections (admission is that), no redirects, cookies or proxies."""

    def __init__(
        self, *, connect_timeout_s: float, idle_timeout_s: float, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        """`idle_timeout_s` is the longest silence; a long answer may take as long as it likes.

        `ssl_context` is for https; without one, the system's certificates are trusted.
        """
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._ssl_context = ssl_context
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_gone: asyncio.Future[None] | None = None

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> EngineResponse:
        """See EngineClient. Raises ValueError for a URL or header that cannot be sent.

        A connection that the engine had closed already shows only when it is used. If so, and if no byte of an answer
        has come, the request goes once more over a new connection, POST too: generating again does no harm.
        """
        if self._closed:
            raise RuntimeError("The client is closed.")
        origin, start = start_of(method, url)
        head = head_of(start, headers, body)
        expects_body = method != "HEAD"
        if (connection := self._idle_connection(origin)) is not None:
            answer = connection.start(head, body, expects_body=expects_body)
            try:
                await answer.head()
            except EngineUnreachable as exc:
                if connection.heard or exc.cause != "closed":
                    raise
            else:
                return answer
        return await self._ask(await self._connect(origin), head, body, expects_body=expects_body)

    async def _ask(self, connection: Connection, head: bytes, body: bytes | None, *, expects_body: bool) -> Answer:
        answer = connection.start(head, body, expects_body=expects_body)
        await answer.head()
        return answer

    async def _connect(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(
            idle_timeout_s=self._idle_timeout_s, free=partial(self._free, origin), lost=partial(self._lost, origin)
        )
        context = self._context() if origin.tls else None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await loop.create_connection(lambda: connection, origin.host, origin.port, ssl=context)
        except OSError as exc:  # TimeoutError, a name that is none, a certificate that is not believed, …
            raise EngineUnreachable("connect") from exc
        self._open.add(connection)
        if self._closed or connection.closing:
            connection.close()
            raise EngineUnreachable("connect")
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
            self._ssl_context.set_alpn_protocols(["http/1.1"])
        return self._ssl_context

    def _idle_connection(self, origin: Origin) -> Connection | None:
        """The one used last: it is the least likely to be stale, and the others may grow old and go."""
        idle = self._idle.get(origin)
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_S
        while idle:
            connection = idle.pop()
            if connection.idle_since >= oldest and not connection.closing:
                return connection
            connection.close()
        return None

    def _free(self, origin: Origin, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(origin, []).append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEEP_ALIVE_S, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long; goes off only while something is idle."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEEP_ALIVE_S
        for idle in self._idle.values():
            while idle and idle[0].idle_since <= oldest:
                idle.pop(0).close()
        firsts = [idle[0].idle_since for idle in self._idle.values() if idle]
        self._sweeper = loop.call_later(min(firsts) - oldest, self._sweep) if firsts else None

    def _lost(self, origin: Origin, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(origin, [])
        if connection in idle:
            idle.remove(connection)
        if not self._open and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    async def aclose(self) -> None:
        """See EngineClient; answers under way break off. Returns when the sockets are closed."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._open:
            self._all_gone = asyncio.get_running_loop().create_future()
            for connection in list(self._open):
                connection.close()
            await self._all_gone
        self._idle.clear()
