"""Prepared to Reply: sends a request to an engine, tries another when one cannot be reached, tells errors apart."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import orjson

from gateway.apis import api_of
from gateway.errors import EngineMisbehaved, EngineUnavailable
from gateway.sse import first_event, refusal, relay
from gateway.stages import EVENT_STREAM, JSON, Operation, Reply, Scheduled
from gateway.telemetry import ENGINE_FAILURES
from gateway.upstream.client import EngineUnreachable
from gateway.upstream.endpoints import Ejected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from gateway.telemetry import StepTimer
    from gateway.upstream.client import EngineClient, EngineResponse
    from gateway.upstream.endpoints import Endpoint, Endpoints

OK = 200
MAX_LOST = 2
"""Attempts that may end with a connection closed before an answer: the request itself may be what kills engines."""
SHOWN_OF_MODEL = ("id", "object", "created", "owned_by", "max_model_len")
"""What /v1/models shows of a model; vLLM's `root` is a path on the engine's disk."""


class Upstream:
    """The engines as one."""

    def __init__(self, client: EngineClient, endpoints: Endpoints, headers: Mapping[str, str], *, probed: bool) -> None:
        """`headers` go with every request to an engine; `probed` says that a Prober brings engines back."""
        self._client = client
        self._endpoints = endpoints
        self._headers = headers
        self._probed = probed

    async def send(self, scheduled: Scheduled) -> Reply:
        """The engine's answer: whole, or a stream whose first event has been seen.

        Raises EngineRefused with the engine's status, EngineUnavailable when none can be reached, EngineMisbehaved.
        The reply's `release` gives back the engine's slot and connection.
        """
        prepared = scheduled.prepared
        parsed = prepared.keyed.located.parsed
        raw = parsed.identified.allowed.raw
        operation = Operation.CHAT if raw.operation is Operation.PREDICT else raw.operation
        method = "GET" if operation is Operation.MODELS else "POST"
        headers = {**self._headers, "x-request-id": raw.id, **raw.trace_headers}
        with ExitStack() as held:
            held.callback(scheduled.release)
            response, endpoint = await self._attempt(
                method, operation.value, headers, prepared.payload or None, raw.timer, held
            )
            held.callback(response.close)
            if response.status != OK:
                raise refusal(response.status, await response.read())
            if not parsed.stream:
                body = await response.read()
                if operation is Operation.MODELS:
                    body = shown_models(body, parsed.identified.key.models)
                return Reply(body, JSON)
            chunks = counted(response.chunks(), endpoint)
            head = await first_event(chunks)
            return Reply(relay(head, chunks, api_of(operation)), EVENT_STREAM, release=held.pop_all().close)

    async def _attempt(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, timer: StepTimer, held: ExitStack
    ) -> tuple[EngineResponse, Endpoint]:
        lost = 0
        for endpoint in attempts(self._endpoints.in_order()):
            if endpoint.ejected:
                continue
            lease = held.enter_context(ExitStack())
            lease.enter_context(self._endpoints.lease(endpoint))
            try:
                with endpoint.awaited():
                    response = await self._client.send(method, endpoint.url + path, headers, body)
            except Ejected:
                lease.close()
            except EngineUnreachable as exc:
                lease.close()
                ENGINE_FAILURES.labels(endpoint.url, exc.cause).inc()
                if exc.cause == "connect":
                    self._set_aside(endpoint)
                    continue
                lost += 1
                if lost == MAX_LOST:
                    break
            else:
                endpoint.answers += 1
                timer.facts["engine"] = endpoint.url
                return response, endpoint
        raise EngineUnavailable("No engine can be reached at the moment: try again.", retry_after_s=2)

    def _set_aside(self, endpoint: Endpoint) -> None:
        if self._probed:
            endpoint.eject()  # Until a probe finds it there again.
        else:
            self._endpoints.pause(endpoint)

    async def ready(self) -> bool:
        """Whether at least one engine has generated a token; without probes, whether one says that it is healthy."""
        if self._probed:
            return any(endpoint.proven for endpoint in self._endpoints.all)
        for endpoint in self._endpoints.in_order():
            try:
                response = await self._client.send("GET", endpoint.url + "/health", self._headers, None)
                try:
                    if response.status == OK:
                        await response.read()
                        return True
                finally:
                    response.close()
            except EngineUnreachable:
                continue
        return False


def engine_headers(api_key: str | None) -> dict[str, str]:
    """`api_key` is what the engines expect; a client's own key is never sent on."""
    return {"content-type": "application/json"} | ({"authorization": f"Bearer {api_key}"} if api_key else {})


async def counted(chunks: AsyncIterator[bytes], endpoint: Endpoint) -> AsyncIterator[bytes]:
    """The chunks, each a sign of life of its engine."""
    async for chunk in chunks:
        endpoint.answers += 1
        yield chunk


def attempts(endpoints: list[Endpoint]) -> Iterable[Endpoint]:
    """Every engine once, and the best again at the end: its pooled connection may just have been stale."""
    yield from endpoints
    yield from endpoints[:1]


def shown_models(body: bytes, allowed: Sequence[str] = ()) -> bytes:
    """vLLM's list of models in OpenAI's fields; of them only those that are `allowed`, if any are named."""
    try:
        models: list[dict[str, Any]] = orjson.loads(body)["data"]
        shown = [
            {name: model[name] for name in SHOWN_OF_MODEL if name in model}
            for model in models
            if not allowed or model["id"] in allowed
        ]
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise EngineMisbehaved("The engine's list of models cannot be read.") from exc
    return orjson.dumps({"object": "list", "data": shown})
