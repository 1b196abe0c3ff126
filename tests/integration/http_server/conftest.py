from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvloop

from tests.support.gateway import SERVER, serving

PROTOCOLS = {"uvicorn's": "httptools", "ours": SERVER}


def pytest_asyncio_loop_factories(config, item):
    """uvloop is what the gateway runs on, asyncio's own loop what a test or a debugger may."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass
class App:
    """An application whose `answer` is what a test says; keeps what it was asked."""

    answer: object
    scopes: list = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        self.scopes.append(scope)
        await self.answer(scope, receive, send)


class Client:
    """A client as hostile or as slow as a test wants it."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, text):
        self.writer.write(text.replace("\n", "\r\n").encode() if isinstance(text, str) else text)

    async def answer(self, *, head_only=False):
        """Status, headers, body of the next answer; fails rather than waits for ever."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ", 2)[1])
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            if head_only or status in {100, 204, 304}:
                return status, headers, b""
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(await self.reader.readline(), 16):
                    body += await self.reader.readexactly(size)
                    assert await self.reader.readexactly(2) == b"\r\n"
                assert await self.reader.readline() == b"\r\n"
                return status, headers, body
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))

    async def is_closed(self):
        """Whether the server ends the connection; what it still sends before that is dropped."""
        try:
            async with asyncio.timeout(5):
                while await self.reader.read(1 << 16):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True


@asynccontextmanager
async def served(answer, http, **config):
    """The application, a function that opens a connection to it, and the server."""
    app = App(answer)
    writers = []
    async with serving(app, http=http, **config) as running:

        async def connect():
            reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
            writers.append(writer)
            return Client(reader, writer)

        try:
            yield app, connect, running.server
        finally:
            for writer in writers:
                writer.close()


@pytest.fixture(params=PROTOCOLS)
def http(request):
    """The reference and the gateway's own: every test that asks for it holds for both."""
    return PROTOCOLS[request.param]
