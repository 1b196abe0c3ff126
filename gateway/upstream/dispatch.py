"""Prepared to Reply: sends a request to an engine, asks another while nothing has gone to the client, tells errors."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from msgspec.structs import replace

from gateway.apis import api_of
from gateway.apis.answers import ABORTED
from gateway.deadline import Deadline
from gateway.errors import EngineMisbehaved, EngineRefused, EngineTimeout, GatewayError
from gateway.sse import Aborted, Relay, first_event, refusal
from gateway.stages import EVENT_STREAM, JSON, Operation, Reply
from gateway.telemetry import ENGINE_FAILURES, ENGINE_PICTURES
from gateway.upstream.affinity import affinity_key
from gateway.upstream.client import EngineUnreachable
from gateway.upstream.endpoints import Ejected
from gateway.upstream.retries import ONCE_MORE, AskAnother, Attempts, judged, unavailable
from gateway.upstream.silence import Attended, attended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from gateway.apis import Api
    from gateway.stages import Located, Scheduled
    from gateway.upstream.client import EngineClient, EngineResponse
    from gateway.upstream.endpoints import Endpoint, Endpoints, Lease
    from gateway.upstream.retries import RetryBudget

OK = 200
BAD_REQUEST = 400
"""How vLLM refuses the name of a picture that it does not keep."""
HEALTH_TIMEOUT_S = 2.0
"""For an engine's /health, which does no work: who asks whether the gateway is ready does not wait long either."""
DRAINS = frozenset({"connect", "stopping", "abort"})
"""Failures after which an engine gets nothing new until a probe finds that it generates."""
SHOWN_OF_MODEL = ("id", "object", "created", "owned_by", "max_model_len")
"""What /v1/models shows of a model; vLLM's `root` is a path on the engine's disk."""


class Patience(msgspec.Struct, frozen=True):
    """How long an engine may take, in seconds; the time for a connection is the client's."""

    first_token_s: float
    """From sending to the first event of a stream."""
    idle_s: float
    """Between two events of a stream."""
    answer_s: float
    """From sending to the last byte of an answer that is not streamed."""


class Call(msgspec.Struct, frozen=True):
    """What an engine is asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    stream: bool
    api: Api
    limit_s: float
    """Until there is something to pass on."""
    named: bytes = b""
    """The body with names in place of the pictures."""
    names: tuple[str, ...] = ()


class Upstream:
    """The engines as one."""

    def __init__(
        self,
        client: EngineClient,
        endpoints: Endpoints,
        headers: Mapping[str, str],
        *,
        patience: Patience,
        budget: RetryBudget,
        probed: bool,
    ) -> None:
        """`headers` go with every request to an engine; `probed` says that a Prober brings engines back."""
        self._client = client
        self._endpoints = endpoints
        self._headers = headers
        self._patience = patience
        self._budget = budget
        self._probed = probed

    async def send(self, scheduled: Scheduled) -> Reply:
        """The engine's answer: whole, or a stream whose first event has been seen.

        Raises EngineRefused with the engine's status, EngineUnavailable when none can be reached, EngineTimeout,
        EngineMisbehaved. The reply's `release` gives back the engine's slot and connection.
        """
        located = scheduled.prepared.keyed.located
        raw = located.parsed.identified.allowed.raw
        try:
            body, lease, attempts = await self._attempt(self._call(scheduled), located)
        except BaseException:
            scheduled.release()
            raise
        raw.timer.facts["engine"] = lease.endpoint.url
        if attempts.retries:
            raw.timer.facts["retries"] = attempts.retries

        def release() -> None:
            lease.release()
            scheduled.release()

        if not isinstance(body, bytes):
            return Reply(body, EVENT_STREAM, release=release)
        release()
        if raw.operation is Operation.MODELS:
            body = shown_models(body, located.parsed.identified.key.models)
        return Reply(body, JSON)

    def _call(self, scheduled: Scheduled) -> Call:
        prepared = scheduled.prepared
        parsed = prepared.keyed.located.parsed
        raw = parsed.identified.allowed.raw
        operation = Operation.CHAT if raw.operation is Operation.PREDICT else raw.operation
        models = operation is Operation.MODELS
        return Call(
            "GET" if models else "POST",
            operation,
            {**self._headers, "x-request-id": raw.id, **raw.trace_headers},
            prepared.payload or None,
            parsed.stream,
            api_of(operation),
            self._patience.first_token_s if parsed.stream or models else self._patience.answer_s,
            prepared.named,
            prepared.names,
        )

    async def _attempt(self, call: Call, located: Located) -> tuple[bytes | Relay, Lease, Attempts]:
        """The first engine's answer that there is, with its lease. Raises what is final."""
        key = affinity_key(located) if len(self._endpoints.all) > 1 else None  # Where there is a choice at all.
        attempts = Attempts(self._endpoints, key, self._budget)
        while (endpoint := attempts.next()) is not None:
            lease = self._endpoints.lease(endpoint)
            try:
                ask = self._ask_by_name if call.names else self._ask
                return await ask(endpoint, call, lease), lease, attempts
            except Ejected:
                lease.release()
                attempts.moved("ejected")
            except AskAnother as exc:
                lease.release()
                self._note(endpoint, exc, attempts)
            except BaseException:
                lease.release()
                raise
        raise attempts.error

    def _note(self, endpoint: Endpoint, failure: AskAnother, attempts: Attempts) -> None:
        ENGINE_FAILURES.labels(endpoint.url, failure.cause).inc()
        if self._probed and failure.cause in DRAINS:
            endpoint.close()  # Until a probe finds it there again.
        elif failure.cause in DRAINS or not (failure.lost or failure.cause in ONCE_MORE):
            self._endpoints.pause(endpoint)
        if failure.cause == "connect":
            attempts.moved("connect")
        else:
            attempts.failed(endpoint, failure)

    async def _ask_by_name(self, endpoint: Endpoint, call: Call, lease: Lease) -> bytes | Relay:
        """As `_ask`: without pictures that the engine has, and with them when it has not."""
        seen, names = endpoint.seen, call.names
        named = seen.has_all(names)
        if named:
            try:
                answer = await self._ask(endpoint, replace(call, body=call.named), lease)
            except EngineRefused as exc:
                # It has forgotten one, most often. Whatever else is amiss with the request it will say again.
                if exc.status != BAD_REQUEST:
                    raise
            except AskAnother:
                seen.forget()
                raise
            else:
                seen.answered(names, by_name=True)
                ENGINE_PICTURES.labels("named").inc(len(names))
                return answer
        answer = await self._ask(endpoint, call, lease)
        if named:
            seen.missed()
            ENGINE_PICTURES.labels("forgotten").inc(len(names))
        seen.answered(names)
        ENGINE_PICTURES.labels("sent").inc(len(names))
        return answer

    async def _ask(self, endpoint: Endpoint, call: Call, lease: Lease) -> bytes | Relay:
        """One engine's answer, or its stream from the first event on. Raises AskAnother, Ejected or what is final."""
        try:
            with endpoint.awaited() as task, Deadline(call.limit_s, task):
                headers = {**call.headers, **endpoint.headers} if endpoint.headers else call.headers
                try:
                    response = await self._client.send(call.method, endpoint.url + call.path, headers, call.body)
                except EngineUnreachable as exc:
                    raise AskAnother(exc.cause, unavailable(), lost=exc.cause != "connect") from exc
                lease.response = response
                if response.status != OK:
                    raise judged(response.status, refusal(response.status, await response.read()))
                if not call.stream:
                    return await whole(response, endpoint)
                async with aclosing(attended(response.chunks(), endpoint, self._patience.idle_s)) as chunks:
                    head = await beginning(chunks)
                return Relay(head, Attended(response, endpoint, self._patience.idle_s), call.api)
        except TimeoutError as exc:
            raise EngineTimeout(f"The engine did not answer within {call.limit_s:g} s.") from exc

    async def ready(self) -> bool:
        """Whether at least one engine has generated a token; without probes, whether one says that it is healthy."""
        if self._probed:
            return any(endpoint.proven for endpoint in self._endpoints.all)
        for endpoint in list(self._endpoints.all):
            with suppress(EngineUnreachable, GatewayError, TimeoutError):
                async with asyncio.timeout(HEALTH_TIMEOUT_S):
                    headers = {**self._headers, **endpoint.headers}
                    response = await self._client.send("GET", endpoint.url + "/health", headers, None)
                    try:
                        await response.read()
                    finally:
                        response.close()
                if response.status == OK:
                    return True
        return False


def engine_headers(api_key: str | None) -> dict[str, str]:
    """`api_key` is what the engines expect; a client's own key is never sent on."""
    return {"content-type": "application/json"} | ({"authorization": f"Bearer {api_key}"} if api_key else {})


async def whole(response: EngineResponse, endpoint: Endpoint) -> bytes:
    """The body. Raises AskAnother when it breaks off, or when the engine has given the request up."""
    try:
        body = await response.read()
    except EngineMisbehaved as exc:
        raise AskAnother("broken", exc, lost=True) from exc
    if ABORTED in body:
        raise AskAnother("abort", unavailable())
    endpoint.answers += 1
    return body


async def beginning(chunks: AsyncIterator[bytes]) -> bytes:
    """The stream up to its first event. Raises as `whole`, and the refusal that the event is."""
    try:
        head = await first_event(chunks)
    except Aborted as exc:
        raise AskAnother("abort", unavailable()) from exc
    except EngineRefused as exc:
        raise judged(exc.status, exc) from exc
    except EngineMisbehaved as exc:
        raise AskAnother("broken", exc, lost=True) from exc
    if not head:
        raise AskAnother("broken", EngineMisbehaved("The engine ended its answer before it began."), lost=True)
    return head


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
