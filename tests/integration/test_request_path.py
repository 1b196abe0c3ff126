"""The whole path over sockets, with a scripted engine behind it."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest
from aiohttp import web

from tests.support.engine import DONE, chat_answer, chunk, stream
from tests.support.gateway import KEY, OTHER_KEY, key_record, write_keys
from tests.support.pictures import data_url, jpeg, png, question

CHAT = "/v1/chat/completions"


async def test_a_picture_reaches_the_engine_and_the_answer_comes_back(http, engine):
    response = await http.post(CHAT, json=question(data_url(png())))
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "answer 1"
    assert engine.requests[0]["messages"][0]["content"][0]["image_url"]["url"] == data_url(png())


async def test_unknown_fields_reach_the_engine(http, engine):
    await http.post(CHAT, json=question(data_url(png()), future_field={"a": [1]}))
    assert engine.requests[0]["future_field"] == {"a": [1]}


async def test_the_reply_tells_request_id_cache_and_timing(http):
    response = await http.post(CHAT, json=question(data_url(png())))
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-cache"] == "miss"
    assert {part.split(";")[0] for part in response.headers["server-timing"].split(", ")} == {
        "auth", "body", "fetch", "cache", "limits", "decode", "queue", "engine",
    }  # fmt: skip


async def test_encoding_is_timed_apart_from_decoding_where_a_picture_is_encoded_anew(http):
    response = await http.post(CHAT, json=question(data_url(png(size=(700, 700)))))
    steps = [part.split(";")[0] for part in response.headers["server-timing"].split(", ")]
    assert steps[steps.index("decode") + 1] == "encode"


async def test_the_client_s_key_and_headers_stay_here(http, engine):
    await http.post(CHAT, json=question(data_url(png())), headers={"x-vllm-priority": "-9", "cookie": "a=b"})
    sent = {name.lower() for name in engine.headers[0]}
    assert not sent & {"authorization", "x-vllm-priority", "cookie", "x-forwarded-for"}


async def test_the_engine_gets_its_own_key(start, engine):
    gateway = await start(engine_api_key="engine-secret")
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
        await http.post(CHAT, json=question(data_url(png())))
    assert engine.headers[0]["Authorization"] == "Bearer engine-secret"


class TestWhoMayCall:
    @pytest.mark.parametrize("header", [None, "", "Bearer", "Basic abc", "Bearer sk-wrong"])
    async def test_a_bad_key_is_401_in_openai_s_shape(self, gateway, engine, header):
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            headers = {} if header is None else {"authorization": header}
            response = await http.post(CHAT, json=question(data_url(png())), headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert engine.requests == []

    async def test_an_address_off_the_list_is_403(self, start, engine):
        gateway = await start(allowed_cidrs=("10.0.0.0/8",))
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            response = await http.post(CHAT, json=question(data_url(png())))
        assert (response.status_code, response.json()["error"]["code"]) == (403, "address_not_allowed")
        assert engine.requests == []

    async def test_only_a_trusted_proxy_s_word_on_the_address_counts(self, start):
        spoof = {"x-forwarded-for": "10.1.2.3"}
        untrusting = await start(allowed_cidrs=("10.0.0.0/8",))
        trusting = await start(allowed_cidrs=("10.0.0.0/8",), trusted_proxies=("127.0.0.0/8",))
        async with httpx.AsyncClient(headers=untrusting.headers | spoof) as http:
            assert (await http.post(untrusting.url + CHAT, json=question(data_url(png())))).status_code == 403
            assert (await http.post(trusting.url + CHAT, json=question(data_url(png())))).status_code == 200

    async def test_an_unreadable_forwarded_address_is_refused(self, start):
        gateway = await start(trusted_proxies=("127.0.0.0/8",))
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            response = await http.get("/v1/models", headers={"x-forwarded-for": "not-an-address"})
        assert response.status_code == 403

    async def test_a_key_works_only_from_its_networks(self, start, tmp_path):
        keys = write_keys(tmp_path / "k.json", key_record(KEY, "one", cidrs=["192.0.2.0/24"]))
        gateway = await start(keys_file=keys, trusted_proxies=("127.0.0.0/8",))
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            assert (await http.get("/v1/models")).status_code == 403
            inside = await http.get("/v1/models", headers={"x-forwarded-for": "192.0.2.7"})
            assert inside.status_code == 200

    async def test_a_revoked_key_stops_working_within_two_seconds(self, start, tmp_path):
        keys = write_keys(tmp_path / "k.json", key_record(KEY, "one"), key_record(OTHER_KEY, "two"))
        gateway = await start(keys_file=keys)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            assert (await http.get("/v1/models")).status_code == 200
            write_keys(keys, key_record(OTHER_KEY, "two"))
            async with asyncio.timeout(2):
                while (await http.get("/v1/models")).status_code != 401:
                    await asyncio.sleep(0.05)

    async def test_the_body_of_a_stranger_is_not_read(self, gateway):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
        async with asyncio.timeout(5):
            assert b" 401 " in await reader.readline()
        writer.close()


class TestBadRequests:
    @pytest.mark.parametrize(
        ("content", "param"),
        [
            (b"{", None),
            (b"[]", None),
            (b'{"messages": 1}', "messages"),
            (b'{"messages": [1]}', "messages[0]"),
            (b'{"messages": [{"role": "user", "content": [1]}]}', "messages[0].content[0]"),
            (b'{"messages": [{"role": "user", "content": [{}]}]}', "messages[0].content[0].type"),
            (b'{"messages": [{"role": "user", "content": [{"type": ["a"]}]}]}', "messages[0].content[0].type"),
            (b'{"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}', "messages[0].content[0].type"),
            (b'{"messages": [{"content": [{"type": "image_url"}]}]}', "messages[0].content[0].image_url"),
            (b'{"messages": [], "stream": "yes"}', "stream"),
            (b'{"messages": [], "stream": []}', "stream"),
            (b'{"messages": [], "guided_json": {}}', "guided_json"),
            (b'{"messages": [], "mm_processor_kwargs": {}}', "mm_processor_kwargs"),
        ],
    )
    async def test_the_part_at_fault_is_named(self, http, engine, content, param):
        response = await http.post(CHAT, content=content)
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
        assert engine.requests == []

    @pytest.mark.parametrize(
        ("url", "code"),
        [
            ("data:image/png;base64,AAAA", "unsupported_image"),
            ("data:image/png,raw", "invalid_data_url"),
            ("file:///etc/passwd", None),
            ("http://127.0.0.1/x.png", "host_not_allowed"),
            (data_url(jpeg(size=(300, 300))[:900], "image/jpeg"), "invalid_image"),
        ],
    )
    async def test_a_picture_that_cannot_be_used_is_named(self, http, engine, url, code):
        good = {"type": "image_url", "image_url": {"url": data_url(png())}}
        body = question(url)
        body["messages"][0]["content"].insert(0, good)
        response = await http.post(CHAT, json=body)
        error = response.json()["error"]
        assert response.status_code == 400
        assert error["param"] == "messages[0].content[1].image_url.url"
        assert code in {None, error["code"]}
        assert engine.requests == []

    async def test_detail_must_be_known(self, http):
        body = question(data_url(png()))
        body["messages"][0]["content"][0]["image_url"]["detail"] = "ultra"
        response = await http.post(CHAT, json=body)
        assert response.json()["error"]["param"] == "messages[0].content[0].image_url.detail"

    async def test_too_many_pictures_are_refused(self, start):
        gateway = await start(image_max_count=2)
        body = question(data_url(png()))
        body["messages"][0]["content"] *= 3
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            response = await http.post(CHAT, json=body)
        assert "3 pictures" in response.json()["error"]["message"]

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_a_large_body_is_413(self, start, chunked):
        gateway = await start(max_body_bytes=2048)

        async def pieces():
            for _ in range(800):
                yield b"x" * 1024

        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            response = await http.post(CHAT, content=pieces() if chunked else b"x" * 8_000_000)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")

    async def test_a_body_that_does_not_arrive_is_408(self, start):
        gateway = await start(body_timeout_s=0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 100\r\n\r\n{{"
        writer.write(head.encode())
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.close()

    @pytest.mark.parametrize("path", ["/v1/nothing", "/invocations", "/metrics", "/tokenize", "/v1/load_lora_adapter"])
    async def test_nothing_else_of_the_engine_is_reachable(self, http, path):
        response = await http.post(path, json={})
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")

    async def test_the_wrong_method_is_405(self, http):
        response = await http.get(CHAT)
        assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")

    async def test_fields_that_reach_across_tenants_are_dropped(self, http, engine):
        body = question(data_url(png()), cache_salt="theirs", priority=-5, request_id="x")
        body["messages"][0]["content"][0]["uuid"] = "somebody-else-s-picture"
        await http.post(CHAT, json=body)
        sent = engine.requests[0]
        assert "priority" not in sent
        assert "request_id" not in sent
        assert sent["cache_salt"] != "theirs"
        assert sent["messages"][0]["content"][0]["uuid"] != "somebody-else-s-picture"


class TestPictures:
    async def test_a_large_picture_is_shrunk_to_the_budget(self, http, engine):
        await http.post(CHAT, json=question(data_url(jpeg(size=(2000, 1500)), "image/jpeg")))
        assert pixels(engine.requests[0]) <= 512 * 512

    async def test_detail_low_has_its_own_budget(self, http, engine):
        body = question(data_url(jpeg(size=(2000, 1500)), "image/jpeg"))
        body["messages"][0]["content"][0]["image_url"]["detail"] = "low"
        await http.post(CHAT, json=body)
        assert pixels(engine.requests[0]) <= 256 * 256
        assert "detail" not in engine.requests[0]["messages"][0]["content"][0]["image_url"]

    async def test_a_plain_string_is_a_url_too(self, http, engine):
        body = question("x")
        body["messages"][0]["content"][0]["image_url"] = data_url(png())
        assert (await http.post(CHAT, json=body)).status_code == 200
        assert engine.requests[0]["messages"][0]["content"][0]["image_url"] == {"url": data_url(png())}

    async def test_two_pictures_keep_their_order(self, http, engine):
        urls = [data_url(png((0, 0, 200))), data_url(png((0, 200, 0)))]
        body = question(urls[0])
        body["messages"][0]["content"].insert(1, {"type": "image_url", "image_url": {"url": urls[1]}})
        await http.post(CHAT, json=body)
        assert [part["image_url"]["url"] for part in engine.requests[0]["messages"][0]["content"][:2]] == urls

    async def test_detail_high_has_its_own_budget_and_a_key_may_have_less(self, start, engine, tmp_path):
        keys = write_keys(
            tmp_path / "k.json", key_record(KEY, "one"), key_record(OTHER_KEY, "two", max_image_pixels=64 * 64)
        )
        gateway = await start(keys_file=keys, image_high_pixels=1024 * 1024)
        body = question(data_url(jpeg(size=(2000, 1500)), "image/jpeg"))
        body["messages"][0]["content"][0]["image_url"]["detail"] = "high"
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            for key in (KEY, OTHER_KEY):
                await http.post(CHAT, json=body, headers={"authorization": f"Bearer {key}"})
        assert 512 * 512 < pixels(engine.requests[0]) <= 1024 * 1024
        assert pixels(engine.requests[1]) <= 64 * 64

    async def test_the_engine_knows_a_picture_by_content_and_tenant(self, start, engine):
        gateway = await start(tenant_secret="s3cret")
        one, two = ({"authorization": f"Bearer {key}"} for key in (KEY, OTHER_KEY))
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            for headers, picture, text in [
                (one, png(), "a"), (one, png(), "b"), (one, png((1, 2, 3)), "a"), (two, png(), "a"),
            ]:  # fmt: skip
                await http.post(CHAT, json=question(data_url(picture), text), headers=headers)
        first, again, other_picture, other_tenant = [r["messages"][0]["content"][0]["uuid"] for r in engine.requests]
        assert first == again
        assert len({first, other_picture, other_tenant}) == 3
        assert "s3cret" not in str(engine.requests)


def pixels(request):
    from io import BytesIO

    from PIL import Image

    url = request["messages"][0]["content"][0]["image_url"]["url"]
    width, height = Image.open(BytesIO(base64.b64decode(url.split(",", 1)[1]))).size
    return width * height


class TestOtherRoutes:
    async def test_models_shows_no_path_of_the_engine(self, http):
        response = await http.get("/v1/models")
        assert response.json()["data"] == [{"id": "scripted", "object": "model", "created": 1, "owned_by": "vllm"}]

    async def test_text_completions_are_passed_on(self, http, engine):
        await http.post("/v1/completions", json={"prompt": "hello", "max_tokens": 3})
        assert engine.requests[0]["prompt"] == "hello"

    @pytest.mark.parametrize("image", [base64.b64encode(png()).decode(), data_url(png())])
    async def test_predict_takes_base64_and_answers_simply(self, http, engine, image):
        response = await http.post("/predict", json={"image": image, "prompt": "What is this?"})
        assert response.json()["result"] == "answer 1"
        assert response.json()["inference_time_ms"] > 0
        assert engine.requests[0]["messages"][0]["content"][1]["text"] == "What is this?"

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"prompt": "x"}, "image"),
            ({"image": "AAAA"}, "prompt"),
            ({"image": "AAAA", "prompt": "x", "stream": True}, "stream"),
            ({"image": "no base64!", "prompt": "x"}, "image"),
        ],
    )
    async def test_predict_names_what_is_wrong(self, http, body, param):
        response = await http.post("/predict", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)

    @pytest.mark.parametrize("path", ["/healthz", "/health"])
    async def test_health_is_about_this_process_only(self, http, engine, path):
        await engine.stop()
        assert (await http.get(path)).json() == {"status": "ok"}

    async def test_ready_is_about_the_engines(self, http, engine):
        assert (await http.get("/readyz")).status_code == 200
        engine.healthy = False
        assert (await http.get("/readyz")).status_code == 503
        await engine.stop()
        assert (await http.get("/readyz")).status_code == 503


class TestStreams:
    async def test_each_event_arrives_before_the_next_is_made(self, http, engine):
        seen = asyncio.Event()

        async def script(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(chunk("first"))
            await asyncio.wait_for(seen.wait(), 5)  # deadlocks, and fails, if anything holds the first event back
            await response.write(chunk("second"))
            await response.write(DONE)
            return response

        engine.script = script
        body = b""
        async with http.stream("POST", CHAT, json=question(data_url(png()), stream=True)) as response:
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["x-accel-buffering"] == "no"
            async for piece in response.aiter_bytes():
                body += piece
                if b"first" in body:
                    seen.set()
        assert body == chunk("first") + chunk("second") + DONE

    async def test_a_refusal_inside_the_stream_gets_its_status(self, http, engine):
        async def script(request, _):
            error = (
                b'data: {"error": {"message": "too long", "type": "BadRequestError", "param": null, "code": 400}}\n\n'
            )
            return await stream(request, [b": ping\n\n", error.replace(b'{"error": ', b'{"error":'), DONE])

        engine.script = script
        response = await http.post(CHAT, json=question(data_url(png()), stream=True))
        assert (response.status_code, response.json()["error"]["message"]) == (400, "too long")

    async def test_a_stream_that_breaks_ends_with_an_error_event(self, http, engine):
        async def script(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(chunk("first") + b'data: {"half')
            request.transport.abort()
            return response

        engine.script = script
        response = await http.post(CHAT, json=question(data_url(png()), stream=True))
        events = response.text.split("\n\n")
        assert events[1] == 'data: {"half'
        assert '"code":"engine_error"' in events[2]
        assert "[DONE]" not in response.text

    async def test_a_stream_without_its_end_is_an_error(self, http, engine):
        async def script(request, _):
            return await stream(request, [chunk("first")])

        engine.script = script
        response = await http.post(CHAT, json=question(data_url(png()), stream=True))
        assert "before the answer was complete" in response.text

    @pytest.mark.parametrize("streamed", [True, False])
    async def test_a_client_that_leaves_aborts_the_engine_s_request(self, gateway, engine, streamed):
        started = asyncio.Event()

        async def script(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            if streamed:
                await response.prepare(request)
                await response.write(chunk("first"))
            started.set()
            await asyncio.sleep(60)
            return response

        engine.script = script
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            call = asyncio.create_task(http.post(CHAT, json=question(data_url(png()), stream=streamed)))
            await asyncio.wait_for(started.wait(), 5)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await asyncio.wait_for(engine.aborted.wait(), 5)
        endpoint = gateway.app.state.pipeline.upstream._endpoints.all[0]
        async with asyncio.timeout(5):
            while endpoint.in_flight:
                await asyncio.sleep(0.005)


class TestEngineFaults:
    async def test_no_engine_is_503_and_says_when_to_come_back(self, http, engine):
        await engine.stop()
        response = await http.post(CHAT, json=question(data_url(png())))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
        assert int(response.headers["retry-after"]) > 0

    async def test_another_engine_takes_over(self, start, engine):
        gateway = await start(engines=["http://127.0.0.1:9", engine.url])
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            for i in range(4):
                assert (await http.post(CHAT, json=question(data_url(png()), str(i)))).status_code == 200
        assert len(engine.requests) == 4

    async def test_a_request_that_kills_engines_is_not_sent_to_all_of_them(self, start, engine):
        async def script(request, _):
            request.transport.abort()
            await asyncio.sleep(60)

        engine.script = script
        gateway = await start(engines=[engine.url] * 6)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            response = await http.post(CHAT, json=question(data_url(png())))
        assert response.status_code == 503
        assert len(engine.requests) == 2

    async def test_a_silent_engine_is_504(self, start, engine):
        async def script(*_):
            await asyncio.sleep(60)

        engine.script = script
        gateway = await start(engine_idle_timeout_s=0.1)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            response = await http.post(CHAT, json=question(data_url(png())))
        assert (response.status_code, response.json()["error"]["code"]) == (504, "engine_timeout")

    @pytest.mark.parametrize(
        ("status", "body", "expected", "message"),
        [
            (400, {"error": {"message": "bad", "type": "BadRequestError", "param": "x", "code": 400}}, 400, "bad"),
            (404, {"error": {"message": "no model", "type": "NotFoundError", "code": 404}}, 404, "no model"),
            (503, {"error": "scaling"}, 503, "scaling"),
            (401, {"error": "Unauthorized"}, 502, "GATEWAY_ENGINE_API_KEY"),
            (500, ["?"], 502, "without a reason"),
        ],
    )
    async def test_the_engine_s_errors_come_in_openai_s_shape(self, http, engine, status, body, expected, message):
        async def script(*_):
            return web.json_response(body, status=status)

        engine.script = script
        response = await http.post(CHAT, json=question(data_url(png())))
        error = response.json()["error"]
        assert response.status_code == expected
        assert message in error["message"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert not isinstance(error["code"], int)

    async def test_an_answer_that_breaks_off_is_502(self, http, engine):
        async def script(request, _):
            response = web.StreamResponse(headers={"content-length": "1000"})
            await response.prepare(request)
            await response.write(b"{")
            request.transport.abort()
            return response

        engine.script = script
        response = await http.post(CHAT, json=question(data_url(png())))
        assert (response.status_code, response.json()["error"]["code"]) == (502, "engine_error")

    async def test_a_defect_is_500_without_its_trace(self, http, gateway, caplog):
        gateway.app.state.pipeline.images = None
        response = await http.post(CHAT, json=question(data_url(png())))
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
        assert "NoneType" not in response.text
        assert response.headers["x-request-id"] in response.text
        assert "NoneType" in caplog.text

    async def test_predict_survives_an_answer_it_cannot_read(self, http, engine):
        async def script(*_):
            return web.json_response({"choices": []})

        engine.script = script
        response = await http.post("/predict", json={"image": data_url(png()), "prompt": "x"})
        assert (response.status_code, response.json()["error"]["code"]) == (502, "engine_error")

    async def test_an_unreadable_list_of_models_is_502(self, http, engine, monkeypatch):
        async def broken(*_):
            return web.json_response([])

        engine._runner.app.router._resources[2]._routes["GET"]._handler = broken
        assert (await http.get("/v1/models")).status_code == 502


class TestAnswersBelongToTheirPictures:
    async def test_32_at_once_never_mix(self, http, engine):
        async def script(_, body):
            await asyncio.sleep(0)
            return web.json_response(chat_answer(body["messages"][0]["content"][0]["image_url"]["url"]))

        engine.script = script
        urls = [data_url(png((i * 7 % 256, i * 31 % 256, 3))) for i in range(64)]
        gate = asyncio.Semaphore(32)

        async def ask(url):
            async with gate:
                response = await http.post(CHAT, json=question(url))
                return response.json()["choices"][0]["message"]["content"]

        assert await asyncio.gather(*(ask(url) for url in urls * 2)) == urls * 2


class TestQueue:
    async def test_interactive_passes_bulk_and_everybody_is_answered(self, start, engine, tmp_path):
        order, go = [], asyncio.Event()

        async def script(_, body):
            order.append(body["messages"][0]["content"])
            await go.wait()
            return web.json_response(chat_answer("done"))

        engine.script = script
        keys = write_keys(
            tmp_path / "k.json", key_record(KEY, "one", priority="interactive"), key_record(OTHER_KEY, "two")
        )
        gateway = await start(keys_file=keys, engine_max_in_flight=1)
        queue = gateway.app.state.pipeline.admission
        async with httpx.AsyncClient(base_url=gateway.url) as http:

            async def ask(text, key, **more):
                body = {"messages": [{"role": "user", "content": text}], **more}
                headers = {"authorization": f"Bearer {key}"}
                return (await http.post(CHAT, json=body, headers=headers)).status_code

            tasks = [asyncio.create_task(ask("first", OTHER_KEY))]
            while not order:
                await asyncio.sleep(0.005)
            for number, (text, key, more) in enumerate(
                [("bulk", OTHER_KEY, {"service_tier": "flex"}), ("default", OTHER_KEY, {}), ("interactive", KEY, {})]
            ):
                tasks.append(asyncio.create_task(ask(text, key, **more)))
                while queue.waiting <= number:
                    await asyncio.sleep(0.005)
            go.set()
            assert set(await asyncio.gather(*tasks)) == {200}
        assert order == ["first", "interactive", "default", "bulk"]

    async def test_a_full_queue_says_503_at_once(self, start, engine):
        async def script(*_):
            await asyncio.sleep(60)

        engine.script = script
        gateway = await start(engine_max_in_flight=1, queue_max=1)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            held = [asyncio.create_task(http.post(CHAT, json={"messages": []})) for _ in range(2)]
            while not gateway.app.state.pipeline.admission.waiting:
                await asyncio.sleep(0.005)
            response = await http.post(CHAT, json={"messages": []})
            assert (response.status_code, response.json()["error"]["code"]) == (503, "queue_full")
            assert int(response.headers["retry-after"]) >= 1
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)


async def test_nesting_that_cannot_be_passed_on_is_400(http, engine):
    deep = b"[" * 300 + b"]" * 300
    for temperature in (b"0", b"1"):
        body = b'{"messages": [], "temperature": ' + temperature + b', "metadata": ' + deep + b"}"
        response = await http.post(CHAT, content=body)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
    assert engine.requests == []
