"""Puts one golden question to an OpenAI-compatible address. Standard library only: it runs on a bare CI runner.

It follows no redirect, so the key goes nowhere else, and asks past the gateway's response cache, which could still
hold the answer of the release before.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from serving import exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.canary.golden import Case

BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""A release that is full is not a bad one: asked again, `TRIES` times in all."""
TRIES = 3
PAUSE_S = 2.0
TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


class NoAnswer(Exception):
    """Nothing usable came back; the message says what did, without the key."""


@dataclass(frozen=True)
class Target:
    """Where to ask, and as whom."""

    base_url: str
    """With `/v1`."""
    api_key: str | None
    model: str
    timeout_s: float


def body(case: Case, model: str) -> bytes:
    """Make the request of one question: deterministic, not streamed."""
    picture = base64.b64encode(case.picture.read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:{TYPES[case.picture.suffix]};base64,{picture}"}},
        {"type": "text", "text": case.question},
    ]
    asked = {"model": model, "temperature": 0, "max_tokens": case.max_tokens}
    return json.dumps({**asked, "messages": [{"role": "user", "content": content}]}).encode()


def put(case: Case, target: Target, sleep: Callable[[float], object] = time.sleep) -> tuple[str, float]:
    """Return the answer and the seconds it took. Raises NoAnswer."""
    for left in range(TRIES - 1, -1, -1):
        began = time.monotonic()
        status, answer = _post(target, body(case, target.model))
        if status not in BUSY or not left:
            break
        sleep(PAUSE_S)
    if status != HTTPStatus.OK:
        raise NoAnswer(f"status {status}: {answer[:200].decode(errors='replace')}")
    try:
        text = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise NoAnswer(f"no chat completion: {answer[:200].decode(errors='replace')}") from None
    if not isinstance(text, str) or not text.strip():
        raise NoAnswer("the answer is empty")
    return text, time.monotonic() - began


def _post(target: Target, payload: bytes) -> tuple[int, bytes]:
    headers = {"content-type": "application/json", "cache-control": "no-cache, no-store"}
    if target.api_key:
        headers["authorization"] = f"Bearer {target.api_key}"
    url = f"{target.base_url.rstrip('/')}/chat/completions"
    try:
        return exchange.request("POST", url, headers, payload, target.timeout_s)
    except exchange.NoExchange as exc:
        raise NoAnswer(str(exc)) from exc
