"""Server-sent events from engine to client, as they come: no event is parsed but the first, none is held back.

A stream that breaks after its status has gone out ends with an error event in OpenAI's shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.errors import EngineMisbehaved, EngineRefused, GatewayError, event_of
from gateway.telemetry import STREAMS_BROKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EVENT_END = b"\n\n"
ERROR_START = b'data: {"error"'
DONE = b"data: [DONE]"
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


async def first_event(chunks: AsyncIterator[bytes]) -> bytes:
    """Bytes up to the end of the first event that is no comment, or all there is.

    A request that vLLM refuses after preprocessing comes as an error event behind status 200: raises what it says, so
    that the client gets the right status.
    """
    head = b""
    async for chunk in chunks:
        head += chunk
        start = 0
        while head.startswith(b":", start) and (end := head.find(EVENT_END, start)) >= 0:
            start = end + len(EVENT_END)
        if head.find(EVENT_END, start) >= 0 and not head.startswith(b":", start):
            if head.startswith(ERROR_START, start):
                event = head[start : head.index(EVENT_END, start)]
                raise _error_of(event.removeprefix(b"data: "))
            return head
        if len(head) > MAX_FIRST_EVENT_BYTES:
            break
    return head


def _error_of(data: bytes) -> GatewayError:
    try:
        code: Any = orjson.loads(data)["error"]["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code = None
    return refusal(code if isinstance(code, int) and code in HTTP_ERRORS else 502, data)


def usage_of(tail: bytes) -> object:
    """The `usage` at the end of a stream, if its last event before `[DONE]` has one."""
    for event in reversed(tail.split(EVENT_END)):
        if b'"usage":{' in event and event.startswith(b"data: {"):
            try:
                usage: object = orjson.loads(event.removeprefix(b"data: "))["usage"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                return None
            return usage
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
    STREAMS_BROKEN.labels(error.cause).inc()
    # A broken event is closed first, or the error would be read as its continuation.
    yield (b"" if tail.endswith(EVENT_END) else EVENT_END) + event_of(error)
