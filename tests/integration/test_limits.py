"""Limits of a key as its client meets them."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from aiohttp import web

from tests.support.engine import DONE, chat_answer, chunk, stream, usage_chunk
from tests.support.gateway import KEY, OTHER_KEY, key_record, write_keys
from tests.support.pictures import data_url, jpeg, png, question

CHAT = "/v1/chat/completions"


@pytest.fixture
def limited(start, tmp_path):
    async def go(settings=None, **limits):
        keys = write_keys(tmp_path / "k.json", key_record(KEY, "one", **limits), key_record(OTHER_KEY, "two"))
        return await start(keys_file=keys, **(settings or {}))

    return go


def client(gateway, key=KEY):
    return httpx.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=20)


def text(words, **more):
    return {"messages": [{"role": "user", "content": words}], "max_tokens": 10, **more}


async def test_exactly_so_many_requests_pass_and_the_rest_are_told_when_to_come_back(limited, engine):
    gateway = await limited(requests_per_minute=5)
    async with client(gateway) as http:
        responses = await asyncio.gather(*(http.post(CHAT, json=text(str(i))) for i in range(12)))
        refused = [response for response in responses if response.status_code == 429]
        assert len(refused) == 7
        assert len(engine.requests) == 5
        error = refused[0].json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(refused[0].headers["retry-after"]) <= 61
        assert refused[0].headers["x-ratelimit-limit-requests"] == "5"
        assert refused[0].headers["x-ratelimit-remaining-requests"] == "0"
    async with client(gateway, OTHER_KEY) as http:
        assert (await http.post(CHAT, json=text("x"))).status_code == 200


async def test_kept_answers_are_free(limited, engine):
    gateway = await limited(requests_per_minute=1)
    async with client(gateway) as http:
        body = question(data_url(png()))
        assert [(await http.post(CHAT, json=body)).status_code for _ in range(3)] == [200, 200, 200]
        assert (await http.post(CHAT, json=text("new"))).status_code == 429


async def test_tokens_are_settled_with_what_the_engine_counted(limited, engine):
    async def script(request, body):
        answer = chat_answer("x") | {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
        if body.get("stream"):
            usage = b'data: {"choices":[],"usage":{"prompt_tokens":10,"total_tokens":15}}\n\n'
            return await stream(request, [chunk("x"), usage, DONE])
        return web.json_response(answer)

    engine.script = script
    gateway = await limited(tokens_per_minute=1000)
    async with client(gateway) as http:
        await http.post(CHAT, json=text("hello", max_tokens=500))
        streamed = text("hello", max_tokens=500, stream=True, stream_options={"include_usage": True})
        await http.post(CHAT, json=streamed)
        response = await http.post(CHAT, json=text("hello", max_tokens=100))
        left = int(response.headers["x-ratelimit-remaining-tokens"])
        assert 1000 - 2 * 15 - 130 < left < 1000 - 2 * 15 - 100


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
@pytest.mark.parametrize("pieces", [3, 1, 7])
async def test_a_stream_settles_though_its_client_asked_for_no_usage(limited, engine, path, pieces):
    given = [chunk("x"), usage_chunk(10, 5), DONE]
    joined = b"".join(given)
    step = len(joined) // pieces + 1
    writes = given if pieces == 3 else [joined[at : at + step] for at in range(0, len(joined), step)]

    async def script(request, _):
        return await stream(request, writes)

    engine.script = script
    gateway = await limited(tokens_per_minute=10_000)
    body = {"prompt": "hi"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "hi"}]}
    async with client(gateway) as http:
        for options in ({}, {"stream_options": None}, {"stream_options": {"continuous_usage_stats": True}}):
            response = await http.post(path, json={**body, **options, "max_tokens": 3000, "stream": True})
            assert response.content == chunk("x") + DONE
        response = await http.post(path, json={**body, "max_tokens": 3000, "stream": True})
    assert 7000 - 45 - 40 < int(response.headers["x-ratelimit-remaining-tokens"]) < 7000 - 45
    assert all(
        sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": False} for sent in engine.requests
    )


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_who_asks_for_the_usage_gets_it(limited, engine, path):
    gateway = await limited(tokens_per_minute=10_000)
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with client(gateway) as http:
        response = await http.post(
            path, json={"prompt": "a", "messages": [], "stream": True, "stream_options": options}
        )
    assert response.content == chunk("answer 1") + usage_chunk() + DONE
    assert engine.requests[0]["stream_options"] == options


async def test_a_plain_request_gets_no_options_of_a_stream(limited, engine):
    gateway = await limited(tokens_per_minute=10_000)
    async with client(gateway) as http:
        assert (await http.post(CHAT, json=text("a"))).status_code == 200
    assert "stream_options" not in engine.requests[0]


@pytest.mark.parametrize("options", ["x", [], {"include_usage": "yes"}, {"include_usage": 0}])
async def test_options_that_say_neither_yes_nor_no_are_refused(limited, engine, options):
    gateway = await limited(tokens_per_minute=10_000)
    async with client(gateway) as http:
        response = await http.post(CHAT, json=text("a", stream=True, stream_options=options))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "stream_options")
    assert engine.requests == []


async def test_a_picture_is_priced_before_the_engine_sees_it(limited, engine):
    gateway = await limited(tokens_per_minute=200)
    async with client(gateway) as http:
        body = question(data_url(jpeg(size=(1000, 1000)), "image/jpeg"), max_tokens=1)
        response = await http.post(CHAT, json=body)
        assert response.status_code == 429
        assert response.headers["x-should-retry"] == "false"
        assert engine.requests == []


async def test_requests_at_once_are_bounded_and_a_client_that_leaves_frees_its_place(limited, engine):
    async def script(*_):
        await asyncio.sleep(60)

    engine.script = script
    gateway = await limited(concurrent_requests=1)
    async with client(gateway) as http:
        held = asyncio.create_task(http.post(CHAT, json=text("held")))
        while not engine.requests:
            await asyncio.sleep(0.005)
        assert (await http.post(CHAT, json=text("second"))).status_code == 429
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        engine.script = None
        async with asyncio.timeout(5):
            while (await http.post(CHAT, json=text("third"))).status_code != 200:
                await asyncio.sleep(0.01)


async def test_failures_cost_no_tokens(limited, engine):
    async def refuse(*_):
        return web.json_response({"error": {"message": "no", "code": 400}}, status=400)

    engine.script = refuse
    gateway = await limited(tokens_per_minute=1000)
    async with client(gateway) as http:
        for _ in range(4):
            assert (await http.post(CHAT, json=text("hello", max_tokens=900))).status_code == 400


async def test_pictures_in_a_request_are_bounded_by_the_key(limited):
    gateway = await limited(max_images=1)
    body = question(data_url(png()))
    body["messages"][0]["content"] *= 2
    async with client(gateway) as http:
        assert "at most 1" in (await http.post(CHAT, json=body)).json()["error"]["message"]


async def test_the_settings_limits_hold_for_keys_without_their_own(limited):
    gateway = await limited({"requests_per_minute": 2}, requests_per_minute=1)
    for key, expected in [(KEY, 1), (OTHER_KEY, 2)]:
        async with client(gateway, key) as http:
            codes = [(await http.post(CHAT, json=text(str(i)))).status_code for i in range(3)]
        assert codes.count(200) == expected


async def test_replicas_share_a_limit_and_go_on_without_redis(start, tmp_path, redis_server):
    keys = write_keys(tmp_path / "k.json", key_record(KEY, "one", requests_per_minute=10))
    replicas = [await start(keys_file=keys, redis_url=redis_server.url) for _ in range(3)]
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=20) as http:
        asks = (http.post(replicas[i % 3].url + CHAT, json=text(str(i))) for i in range(30))
        codes = [response.status_code for response in await asyncio.gather(*asks)]
        assert (codes.count(200), codes.count(429)) == (10, 20)
        redis_server.kill()
        assert (await http.post(replicas[0].url + CHAT, json=text("alone"))).status_code == 200
