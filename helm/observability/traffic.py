"""A bit of everything that clients do: questions plain and streamed, kept answers, pictures by URL, faults, limits."""

from __future__ import annotations

import asyncio
import base64
import itertools
from typing import TYPE_CHECKING, Any

import httpx

from helm.observability.stack import KEY, LIMITED_KEY

if TYPE_CHECKING:
    from helm.observability.stack import Stack

CHAT = "/v1/chat/completions"
_numbers = itertools.count()


def chat(model: str, picture_url: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of the API
    """A question about a picture; another one each time unless `text` is given."""
    text = more.pop("text", None) or f"What colour is it? ({next(_numbers)})"
    content = [{"type": "image_url", "image_url": {"url": picture_url}}, {"type": "text", "text": text}]
    return {"model": model, "max_tokens": 12, "messages": [{"role": "user", "content": content}], **more}


async def one_round(client: httpx.AsyncClient, stack: Stack, model: str, picture: bytes) -> None:
    """One of each; whatever the answers are, they are counted."""
    url = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
    limited = {"authorization": f"Bearer {LIMITED_KEY}"}
    posts: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        (CHAT, chat(model, url), {}),
        (CHAT, chat(model, url, stream=True), {}),
        (CHAT, chat(model, url, stream=True, stream_options={"include_usage": True}), {}),
        (CHAT, chat(model, url, text="Which color is it?", temperature=0), {}),
        (CHAT, chat(model, url, text="Which color is it?", temperature=0), {}),
        (CHAT, chat(model, f"{stack.images.url}/{next(_numbers)}.jpg"), {}),
        (CHAT, chat(model, url, service_tier="flex"), {}),
        (CHAT, chat(model, "data:image/jpeg;base64,AAAA"), {}),
        ("/v1/completions", {"model": model, "prompt": f"A red hat {next(_numbers)}", "max_tokens": 4}, {}),
        ("/predict", {"image": base64.b64encode(picture).decode(), "prompt": f"Colour? {next(_numbers)}"}, {}),
        (CHAT, chat(model, url), limited),
        (CHAT, chat(model, url), {"authorization": "Bearer sk-nobody"}),
    ]
    await asyncio.gather(
        client.get("/v1/models"), *(client.post(path, json=body, headers=headers) for path, body, headers in posts)
    )
    await leave(client, chat(model, url, stream=True, max_tokens=200, ignore_eos=True))


async def leave(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """Ask for a stream and go after its first byte."""
    async with client.stream("POST", CHAT, json=body) as response:
        async for _ in response.aiter_bytes():
            return


def client_of(stack: Stack) -> httpx.AsyncClient:
    """The interactive tenant's client; environment proxies are none of loopback's business."""
    return httpx.AsyncClient(
        base_url=stack.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False
    )
