"""Engines that hang, die and come back."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from aiohttp import web

from tests.support.engine import DONE, ScriptedEngine, chunk
from tests.support.waiting import until

CHAT = "/v1/chat/completions"
QUICK = {"engine_probe_interval_s": 0.1, "engine_probe_timeout_s": 0.2}


@pytest.fixture
async def other():
    scripted = await ScriptedEngine().start()
    yield scripted
    await scripted.stop()


def text(body):
    return {"messages": [{"role": "user", "content": body}]}


def endpoints(gateway):
    return gateway.app.state.pipeline.upstream._endpoints


async def test_what_waits_at_an_engine_that_hangs_is_answered_by_another(start, engine, other):
    gateway = await start(engines=[engine.url, other.url], **QUICK)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=20) as http:
        await until(lambda: all(endpoint.proven for endpoint in endpoints(gateway).all))
        engine.hung = True
        responses = await asyncio.gather(*(http.post(CHAT, json=text(str(i))) for i in range(20)))
        assert {response.status_code for response in responses} == {200}
        assert engine.requests  # some had been sent there
        assert [endpoint.ejected for endpoint in endpoints(gateway).all] == [True, False]
        before = len(engine.requests)
        assert (await http.post(CHAT, json=text("new"))).status_code == 200
        assert len(engine.requests) == before
        engine.hung = False
        await until(lambda: endpoints(gateway).all[0].proven)


async def test_an_engine_that_is_only_busy_is_not_taken_out(start, engine):
    async def script(request, _):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for i in range(30):
            await response.write(chunk(str(i)))
            await asyncio.sleep(0.03)
        await response.write(DONE)
        return response

    engine.script = script
    gateway = await start(**QUICK)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=20) as http:
        await until(lambda: endpoints(gateway).all[0].proven)
        answer = asyncio.create_task(http.post(CHAT, json=text("long") | {"stream": True}))
        await until(lambda: engine.requests)
        engine.hung = True  # the probes wait, the stream goes on
        assert (await answer).text.endswith(DONE.decode())
        assert not endpoints(gateway).all[0].ejected


@pytest.mark.parametrize(("growth", "ejected"), [(7, False), (0, True), (None, True)])
async def test_an_engine_that_is_silent_over_long_answers_is_told_from_one_that_hangs(
    start, engine, monkeypatch, growth, ejected
):
    monkeypatch.setattr("gateway.upstream.probe.COUNT_S", 0.1)
    engine.tokens_a_look = growth
    gateway = await start(**QUICK)
    [endpoint] = endpoints(gateway).all
    await until(lambda: endpoint.proven)
    before = engine.probes
    engine.probes_hang = True
    await until(lambda: endpoint.ejected or engine.probes > before + 3)
    assert endpoint.ejected is ejected


async def test_with_no_engine_left_requests_fail_at_once(start, engine):
    gateway = await start(**QUICK)
    engine.hung = True
    await until(lambda: endpoints(gateway).all[0].ejected)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
        assert (await http.get("/readyz")).status_code == 503
        response = await http.post(CHAT, json=text("x"))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
        assert engine.requests == []


async def test_ready_means_that_a_token_has_been_generated(start, engine):
    engine.healthy = False
    gateway = await start(**QUICK)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
        await until(lambda: engine.probes > 1)
        assert (await http.get("/readyz")).status_code == 503
        engine.healthy = True
        await until(lambda: endpoints(gateway).all[0].proven)
        assert (await http.get("/readyz")).status_code == 200


async def test_requests_are_held_through_a_cold_start(start, engine):
    await engine.stop()
    gateway = await start(hold_without_engine=True, **QUICK)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=20) as http:
        asks = [asyncio.create_task(http.post(CHAT, json=question_text)) for question_text in map(text, "abc")]
        await until(lambda: gateway.app.state.pipeline.admission.waiting == 3)
        await engine.start()
        assert {(await ask).status_code for ask in asks} == {200}


async def test_held_requests_end_with_their_deadline(start, engine):
    await engine.stop()
    gateway = await start(hold_without_engine=True, queue_default_s=0.3, **QUICK)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
        response = await http.post(CHAT, json=text("x"))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "queue_timeout")


async def test_a_client_that_leaves_while_its_engine_is_taken_out_is_just_gone(start, engine):
    gateway = await start(**QUICK)
    await until(lambda: endpoints(gateway).all[0].proven)
    engine.hung = True
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
        call = asyncio.create_task(http.post(CHAT, json=text("x")))
        await until(lambda: engine.requests)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    await until(lambda: endpoints(gateway).all[0].in_flight == 0)


async def test_one_that_hangs_after_an_answer_is_found_by_the_probe_that_waits_already(start, engine):
    gateway = await start(engine_probe_interval_s=0.1, engine_probe_timeout_s=1)
    [endpoint] = endpoints(gateway).all
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=20) as http:
        await until(lambda: endpoint.proven)
        before = engine.probes
        engine.probes_hang = True
        await until(lambda: engine.probes > before)
        waiting = engine.probes
        assert (await http.post(CHAT, json=text("the last"))).status_code == 200
        await until(lambda: endpoint.ejected)
        assert engine.probes == waiting
