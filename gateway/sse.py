"""Server-sent events from engine to client, as they come: no event is parsed but the first, none is held back after it.

A stream that breaks after its status has gone out ends with an error event in OpenAI's shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.errors import EngineMisbehaved, EngineRefused, GatewayError, event_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EVENT_END = b"\n\n"
ERROR_START = b'data: {"error"'
DONE = b"data: [DONE]"
ABORTED = b'"finish_reason":"abort"'
"""How an engine that stops says that it has given a request up. In a text of the model the quotes would be escaped."""
ROLE = b'"role":"assistant"'
TAIL_BYTES = 64
"""Enough of the end of a stream to see `[DONE]` and whether an event is complete."""
MAX_FIRST_EVENT_BYTES = 1024 * 1024
HTTP_ERRORS = range(400, 600)


def refusal(status: int, body: bytes) -> GatewayError:
    """The engine's error body as ours, whatever its shape: vLLM's `error` is an object, sometimes a string."""
    try:
        error: Any = orjson.loads(body)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        error = None
    if status == 401:  # noqa: PLR2004 - the engine's key is ours, not the client's: our fault, not theirs
        return EngineMisbehaved("The engine refused the gateway's key: set GATEWAY_ENGINE_API_KEY to its VLLM_API_KEY.")
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return EngineMisbehaved(f"The engine answered {status} without a reason.")
    param, code = error.get("param"), error.get("code")
    return EngineRefused(
        status,
        error["message"],
        kind="invalid_request_error" if status < 500 else "server_error",  # noqa: PLR2004
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) else None,
    )


class Aborted(Exception):
    """The engine gave the request up before its answer; another one may be asked."""


async def first_event(chunks: AsyncIterator[bytes]) -> bytes:
    """Bytes up to the end of the first event that says something, or all there is.

    Comments say nothing, nor does the event that names the assistant's role: vLLM sends it together with the first
    token. A request that vLLM refuses after preprocessing comes as an error event behind status 200: raises what it
    says, so that the client gets the right status. Raises Aborted when the engine has given the request up.
    """
    head = b""
    start = 0
    async for chunk in chunks:
        head += chunk
        while (end := head.find(EVENT_END, start)) >= 0:
            if _tells(head[start:end]):
                return head
            start = end + len(EVENT_END)
        if len(head) > MAX_FIRST_EVENT_BYTES:
            break
    return head


def _tells(event: bytes) -> bool:
    if event.startswith(b":"):
        return False
    if event.startswith(ERROR_START):
        raise _error_of(event.removeprefix(b"data: "))
    if ABORTED in event:
        raise Aborted
    return ROLE not in event or not _only_role(event.removeprefix(b"data: "))


def _only_role(data: bytes) -> bool:
    try:
        choices = orjson.loads(data)["choices"]
        said = [choice.get("finish_reason") or not choice["delta"].keys() <= {"role", "content"} for choice in choices]
        return not any(said) and not any(choice["delta"].get("content") for choice in choices)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return False


def _error_of(data: bytes) -> GatewayError:
    try:
        code: Any = orjson.loads(data)["error"]["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code = None
    return refusal(code if isinstance(code, int) and code in HTTP_ERRORS else 502, data)


def usage_of(tail: bytes) -> int | None:
    """Total tokens from the end of a stream, if its last event before `[DONE]` tells them."""
    for event in reversed(tail.split(EVENT_END)):
        if b'"usage":{' in event and event.startswith(b"data: {"):
            try:
                total = orjson.loads(event.removeprefix(b"data: "))["usage"]["total_tokens"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                return None
            return total if isinstance(total, int) else None
    return None


async def relay(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`head`, then every chunk as it comes; an error event if the engine breaks off or ends without `[DONE]`."""
    tail = head[-TAIL_BYTES:]
    try:
        if head:
            yield head
        async for chunk in chunks:
            yield chunk
            tail = (tail + chunk)[-TAIL_BYTES:]
    except GatewayError as exc:
        error: GatewayError = exc
    else:
        if DONE in tail:
            return
        error = EngineMisbehaved("The engine ended the stream before the answer was complete.")
    # A broken event is closed first, or the error would be read as its continuation.
    yield (b"" if tail.endswith(EVENT_END) else EVENT_END) + event_of(error)
