"""HTTP to stages and back, in raw ASGI: the hot path. The one place where every error becomes an answer.

FastAPI serves what is not listed in ROUTES; its request models and middleware would cost more than the whole pipeline.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from os import urandom
from typing import TYPE_CHECKING, Any

import orjson

from gateway.apis import api_of, api_of_path
from gateway.asgi import wire_of
from gateway.audit import MAX_OUTPUT_BYTES, Happening, prompt_of, without_pictures
from gateway.counting import CLIENT_CLOSED_REQUEST, count_first_token, count_pace, count_request
from gateway.disconnect import CancelledWhenGone, ClientGone
from gateway.errors import (
    EngineMisbehaved,
    GatewayError,
    InternalError,
    MethodNotAllowed,
    Stopping,
    UnknownPath,
)
from gateway.stages import EVENT_STREAM, JSON, Operation, RawRequest
from gateway.steps import StepTimer
from gateway.telemetry import DISCONNECTS, REQUESTS_UNDER_WAY, log_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.asgi import Asgi, Receive, Scope, Send
    from gateway.drain import Drain
    from gateway.pipeline import Pipeline
    from gateway.stages import Parsed, Reply
    from gateway.streams import Pause, Stream
    from gateway.tracing import Trace

ROUTES = {operation.value: operation for operation in Operation}
PREFIX = "/v1/"
NO_HEADERS: Mapping[str, str] = {}
UNHELD = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
"""A stream's: proxies in between must not hold events back either."""
MOST_PIECES = 8192
"""Of a stream that are kept to its end, for the audit and to count its events: some 2 MB of tokens."""
CLIENT_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger(__name__)


class HotPath:
    """Answers ROUTES and everything below /v1/, and hands the rest to `app`."""

    pipeline: Pipeline
    """There once the application has started."""

    def __init__(self, app: Asgi, drain: Drain) -> None:
        """Once the `drain` has begun, each answer asks for its connection to be closed; `app` sees to its own."""
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path in ROUTES or path.startswith(PREFIX)):
            await self._app(scope, receive, send)
            return
        await Exchange(scope, receive, self._drain).run(self.pipeline)


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_age_s", "_cache", "_document", "_drain", "_error", "_first_byte_s", "_headers", "_id", "_key_id", "_more",
        "_operation", "_output", "_parsed", "_receive", "_scope", "_status", "_tenant", "_timer", "_trace", "_wire",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, drain: Drain) -> None:
        """ASGI's, whose `send` is not needed beside its extension; and whether the process is on its way out."""
        self._timer = StepTimer()
        self._scope = scope
        self._receive = receive
        self._wire = wire_of(scope)
        self._drain = drain
        self._headers = self._wire.head.headers
        self._id = "req_" + urandom(16).hex()
        self._operation = ROUTES.get(scope["path"])
        self._status = 0
        self._error: GatewayError | None = None
        self._cache = "bypass"
        self._age_s: int | None = None
        self._more: tuple[tuple[bytes, bytes], ...] = ()
        self._tenant: str | None = None
        self._key_id: str | None = None
        self._parsed: Parsed | None = None
        self._document: dict[str, Any] | None = None
        self._output: bytes | list[bytes] | None = None
        """The answer so far for the audit; None when it is not to be recorded."""
        self._trace: Trace | None = None
        self._first_byte_s = 0.0

    async def run(self, pipeline: Pipeline) -> None:
        """Answer, count and log; never raises for what a client or an engine does."""
        REQUESTS_UNDER_WAY.value += 1
        if pipeline.tracing is not None:
            self._trace = pipeline.tracing.begin(self._operation, self._headers)
        try:
            await self._answer(pipeline)
        except GatewayError as exc:
            await self._fail(exc)
        except ClientGone:
            self._gone()
        except asyncio.CancelledError:
            # The client is there, or it would be ClientGone: the server cancels what is left when its drain is over.
            await self._fail(Stopping("The gateway is being stopped: try again.", retry_after_s=2))
            raise
        except Exception:
            # The outermost rescue: a defect ends one request, with its trace in the log and none of it on the wire.
            log.exception("request failed", extra={"request_id": self._id})
            await self._fail(InternalError(f"Something broke here; tell the operator the request id {self._id}."))
        finally:
            REQUESTS_UNDER_WAY.value -= 1
            facts = self._record()
            if pipeline.audit is not None and self._output is not None and self._parsed is not None:
                pipeline.audit.submit(self._happening(self._parsed, facts))
            if self._trace is not None:
                self._trace.end(self._timer, facts, self._parsed.body if self._parsed else {}, self._first_byte_s)

    async def _answer(self, pipeline: Pipeline) -> None:
        parsed = await pipeline.read(self._raw())
        key = parsed.identified.key
        self._tenant, self._key_id, self._parsed = key.tenant, key.id, parsed
        if pipeline.audit is not None and self._operation is not Operation.MODELS:
            self._output = b""
        with CancelledWhenGone(self._wire) as block:
            reply = await pipeline.answer(parsed, block)
            try:
                self._cache, self._age_s, self._more = reply.cache, reply.age_s, reply.headers
                if reply.content_type == EVENT_STREAM:
                    count_first_token(self._operation, reply.cache, self._timer.elapsed_s())
                if isinstance(reply.body, bytes):
                    if self._output is not None:
                        self._output, self._document = reply.body, reply.document
                    await self._send_whole(200, self._rendered(reply.body), reply.content_type)
                else:
                    await self._send_stream(reply, reply.body)
            finally:
                reply.release()

    def _raw(self) -> RawRequest:
        operation = self._operation
        if operation is None:
            raise UnknownPath(f"There is no {self._scope['path'][:100]} here; see /docs for what there is.")
        expected = "GET" if operation is Operation.MODELS else "POST"
        if self._scope["method"] != expected:
            raise MethodNotAllowed(f"Use {expected} for {operation.value}.")
        client = self._scope.get("client")
        peer = client[0] if client else ""
        trace_headers = self._trace.headers if self._trace else NO_HEADERS
        wire = self._wire
        return RawRequest(
            self._id, operation, wire.head, peer, wire.take_body, self._receive, self._timer, trace_headers
        )

    def _rendered(self, body: bytes) -> bytes:
        if self._operation is not Operation.PREDICT:
            return body
        return predict_of_chat(body, self._timer.elapsed_s())

    async def _send_whole(
        self, status: int, body: bytes, content_type: bytes, more: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        if (pause := self._wire.answer(status, self._head(status, content_type, more), body)) is not None:
            await pause

    async def _send_stream(self, reply: Reply, stream: Stream) -> None:
        self._wire.start(200, self._head(200, reply.content_type, UNHELD))
        write = self._wire.write
        times_s: list[float] = []
        pieces: list[bytes] = []
        mark, now, keep = times_s.append, time.perf_counter, pieces.append
        if self._output is not None:
            self._output = pieces

        def forward(chunk: bytes) -> Pause | None:  # Each token's: what can be done at the end is done there.
            mark(now())
            if len(pieces) < MOST_PIECES:
                keep(chunk)
            return write(chunk, more=True)

        await stream.pour(forward)
        if (pause := write(b"", more=False)) is not None:
            await pause
        if reply.cache != "hit":  # A kept answer's pace says nothing of an engine.
            count_pace(self._operation, times_s, pieces)

    def _head(self, status: int, content_type: bytes, more: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The headers of the answer, which begins now."""
        self._status = status
        headers = [
            (b"content-type", content_type),
            (b"x-request-id", self._id.encode()),
            (b"x-cache", self._cache.encode()),
            (b"server-timing", self._timer.server_timing()),
            *self._more,
            *more,
        ]
        if self._age_s is not None:
            headers.append((b"age", b"%d" % self._age_s))
        if self._drain.begun:
            self._wire.keep_alive = False
        self._first_byte_s = self._timer.elapsed_s()
        return headers

    async def _fail(self, error: GatewayError) -> None:
        self._timer.leave()
        self._error = error
        if self._status:  # The status has gone out: all that is left is to say so in the stream.
            event = api_of(self._operation).error_event(error, b"")
            if (pause := self._wire.write(event, more=False)) is not None:
                await pause
            return
        more = list(error.headers)
        if error.retry_after_s is not None:
            more.append((b"retry-after", b"%d" % error.retry_after_s))
        if error.status == 401:  # noqa: PLR2004 - RFC 9110 wants the scheme named
            more.append((b"www-authenticate", b"Bearer"))
        if error.status == 408:  # noqa: PLR2004 - the only one where the client has stopped sending
            # Elsewhere uvicorn reads on and drops the rest of the body: a client that is cut off while it still sends
            # sees a broken connection and never the reason.
            self._wire.keep_alive = False
        await self._send_whole(error.status, api_of_path(self._scope["path"]).error_body(error), JSON, more)

    def _gone(self) -> None:
        self._timer.leave()
        self._status = CLIENT_CLOSED_REQUEST
        DISCONNECTS.labels(self._operation.value if self._operation else "other").inc()

    def _happening(self, parsed: Parsed, facts: dict[str, Any]) -> Happening:
        body = parsed.body
        prompt = prompt_of(body)
        if parsed.images:
            prompt = without_pictures(prompt, self._timer.facts.get("images", ()))
        output = self._output or b""
        if not isinstance(output, bytes):
            output = b"".join(output)[:MAX_OUTPUT_BYTES]
        return Happening(facts, prompt, output, self._document, body.get("model"))

    def _record(self) -> dict[str, Any]:
        timer = self._timer
        elapsed = timer.elapsed_s()
        count_request(
            self._operation,
            status=self._status,
            cache=self._cache,
            tenant=self._tenant,
            error=self._error,
            elapsed_s=elapsed,
        )
        given = self._headers.get(b"x-request-id", b"")
        facts = {
            "request_id": self._id,
            "client_request_id": given.decode() if given and CLIENT_REQUEST_ID.fullmatch(given) else None,
            "operation": self._operation or "other",
            "status": self._status,
            "error": self._error.cause if self._error else None,
            "tenant": self._tenant,
            "key_id": self._key_id,
            "cache": self._cache,
            "duration_ms": round(elapsed * 100_000) / 100,
            "steps_ms": timer.ms(),
            **timer.facts,
        }
        log_request(facts)
        return facts


def predict_of_chat(body: bytes, elapsed_s: float) -> bytes:
    """`/predict`'s answer from the chat answer."""
    try:
        result = orjson.loads(body)["choices"][0]["message"]["content"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as exc:
        raise EngineMisbehaved("The engine's answer cannot be read.") from exc
    return orjson.dumps({"result": result, "inference_time_ms": round(elapsed_s * 1000, 2)})
