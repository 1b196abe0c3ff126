"""An engine that has a picture is asked by its name; whatever it has forgotten it is sent again, and no client notices."""

from __future__ import annotations

import httpx
import pytest
from aiohttp import web

from gateway.telemetry import ENGINE_PICTURES
from gateway.upstream.pictures import MISSES
from tests.support.engine import chunk, refused
from tests.support.gateway import KEY, OTHER_KEY
from tests.support.pictures import data_url, jpeg, png, question

CHAT = "/v1/chat/completions"


def counted():
    return {outcome: ENGINE_PICTURES.labels(outcome)._value.get() for outcome in ("sent", "named", "forgotten")}


@pytest.fixture
def grown():
    before = counted()
    return lambda: {outcome: int(now - before[outcome]) for outcome, now in counted().items() if now > before[outcome]}


def about(picture, text, **more):
    request = question(data_url(picture, "image/jpeg"), **more)
    request["messages"][0]["content"][-1]["text"] = text
    return request


async def ask(gateway, request, key=KEY):
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as http:
        return await http.post(CHAT, json=request, headers={"authorization": f"Bearer {key}"})


async def test_the_second_question_about_a_picture_goes_without_it(start, engine, grown):
    gateway = await start(cache_policy="never")
    for text in ("one", "two", "three"):
        assert (await ask(gateway, about(jpeg(), text))).status_code == 200
    assert engine.pictures.named == 2
    assert grown() == {"sent": 1, "named": 2}
    urls = {request["messages"][0]["content"][0]["image_url"]["url"] for request in engine.requests}
    assert len(urls) == 1  # What the engine answers about is the same picture each time.


async def test_an_engine_that_has_forgotten_it_gets_it_again_and_the_client_its_answer(start, engine, grown):
    gateway = await start(cache_policy="never")
    await ask(gateway, about(jpeg(), "one"))
    engine.pictures.kept.clear()
    for text in ("two", "three"):
        assert (await ask(gateway, about(jpeg(), text))).status_code == 200
    assert grown() == {"sent": 2, "named": 1, "forgotten": 1}


async def test_a_stream_and_predict_are_asked_in_the_same_way(start, engine, grown):
    async def script(request, body):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("a") + b"data: [DONE]\n\n")
        return response

    gateway = await start(cache_policy="never")
    await ask(gateway, about(jpeg(), "one"))
    engine.pictures.kept.clear()
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as http:
        headers = {"authorization": f"Bearer {KEY}"}
        predicted = await http.post(
            "/predict", json={"image": data_url(jpeg(), "image/jpeg"), "prompt": "two"}, headers=headers
        )
        assert predicted.status_code == 200
        engine.script = script
        streamed = await http.post(CHAT, json=about(jpeg(), "three", stream=True), headers=headers)
    assert b"[DONE]" in streamed.content
    assert grown() == {"sent": 2, "named": 1, "forgotten": 1}


async def test_a_picture_that_is_new_is_sent_and_those_beside_it_as_well(start, engine, grown):
    gateway = await start(cache_policy="never")
    await ask(gateway, about(jpeg(), "one"))
    request = about(jpeg(), "two")
    request["messages"][0]["content"].insert(
        0, {"type": "image_url", "image_url": {"url": data_url(png(), "image/png")}}
    )
    assert (await ask(gateway, request)).status_code == 200
    assert engine.pictures.named == 0
    assert (await ask(gateway, request)).status_code == 200
    assert engine.pictures.named == 2
    assert grown() == {"sent": 3, "named": 2}


async def test_another_tenant_s_picture_is_never_named(start, engine, grown):
    gateway = await start(cache_policy="never")
    await ask(gateway, about(jpeg(), "one"))
    assert (await ask(gateway, about(jpeg(), "one"), OTHER_KEY)).status_code == 200
    assert engine.pictures.named == 0
    assert len(engine.pictures.kept) == 2
    assert grown() == {"sent": 2}


async def test_a_request_that_is_wrong_for_itself_says_so_and_costs_no_trust(start, engine, grown):
    async def script(request, body):
        return refused("temperature must be at most 2")

    gateway = await start(cache_policy="never")
    await ask(gateway, about(jpeg(), "one"))
    engine.script = script
    for _ in range(2 * MISSES):
        answer = await ask(gateway, about(jpeg(), "two", temperature=3))
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, "temperature must be at most 2")
    engine.script = None
    assert (await ask(gateway, about(jpeg(), "three"))).status_code == 200
    assert grown() == {"sent": 1, "named": 1}


async def test_a_fault_of_the_engine_is_no_reason_to_ask_again(start, engine, grown):
    async def script(request, body):
        return web.json_response({"error": {"message": "no", "type": "x", "code": 500}}, status=500)

    gateway = await start(cache_policy="never", engine_retry_ratio=0)
    await ask(gateway, about(jpeg(), "one"))
    engine.script = script
    assert (await ask(gateway, about(jpeg(), "two"))).status_code == 500
    assert len(engine.requests) == 2
    assert grown() == {"sent": 1}


async def test_an_engine_that_takes_no_names_is_soon_left_in_peace(start, engine, grown):
    gateway = await start(cache_policy="never")
    for number in range(MISSES + 4):
        engine.pictures.kept.clear()
        assert (await ask(gateway, about(jpeg(), str(number)))).status_code == 200
    assert engine.pictures.named == MISSES
    assert grown() == {"sent": MISSES + 4, "forgotten": MISSES}


async def test_it_can_be_switched_off(start, engine, grown):
    gateway = await start(cache_policy="never", engine_pictures_by_name=False)
    for text in ("one", "two"):
        await ask(gateway, about(jpeg(), text))
    assert engine.pictures.named == 0
