"""A scripted engine on a real socket: for faults and for counting, never for proving that answers are right."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def chat_answer(text: str, finish: str = "stop") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def chunk(text: str) -> bytes:
    event = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@dataclass
class ScriptedEngine:
    """Answers by `script`; without one, with the number of requests so far."""

    script: Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    healthy: bool = True
    hung: bool = False
    probes: int = 0
    tokens_a_look: int | None = None
    """How much its count of tokens grows from one look at /metrics to the next; None: it has no metrics."""
    _tokens: int = 1000
    url: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    probes_hang: bool = False
    _runner: web.AppRunner | None = None

    async def start(self) -> ScriptedEngine:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://{self.host}:{self.port}"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        try:
            if self.hung:
                await asyncio.sleep(60)
            if self.script is not None:
                return await self.script(request, body)
            if body.get("stream"):
                return await stream(request, [chunk(f"answer {len(self.requests)}"), DONE])
            return web.json_response(chat_answer(f"answer {len(self.requests)}"))
        except asyncio.CancelledError:
            self.aborted.set()
            raise

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if (await request.json()).get("prompt") == "ping":  # the gateway's probe
            self.probes += 1
            if self.hung or self.probes_hang:
                await asyncio.sleep(60)
            return web.json_response({}, status=200 if self.healthy else 503)
        return await self._answer(request)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        model = {"id": "scripted", "object": "model", "created": 1, "owned_by": "vllm", "root": "/secret/path"}
        return web.json_response({"object": "list", "data": [model]})

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        if self.tokens_a_look is None:
            return web.Response(status=404)
        self._tokens += self.tokens_a_look
        label = 'engine="0",model_name="scripted"'
        text = (
            f"# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{{{label}}} {self._tokens}.0\n"
        )
        return web.Response(text=text)

    async def _health(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if self.healthy else 503)


async def stream(request: web.Request, pieces: list[bytes]) -> web.StreamResponse:
    """Server-sent events, one write each."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response
