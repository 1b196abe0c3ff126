"""CPU of the gateway's own Python for one request: every feature on, no sockets, an engine that answers at once.

For comparing two versions of the code on one machine, change by change, in seconds. What uvicorn, the sockets and the
engine client cost is not in it. The least of several batches is shown, as other processes only ever add.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from gateway.app import create_app
from gateway.asgi import EXTENSION
from gateway.http_server.head import Head
from gateway.malloc import keep_large_blocks
from gateway.settings import Settings
from gateway.telemetry import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from gateway.streams import Sink

KEY = "sk-bench"
PATH = "/v1/chat/completions"
TOKENS = 64
BATCHES = 12
KINDS = {"miss": 400, "hit": 400, "stream": 40}
"""What is asked, and how often in a batch."""
EVENT = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" word"}}]}\n\n'
ANSWER = json.dumps(
    {
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "word " * TOKENS}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 50, "completion_tokens": TOKENS, "total_tokens": 50 + TOKENS},
    }
).encode()


class InstantResponse:
    """An answer that lets the loop turn once before each piece, as a socket would."""

    status = 200
    content_type = b"application/json"

    def __init__(self) -> None:
        """All of it is still to come."""
        self._events = iter((*[EVENT] * TOKENS, b"data: [DONE]\n\n"))

    async def read(self) -> bytes:
        """See EngineResponse."""
        await asyncio.sleep(0)
        return ANSWER

    async def chunks(self) -> AsyncIterator[bytes]:
        """See EngineResponse."""
        for event in self._events:
            await asyncio.sleep(0)
            yield event

    async def pour(self, sink: Sink) -> None:
        """See EngineResponse."""
        for event in self._events:
            await asyncio.sleep(0)
            if (pause := sink(event)) is not None:
                await pause

    def close(self) -> None:
        """See EngineResponse."""


class InstantClient:
    """Stands for the engines."""

    async def send(self, _method: str, _url: str, _headers: Mapping[str, str], _body: bytes | None) -> InstantResponse:
        """See EngineClient."""
        await asyncio.sleep(0)
        return InstantResponse()

    async def aclose(self) -> None:
        """See EngineClient."""


def settings_in(folder: Path) -> Settings:
    """Every feature on, and no limit that is reached."""
    keys = folder / "keys.json"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    record = {"id": "k", "tenant": "t", "sha256": digest, "created": "2026-01-01T00:00:00Z", "cidrs": ["127.0.0.0/8"]}
    keys.write_text(json.dumps({"keys": [record]}))
    chosen: dict[str, Any] = {
        "keys_file": keys,
        "engine_probe_interval_s": 0,
        "allowed_cidrs": ("127.0.0.0/8", "10.0.0.0/8"),
        "cache_policy": "always",
        "audit": "hash",
        "audit_file": folder / "audit.jsonl",
        "requests_per_minute": 10**8,
        "tokens_per_minute": 10**11,
        "tokens_per_day": 10**11,
        "concurrent_requests": 10**5,
    }
    return Settings(**chosen)


class NowhereWire:
    """A client that takes what it gets; see asgi.Wire."""

    def __init__(self, head: Head, body: bytes) -> None:
        """The request's."""
        self.head = head
        self.status = 0
        self._body = body

    def take_body(self) -> bytes:
        """It has come with the head."""
        return self._body

    def when_gone(self, call: Callable[[], object] | None) -> None:
        """It stays."""

    def answer(self, status: int, _: Sequence[tuple[bytes, bytes]], __: bytes) -> None:
        """Remember the status."""
        self.status = status

    def start(self, status: int, _: Sequence[tuple[bytes, bytes]]) -> None:
        """Likewise."""
        self.status = status

    def write(self, body: bytes, *, more: bool) -> None:
        """Drop it."""


def head_of_connection() -> Head:
    """What each request of the connection begins with, as `gateway/http_server` knows it again."""
    headers = [(b"host", b"x"), (b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, "client": ("127.0.0.1", 1)}
    return Head(scope, keep_alive=True)


async def ask(app: Any, head: Head, body: bytes) -> int:  # noqa: ANN401 - an ASGI application
    """One request that begins with `head`, as a server would bring it; the status."""
    wire = NowhereWire(head, body)

    async def receive() -> dict[str, Any]:
        raise AssertionError("The body is taken by the extension.")

    async def send(_: dict[str, Any]) -> None:
        raise AssertionError("The answer goes by the extension.")

    await app({**head.scope, "extensions": {EXTENSION: wire}}, receive, send)
    return wire.status


def body_of(kind: str, number: int) -> bytes:
    """A question: a new one each time, or one of 64 for hits."""
    text = f"{number % 64 if kind == 'hit' else number} " + "hello you " * 20
    message = {"role": "user", "content": text}
    return json.dumps({"model": "m", "messages": [message], "max_tokens": TOKENS, "stream": kind == "stream"}).encode()


async def measure(kind: str, times: int) -> float:
    """Microseconds of this thread's CPU for one request."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(settings_in(Path(folder)), client=InstantClient())
        head = head_of_connection()
        async with app.router.lifespan_context(app):
            least, number = float("inf"), 0
            for batch in range(BATCHES + 1):
                began = time.thread_time()
                for _ in range(times):
                    number += 1
                    if (status := await ask(app, head, body_of(kind, number))) != 200:  # noqa: PLR2004
                        raise SystemExit(f"A {kind} was answered with {status}: the figures would mean nothing.")
                if batch:  # The first fills caches.
                    least = min(least, (time.thread_time() - began) / times)
    return least * 1e6


def main() -> None:
    """Print one line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help="of " + ", ".join(KINDS))
    kinds = parser.parse_args().kinds
    keep_large_blocks()
    configure_logging("info")
    # The log is made and written as in production, but not shown.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        logging.getLogger().handlers[0].setStream(nowhere)  # type: ignore[attr-defined]
        for kind in kinds:
            spent_us = uvloop.run(measure(kind, KINDS[kind]))
            chunk = f", {spent_us / (TOKENS + 1):.1f} a chunk" if kind == "stream" else ""
            print(f"{kind}: {spent_us:.0f} microseconds{chunk}")
        logging.shutdown()


if __name__ == "__main__":
    main()
