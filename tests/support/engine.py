"""A scripted engine on a real socket: for faults and for counting, never for proving that answers are right."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.support.picture_cache import PictureCache

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


def usage_chunk(prompt: int = 10, output: int = 5) -> bytes:
    """What ends a stream of chunks when `stream_options.include_usage` is set."""
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": []}
    return b"data: " + json.dumps({**event, "usage": usage}, separators=(",", ":")).encode() + b"\n\n"


def event(kind: str, **fields: Any) -> bytes:
    """A server-sent event with a name, as vLLM writes those of the Responses and the Messages API."""
    data = json.dumps({**fields, "type": kind}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def response_answer(text: str, **more: Any) -> dict[str, Any]:
    """The Responses API's answer, with the fields that the SDK reads."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": None}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "scripted", "status": "completed"}
    return {**head, "output": [message], "usage": usage, "tools": [], **more}


def response_events(*pieces: str) -> list[bytes]:
    """Its stream."""
    created = event("response.created", response={**response_answer(""), "usage": None}, sequence_number=0)
    deltas = [
        event("response.output_text.delta", delta=piece, item_id="msg_1", output_index=0, sequence_number=number)
        for number, piece in enumerate(pieces, start=1)
    ]
    answer = response_answer("".join(pieces))
    return [created, *deltas, event("response.completed", response=answer, sequence_number=len(pieces) + 1)]


def message_answer(text: str, **more: Any) -> dict[str, Any]:
    """The Messages API's answer; 7 of 10 tokens of the prompt were cached."""
    usage = {"input_tokens": 3, "cache_read_input_tokens": 7, "output_tokens": 5}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "scripted"}
    return {**head, "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage, **more}


def message_events(*pieces: str, stop_reason: str | None = "end_turn") -> list[bytes]:
    """Its stream."""
    start = {**message_answer(""), "content": [], "stop_reason": None}
    usage = message_answer("")["usage"]
    return [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in pieces),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": stop_reason, "stop_sequence": None}, usage=usage),
        event("message_stop"),
    ]


def model_list(*names: str) -> dict[str, Any]:
    """/v1/models of vLLM, which shows where on its disk a model lies."""
    model = {"object": "model", "created": 1, "owned_by": "vllm", "root": "/secret/path"}
    return {"object": "list", "data": [{"id": name, **model} for name in names]}


def refused(message: str) -> web.Response:
    """A request that vLLM does not take."""
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    return web.json_response({"error": error}, status=400)


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
    models: Any = field(default_factory=lambda: model_list("scripted"))
    pictures: PictureCache = field(default_factory=PictureCache)
    url: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    probes_hang: bool = False
    _runner: web.AppRunner | None = None

    async def start(self) -> ScriptedEngine:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/responses", self._answer)
        app.router.add_post("/v1/messages", self._answer)
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
        if missing := self.pictures.resolve(body):
            return refused(missing)
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        try:
            if self.hung:
                await asyncio.sleep(60)
            if self.script is not None:
                return await self.script(request, body)
            text = f"answer {len(self.requests)}"
            whole, events = FORMS.get(request.path, (chat_answer, chat_events))
            if body.get("stream"):
                return await stream(request, events(text, body))
            return web.json_response(whole(text))
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
        return web.json_response(self.models)

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


def chat_events(text: str, body: dict[str, Any]) -> list[bytes]:
    """A stream of chunks, as it was asked for."""
    asked = (body.get("stream_options") or {}).get("include_usage")
    return [chunk(text), *([usage_chunk()] if asked else []), DONE]


FORMS: dict[str, tuple[Callable[[str], Any], Callable[[str, dict[str, Any]], list[bytes]]]] = {
    "/v1/responses": (response_answer, lambda text, _: response_events(text)),
    "/v1/messages": (message_answer, lambda text, _: message_events(text)),
}


async def stream(request: web.Request, pieces: list[bytes]) -> web.StreamResponse:
    """Server-sent events, one write each."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response
