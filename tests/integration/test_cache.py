"""The response cache as a client sees it."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from aiohttp import web

from gateway.cache import Wish, wish_of
from tests.support.engine import DONE, chat_answer, chunk, stream
from tests.support.gateway import KEY, OTHER_KEY, key_record, write_keys
from tests.support.pictures import data_url, jpeg, png, question

CHAT = "/v1/chat/completions"


async def ask(http, body, **more):
    response = await http.post(CHAT, json=body, **more)
    return response.headers["x-cache"], response.content


async def test_the_second_identical_request_is_a_hit(http, engine):
    first = await ask(http, question(data_url(png())))
    second = await ask(http, question(data_url(png())))
    assert (first[0], second[0]) == ("miss", "hit")
    assert first[1] == second[1]
    assert len(engine.requests) == 1


async def test_a_stream_is_replayed_to_the_byte(http, engine):
    first = await ask(http, question(data_url(png()), stream=True))
    second = await ask(http, question(data_url(png()), stream=True))
    assert (first[0], second[0]) == ("miss", "hit")
    assert first[1] == second[1]
    assert second[1].endswith(DONE)


@pytest.mark.parametrize(
    "other",
    [
        question(data_url(png((1, 2, 3)))),
        question(data_url(png()), "Another question?"),
        question(data_url(png()), max_tokens=7),
        question(data_url(png()), stream=True),
        question(data_url(png()), response_format={"type": "json_object"}),
        question(data_url(png()), model="another"),
    ],
    ids=["picture", "question", "max_tokens", "stream", "response_format", "model"],
)
async def test_a_request_that_differs_is_a_miss(http, other):
    await ask(http, question(data_url(png())))
    assert (await ask(http, other))[0] == "miss"


async def test_detail_is_part_of_the_name_where_it_changes_the_budget(http):
    low = question(data_url(jpeg(size=(900, 900)), "image/jpeg"))
    low["messages"][0]["content"][0]["image_url"]["detail"] = "low"
    await ask(http, question(data_url(jpeg(size=(900, 900)), "image/jpeg")))
    assert (await ask(http, low))[0] == "miss"


async def test_another_tenant_never_gets_the_entry(http, engine):
    await ask(http, question(data_url(png())))
    theirs = await ask(http, question(data_url(png())), headers={"authorization": f"Bearer {OTHER_KEY}"})
    assert theirs[0] == "miss"
    assert len(engine.requests) == 2
    assert engine.requests[0]["cache_salt"] != engine.requests[1]["cache_salt"]


@pytest.mark.parametrize("temperature", [None, 0.7, 1])
async def test_a_request_that_may_vary_bypasses_the_cache(http, engine, temperature):
    body = question(data_url(png()), temperature=temperature)
    assert [(await ask(http, body))[0] for _ in range(2)] == ["bypass", "bypass"]
    assert len(engine.requests) == 2


@pytest.mark.parametrize(("policy", "temperature", "expected"), [("always", 1, "hit"), ("never", 0, "bypass")])
async def test_the_policy_decides(start, policy, temperature, expected):
    gateway = await start(cache_policy=policy)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
        body = question(data_url(png()), temperature=temperature)
        await ask(http, body)
        assert (await ask(http, body))[0] == expected


async def test_errors_and_aborted_answers_are_not_kept(http, engine):
    async def refuse(*_):
        return web.json_response({"error": {"message": "no", "code": 400}}, status=400)

    async def abort(request, body):
        if body.get("stream"):
            return await stream(request, [chunk("x").replace(b"null", b'"abort"'), DONE])
        return web.json_response(
            chat_answer("x", "abort"), dumps=lambda x: __import__("json").dumps(x, separators=(",", ":"))
        )

    async def breaks(request, _):
        return await stream(request, [chunk("x")])

    for script, streamed in [(refuse, False), (refuse, True), (abort, False), (abort, True), (breaks, True)]:
        engine.script = script
        await ask(http, question(data_url(png()), stream=streamed))
    engine.script = None
    assert (await ask(http, question(data_url(png()))))[0] == "miss"
    assert (await ask(http, question(data_url(png()), stream=True)))[0] == "miss"


async def test_a_stream_too_long_to_keep_is_still_relayed(http, engine, monkeypatch):
    monkeypatch.setattr("gateway.cache.MAX_ENTRY_BYTES", 100)
    body = question(data_url(png()), stream=True)
    first = await ask(http, body)
    second = await ask(http, body)
    assert (first[0], second[0]) == ("miss", "miss")
    assert second[1].endswith(DONE)


class TestRedis:
    async def test_replicas_share_answers(self, start, redis_server, engine):
        one, two = [await start(redis_url=redis_server.url) for _ in range(2)]
        async with httpx.AsyncClient(headers=one.headers) as http:
            assert (await http.post(one.url + CHAT, json=question(data_url(png())))).headers["x-cache"] == "miss"
            async with asyncio.timeout(5):
                while (await http.post(two.url + CHAT, json=question(data_url(png())))).headers["x-cache"] != "hit":
                    await asyncio.sleep(0.01)

    async def test_requests_go_on_without_it(self, start, redis_server):
        gateway = await start(redis_url=redis_server.url)
        redis_server.kill()
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            results = [await ask(http, question(data_url(png()))) for _ in range(2)]
        assert [result[0] for result in results] == ["miss", "hit"]


class TestSingleFlight:
    async def test_many_identical_requests_cost_one_at_the_engine(self, http, engine):
        go = asyncio.Event()

        async def script(request, body):
            await go.wait()
            if body.get("stream"):
                return await stream(request, [chunk("one"), chunk("two"), DONE])
            return web.json_response(chat_answer("the answer"))

        engine.script = script
        asks = [ask(http, question(data_url(png()), stream=i % 2 == 1)) for i in range(100)]
        tasks = [asyncio.create_task(a) for a in asks]
        while len(engine.requests) < 2:
            await asyncio.sleep(0.01)
        go.set()
        results = await asyncio.gather(*tasks)
        assert len(engine.requests) == 2
        assert {body for _, body in results[1::2]} == {chunk("one") + chunk("two") + DONE}
        assert len({body for _, body in results[0::2]}) == 1
        assert [cache for cache, _ in results].count("miss") == 2

    async def test_one_who_joins_late_gets_the_stream_from_its_first_byte(self, gateway, http, engine):
        go = asyncio.Event()
        started = asyncio.Event()

        async def script(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(chunk("first"))
            started.set()
            await go.wait()
            await response.write(chunk("second") + DONE)
            return response

        engine.script = script
        body = question(data_url(png()), stream=True)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as leaver:
            leader = asyncio.create_task(leaver.post(CHAT, json=body))
            await started.wait()
            async with http.stream("POST", CHAT, json=body) as late:
                pieces = late.aiter_bytes()
                assert await anext(pieces) == chunk("first")
                leader.cancel()
                await asyncio.gather(leader, return_exceptions=True)
                await leaver.aclose()
                go.set()
                assert b"".join([piece async for piece in pieces]) == chunk("second") + DONE
        assert not engine.aborted.is_set()
        assert len(engine.requests) == 1
        assert (await ask(http, body))[0] == "hit"

    async def test_when_the_last_one_leaves_the_engine_stops(self, gateway, engine):
        async def script(*_):
            await asyncio.sleep(60)

        engine.script = script
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            tasks = [asyncio.create_task(http.post(CHAT, json=question(data_url(png())))) for _ in range(3)]
            while gateway.app.state.pipeline.flights._under_way == {} or not engine.requests:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(engine.aborted.wait(), 5)
        assert len(engine.requests) == 1
        engine.script = None
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            assert (await http.post(CHAT, json=question(data_url(png())))).status_code == 200

    async def test_an_error_reaches_everybody_and_is_not_kept(self, http, engine):
        async def refuse(*_):
            await asyncio.sleep(0.05)
            return web.json_response({"error": {"message": "no", "code": 400}}, status=400)

        engine.script = refuse
        responses = await asyncio.gather(*(http.post(CHAT, json=question(data_url(png()))) for _ in range(5)))
        assert {response.status_code for response in responses} == {400}
        assert len(engine.requests) == 1
        engine.script = None
        assert (await ask(http, question(data_url(png()))))[0] == "miss"

    async def test_a_defect_reaches_everybody_as_500(self, http, gateway, caplog):
        async def broken(_):
            raise RuntimeError("defect")

        gateway.app.state.pipeline.images.shrink = broken
        responses = await asyncio.gather(*(http.post(CHAT, json=question(data_url(png()))) for _ in range(3)))
        assert {response.status_code for response in responses} == {500}
        assert "defect" in caplog.text
        assert "defect" not in responses[0].text


class TestCacheControl:
    async def test_no_store_neither_reads_nor_writes(self, http):
        body = question(data_url(png()))
        assert (await ask(http, body, headers={"cache-control": "no-store"}))[0] == "bypass"
        assert (await ask(http, body))[0] == "miss"
        assert (await ask(http, body, headers={"cache-control": "no-store"}))[0] == "bypass"

    async def test_no_cache_asks_anew_and_keeps_the_answer(self, http, engine):
        body = question(data_url(png()))
        await ask(http, body)
        fresh = await ask(http, body, headers={"cache-control": "no-cache"})
        assert fresh[0] == "miss"
        assert await ask(http, body) == ("hit", fresh[1])
        assert len(engine.requests) == 2

    async def test_max_age_bounds_the_age_and_age_is_told(self, http, gateway):
        body = question(data_url(png()))
        await ask(http, body)
        cache = gateway.app.state.pipeline.cache
        now = cache._clock
        cache._clock = lambda: now() + 100
        response = await http.post(CHAT, json=body)
        assert (response.headers["x-cache"], response.headers["age"]) == ("hit", "100")
        assert (await ask(http, body, headers={"cache-control": "max-age=200"}))[0] == "hit"
        assert (await ask(http, body, headers={"cache-control": "private, Max-Age=50"}))[0] == "miss"
        assert "age" not in (await http.post(CHAT, json=question(data_url(png()), "new"))).headers

    async def test_only_if_cached_never_reaches_the_engine(self, http, engine):
        body = question(data_url(png()))
        only = {"cache-control": "only-if-cached"}
        response = await http.post(CHAT, json=body, headers=only)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "not_cached")
        assert engine.requests == []
        await ask(http, body)
        assert (await ask(http, body, headers=only))[0] == "hit"

    async def test_a_long_answer_is_kept_compressed_and_replayed_whole(self, http, engine, gateway):
        async def script(*_):
            return web.json_response(chat_answer("word " * 5000))

        engine.script = script
        first = await ask(http, question(data_url(png())))
        assert await ask(http, question(data_url(png()))) == ("hit", first[1])
        assert gateway.app.state.pipeline.cache._store.bytes_used < len(first[1]) / 4

    async def test_a_key_may_have_a_policy_of_its_own(self, start, tmp_path):
        keys = write_keys(
            tmp_path / "k.json", key_record(KEY, "one", cache="always"), key_record(OTHER_KEY, "two", cache="never")
        )
        gateway = await start(keys_file=keys)
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            for key, temperature, expected in [(KEY, 1, "hit"), (OTHER_KEY, 0, "bypass")]:
                headers = {"authorization": f"Bearer {key}"}
                body = question(data_url(png()), temperature=temperature)
                await ask(http, body, headers=headers)
                assert (await ask(http, body, headers=headers))[0] == expected


@pytest.mark.parametrize(
    ("header", "wish"),
    [
        (None, Wish()),
        (b"", Wish()),
        (b"no-transform, max-stale=5", Wish()),
        (b"NO-STORE", Wish(no_store=True)),
        (b'max-age="60", no-cache', Wish(no_cache=True, max_age_s=60)),
        (b"max-age=-1", Wish()),
        (b"max-age=9999999999999", Wish()),
        (b"only-if-cached", Wish(only_cached=True)),
    ],
)
def test_cache_control_is_read_as_rfc_9111_says(header, wish):
    assert wish_of(header) == wish
