"""Real servers on loopback and a fetcher that may reach them.

The address policy is opened for 127.0.0.1 only; 127.0.0.2 stands for a private host.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from gateway.images import ImageFetcher, ImageRefused
from tests.support.connections import ended

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

PICTURE = b"\x89PNG not really, but nobody looks here" * 50


def only_127_0_0_1(address) -> bool:
    return address == ip_address("127.0.0.1")


class Names(AbstractResolver):
    """Answers from a table; each question takes the next answer, the last one stays. Counts questions."""

    def __init__(self, **table: list[list[str]]) -> None:
        self.table = {name.replace("_", "."): answers for name, answers in table.items()}
        self.asked: list[str] = []

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        self.asked.append(host)
        answers = self.table.get(host)
        if answers is None:
            raise OSError(None, "unknown name")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            {"hostname": host, "host": a, "port": port, "family": socket.AF_INET6 if ":" in a else socket.AF_INET, "proto": 0, "flags": 0}
            for a in addresses
        ]  # fmt: skip

    async def close(self) -> None:
        raise AssertionError("not the fetcher's to close")


@dataclass
class Server:
    port: int
    seen: list[web.BaseRequest] = field(default_factory=list)
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None

    def url(self, path: str = "/a.png", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextlib.asynccontextmanager
async def serving(
    address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(0)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        server.seen.append(request)
        return web.Response(body=PICTURE) if server.answer is None else await server.answer(request)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, address, port, ssl_context=tls)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@contextlib.asynccontextmanager
async def raw_server(conversation) -> AsyncIterator[int]:
    """A TCP server that speaks as `conversation(reader, writer)` says; connections it leaves open end with the test."""
    tasks: set[asyncio.Task] = set()
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader, writer) -> None:
        tasks.add(asyncio.current_task())
        writers.append(writer)
        try:
            await conversation(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await ended(tasks, writers)


def fetcher(hosts=("*",), max_bytes=1 << 20, **more) -> ImageFetcher:
    return ImageFetcher(
        hosts, max_bytes, **({"address_allowed": only_127_0_0_1, "resolver": Names(img_test=[["127.0.0.1"]])} | more)
    )


async def refusal(fetching: ImageFetcher, url: str) -> ImageRefused:
    async with fetching:
        with pytest.raises(ImageRefused) as caught:
            await fetching.fetch(url)
    return caught.value


def answering(status: int = 200, body: bytes = b"", **headers: str):
    async def answer(_request) -> web.Response:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer
