"""What `/metrics` and the log say of real traffic, with one worker and with two."""

from __future__ import annotations

import asyncio
import json

import psutil
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.support.engine import DONE, chunk, stream, usage_chunk
from tests.support.pictures import data_url, png, question
from tests.support.processes import GatewayProcess

CHAT = "/v1/chat/completions"


async def samples(gateway):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(await gateway.metrics())
        for sample in family.samples
    }


def value(found, name, **labels):
    return found.get((name, *sorted(labels.items())))


async def until(gateway, holds):
    async with asyncio.timeout(20):
        while not holds(found := await samples(gateway)):
            await asyncio.sleep(0.05)
    return found


@pytest.mark.parametrize("workers", [1, 2])
async def test_sizes_and_tokens_add_up_over_the_workers(tmp_path, engine, workers):
    async with GatewayProcess(tmp_path, engine.url, workers=workers, model_revision="r1") as gateway:
        for i in range(8):
            assert (await gateway.http.post(CHAT, json=question(data_url(png()), str(i)))).status_code == 200
        found = await until(gateway, lambda found: value(found, "gateway_cache_entries", cache="answers") == 8)
    assert value(found, "gateway_cache_bytes", cache="answers") > 8 * 300
    assert value(found, "gateway_workers") == workers
    # What the scripted engine says of each answer: one token in, one out.
    assert value(found, "gateway_tokens_total", tenant="one", gen_ai_token_type="input") == 8
    assert value(found, "gateway_tokens_total", tenant="one", gen_ai_token_type="output") == 8
    assert value(found, "gateway_tokens_total", tenant="one", gen_ai_token_type="image") >= 8
    assert value(found, "gateway_tenant_images_total", tenant="one") == 8
    assert value(found, "gateway_tenant_requests_total", tenant="one", outcome="ok", cache="miss") == 8
    assert value(found, "gateway_resident_memory_bytes") > workers * 20_000_000
    assert value(found, "gateway_engine_up", engine=engine.url) == 1
    assert [dict(labels)["model_revision"] for name, *labels in found if name == "gateway_build_info"] == ["r1"]


async def test_a_worker_that_died_no_longer_counts(tmp_path, engine):
    async with GatewayProcess(tmp_path, engine.url, workers=2) as gateway:
        before = await until(gateway, lambda found: value(found, "gateway_workers") == 2)
        parent = psutil.Process(gateway.process.pid)
        dead = next(child for child in parent.children() if "spawn_main" in " ".join(child.cmdline()))
        dead.kill()
        started = value(before, "gateway_start_time_seconds")
        found = await until(gateway, lambda found: value(found, "gateway_start_time_seconds") > started)
    assert value(found, "gateway_workers") == 2


async def test_a_stream_is_timed_and_its_tokens_counted_though_nobody_asked_for_its_usage(tmp_path, engine):
    async def script(request, _):
        return await stream(request, [chunk(""), chunk("a"), chunk("b"), usage_chunk(300, 3), DONE])

    engine.script = script
    async with GatewayProcess(tmp_path, engine.url) as gateway:
        for _ in range(2):  # the second one is kept: its pace is none of an engine's
            assert (await gateway.http.post(CHAT, json=question(data_url(png()), stream=True))).status_code == 200
        found = await samples(gateway)
    first = "gen_ai_server_time_to_first_token_seconds_count"
    assert value(found, first, gen_ai_operation_name="chat", cache="miss") == 1
    assert value(found, first, gen_ai_operation_name="chat", cache="hit") == 1
    assert (value(found, "gen_ai_server_time_per_output_token_seconds_count", gen_ai_operation_name="chat") or 0) <= 1
    assert value(found, "gateway_tokens_total", tenant="one", gen_ai_token_type="output") == 3
    image = value(found, "gateway_tokens_total", tenant="one", gen_ai_token_type="image")
    assert value(found, "gateway_tokens_total", tenant="one", gen_ai_token_type="input") > image > 0


async def test_a_stream_that_breaks_is_counted_although_its_status_was_200(tmp_path, engine):
    async def script(request, _):
        return await stream(request, [chunk("a")])

    engine.script = script
    async with GatewayProcess(tmp_path, engine.url) as gateway:
        assert (await gateway.http.post(CHAT, json=question(data_url(png()), stream=True))).status_code == 200
        found = await samples(gateway)
    assert value(found, "gateway_streams_broken_total", error_type="engine_error") == 1


async def test_tenants_beyond_the_limit_are_other(tmp_path, engine):
    async with GatewayProcess(tmp_path, engine.url, metrics_max_tenants=0) as gateway:
        assert (await gateway.http.post(CHAT, json=question(data_url(png())))).status_code == 200
        found = await samples(gateway)
    assert value(found, "gateway_tenant_requests_total", tenant="other", outcome="ok", cache="miss") == 1
    assert not [key for key in found if ("tenant", "one") in key]


async def test_a_request_has_one_log_line_and_one_id_from_client_to_engine(tmp_path, engine):
    async def refusing(_request, _body):
        return web.json_response({"error": {"message": "no", "code": 500}}, status=500)

    async with GatewayProcess(tmp_path, engine.url) as gateway:
        good = await gateway.http.post(CHAT, json=question(data_url(png())))
        received = {name.lower(): text for name, text in engine.headers[-1].items()}
        assert received["x-request-id"] == good.headers["x-request-id"]
        engine.script = refusing
        bad = await gateway.http.post(CHAT, json=question(data_url(png()), "another"))
        assert bad.status_code == 500
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    access = [line for line in lines if line.get("logger") == "gateway.access"]
    assert [line["request_id"] for line in access] == [good.headers["x-request-id"], bad.headers["x-request-id"]]
    assert [line["error"] for line in access] == [None, "engine_refused"]
    assert (access[0]["prompt_tokens"], access[0]["completion_tokens"]) == (1, 1)


async def test_the_log_level_is_a_setting(tmp_path, engine):
    async with GatewayProcess(tmp_path, engine.url, log_level="warning") as gateway:
        assert (await gateway.http.post(CHAT, json=question(data_url(png())))).status_code == 200
    assert "gateway.access" not in gateway.log.read_text()
