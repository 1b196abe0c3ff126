"""Requests as the OpenAI SDK for Python sends them, and what comes back; no sockets.

A test sends the same question with the SDK and compares: tests/integration/test_load.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from loadtest.load.pictures import Asked
    from loadtest.load.plan import Planned
    from loadtest.load.scenario import Traffic

PATH = "/v1/chat/completions"
SEEDS = 1 << 31
EVENT_END = b"\n\n"
_DATA = b"data:"
_DONE = b"[DONE]"


def headers(key: str) -> dict[str, str]:
    """Give the SDK's headers, but for Host and Content-Length, which the client adds."""
    return {
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # the one difference: unpacking would be the generator's time
        "Authorization": f"Bearer {key}",
        "Connection": "keep-alive",
        "Content-Type": "application/json",
        "User-Agent": "OpenAI/Python load-test",
        "X-Stainless-Arch": "x64",
        "X-Stainless-Async": "false",
        "X-Stainless-Lang": "python",
        "X-Stainless-OS": "Linux",
        "X-Stainless-Package-Version": "load-test",
        "X-Stainless-Read-Timeout": "600",
        "X-Stainless-Retry-Count": "0",
        "X-Stainless-Runtime": "CPython",
        "X-Stainless-Runtime-Version": "3.11.0",
    }


def body(model: str, traffic: Traffic, planned: Planned, asked: Asked, seed: int) -> bytes:
    """Make the request's JSON. A `seed` changes no greedy answer, but makes it a request that no cache has seen."""
    picture = {"type": "image_url", "image_url": {"url": asked.picture.url}}
    messages: list[dict[str, Any]] = []
    for earlier in asked.earlier[: planned.earlier_turns]:
        messages.append({"role": "user", "content": [{"type": "text", "text": earlier.text}]})
        messages.append({"role": "assistant", "content": earlier.answer})
    messages.append({"role": "user", "content": [{"type": "text", "text": asked.question.text}]})
    messages[0]["content"].insert(0, picture)
    fields: dict[str, Any] = {
        "messages": messages,
        "model": model,
        "max_tokens": planned.max_tokens,
        "seed": seed,
        "temperature": 0,
    }
    if traffic.service_tier:
        fields["service_tier"] = traffic.service_tier
    if planned.streamed:
        fields["stream"] = True
    return orjson.dumps(fields)


@dataclass(slots=True)
class Stream:
    """Puts a streamed answer together and notices how it ends."""

    text: str = ""
    finish: str = ""
    done: bool = False
    fault: str = ""

    def take(self, event: bytes) -> bool:
        """Take one event without its end; whether it holds text, which is what a reader waits for.

        vLLM reports a failure behind a 200 as an event with `error`.
        """
        if not event.startswith(_DATA):
            return False
        data = event[len(_DATA) :].strip()
        if data == _DONE:
            self.done = True
            return False
        try:
            return self._take(orjson.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError):
            self.fault = f"no chunk: {data[:100].decode(errors='replace')}"
            return False

    def _take(self, chunk: dict[str, Any]) -> bool:
        if "error" in chunk:
            self.fault = error_of(chunk)
            return False
        if not chunk["choices"]:
            return False
        choice = chunk["choices"][0]
        self.finish = choice.get("finish_reason") or self.finish
        piece = choice["delta"].get("content") or ""
        self.text += piece
        return bool(piece)


def whole(content: bytes) -> tuple[str, str]:
    """Read an answer that was not streamed: its text and its finish reason. Raises ValueError when it is none."""
    try:
        choice = orjson.loads(content)["choices"][0]
        return choice["message"]["content"] or "", choice["finish_reason"] or ""
    except (ValueError, LookupError, TypeError) as exc:
        raise ValueError("no chat completion") from exc


def error_of(answer: Any) -> str:  # noqa: ANN401 - any JSON
    """Say in a few words what an error answer says: its code, else its type, else its message."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        return str(error.get("code") or error.get("type") or error.get("message") or "error")[:100]
    return str(error or "error")[:100]


def refusal(status: int, content: bytes) -> str:
    """Name an answer with another status than 200."""
    try:
        return f"{status} {error_of(orjson.loads(content))}"
    except ValueError:
        return str(status)
