"""Pictures through the whole gateway: fetched once, decoded within a budget, never on the event loop."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from types import SimpleNamespace

import httpx
import orjson
import pytest
from aiohttp import web

import gateway.prepare
from gateway import body
from gateway.images import shrink
from gateway.telemetry import IMAGE_FETCH_SECONDS, IMAGE_FETCHES
from tests.support.gateway import KEY, OTHER_KEY
from tests.support.pictures import data_url, jpeg, png, question
from tests.unit.gateway.images.samples import encode, photo
from tests.unit.gateway.images.servers import serving

CHAT = "/v1/chat/completions"
MIB = 1 << 20


def several(*urls, **more):
    request = question(urls[0], **more)
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    request["messages"][0]["content"][:1] = parts
    return request


def fetches():
    return {
        outcome: IMAGE_FETCHES.labels(outcome)._value.get() for outcome in ("fetched", "fresh", "revalidated", "failed")
    }


def timed():
    return sum(s.value for s in next(iter(IMAGE_FETCH_SECONDS.collect())).samples if s.name.endswith("_count"))


def grown(before):
    return {outcome: int(now - before[outcome]) for outcome, now in fetches().items() if now != before[outcome]}


@pytest.fixture
async def pictures():
    """A picture host on loopback; every answer may be kept for a minute."""
    async with serving() as server:

        async def answer(_):
            return web.Response(body=jpeg(), headers={"Cache-Control": "max-age=60"})

        server.answer = answer
        yield server


@pytest.fixture
async def fetching(start):
    """Start a gateway that may fetch from loopback, which stands for a public host."""

    async def go(**settings):
        return await start(image_allowed_hosts=("*",), image_address_allowed=lambda _: True, **settings)

    return go


async def ask(gateway, body, key=KEY):
    async with httpx.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=10) as http:
        return await http.post(CHAT, json=body)


class TestFetchedOnce:
    async def test_another_question_about_the_same_url_downloads_nothing(self, fetching, pictures):
        gateway = await fetching()
        before, times = fetches(), timed()
        for text in ("What?", "Where?", "Who?"):
            assert (await ask(gateway, question(pictures.url(), text))).status_code == 200
        assert len(pictures.seen) == 1
        assert grown(before) == {"fetched": 1, "fresh": 2}
        assert timed() == times + 1

    async def test_another_tenant_fetches_for_itself(self, fetching, pictures):
        gateway = await fetching()
        assert (await ask(gateway, question(pictures.url("/a?sig=1")))).status_code == 200
        assert (await ask(gateway, question(pictures.url("/a?sig=1")), OTHER_KEY)).status_code == 200
        assert len(pictures.seen) == 2

    async def test_one_url_many_times_in_a_request_is_one_download(self, fetching, pictures):
        gateway = await fetching()
        assert (await ask(gateway, several(*[pictures.url()] * 8))).status_code == 200
        assert len(pictures.seen) == 1

    async def test_with_size_0_nothing_is_kept(self, fetching, pictures):
        gateway = await fetching(image_cache_max_bytes=0)
        for text in ("What?", "Where?"):
            await ask(gateway, question(pictures.url(), text))
        assert len(pictures.seen) == 2

    async def test_replicas_share_what_they_fetched_through_redis(self, fetching, pictures, redis_server):
        one, two = [await fetching(redis_url=redis_server.url) for _ in range(2)]
        await ask(one, question(pictures.url()))
        async with asyncio.timeout(5):
            while redis_server.command("KEYS", "qwen3vl:image:*") != "*2":
                await asyncio.sleep(0.01)
        before = fetches()
        assert (await ask(two, question(pictures.url(), "Where?"))).status_code == 200
        assert grown(before) == {"fresh": 1}
        assert len(pictures.seen) == 1

    async def test_a_failure_is_counted_and_names_the_part(self, fetching, pictures):
        async def missing(_):
            return web.Response(status=404)

        pictures.answer = missing
        gateway = await fetching()
        before = fetches()
        response = await ask(gateway, several(data_url(png()), pictures.url()))
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "messages[0].content[1].image_url.url"
        assert response.json()["error"]["code"] == "fetch_failed"
        assert grown(before) == {"failed": 1}


class TestShrunkOnce:
    @pytest.fixture
    def decoded(self, monkeypatch):
        """Sizes of what was decoded."""
        sizes = []

        def counted(data, info, *, max_pixels):
            sizes.append((info.width, info.height, max_pixels))
            return shrink(data, info, max_pixels=max_pixels)

        monkeypatch.setattr(gateway.prepare, "shrink", counted)
        return sizes

    @pytest.mark.parametrize("data", [jpeg(), jpeg(size=(900, 900))], ids=["as it is", "shrunk"])
    async def test_another_question_about_a_picture_decodes_nothing_and_sends_the_same(
        self, start, engine, decoded, data
    ):
        running = await start()
        for text in ("What?", "Where?", "Who?"):
            assert (await ask(running, question(data_url(data, "image/jpeg"), text))).status_code == 200
        assert len(decoded) == 1
        assert len({str(body["messages"][0]["content"][0]) for body in engine.requests}) == 1

    async def test_another_budget_or_tenant_is_decoded_for_itself(self, start, engine, decoded):
        running = await start()
        request = question(data_url(jpeg(size=(900, 900)), "image/jpeg"))
        await ask(running, request)
        await ask(running, request, OTHER_KEY)
        request["messages"][0]["content"][0]["image_url"]["detail"] = "low"
        await ask(running, request)
        assert len(decoded) == 3
        assert len({body["messages"][0]["content"][0]["uuid"] for body in engine.requests}) == 3

    async def test_with_size_0_nothing_is_kept(self, start, decoded):
        running = await start(image_shrunk_max_bytes=0)
        for text in ("What?", "Where?"):
            await ask(running, question(data_url(jpeg(), "image/jpeg"), text))
        assert len(decoded) == 2


class TestMemory:
    async def test_pictures_of_a_request_share_what_it_may_fetch(self, fetching, pictures):
        async def answer(_):
            return web.Response(body=png(size=(64, 64)) + bytes(40_000))

        pictures.answer = answer
        gateway = await fetching(image_max_request_bytes=100_000)
        response = await ask(gateway, several(*(pictures.url(f"/{n}") for n in range(3))))
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "image_too_large")
        assert error["param"].startswith("messages[0].content[")
        assert "share 100000 bytes" in error["message"]
        assert (await ask(gateway, several(*(pictures.url(f"/{n}") for n in range(2))))).status_code == 200

    async def test_a_picture_by_itself_is_told_its_own_cap(self, fetching, pictures):
        gateway = await fetching(image_max_bytes=1024)
        pictures.answer = lambda _: answered(bytes(2000))
        error = (await ask(gateway, question(pictures.url()))).json()["error"]
        assert error["code"] == "image_too_large"
        assert "share" not in error["message"]

    async def test_decoders_wait_until_their_memory_is_free(self, start, monkeypatch):
        """Two pictures that do not fit together: the second decoder starts when the first has ended."""
        at_once, most = 0, 0
        lock = threading.Lock()

        def watched(data, info, *, max_pixels):
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            try:
                return shrink(data, info, max_pixels=max_pixels)
            finally:
                with lock:
                    at_once -= 1

        monkeypatch.setattr(gateway.prepare, "shrink", watched)
        running = await start(image_memory_bytes=MIB)
        # Progressive, so that all its coefficients are held: about 2.9 MB, more than the whole budget.
        urls = [data_url(encode(photo(800, 600, n), "JPEG", progressive=True), "image/jpeg") for n in range(3)]
        response = await ask(running, several(*urls))
        assert response.status_code == 200
        assert most == 1
        assert running.app.state.pipeline.images._gate.held_bytes == 0

    async def test_a_client_that_leaves_gives_its_memory_back(self, start, monkeypatch, engine):
        begun, go = threading.Event(), threading.Event()

        def stuck(data, info, *, max_pixels):
            begun.set()
            assert go.wait(10)
            return shrink(data, info, max_pixels=max_pixels)

        monkeypatch.setattr(gateway.prepare, "shrink", stuck)
        running = await start(image_memory_bytes=MIB)
        gate = running.app.state.pipeline.images._gate
        large = [data_url(encode(photo(800, 600, n), "JPEG", progressive=True), "image/jpeg") for n in range(2)]
        leaving = [asyncio.create_task(ask(running, question(url))) for url in large]
        try:
            await asyncio.to_thread(begun.wait, 10)
            async with asyncio.timeout(5):
                while not gate._waiting:
                    await asyncio.sleep(0.005)
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            async with asyncio.timeout(5):
                while gate._waiting:
                    await asyncio.sleep(0.005)
            # The one that had begun still decodes, so its memory is still counted.
            assert gate.held_bytes == MIB
        finally:
            go.set()
        async with asyncio.timeout(5):
            while gate.held_bytes:
                await asyncio.sleep(0.005)
        assert (await ask(running, question(large[0]))).status_code == 200
        assert len(engine.requests) == 1


async def answered(body):
    return web.Response(body=body)


class TestTheEventLoop:
    async def test_no_heavy_work_on_a_large_picture_runs_on_it(self, start, monkeypatch, pictures, fetching):
        threads = {}

        def watch(name):
            function = getattr(gateway.prepare, name)

            def watched(*args, **options):
                threads.setdefault(name, set()).add(threading.current_thread())
                return function(*args, **options)

            monkeypatch.setattr(gateway.prepare, name, watched)

        for name in ("decode_data_url", "inspect", "digest", "shrink", "data_url_of"):
            watch(name)
        large = encode(photo(1500, 1200), "PNG")
        assert len(large) > 2 * MIB
        pictures.answer = lambda _: answered(large)
        running = await fetching()
        assert (await ask(running, several(data_url(large), pictures.url()))).status_code == 200
        assert set(threads) == {"decode_data_url", "inspect", "digest", "shrink", "data_url_of"}
        assert threading.main_thread() not in set().union(*threads.values())

    async def test_a_large_body_is_not_parsed_on_it_and_a_small_one_without_a_detour(self, gateway, monkeypatch):
        threads = []

        def loads(data):
            threads.append((len(data) > MIB, threading.current_thread() is threading.main_thread()))
            return orjson.loads(data)

        monkeypatch.setattr(body, "orjson", SimpleNamespace(loads=loads, JSONDecodeError=orjson.JSONDecodeError))
        for request in (question(data_url(png())), question(data_url(png()), text='a "text" ' * 200_000)):
            assert (await ask(gateway, request)).status_code == 200
        assert threads == [(False, True), (True, False)]

    async def test_it_goes_on_while_many_large_pictures_are_worked_on(self, gateway):
        """Behaviour, not speed: a cheap request overtakes 16 expensive ones that came before it."""
        noise = random.Random(1).randbytes(MIB)
        urls = [data_url(encode(photo(1000, 800, n), "JPEG") + noise, "image/jpeg") for n in range(16)]
        slow = [asyncio.create_task(ask(gateway, question(url))) for url in urls]
        await asyncio.sleep(0)
        begun = time.monotonic()
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            assert (await http.get("/healthz")).status_code == 200
        health_s = time.monotonic() - begun
        assert {response.status_code for response in await asyncio.gather(*slow)} == {200}
        assert health_s < time.monotonic() - begun
