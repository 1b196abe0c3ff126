"""Which engine gets a request: affinity, names of engines, requests that are asked again elsewhere, timeouts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from functools import partial

import httpx
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from gateway.app import create_app
from gateway.settings import Settings
from tests.support import waiting
from tests.support.engine import DONE, ScriptedEngine, chat_answer, chunk, stream
from tests.support.gateway import KEY, OTHER_KEY, key_record, serving, write_keys
from tests.support.pictures import data_url, png, question

CHAT = "/v1/chat/completions"
QUICK = {"engine_probe_interval_s": 0.1, "engine_probe_timeout_s": 2}
COMPACT = {"dumps": lambda value: json.dumps(value, separators=(",", ":"))}  # as vLLM writes it
ABORTED = chat_answer("", "abort")
ABORT_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"abort"}]}\n\n'
ROLE_EVENT = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
STOPPING = {
    "error": {"message": "cannot schedule new futures after shutdown", "type": "InternalServerError", "code": 500}
}
GAVE_UP = {"error": {"message": "Internal server error", "type": "InternalServerError", "code": 500}}


def text(content, **more):
    return {"messages": [{"role": "user", "content": content}], "temperature": 1, **more}


def picture(number, words="What is this?", **more):
    return question(data_url(png((number * 53 % 256, number * 7 % 256, number % 256))), words, **more)


until = partial(waiting.until, deadline_s=10)


def retries(cause):
    return REGISTRY.get_sample_value("gateway_engine_retries_total", {"cause": cause}) or 0


def endpoints(gateway):
    return gateway.app.state.pipeline.upstream._endpoints


@pytest.fixture
async def engines(engine):
    async with contextlib.AsyncExitStack() as held:
        others = []
        for _ in range(2):
            others.append(await ScriptedEngine().start())
            held.push_async_callback(others[-1].stop)
        yield [engine, *others]


@pytest.fixture
async def client(start, engines):
    async with contextlib.AsyncExitStack() as held:

        async def go(**settings):
            gateway = await start(engines=[engine.url for engine in engines], **settings)
            http = httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=20)
            return gateway, await held.enter_async_context(http)

        yield go


class TestAffinity:
    async def test_questions_about_a_picture_go_to_the_engine_that_has_seen_it(self, client, engines):
        _, http = await client()
        for turn in range(4):
            for number in range(12):
                assert (await http.post(CHAT, json=picture(number, f"question {turn}"))).status_code == 200
        seen = [
            Counter(request["messages"][0]["content"][0]["image_url"]["url"] for request in engine.requests)
            for engine in engines
        ]
        assert all(count == 4 for pictures in seen for count in pictures.values())
        assert sum(map(len, seen)) == 12
        assert sum(map(bool, seen)) > 1  # one in 170,000 draws of ports puts all of them on one engine

    async def test_by_setting_the_least_busy_engine_is_asked_instead(self, client, engines):
        _, http = await client(engine_choice="least-in-flight")
        for turn in range(6):
            await http.post(CHAT, json=picture(1, f"question {turn}"))
        assert [len(engine.requests) for engine in engines] == [2, 2, 2]

    async def test_one_hot_picture_is_spread_over_the_engines(self, client, engines):
        go = asyncio.Event()

        async def wait(*_):
            await go.wait()
            return web.json_response(chat_answer("done"))

        for engine in engines:
            engine.script = wait
        gateway, http = await client()
        asked = [asyncio.create_task(http.post(CHAT, json=picture(1, str(i)))) for i in range(30)]
        await until(lambda: sum(len(engine.requests) for engine in engines) == 30)
        assert max(endpoint.in_flight for endpoint in endpoints(gateway).all) <= 13  # 1.25 of 10
        go.set()
        assert {(await answer).status_code for answer in asked} == {200}

    async def test_an_engine_that_goes_moves_only_its_own_pictures(self, client, engines):
        _, http = await client(**QUICK)
        for number in range(12):
            await http.post(CHAT, json=picture(number, "before"))
        before = [{url_of(request) for request in engine.requests} for engine in engines]
        await engines[2].stop()
        for number in range(12):
            assert (await http.post(CHAT, json=picture(number, "after"))).status_code == 200
        for engine, pictures in zip(engines[:2], before, strict=False):
            after = {url_of(request) for request in engine.requests if "after" in str(request)}
            assert pictures <= after <= pictures | before[2]

    async def test_tenants_have_homes_of_their_own(self, start, engines, tmp_path):
        records = [key_record(f"sk-{i}", f"tenant-{i}") for i in range(12)]
        keys = write_keys(tmp_path / "k.json", key_record(KEY, "one"), key_record(OTHER_KEY, "two"), *records)
        gateway = await start(engines=[engine.url for engine in engines], keys_file=keys)
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            for i in range(12):
                await http.post(CHAT, json=picture(1), headers={"authorization": f"Bearer sk-{i}"})
        assert sum(bool(engine.requests) for engine in engines) > 1


def url_of(request):
    return request["messages"][0]["content"][0]["image_url"]["url"]


class TestAskedAgain:
    """Each of three engines fails in its way until one has been asked; then the others answer."""

    @pytest.fixture
    def failing(self, engines):
        def first(behave):
            failed = []

            async def script(request, body):
                if failed:
                    if body.get("stream"):
                        return await stream(request, [ROLE_EVENT, chunk("fine"), DONE])
                    return web.json_response(chat_answer("fine"))
                failed.append(request.path)
                return await behave(request)

            for engine in engines:
                engine.script = script
            return failed

        return first

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize(
        ("status", "body", "cause"),
        [
            (500, STOPPING, "stopping"),
            (500, GAVE_UP, "generation"),
            (502, {}, "unavailable"),
            (503, {"error": "scaling"}, "unavailable"),
            (504, {}, "unavailable"),
        ],
    )
    async def test_an_engine_s_state_is_no_answer(self, client, failing, status, body, cause, streamed):
        async def behave(_):
            return web.json_response(body, status=status)

        failed, before = failing(behave), retries(cause)
        _, http = await client()
        response = await http.post(CHAT, json=text("x", stream=streamed))
        assert (response.status_code, "fine" in response.text, len(failed)) == (200, True, 1)
        assert retries(cause) == before + 1

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_what_the_only_engine_gave_up_it_is_asked_once_more(self, start, engine, streamed):
        asked = []

        async def script(request, _):
            asked.append(request.path)
            if len(asked) == 1:
                return await stream(
                    request, [b'data: {"error":{"message":"Internal server error","code":500}}\n\n', DONE]
                )
            return await stream(request, [ROLE_EVENT, chunk("fine"), DONE])

        async def whole(_, __):
            asked.append("whole")
            return web.json_response(GAVE_UP, status=500) if len(asked) == 1 else web.json_response(chat_answer("fine"))

        engine.script = script if streamed else whole
        gateway = await start()
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=20) as http:
            response = await http.post(CHAT, json=text("x", stream=streamed))
        assert (response.status_code, "fine" in response.text, len(asked)) == (200, True, 2)

    async def test_an_aborted_answer_is_none(self, client, failing):
        async def behave(_):
            return web.json_response(ABORTED, **COMPACT)

        failed = failing(behave)
        _, http = await client()
        assert "fine" in (await http.post(CHAT, json=text("x"))).text
        assert failed

    @pytest.mark.parametrize("events", [[ABORT_EVENT, DONE], [b": ping\n\n", ROLE_EVENT, ABORT_EVENT, DONE], []])
    async def test_a_stream_that_ends_before_its_first_token_is_none(self, client, failing, events):
        failed = failing(lambda request: stream(request, events))
        _, http = await client()
        response = await http.post(CHAT, json=text("x", stream=True))
        assert response.text == (ROLE_EVENT + chunk("fine") + DONE).decode()
        assert failed

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_an_answer_that_breaks_off_before_the_client_has_any_of_it_is_none(self, client, failing, streamed):
        async def behave(request):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"} if streamed else {})
            response.content_length = None if streamed else 1000
            await response.prepare(request)
            await response.write(b": ping\n\n" if streamed else b"{")
            request.transport.abort()
            return response

        failed = failing(behave)
        _, http = await client()
        response = await http.post(CHAT, json=text("x", stream=streamed))
        assert (response.status_code, "fine" in response.text, len(failed)) == (200, True, 1)

    async def test_a_refusal_that_comes_as_the_first_event_is_judged_alike(self, client, failing):
        events = [b'data: {"error":{"message":"EngineCore encountered an issue.","code":500}}\n\n']
        failed = failing(lambda request: stream(request, events))
        _, http = await client()
        assert "fine" in (await http.post(CHAT, json=text("x", stream=True))).text
        assert failed

    @pytest.mark.parametrize("status", [400, 404, 422, 429, 500])
    async def test_what_the_request_itself_is_to_blame_for_is_answered_once(self, client, engines, failing, status):
        async def behave(_):
            return web.json_response({"error": {"message": "no", "code": status}}, status=status)

        failing(behave)
        _, http = await client()
        assert (await http.post(CHAT, json=text("x"))).status_code == status
        assert sum(len(engine.requests) for engine in engines) == 1

    async def test_once_a_byte_has_gone_out_nothing_is_asked_again(self, client, engines, failing):
        async def behave(request):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(ROLE_EVENT + chunk("first"))
            request.transport.abort()
            return response

        failing(behave)
        _, http = await client()
        response = await http.post(CHAT, json=text("x", stream=True))
        assert '"code":"engine_error"' in response.text
        assert "fine" not in response.text
        assert sum(len(engine.requests) for engine in engines) == 1

    async def test_without_budget_the_client_hears_of_it(self, client, engines, failing):
        async def behave(_):
            return web.json_response({"error": "scaling"}, status=503)

        failing(behave)
        _, http = await client(engine_retry_ratio=0)
        response = await http.post(CHAT, json=text("x"))
        assert (response.status_code, response.json()["error"]["message"]) == (503, "scaling")
        assert sum(len(engine.requests) for engine in engines) == 1

    async def test_an_overload_of_all_engines_is_not_multiplied(self, client, engines):
        async def refuse(*_):
            return web.json_response({"error": "overloaded"}, status=503)

        for engine in engines:
            engine.script = refuse
        _, http = await client(queue_max=1000)
        answers = await asyncio.gather(*(http.post(CHAT, json=text(str(i))) for i in range(100)))
        assert {answer.status_code for answer in answers} == {503}
        assert sum(len(engine.requests) for engine in engines) <= 100 * 1.2 + 10

    async def test_an_engine_that_drains_gets_nothing_new_and_finishes_what_it_has(self, client, engines):
        draining, finish = asyncio.Event(), asyncio.Event()

        async def script(request, body):
            if draining.is_set():
                return web.json_response(STOPPING, status=500)
            await finish.wait()
            return web.json_response(chat_answer("finished"))

        gateway, http = await client(engine_choice="least-in-flight", engine_probe_interval_s=0.1)
        await until(lambda: all(endpoint.proven for endpoint in endpoints(gateway).all))
        engine = engines[0]
        engine.script = script
        begun = asyncio.create_task(http.post(CHAT, json=text("long")))
        while not engine.requests:
            if begun.done():  # another engine was asked
                begun = asyncio.create_task(http.post(CHAT, json=text("long")))
            await asyncio.sleep(0.02)
        draining.set()
        engine.healthy = False
        await until(lambda: endpoints(gateway).all[0].ejected)
        asked = len(engine.requests)
        for i in range(6):
            assert (await http.post(CHAT, json=text(str(i)))).status_code == 200
        assert len(engine.requests) == asked
        finish.set()
        assert "finished" in (await begun).text


class TestTimeouts:
    async def hang(self, *_):
        await asyncio.sleep(60)

    @pytest.mark.parametrize(
        ("streamed", "setting"), [(True, "engine_first_token_timeout_s"), (False, "engine_answer_timeout_s")]
    )
    async def test_an_engine_that_does_not_begin_is_504(self, start, engine, streamed, setting):
        engine.script = self.hang
        gateway = await start(**{setting: 0.1})
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            error = await http.post(CHAT, json=text("x", stream=streamed))
        assert (error.status_code, error.json()["error"]["code"]) == (504, "engine_timeout")
        await asyncio.wait_for(engine.aborted.wait(), 5)
        assert len(engine.requests) == 1

    async def test_comments_are_no_first_token(self, start, engine):
        async def script(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            while True:
                await response.write(b": ping\n\n")
                await asyncio.sleep(0.02)

        engine.script = script
        gateway = await start(engine_first_token_timeout_s=0.2)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            assert (await http.post(CHAT, json=text("x", stream=True))).status_code == 504

    @pytest.mark.parametrize("pings", [False, True])
    async def test_silence_between_tokens_ends_the_stream_with_an_error_event(self, start, engine, pings):
        async def script(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(chunk("first"))
            while True:
                await asyncio.sleep(0.02)
                if pings:
                    await response.write(b": ping\n\n")

        engine.script = script
        gateway = await start(engine_idle_timeout_s=0.2)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            answer = await http.post(CHAT, json=text("x", stream=True))
        assert answer.status_code == 200
        assert json.loads(answer.text.split("data: ")[-1])["error"]["code"] == "engine_timeout"
        await asyncio.wait_for(engine.aborted.wait(), 5)

    async def test_an_address_that_never_connects_costs_the_client_nothing_but_time(self, start, engine):
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            with contextlib.ExitStack() as held:
                for _ in range(3):  # what fills the backlog: further connections are left waiting
                    filler = held.enter_context(socket.socket())
                    filler.setblocking(False)
                    filler.connect_ex(("127.0.0.1", port))
                gateway = await start(engines=[f"http://127.0.0.1:{port}", engine.url], engine_connect_timeout_s=0.2)
                async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=20) as http:
                    for i in range(6):
                        assert (await http.post(CHAT, json=text(str(i)))).status_code == 200

    async def test_a_first_token_that_hangs_after_the_headers_is_moved_when_the_engine_is_found_out(
        self, client, engines
    ):
        gateway, http = await client(**QUICK)
        await until(lambda: all(endpoint.proven for endpoint in endpoints(gateway).all))

        async def script(request, body):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            while True:
                await response.write(b": ping\n\n")
                await asyncio.sleep(0.02)

        hung = engines[1]
        hung.script, hung.hung = script, False
        before = retries("ejected")
        tasks = [asyncio.create_task(http.post(CHAT, json=text(str(i), stream=True))) for i in range(12)]
        await until(lambda: hung.requests)
        hung.probes_hang = True
        answers = await asyncio.gather(*tasks)
        assert {answer.status_code for answer in answers} == {200}
        assert all("answer" in answer.text for answer in answers)
        assert retries("ejected") > before


async def test_readiness_does_not_wait_for_an_engine_that_hangs(start, engine, monkeypatch):
    monkeypatch.setattr("gateway.upstream.dispatch.HEALTH_TIMEOUT_S", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with httpx.AsyncClient(timeout=20) as http:
            assert (await http.get(f"{(await start(engines=[url, engine.url])).url}/readyz")).status_code == 200
            assert (await http.get(f"{(await start(engines=[url])).url}/readyz")).status_code == 503


class TestNames:
    """The resolver is the test's own, the addresses are those of loopback, the engines real sockets."""

    async def test_engines_come_and_go_with_their_name(self, tmp_path):
        addresses = ["127.0.0.1"]

        async def look_up(host, port):
            assert host == "engines.test"
            if not addresses:
                raise socket.gaierror(-3, "the resolver is away")
            return list(addresses)

        one = await ScriptedEngine().start()
        two = await ScriptedEngine(host="127.0.0.2", port=one.port).start()
        finish = asyncio.Event()

        async def slow(request, body):
            await finish.wait()
            return web.json_response(chat_answer("finished"))

        keys = write_keys(tmp_path / "keys.json", key_record(KEY, "one"))
        settings = Settings(
            engines=(f"dns+http://engines.test:{one.port}",),
            keys_file=keys,
            engine_dns_interval_s=0.02,
            engine_choice="least-in-flight",
            **QUICK,
        )
        try:
            async with (
                serving(create_app(settings, look_up=look_up)) as gateway,
                httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=20) as http,
            ):
                await until(lambda: any(endpoint.proven for endpoint in endpoints(gateway).all))
                assert (await http.get("/readyz")).status_code == 200
                assert (await http.post(CHAT, json=text("a"))).status_code == 200
                assert one.headers[0]["Host"] == f"engines.test:{one.port}"

                one.script = slow
                begun = asyncio.create_task(http.post(CHAT, json=text("long")))
                await until(lambda: len(one.requests) == 2)
                addresses[:] = ["127.0.0.2"]
                await until(lambda: [endpoint.url for endpoint in endpoints(gateway).all] == [two.url])
                for i in range(3):
                    assert (await http.post(CHAT, json=text(str(i)))).status_code == 200
                assert (len(one.requests), len(two.requests)) == (2, 3)
                finish.set()
                assert "finished" in (await begun).text

                addresses.clear()  # the resolver fails: what is known stays
                for i in range(3):
                    assert (await http.post(CHAT, json=text(str(i)))).status_code == 200
                    await asyncio.sleep(0.03)
        finally:
            await one.stop()
            await two.stop()
