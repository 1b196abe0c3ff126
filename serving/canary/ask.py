"""Puts one golden question to an OpenAI-compatible address. Standard library only: it runs on a bare CI runner.

It follows no redirect, so the key goes nowhere else, and asks past the gateway's response cache, which could still
hold the answer of the release before.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from serving.canary.golden import Case

BUSY = (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE)
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
    if status != http.HTTPStatus.OK:
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
    return request("POST", f"{target.base_url.rstrip('/')}/chat/completions", headers, payload, target.timeout_s)


def request(
    method: str, url: str, headers: dict[str, str], payload: bytes | None, timeout_s: float
) -> tuple[int, bytes]:
    """Do one HTTP exchange; return status and body. Raises NoAnswer."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise NoAnswer(f"{url} is no http(s) address")
    connection = kind(parts.hostname, parts.port, timeout=timeout_s)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path or "/", payload, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except TimeoutError:
        raise NoAnswer(f"nothing within {timeout_s:g} s") from None
    except (OSError, http.client.HTTPException) as exc:
        raise NoAnswer(f"{parts.netloc}: {exc or type(exc).__name__}") from exc
    finally:
        connection.close()
