"""Server-sent events from engine to client, each as it comes: none is parsed but the first and that with the usage.

A stream that breaks after its status has gone out ends with an error event in its API's shape.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from gateway.apis.answers import ABORTED, EVENT_END, Usage, usage_of_event
from gateway.errors import EngineMisbehaved, EngineRefused, GatewayError
from gateway.telemetry import STREAMS_BROKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.apis import Api
    from gateway.streams import Pause, Sink, Stream

ERROR_START = b'data: {"error"'
ROLE = b'"role":"assistant"'
ERROR_EVENT = b"event: error\n"
USAGE = b'"usage":{'
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
    if event.startswith(ERROR_EVENT):
        # What vLLM says there is how its own chunk failed to be read, not what went wrong.
        raise EngineMisbehaved("The engine failed before its answer began.")
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


class Relay:
    """The stream from `head` on, in whole events; an error event if the engine breaks off or ends before its API's end.

    An event that was broken off half-way is left out: no client could read it, and SDKs stumble over it.
    """

    def __init__(self, head: bytes, rest: Stream, api: Api) -> None:
        """`rest` is what comes after `head`, cut anywhere."""
        self._head = head
        self._rest = rest
        self._api = api
        self._unfinished = b""
        """Of an event whose end has not come."""
        self._before = self._last = b""
        """The last two pieces: no end of a stream is looked for in each token."""

    async def pour(self, sink: Sink) -> None:
        """See Stream. Raises no GatewayError: the client is told in the stream."""
        try:
            if (pause := self._take(self._head, sink)) is not None:
                await pause
            await self._rest.pour(partial(self._take, sink=sink))  # Not a lambda: it would be a call more a token.
            if self._unfinished and (pause := self._take(EVENT_END, sink)) is not None:
                await pause
        except GatewayError as exc:
            error: GatewayError = exc
        else:
            tail = self._tail
            if any(end in tail for end in self._api.ends):
                return
            error = EngineMisbehaved("The engine ended the stream before the answer was complete.")
        STREAMS_BROKEN.labels(error.cause).inc()
        if (pause := sink(self._api.error_event(error, self._tail))) is not None:
            await pause

    def _take(self, piece: bytes, sink: Sink) -> Pause | None:
        """Hand over what has come to an end."""
        if self._unfinished or not piece.endswith(EVENT_END):
            piece = self._unfinished + piece
            whole = piece.rfind(EVENT_END) + 1
            self._unfinished = piece[whole + 1 :] if whole else piece
            if not whole:
                return None
            piece = piece[: whole + 1]
        self._before, self._last = self._last, piece
        return sink(piece)

    @property
    def _tail(self) -> bytes:
        """How the stream ends so far, from the end of an event on."""
        return EVENT_END + self._before + self._last


class Watched:
    """The stream of whole events; tells the usage as soon as it is there, and may keep its event from the client.

    Of all events only those with the API's mark are read.
    """

    def __init__(self, events: Stream, api: Api, on_usage: Callable[[Usage], None], *, hides_usage: bool) -> None:
        """`on_usage` is called in the middle of it all: it must not raise."""
        self._events = events
        self._mark = api.usage_mark
        self._on_usage = on_usage
        self._hides_usage = hides_usage

    async def pour(self, sink: Sink) -> None:
        """See Stream."""
        mark = self._mark

        def watch(piece: bytes) -> Pause | None:
            if mark in piece:
                piece = _without_usage(piece, mark, self._on_usage, hides_usage=self._hides_usage)
            return sink(piece) if piece else None

        await self._events.pour(watch)


def _without_usage(piece: bytes, mark: bytes, on_usage: Callable[[Usage], None], *, hides_usage: bool) -> bytes:
    kept = []
    for event in piece.removesuffix(EVENT_END).split(EVENT_END):
        usage = usage_of_event(event) if mark in event and USAGE in event else None
        if usage is not None:
            on_usage(usage)
        if usage is None or not hides_usage:
            kept.append(event + EVENT_END)
    return b"".join(kept)
