"""Pictures have names at the engine: what it has seen it does not preprocess again, and nobody reaches another's by name."""

from __future__ import annotations

import httpx
import pytest

from gateway.images import digest, inspect, shrink, tenant_uuid
from gateway.telemetry import ENGINE_PICTURES
from serving.demo.scenes import UNSEEN_SEED, jpeg, scene
from tests.support.gateway import KEY, OTHER_KEY
from tests.support.photographs import twelve_megapixels
from tests.support.picture_cache import MISSING
from tests.support.pictures import data_url

MODEL = "qwen3-vl-demo"
SECRET = "known-to-this-test-only"
CHAT = "/v1/chat/completions"


async def seen(demo):
    """Pictures that the engine looked up in its multimodal cache so far, and those it found there."""
    async with httpx.AsyncClient() as http:
        lines = (await http.get(f"{demo.engine_url}/metrics")).text.splitlines()

    def total(name):
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    return total("vllm:mm_cache_queries_total"), total("vllm:mm_cache_hits_total")


@pytest.fixture
async def hits(demo):
    """What the multimodal cache found since the last call."""
    last = (await seen(demo))[1]

    async def since():
        nonlocal last
        before, last = last, (await seen(demo))[1]
        return last - before

    return since


@pytest.fixture
async def gateway(gateway_with):
    return (await gateway_with(cache_policy="never", tenant_secret=SECRET)).gateway


def picture(seed):
    return jpeg(scene(UNSEEN_SEED + 5000 + seed))


def body(data, text="What colour is it?", **part):
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(data, "image/jpeg")}, **part},
        {"type": "text", "text": text},
    ]
    return {"model": MODEL, "messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": 48}


async def ask(url, key, request):
    async with httpx.AsyncClient(timeout=60) as http:
        response = await http.post(url + CHAT, json=request, headers={"authorization": f"Bearer {key}"})
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def name_of(data, tenant):
    encoded = shrink(data, inspect(data, max_pixels=50_000_000), max_pixels=512 * 512)
    return tenant_uuid(SECRET.encode(), tenant, digest(encoded.data))


@pytest.mark.parametrize("make", [lambda: picture(1), lambda: twelve_megapixels(77)], ids=["small", "12 megapixels"])
async def test_another_question_about_a_picture_finds_it_in_the_engine_s_cache(gateway, hits, make):
    data = make()
    await ask(gateway.url, KEY, body(data, "What colour is it?"))
    assert await hits() == 0
    for text in ("What is it?", "How many are there?", "Which pattern?"):
        await ask(gateway.url, KEY, body(data, text))
        assert await hits() == 1


async def test_asked_by_a_picture_s_name_the_engine_says_what_it_says_about_the_picture(gateway, hits):
    for seed in (11, 12, 13):
        data = picture(seed)
        sent = await ask(gateway.url, KEY, body(data))
        before = ENGINE_PICTURES.labels("named")._value.get()
        assert await ask(gateway.url, KEY, body(data)) == sent
        assert ENGINE_PICTURES.labels("named")._value.get() == before + 1
    assert await hits() == 3


async def test_a_name_that_the_engine_does_not_keep_is_refused_at_once(demo, engine_key):
    request = body(picture(14))
    request["messages"][0]["content"][0] = {"type": "image_url", "image_url": None, "uuid": "never-seen"}
    async with httpx.AsyncClient(timeout=60) as http:
        headers = {"authorization": f"Bearer {engine_key}"}
        answer = await http.post(demo.engine_url + CHAT, json=request, headers=headers)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, MISSING.format(index=0))


async def test_the_same_picture_of_another_tenant_is_another_picture(gateway, hits):
    await ask(gateway.url, KEY, body(picture(2)))
    await ask(gateway.url, OTHER_KEY, body(picture(2)))
    assert await hits() == 0


async def test_naming_another_tenant_s_picture_never_reaches_it(gateway, demo, engine_key, hits):
    theirs, mine = picture(3), picture(4)
    name = name_of(theirs, "one")
    await ask(gateway.url, KEY, body(theirs))
    honest = await ask(gateway.url, OTHER_KEY, body(mine))
    await hits()
    # With a picture of one's own, the name counts for nothing: the answer is about that picture.
    assert await ask(gateway.url, OTHER_KEY, body(mine, uuid=name)) == honest
    assert await hits() == 1  # its own, seen a moment ago
    # Without a picture, there is nothing to ask about.
    for part in ({"type": "image_url", "uuid": name}, {"type": "image_url", "image_url": None, "uuid": name}):
        request = body(mine)
        request["messages"][0]["content"][0] = part
        async with httpx.AsyncClient(timeout=60) as http:
            answer = await http.post(gateway.url + CHAT, json=request, headers={"authorization": f"Bearer {OTHER_KEY}"})
        assert answer.status_code == 400
    assert await hits() == 0
    # That name is the real one: asked directly, the engine finds the other tenant's picture under it.
    await ask(demo.engine_url, engine_key, body(theirs, uuid=name))
    assert await hits() == 1
