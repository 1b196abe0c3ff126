"""An HTTP server that says exactly the bytes it is given: what a hostile or a broken engine would say."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    Script = Callable[["Talk"], Awaitable[None]]

LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")


@dataclass
class Talk:
    """One connection, as the script sees it; it is closed when the script ends."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    """Of the connection, from 0."""
    requests: list[bytes]

    async def request(self) -> bytes:
        """The next request, whole. Raises IncompleteReadError when the client leaves."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        body = await self.reader.readexactly(int(length[1])) if length else b""
        self.requests.append(head + body)
        return head + body

    async def say(self, *pieces: bytes) -> None:
        """Each piece in a segment of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            # The other end runs in this loop: it gets the piece before the next one is there.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def until_left(self) -> None:
        """Until the client has closed its end."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


@dataclass
class RawServer:
    """Where it listens and what it saw."""

    port: int = 0
    host: str = "127.0.0.1"
    scheme: str = "http"
    connections: int = 0
    left: int = 0
    """Connections that are over."""
    requests: list[bytes] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@contextlib.asynccontextmanager
async def raw_server(
    script: Script, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    """Run `script` for each connection."""
    server = RawServer(host=host, scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        talk = Talk(reader, writer, server.connections, server.requests)
        server.connections += 1
        try:
            await script(talk)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client left, or the test is over.
        except Exception as exc:  # noqa: BLE001 - a defect of the script fails the test at its end
            server.faults.append(exc)
        finally:
            server.left += 1
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            tasks.discard(task)

    listener = await asyncio.start_server(converse, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not server.faults


def says(*pieces: bytes, close: bool = False) -> Script:
    """Answer every request of a connection with these bytes; `close` ends it after the first answer."""

    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.say(*pieces)
            if close:
                return

    return script
