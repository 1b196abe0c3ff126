"""Traces, received over a real socket by what a collector would be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys

import httpx
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.tracing import Tracing, TracingUnavailable, is_wanted
from tests.support.gateway import KEY, key_record, write_keys
from tests.support.pictures import data_url, png, question

CHAT = "/v1/chat/completions"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
STEPS = {"auth", "body", "fetch", "cache", "limits", "decode", "queue", "engine"}


class Collector:
    """Keeps what is sent to /v1/traces."""

    def __init__(self):
        self.spans, self.resources, self.status = [], [], 200

    async def receive(self, request):
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for of_resource in sent.resource_spans:
            self.resources.append(values(of_resource.resource.attributes))
            for scope in of_resource.scope_spans:
                self.spans += scope.spans
        return web.Response(status=self.status)

    async def requests(self, count):
        """The spans of so many requests, once they are here."""
        async with asyncio.timeout(20):
            while len(found := [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]) < count:
                await asyncio.sleep(0.01)
        return found

    def children(self, parent):
        return {span.name: span for span in self.spans if span.parent_span_id == parent.span_id}


def values(attributes):
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


@pytest.fixture
async def collector():
    made = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", made.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def client(gateway):
    return httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=10)


async def test_a_request_is_a_span_with_its_steps_below(start, engine, collector):
    gateway = await start(otlp_endpoint=collector.url)
    async with client(gateway) as http:
        body = question(data_url(png()), "a secret question", temperature=0.5, max_tokens=9, stream=True)
        assert (await http.post(CHAT, json=body)).status_code == 200
    (span,) = await collector.requests(1)
    found = values(span.attributes)
    assert span.name == "chat scripted"
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "vllm"
    assert found["gen_ai.request.model"] == "scripted"
    assert (found["gen_ai.request.temperature"], found["gen_ai.request.max_tokens"]) == (0.5, 9)
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (10, 5)
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.time_to_first_chunk"] > 0
    assert (found["http.route"], found["http.response.status_code"]) == (CHAT, 200)
    assert (found["gateway.tenant"], found["gateway.key_id"], found["gateway.cache"]) == ("one", "k_one", "bypass")
    steps = collector.children(span)
    assert steps.keys() == STEPS
    for step in steps.values():
        assert step.trace_id == span.trace_id
        assert span.start_time_unix_nano <= step.start_time_unix_nano <= step.end_time_unix_nano
        assert step.end_time_unix_nano <= span.end_time_unix_nano
    begun = [steps[name].start_time_unix_nano for name in ("auth", "body", "fetch", "decode", "queue", "engine")]
    assert begun == sorted(begun)
    assert steps["engine"].kind == Span.SPAN_KIND_CLIENT
    assert values(steps["engine"].attributes) == {"server.address": "127.0.0.1", "server.port": engine.port}
    assert collector.resources[0]["service.name"] == "qwen3-vl-gateway"
    everything = str(collector.spans)
    assert "secret" not in everything
    assert KEY not in everything
    assert "base64" not in everything


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_client_s_trace_is_continued_only_if_it_is_trusted(start, engine, collector, trusted):
    gateway = await start(otlp_endpoint=collector.url, trust_traceparent=trusted)
    async with client(gateway) as http:
        headers = {"traceparent": TRACEPARENT, "tracestate": "shop=1"}
        await http.post(CHAT, json=question(data_url(png())), headers=headers)
    (span,) = await collector.requests(1)
    assert (span.trace_id.hex() == TRACE) is trusted
    assert span.parent_span_id.hex() == (PARENT if trusted else "")
    # The engine goes on where the gateway is, not where the client was.
    version, trace, parent, flags = engine.headers[0]["traceparent"].split("-")
    assert (version, trace, parent) == ("00", span.trace_id.hex(), span.span_id.hex())
    assert int(flags, 16) & 1  # sampled
    assert engine.headers[0].get("tracestate") == ("shop=1" if trusted else None)


@pytest.mark.parametrize(
    "traceparent", ["", "00-0-0-01", "x" * 4000, f"00-{TRACE}-{PARENT}-01-ä", "ff" + TRACEPARENT[2:]]
)
async def test_a_traceparent_that_is_none_starts_a_trace(start, engine, collector, traceparent):
    gateway = await start(otlp_endpoint=collector.url, trust_traceparent=True)
    async with client(gateway) as http:
        headers = {"traceparent": traceparent.encode("latin-1")}
        assert (await http.post(CHAT, json=question(data_url(png())), headers=headers)).status_code == 200
    (span,) = await collector.requests(1)
    assert span.parent_span_id == b""
    assert span.trace_id.hex() != TRACE


async def test_a_trusted_client_may_switch_its_trace_off(start, engine, collector):
    gateway = await start(otlp_endpoint=collector.url, trust_traceparent=True)
    async with client(gateway) as http:
        await http.post(CHAT, json=question(data_url(png()), "a"), headers={"traceparent": TRACEPARENT[:-1] + "0"})
        await http.post(CHAT, json=question(data_url(png()), "b"))
    (span,) = await collector.requests(1)
    assert span.trace_id.hex() != TRACE
    assert engine.headers[0]["traceparent"].endswith("-00")


async def test_each_api_and_each_failure_has_its_name(start, engine, collector):
    async def fails(*_):
        return web.json_response({"error": {"message": "no", "code": 500}}, status=500)

    gateway = await start(otlp_endpoint=collector.url)
    async with client(gateway) as http:
        await http.post("/v1/completions", json={"prompt": "a", "model": "m"})
        await http.post("/v1/responses", json={"input": "a", "model": "x" * 200})
        await http.post("/v1/messages", json={"messages": [], "model": ["odd"], "temperature": True})
        await http.get("/v1/models")
        await http.get("/v1/nothing")
        await http.post(CHAT, content=b"{")
        engine.script = fails
        await http.post(CHAT, json={"messages": []})
    spans = await collector.requests(7)
    found = [(span.name, values(span.attributes)["http.response.status_code"]) for span in spans]
    assert found == [
        ("text_completion m", 200),
        ("chat", 200),
        ("chat", 200),
        ("/v1/models", 200),
        ("other", 404),
        ("chat", 400),
        ("chat", 500),
    ]
    assert [span.status.code == Status.STATUS_CODE_ERROR for span in spans] == [False] * 6 + [True]
    assert values(spans[6].attributes)["error.type"] == "500"
    assert not values(spans[2].attributes).keys() & {"gen_ai.request.model", "gen_ai.request.temperature"}
    assert not values(spans[3].attributes).keys() & {"gen_ai.operation.name", "gen_ai.request.stream"}


async def test_opentelemetry_s_own_variables_work(start, engine, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-gateway")
    gateway = await start()
    async with client(gateway) as http:
        await http.get("/v1/models")
    await collector.requests(1)
    assert collector.resources[0]["service.name"] == "shop-gateway"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("fault", ["refuses", "away", "hangs"])
async def test_a_collector_that_fails_costs_no_request(start, engine, collector, fault, monkeypatch):
    monkeypatch.setattr("gateway.tracing.EXPORT_TIMEOUT_S", 0.2)
    with contextlib.ExitStack() as held:
        url = collector.url
        if fault == "refuses":
            collector.status = 500
        else:
            import socket

            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            if fault == "hangs":
                listener.listen()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        gateway = await start(otlp_endpoint=url)
        async with client(gateway) as http:
            codes = [(await http.post(CHAT, json=question(data_url(png()), str(i)))).status_code for i in range(20)]
        assert codes == [200] * 20
        await gateway.app.state.pipeline.tracing.aclose()


async def test_the_last_spans_are_sent_at_the_end(tmp_path, engine, collector, monkeypatch):
    from tests.support.gateway import running

    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    async with running(tmp_path, [engine.url], otlp_endpoint=collector.url) as gateway, client(gateway) as http:
        await http.get("/v1/models")
        assert collector.spans == []
    assert len(await collector.requests(1)) == 1


async def test_without_a_collector_nothing_is_traced_or_passed_on(start, engine):
    gateway = await start(trust_traceparent=True)
    async with client(gateway) as http:
        await http.post(CHAT, json=question(data_url(png())), headers={"traceparent": TRACEPARENT})
    assert gateway.app.state.pipeline.tracing is None
    assert "traceparent" not in {name.lower() for name in engine.headers[0]}


@pytest.mark.parametrize(
    ("endpoint", "environ", "wanted"),
    [
        (None, {}, False),
        ("http://c", {}, True),
        ("http://c", {"OTEL_SDK_DISABLED": "true"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, True),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_who_names_a_collector_wants_traces(endpoint, environ, wanted):
    assert is_wanted(endpoint, environ) is wanted


def test_without_the_packages_the_text_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailable, match="pip install opentelemetry-sdk"):
        Tracing("http://127.0.0.1:9", trusts_clients=False)


def test_without_the_packages_the_gateway_does_not_start(tmp_path):
    # As in an installation without the extra: a package of that name without anything in it comes first.
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()
    keys = write_keys(tmp_path / "k.json", key_record(KEY, "one"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environ |= {"GATEWAY_KEYS_FILE": str(keys), "GATEWAY_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv.pop()); from gateway.__main__ import main; sys.exit(main(['serve']))",
            str(tmp_path),
        ],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 78
    assert "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http" in run.stderr
