"""An engine as a process that says what it saw: for thousands of requests, never for proving that answers are right.

An answer is the digest of the picture's bytes and the tenant's salt, so that a client can tell whether it is the answer
to its own question.

    python -m tests.support.simulated_engine --port 8000 --latency-s 0.05
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
from collections import Counter

import orjson
from aiohttp import web

from tests.support.picture_cache import PictureCache

USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


def digest(picture: bytes) -> str:
    return hashlib.blake2b(picture, digest_size=8).hexdigest()


class Engine:
    """Counts what it is asked, by picture, salt and text."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.pictures = PictureCache()
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.at_once = self.most_at_once = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        if missing := self.pictures.resolve(body):
            return web.json_response({"error": {"message": missing, "code": 400}}, status=400)
        contents = [message["content"] for message in body["messages"]]
        said = [content if isinstance(content, list) else [{"type": "text", "text": content}] for content in contents]
        text = next(part["text"] for part in said[-1] if part["type"] == "text")
        urls = [part["image_url"]["url"] for parts in said for part in parts if part["type"] == "image_url"]
        seen = digest(base64.b64decode(urls[0].partition(",")[2])) if urls else "none"
        self.asked[seen, body["cache_salt"], text] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            # A text may ask for more work: "… 0.5 s".
            await asyncio.sleep(float(text.split()[-2]) if text.endswith(" s") else self.latency_s)
        finally:
            self.at_once -= 1
        words = [seen, " ", body["cache_salt"], " ", text]
        return await self._stream(request, words) if body.get("stream") else self._whole(words)

    def _whole(self, words: list[str]) -> web.Response:
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return web.Response(body=orjson.dumps(answer | {"usage": USAGE}), content_type="application/json")

    async def _stream(self, request: web.Request, words: list[str]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for word in words:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
            await response.write(b"data: " + orjson.dumps(event) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def report(self, _: web.Request) -> web.Response:
        """What was asked since the last report."""
        asked = [[*name, times] for name, times in self.asked.items()]
        found = {"asked": asked, "requests": self.asked.total(), "most_at_once": self.most_at_once}
        self.asked.clear()
        self.most_at_once = self.at_once
        return web.Response(body=orjson.dumps(found))

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()


def application(engine: Engine) -> web.Application:
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/chat/completions", engine.answer)
    app.router.add_post("/asked", engine.report)
    app.router.add_get("/health", engine.health)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-s", type=float, default=0.0)
    args = parser.parse_args()
    app = application(Engine(args.latency_s))
    web.run_app(
        app,
        host="127.0.0.1",
        port=args.port,
        access_log=None,
        print=None,
        handler_cancellation=True,
        shutdown_timeout=1,
    )


if __name__ == "__main__":
    main()
