"""OpenTelemetry traces, where a collector is named: one span for each request, with one for each of its steps.

The packages are an optional extra and are imported by `Tracing` only. A request pays for the beginning of one span;
everything else is put together after its answer and leaves from a thread, so that a collector that is slow or away
costs spans and never a request. No prompt, picture or key becomes an attribute.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway import __version__
from gateway.stages import Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

    from gateway.steps import StepTimer

PACKAGES = "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
MODULES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
STANDARD_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORT_TIMEOUT_S = 5.0
"""For a batch, retries included, and for the last ones at the end."""
NS = 1_000_000_000
MAX_NAME_CHARS = 128
"""A longer model name, the client's word, is left out."""
SERVER_ERRORS = 500
GEN_AI_OPERATIONS = {
    Operation.CHAT: "chat",
    Operation.PREDICT: "chat",
    Operation.RESPONSES: "chat",
    Operation.MESSAGES: "chat",
    Operation.COMPLETIONS: "text_completion",
}
"""`gen_ai.operation.name` of the semantic conventions for generative AI."""
NUMBERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
}
FACTS = {
    "status": "http.response.status_code",
    "tenant": "gateway.tenant",
    "key_id": "gateway.key_id",
    "cache": "gateway.cache",
    "request_id": "gateway.request_id",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
}


class TracingUnavailable(Exception):
    """Traces are wanted and cannot be made; the text says what to do."""


def is_wanted(endpoint: str | None, environ: Mapping[str, str]) -> bool:
    """Whether a collector is named, here or by OpenTelemetry's own variables, which can also switch it off."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if endpoint:
        return True
    return environ.get("OTEL_TRACES_EXPORTER") != "none" and any(environ.get(name) for name in STANDARD_ENDPOINTS)


def check_installed() -> None:
    """Raise TracingUnavailable if the optional packages are missing."""
    try:
        for module in MODULES:
            importlib.import_module(module)
    except ImportError as exc:
        raise TracingUnavailable(
            f"Traces need packages that are not there: pip install {PACKAGES} (the extra `otel` of pyproject.toml), "
            f"or leave GATEWAY_OTLP_ENDPOINT and {STANDARD_ENDPOINTS[-1]} empty."
        ) from exc


class Tracing:
    """Makes traces and sends them. One per process; begin and end from its event loop."""

    def __init__(self, endpoint: str | None, *, trusts_clients: bool) -> None:
        """`endpoint` is the collector's base URL (OTLP over HTTP), None leaves it to OpenTelemetry's own variables.

        `trusts_clients`: a client's `traceparent` is continued; else every request starts a trace, so that no stranger
        can choose ids or have everything sampled.
        """
        check_installed()
        from opentelemetry import trace  # noqa: PLC0415 - optional
        from opentelemetry.context import Context  # noqa: PLC0415 - likewise, as all of these
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):  # OTEL_SERVICE_NAME says nothing.
            resource = resource.merge(Resource({"service.name": "qwen3-vl-gateway", "service.version": __version__}))
        self._api = trace
        self._no_context = Context()
        self._trusts_clients = trusts_clients
        self._propagator = TraceContextTextMapPropagator()
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(
            endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None, timeout=EXPORT_TIMEOUT_S
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gateway", __version__)

    def begin(self, operation: Operation | None, headers: Mapping[bytes, bytes]) -> Trace:
        """A span that begins now; `headers` are the client's."""
        context = self._no_context
        if self._trusts_clients:
            carrier = {
                name: headers[name.encode()].decode("latin-1")
                for name in ("traceparent", "tracestate")
                if name.encode() in headers
            }
            context = self._propagator.extract(carrier, context)
        began_ns = time.time_ns()
        name = "other" if operation is None else operation.value
        span = self._tracer.start_span(name, context, self._api.SpanKind.SERVER, start_time=began_ns)
        sent: dict[str, str] = {}
        self._propagator.inject(sent, self._api.set_span_in_context(span, self._no_context))
        return Trace(self, span, operation, began_ns, sent)

    def step(self, parent: Span, name: str, begun_ns: int, spent_ns: int, engine: str | None) -> None:
        """A step of the request, afterwards; `engine` is whom it asked."""
        kind = self._api.SpanKind.CLIENT if engine else self._api.SpanKind.INTERNAL
        attributes: dict[str, Any] = {}
        if engine and (address := urlsplit(engine)).hostname:
            attributes = {"server.address": address.hostname, "server.port": address.port or 80}
        context = self._api.set_span_in_context(parent, self._no_context)
        span = self._tracer.start_span(name, context, kind, attributes, start_time=begun_ns)
        span.end(begun_ns + spent_ns)

    def failed(self, span: Span) -> None:
        """Mark the span as the service's failure."""
        span.set_status(self._api.StatusCode.ERROR)

    async def aclose(self) -> None:
        """Send what is left, for so long as an export may take."""
        thread = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        thread.start()
        await asyncio.get_running_loop().run_in_executor(None, thread.join, EXPORT_TIMEOUT_S)


class Trace:
    """The trace of one request."""

    def __init__(
        self, tracing: Tracing, span: Span, operation: Operation | None, began_ns: int, headers: Mapping[str, str]
    ) -> None:
        """`headers` go to the engine, which continues the trace if it traces too."""
        self.headers = headers
        self._tracing = tracing
        self._span = span
        self._operation = operation
        self._began_ns = began_ns

    def end(self, timer: StepTimer, facts: Mapping[str, Any], body: Mapping[str, Any], first_byte_s: float) -> None:
        """The answer is out: say what it was. `facts` are the log line's, `body` the request's."""
        span = self._span
        if not span.is_recording():
            span.end()
            return
        span.update_name(self._name(body))
        span.set_attributes(self._attributes(facts, body, first_byte_s))
        if facts["status"] >= SERVER_ERRORS:
            self._tracing.failed(span)
        for name, begun_s, spent_s in timer.steps:
            engine = timer.facts.get("engine") if name == "engine" else None
            self._tracing.step(span, name, self._began_ns + int(begun_s * NS), int(spent_s * NS), engine)
        span.end()

    def _name(self, body: Mapping[str, Any]) -> str:
        if self._operation not in GEN_AI_OPERATIONS:
            return self._operation.value if self._operation else "other"
        model = body.get("model")
        known = isinstance(model, str) and model and len(model) <= MAX_NAME_CHARS
        return f"{GEN_AI_OPERATIONS[self._operation]} {model}" if known else GEN_AI_OPERATIONS[self._operation]

    def _attributes(self, facts: Mapping[str, Any], body: Mapping[str, Any], first_byte_s: float) -> dict[str, Any]:
        attributes = {name: facts[fact] for fact, name in FACTS.items() if facts.get(fact) is not None}
        if self._operation is not None:
            attributes["http.route"] = self._operation.value
        if facts["status"] >= SERVER_ERRORS:
            attributes["error.type"] = str(facts["status"])
        if self._operation in GEN_AI_OPERATIONS:
            attributes["gen_ai.operation.name"] = GEN_AI_OPERATIONS[self._operation]
            attributes["gen_ai.provider.name"] = "vllm"
            attributes["gen_ai.request.stream"] = body.get("stream") is True
            if body.get("stream") is True:
                attributes["gen_ai.response.time_to_first_chunk"] = first_byte_s
        model = body.get("model")
        if isinstance(model, str) and len(model) <= MAX_NAME_CHARS:
            attributes["gen_ai.request.model"] = model
        for field, name in NUMBERS.items():
            if isinstance(value := body.get(field), int | float) and not isinstance(value, bool):
                attributes[name] = value
        return attributes
