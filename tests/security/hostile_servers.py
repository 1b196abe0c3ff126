"""Hostile picture hosts on loopback, one path for each trick. The gateway under test may reach 127.0.0.1 and no other
address of this machine, so that 127.0.0.1 stands for the Internet and everything else for the inside."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.support.connections import ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FETCH_TIMEOUT_S = 1.0
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
TLS_HANDSHAKE = b"\x16"
SECRET = b"\x89PNG secret of the inside"

REDIRECTS = {
    "to-loopback": ("http://127.0.0.2/", "private_address", "not on the public Internet"),
    "to-ipv6-loopback": ("http://[::1]/", "private_address", "not on the public Internet"),
    "to-mapped": ("http://[::ffff:127.0.0.2]/", "private_address", "not on the public Internet"),
    "to-metadata": ("http://169.254.169.254/latest/meta-data/", "private_address", "not on the public Internet"),
    "to-other-metadata": ("http://100.96.0.96/", "private_address", "not on the public Internet"),
    "to-private": ("https://10.0.0.1/", "private_address", "not on the public Internet"),
    "to-nat64": ("http://[64:ff9b::a00:1]/", "private_address", "not on the public Internet"),
    "to-6to4": ("http://[2002:a00:1::1]/", "private_address", "not on the public Internet"),
    "to-no-scheme": ("//127.0.0.2/", "private_address", "not on the public Internet"),
    "to-decimal": ("http://2130706434/", "invalid_url", "four decimal numbers"),
    "to-octal": ("http://0177.0.0.2/", "invalid_url", "four decimal numbers"),
    "to-hex": ("http://0x7f000002/", "invalid_url", "four decimal numbers"),
    "to-userinfo": ("http://example.com@127.0.0.2/", "invalid_url", "user name or password"),
    "to-file": ("file:///etc/passwd", "invalid_url", "only http:// and https://"),
    "to-gopher": ("gopher://127.0.0.2:6379/_FLUSHALL", "invalid_url", "only http:// and https://"),
    "to-data": ("data:image/png;base64,AAAA", "invalid_url", "only http:// and https://"),
    "to-backslash": ("/\\\\127.0.0.2/", "invalid_url", "backslash"),
    "to-itself": ("/to-itself", "too_many_redirects", "more than 3 times"),
    "to-a-redirect-to-loopback": ("/to-loopback", "private_address", "not on the public Internet"),
    "to-two-redirects-to-metadata": ("/to-a-redirect-to-metadata", "private_address", "not on the public Internet"),
    "to-a-redirect-to-metadata": ("/to-metadata", "private_address", "not on the public Internet"),
}
ANSWERS = {
    "empty": (OK + b"Content-Length: 0\r\n\r\n", "fetch_failed", "empty"),
    "missing": (b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", "fetch_failed", "404"),
    "broken": (b"HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "fetch_failed", "500"),
    "unasked-304": (b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n", "fetch_failed", "304"),
    "partial": (b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", "fetch_failed", "206"),
    "redirect-to-nowhere": (b"HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "fetch_failed", "302"),
    "no-http": (b"+PONG\r\n\r\n", "fetch_failed", "download"),
    "hung-up": (b"", "fetch_failed", "download"),
    "half": (OK + b"Content-Length: 100\r\n\r\nhalf", "fetch_failed", "download"),
    "compressed": (OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", "fetch_failed", "compressed"),
    "two-lengths": (OK + b"Content-Length: 1\r\nContent-Length: 5\r\n\r\naaaaa", "fetch_failed", "download"),
    "no-chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "fetch_failed", "download"),
    "endless-header": (OK + b"X: " + b"a" * 100_000, "fetch_failed", "download"),
    "announced-10-gb": (OK + b"Content-Length: 10000000000\r\n\r\n", "image_too_large", "bytes accepted"),
    "html": (OK + b"Content-Type: image/png\r\nContent-Length: 15\r\n\r\n<!DOCTYPE html>", "unsupported_image", "web page"),
}  # fmt: skip
SLOW = {
    "silent": ("fetch_timeout", "did not arrive within"),
    "drips-header": ("fetch_timeout", "did not arrive within"),
    "drips-body": ("fetch_timeout", "did not arrive within"),
    "drips-redirects": ("fetch_timeout", "did not arrive within"),
    "endless": ("image_too_large", "bytes accepted"),
}
PATHS = (
    {path: (code, words) for path, (_, code, words) in (REDIRECTS | ANSWERS).items()}
    | SLOW
    | {"tls": ("fetch_failed", "TLS")}
)


async def converse(path: str, writer: asyncio.StreamWriter) -> None:
    """Say what `path` says."""
    if path in REDIRECTS:
        writer.write(
            b"HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: "
            + REDIRECTS[path][0].encode()
            + b"\r\n\r\n"
        )
    elif path in ANSWERS:
        writer.write(ANSWERS[path][0])
    elif path == "silent":
        await asyncio.Event().wait()
    elif path == "drips-redirects":
        await asyncio.sleep(FETCH_TIMEOUT_S * 0.6)
        writer.write(
            b"HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: /drips-redirects\r\n\r\n"
        )
    else:
        await pour(path, writer)
    await writer.drain()


async def pour(path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + {"drips-header": b"X-Slow: ", "drips-body": b"Content-Length: 99999\r\n\r\n"}.get(path, b"\r\n"))
    while True:
        writer.write(bytes(1 << 16) if path == "endless" else b"a")
        await writer.drain()
        await asyncio.sleep(0 if path == "endless" else 0.05)


@contextlib.asynccontextmanager
async def hostile_servers() -> AsyncIterator[tuple[int, list[str]]]:
    """The port on 127.0.0.1, and what reached the inside (127.0.0.2 and ::1, same port): must stay empty."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []
    inside: list[str] = []

    async def outer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        writers.append(writer)
        with contextlib.suppress(
            ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            start = await reader.readexactly(1)
            if start == TLS_HANDSHAKE:
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            else:
                request = await reader.readuntil(b"\r\n\r\n")
                await converse(request.split(b" ", 2)[1].decode().strip("/"), writer)
        writer.close()

    async def inner(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside.append(str(writer.get_extra_info("peername")))
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % len(SECRET) + SECRET)
        writer.close()

    listener = await asyncio.start_server(outer, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    private = await asyncio.start_server(inner, "127.0.0.2", port)
    try:
        yield port, inside
    finally:
        for server in (listener, private):
            server.close()
        await ended(tasks, writers)
