"""The Responses and the Messages API over sockets: the same steps as chat, each with its own form."""

from __future__ import annotations

import base64
import json

import httpx
import openai
import pytest
from aiohttp import web

from tests.support.engine import event, message_answer, message_events, response_answer, response_events, stream
from tests.support.gateway import KEY, OTHER_KEY, key_record, write_keys
from tests.support.pictures import data_url, jpeg, png

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
PNG = base64.b64encode(png()).decode()
FUNCTION = {"type": "function", "name": "save", "parameters": {"type": "object"}}


def input_image(url, **more):
    return {"type": "input_image", "image_url": url, **more}


def responses(*parts, **more):
    content = [*parts, {"type": "input_text", "text": "What is this?"}]
    return {"model": "scripted", "input": [{"role": "user", "content": content}], "temperature": 0, **more}


def image(data=PNG, media_type="image/png"):
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def by_url(url):
    return {"type": "image", "source": {"type": "url", "url": url}}


def messages(*blocks, **more):
    content = [*blocks, {"type": "text", "text": "What is this?"}]
    body = {"model": "scripted", "max_tokens": 64, "messages": [{"role": "user", "content": content}], "temperature": 0}
    return {**body, **more}


EACH = pytest.mark.parametrize(
    ("path", "body"),
    [(RESPONSES, responses(input_image(data_url(png())))), (MESSAGES, messages(image()))],
    ids=["responses", "messages"],
)


def sent_url(path, request):
    if path == RESPONSES:
        return request["input"][0]["content"][0]["image_url"]
    source = request["messages"][0]["content"][0]["source"]
    assert source["type"] == "url"
    return source["url"]


def pixels(url):
    from io import BytesIO

    from PIL import Image

    width, height = Image.open(BytesIO(base64.b64decode(url.split(",", 1)[1]))).size
    return width * height


@pytest.fixture
async def sdk(gateway):
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


class TestPictures:
    @EACH
    async def test_a_picture_reaches_the_engine_as_it_is_when_it_is_small_and_clean(self, http, engine, path, body):
        assert (await http.post(path, json=body)).status_code == 200
        assert sent_url(path, engine.requests[0]) == data_url(png())

    @pytest.mark.parametrize(
        ("path", "make"),
        [
            (RESPONSES, lambda data: responses(input_image(data_url(data, "image/jpeg")))),
            (MESSAGES, lambda data: messages(image(base64.b64encode(data).decode(), "image/jpeg"))),
            (MESSAGES, lambda data: messages(by_url(data_url(data, "image/jpeg")))),
        ],
    )
    async def test_a_large_picture_is_shrunk_to_the_budget(self, http, engine, path, make):
        await http.post(path, json=make(jpeg(size=(2000, 1500))))
        assert pixels(sent_url(path, engine.requests[0])) <= 512 * 512

    async def test_a_key_s_budget_and_detail_count_in_the_responses_api(self, start, engine, tmp_path):
        keys = write_keys(
            tmp_path / "k.json", key_record(KEY, "one"), key_record(OTHER_KEY, "two", max_image_pixels=64 * 64)
        )
        gateway = await start(keys_file=keys, image_high_pixels=1024 * 1024)
        url = data_url(jpeg(size=(2000, 1500)), "image/jpeg")
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            for key, detail in [(KEY, "low"), (KEY, "high"), (KEY, "original"), (OTHER_KEY, "high")]:
                body = responses(input_image(url, detail=detail))
                response = await http.post(RESPONSES, json=body, headers={"authorization": f"Bearer {key}"})
                assert response.status_code == 200
        low, high, original, small = [pixels(sent_url(RESPONSES, request)) for request in engine.requests]
        assert low <= 256 * 256 < 512 * 512 < high == original <= 1024 * 1024
        assert small <= 64 * 64

    @pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
    async def test_pictures_in_tool_results_take_the_same_way(self, http, engine, path):
        large = data_url(jpeg(size=(2000, 1500)), "image/jpeg")
        if path == RESPONSES:
            call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
            result = {"type": "function_call_output", "call_id": "c", "output": [input_image(large)]}
            body = {**responses(), "input": [{"role": "user", "content": "look"}, call, result]}
        else:
            body = messages({"type": "tool_result", "tool_use_id": "c", "content": [by_url(large)]})
        assert (await http.post(path, json=body)).status_code == 200
        sent = engine.requests[0]
        part = sent["input"][2]["output"][0] if path == RESPONSES else sent["messages"][0]["content"][0]["content"][0]
        assert pixels(part["image_url"] if path == RESPONSES else part["source"]["url"]) <= 512 * 512

    async def test_a_picture_by_url_is_fetched_here_and_never_by_the_engine(self, start, engine):
        async def serve(_):
            return web.Response(body=png(), content_type="image/png")

        app = web.Application()
        app.router.add_get("/p.png", serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/p.png"
        try:
            gateway = await start(image_allowed_hosts=("127.0.0.1",), image_address_allowed=lambda _: True)
            async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
                assert (await http.post(RESPONSES, json=responses(input_image(url)))).status_code == 200
                assert (await http.post(MESSAGES, json=messages(by_url(url)))).status_code == 200
        finally:
            await runner.cleanup()
        assert [sent_url(path, sent) for path, sent in zip((RESPONSES, MESSAGES), engine.requests, strict=True)] == [
            data_url(png())
        ] * 2

    async def test_the_responses_api_names_pictures_by_tenant_and_never_as_the_client_says(self, start, engine):
        gateway = await start(tenant_secret="s3cret")
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            for key in (KEY, OTHER_KEY):
                body = responses(input_image(data_url(png()), uuid="theirs"), cache_salt="theirs")
                await http.post(RESPONSES, json=body, headers={"authorization": f"Bearer {key}"})
                await http.post(MESSAGES, json=messages(image()), headers={"x-api-key": key})
        names = [sent["input"][0]["content"][0]["uuid"] for sent in engine.requests if "input" in sent]
        salts = [sent["cache_salt"] for sent in engine.requests]
        assert len({*names, "theirs"}) == 3
        assert salts[0] == salts[1] != salts[2] == salts[3]
        assert "theirs" not in salts

    @pytest.mark.parametrize(
        ("part", "param"),
        [
            (input_image("http://127.0.0.1/x.png"), "input[0].content[0].image_url"),
            (input_image("file:///etc/passwd"), "input[0].content[0].image_url"),
            (input_image("data:image/png;base64,AAAA"), "input[0].content[0].image_url"),
            (input_image(data_url(png()), detail="ultra"), "input[0].content[0].detail"),
            ({"type": "input_image", "file_id": "file-1"}, "input[0].content[0].image_url"),
            ({"type": "input_file", "file_url": "http://a/b.pdf"}, "input[0].content[0].type"),
            ({"type": "input_audio", "input_audio": {}}, "input[0].content[0].type"),
            ({"type": "video_url", "video_url": {}}, "input[0].content[0].type"),
            ({"type": "image_url", "image_url": {"url": "http://a/"}}, "input[0].content[0].type"),
            ({"image_url": "http://a/"}, "input[0].content[0].type"),
            ("text", "input[0].content[0]"),
        ],
    )
    async def test_a_part_that_cannot_be_used_is_named_in_openai_s_shape(self, http, engine, part, param):
        response = await http.post(RESPONSES, json=responses(part))
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
        assert engine.requests == []

    @pytest.mark.parametrize(
        ("block", "param"),
        [
            (by_url("http://127.0.0.1/x.png"), "messages[0].content[0].source.url"),
            (by_url("file:///etc/passwd"), "messages[0].content[0].source.url"),
            (image("AAAA"), "messages[0].content[0].source.data"),
            (image(media_type="text/html"), "messages[0].content[0].source.media_type"),
            (image(media_type="image/png;base64,AAAA;x"), "messages[0].content[0].source.media_type"),
            ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "messages[0].content[0].source"),
            ({"type": "image", "source": "x"}, "messages[0].content[0].source"),
            ({"type": "document", "source": {}}, "messages[0].content[0].type"),
            ({"type": "tool_result", "content": [{"type": "document"}]}, "messages[0].content[0].content[0].type"),
            ({"type": "tool_result", "content": [by_url("ftp://a")]}, "messages[0].content[0].content[0].source.url"),
            ("text", "messages[0].content[0]"),
        ],
    )
    async def test_a_block_that_cannot_be_used_is_named_in_anthropic_s_shape(self, http, engine, block, param):
        response = await http.post(MESSAGES, json=messages(block))
        body = response.json()
        assert (response.status_code, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
        assert body["error"]["message"].startswith(f"{param}: ")
        assert body.keys() == {"type", "error"}
        assert engine.requests == []

    async def test_pictures_stand_in_the_user_s_messages_only(self, http, engine):
        for role, where in [("assistant", "messages[0].content[0]"), ("system", "messages[0].content[0]")]:
            response = await http.post(MESSAGES, json=messages(messages=[{"role": role, "content": [image()]}]))
            assert response.json()["error"]["message"].startswith(f"{where}: ")
        response = await http.post(MESSAGES, json=messages(system=[image()]))
        assert response.json()["error"]["message"].startswith("system[0].type: ")
        assert engine.requests == []

    @pytest.mark.parametrize(("path", "param"), [(RESPONSES, "input"), (MESSAGES, "messages")])
    async def test_too_many_pictures_are_refused(self, start, path, param):
        gateway = await start(image_max_count=2)
        body = responses(*[input_image(data_url(png()))] * 3) if path == RESPONSES else messages(*[image()] * 3)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            error = (await http.post(path, json=body)).json()["error"]
        assert "3 pictures" in error["message"]
        assert error.get("param") == param or error["message"].startswith(f"{param}: ")


class TestFields:
    @pytest.mark.parametrize(
        ("more", "param"),
        [
            ({"store": True}, "store"),
            ({"previous_response_id": "resp_1"}, "previous_response_id"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"background": True}, "background"),
            ({"previous_input_messages": [{"role": "user"}]}, "previous_input_messages"),
            ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
            ({"tools": [FUNCTION, {"type": "mcp", "server_url": "http://10.0.0.1"}]}, "tools[1].type"),
            ({"tools": "all"}, "tools"),
            ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
            ({"input": [{"type": "computer_call_output", "output": {"image_url": "http://a"}}]}, "input[0].type"),
            ({"input": [{"type": "mcp_call", "role": "user", "content": []}]}, "input[0].type"),
            ({"input": [{"content": "x"}]}, "input[0].type"),
            ({"input": ["x"]}, "input[0]"),
            ({"input": {}}, "input"),
            ({"stream": "yes"}, "stream"),
            ({"mm_processor_kwargs": {}}, "mm_processor_kwargs"),
            ({"ec_transfer_params": {}}, "ec_transfer_params"),
            ({"vllm_xargs": {}}, "vllm_xargs"),
        ],
    )
    async def test_what_a_gateway_without_memory_cannot_do_is_refused(self, http, engine, more, param):
        response = await http.post(RESPONSES, json={**responses(), **more})
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert engine.requests == []

    @EACH
    async def test_tools_and_unknown_fields_are_passed_on_and_the_engine_s_are_not(self, http, engine, path, body):
        tools = [FUNCTION] if path == RESPONSES else [{"name": "save", "input_schema": {"type": "object"}}]
        more = {"tools": tools, "future": 1, "priority": -1, "request_id": "mine", "session_id": "mine"}
        await http.post(path, json={**body, **more})
        sent = engine.requests[0]
        assert (sent["tools"], sent["future"]) == (tools, 1)
        assert not sent.keys() & {"priority", "request_id", "session_id"}

    async def test_nothing_is_stored_at_the_engine_either(self, http, engine):
        for store in (None, False):
            await http.post(RESPONSES, json=responses(store=store, temperature=1))
        assert [sent["store"] for sent in engine.requests] == [False, False]

    async def test_a_text_part_carries_a_text_only(self, http, engine):
        # vLLM takes any part with a `uuid` for the medium that its other fields name.
        hidden = {"uuid": "theirs", "image_url": "http://10.0.0.1/", "video_url": {"url": "http://10.0.0.1/"}}
        await http.post(RESPONSES, json=responses({"type": "input_text", "text": "a", **hidden}))
        chat = [{"role": "user", "content": [{"type": "text", "text": "a", **hidden}]}]
        await http.post("/v1/chat/completions", json={"messages": chat})
        assert engine.requests[0]["input"][0]["content"][0] == {"type": "input_text", "text": "a"}
        assert engine.requests[1]["messages"][0]["content"][0] == {"type": "text", "text": "a"}


class TestKeys:
    async def test_anthropic_s_header_is_a_key_there_only(self, gateway):
        async with httpx.AsyncClient(base_url=gateway.url, headers={"x-api-key": KEY}) as http:
            assert (await http.post(MESSAGES, json=messages())).status_code == 200
            assert (await http.post(RESPONSES, json=responses())).status_code == 401
            both = {"authorization": "Bearer sk-wrong"}
            assert (await http.post(MESSAGES, json=messages(), headers=both)).status_code == 401
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            assert (await http.post(MESSAGES, json=messages())).status_code == 200

    @pytest.mark.parametrize(
        "headers", [{}, {"x-api-key": ""}, {"x-api-key": "sk-wrong"}, {"authorization": "Basic x"}]
    )
    async def test_a_bad_key_is_an_authentication_error(self, gateway, engine, headers):
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as http:
            response = await http.post(MESSAGES, json=messages())
        assert (response.status_code, response.json()["error"]["type"]) == (401, "authentication_error")
        assert engine.requests == []

    async def test_the_client_s_key_stays_here(self, http, engine):
        await http.post(MESSAGES, json=messages(), headers={"x-api-key": KEY, "anthropic-version": "2023-06-01"})
        assert not {name.lower() for name in engine.headers[0]} & {"x-api-key", "authorization", "anthropic-version"}

    @EACH
    async def test_limits_hold_there_too(self, start, tmp_path, path, body):
        keys = write_keys(tmp_path / "k.json", key_record(KEY, "one", requests_per_minute=1, cache="never"))
        gateway = await start(keys_file=keys)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            assert (await http.post(path, json=body)).status_code == 200
            refused = await http.post(path, json=body)
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        assert int(refused.headers["retry-after"]) >= 1

    @EACH
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_tokens_are_settled_with_what_the_engine_counted(self, start, tmp_path, path, body, streamed):
        keys = write_keys(tmp_path / "k.json", key_record(KEY, "one", tokens_per_minute=10_000, cache="never"))
        gateway = await start(keys_file=keys)
        longest = {"max_output_tokens": 4000, "max_tokens": 4000}
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            for _ in range(4):
                response = await http.post(path, json={**body, **longest, "stream": streamed})
                assert response.status_code == 200
        # Three of 15 tokens each, and the fourth at its price: longest answer, picture, text.
        left = int(response.headers["x-ratelimit-remaining-tokens"])
        assert 10_000 - 45 - 4000 - 150 < left < 10_000 - 45 - 4000 - 66


class TestAnswers:
    async def test_the_sdk_reads_an_answer(self, sdk):
        answer = await sdk.responses.create(**responses(input_image(data_url(png()))))
        assert (answer.output_text, answer.usage.total_tokens) == ("answer 1", 15)

    async def test_the_sdk_reads_a_stream(self, sdk, engine):
        async def script(request, _):
            return await stream(request, response_events("a ", "red ", "hat"))

        engine.script = script
        events = [part async for part in await sdk.responses.create(**responses(), stream=True)]
        assert "".join(part.delta for part in events if part.type == "response.output_text.delta") == "a red hat"
        assert events[-1].response.output_text == "a red hat"

    @pytest.mark.parametrize(
        ("path", "body", "events"),
        [(RESPONSES, responses(), response_events("a", "b")), (MESSAGES, messages(), message_events("a", "b"))],
    )
    async def test_a_stream_is_relayed_to_the_byte(self, http, engine, path, body, events):
        async def script(request, _):
            return await stream(request, [b": ping\n\n", *events])

        engine.script = script
        response = await http.post(path, json={**body, "stream": True})
        assert response.headers["content-type"] == "text/event-stream"
        assert response.content == b": ping\n\n" + b"".join(events)

    @EACH
    async def test_a_refusal_of_the_engine_keeps_status_and_message(self, http, engine, path, body):
        async def script(*_):
            error = {"type": "BadRequestError", "message": "too long", "param": None, "code": 400}
            return web.json_response({"type": "error", "error": error}, status=400)

        engine.script = script
        for streamed in (False, True):
            response = await http.post(path, json={**body, "stream": streamed})
            error = response.json()["error"]
            assert (response.status_code, error["type"], error["message"]) == (400, "invalid_request_error", "too long")

    @pytest.mark.parametrize(
        ("status", "kind"),
        [(400, "invalid_request_error"), (404, "not_found_error"), (500, "api_error"), (503, "overloaded_error")],
    )
    async def test_each_status_has_anthropic_s_type(self, http, engine, status, kind):
        async def script(*_):
            return web.json_response({"type": "error", "error": {"type": "x", "message": "no"}}, status=status)

        engine.script = script
        response = await http.post(MESSAGES, json=messages())
        assert (response.status_code, response.json()["error"]["type"]) == (status, kind)


class TestBreaks:
    async def broken(self, http, engine, path, body, head):
        async def script(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(head)
            request.transport.abort()
            return response

        engine.script = script
        return (await http.post(path, json={**body, "stream": True})).content

    async def test_a_broken_stream_ends_with_the_responses_api_s_error_event(self, http, sdk, engine):
        head = b"".join(response_events("a", "b")[:3])
        content = await self.broken(http, engine, RESPONSES, responses(), head + b"event: response.out")
        kept, _, last = content.removesuffix(b"\n\n").rpartition(b"\n\n")
        assert kept + b"\n\n" == head
        assert last.startswith(b"event: error\ndata: ")
        error = json.loads(last.split(b"data: ")[1])
        assert (error["type"], error["code"], error["sequence_number"]) == ("error", "engine_error", 3)
        *_, seen = [part async for part in await sdk.responses.create(**responses(), stream=True)]
        assert (seen.type, seen.code) == ("error", "engine_error")

    async def test_a_broken_stream_ends_with_anthropic_s_error_event(self, http, engine):
        head = b"".join(message_events("a")[:3])
        content = await self.broken(http, engine, MESSAGES, messages(), head)
        last = content.removesuffix(b"\n\n").rpartition(b"\n\n")[2]
        assert last.startswith(b"event: error\ndata: ")
        assert json.loads(last.split(b"data: ")[1])["error"]["type"] == "api_error"

    @pytest.mark.parametrize(
        ("path", "body", "events"),
        [(RESPONSES, responses(), response_events("a")), (MESSAGES, messages(), message_events("a"))],
    )
    async def test_a_stream_that_ends_early_is_an_error(self, http, engine, path, body, events):
        async def script(request, _):
            return await stream(request, events[:-1])

        engine.script = script
        response = await http.post(path, json={**body, "stream": True})
        assert "before the answer was complete" in response.text
        assert response.content.startswith(b"".join(events[:-1]) + b"event: error\n")

    async def test_an_error_of_the_engine_s_own_is_the_only_one(self, http, engine):
        own = event("error", error={"type": "internal_error", "message": "oh"})

        async def script(request, _):
            return await stream(request, [*message_events("a")[:3], own])

        engine.script = script
        response = await http.post(MESSAGES, json=messages(stream=True))
        assert response.text.count("event: error") == 1

    async def test_an_engine_that_fails_before_its_first_event_is_a_502(self, http, engine):
        async def script(request, _):
            return await stream(
                request, [event("error", error={"type": "internal_error", "message": "Field required"})]
            )

        engine.script = script
        response = await http.post(MESSAGES, json=messages(stream=True))
        assert (response.status_code, response.json()["error"]["type"]) == (502, "api_error")
        assert "Field required" not in response.text


class TestCache:
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_deterministic_message_is_kept_and_replayed_to_the_byte(self, http, engine, streamed):
        body = messages(image(), stream=streamed)
        first, second = [await http.post(MESSAGES, json=body) for _ in range(2)]
        assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
        assert first.content == second.content
        assert len(engine.requests) == 1

    async def test_forms_of_one_picture_share_an_entry_and_tenants_never(self, gateway, engine):
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            for key, block in [(KEY, image()), (KEY, by_url(data_url(png()))), (OTHER_KEY, image())]:
                await http.post(MESSAGES, json=messages(block), headers={"x-api-key": key})
        assert len(engine.requests) == 2

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_message_that_the_engine_aborted_is_not_kept(self, http, engine, streamed):
        async def script(request, _):
            if streamed:
                return await stream(request, message_events("half", stop_reason=None))
            answer = message_answer("half")
            del answer["stop_reason"]
            return web.json_response(answer)

        engine.script = script
        for _ in range(2):
            response = await http.post(MESSAGES, json=messages(stream=streamed))
            assert response.headers["x-cache"] == "miss"
        assert len(engine.requests) == 2

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_response_is_not_kept_as_nobody_can_tell_it_from_an_aborted_one(self, http, engine, streamed):
        for _ in range(2):
            await http.post(RESPONSES, json=responses(stream=streamed))
        assert len(engine.requests) == 2


class TestAudit:
    @EACH
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_record_has_question_answer_and_tokens(self, start, engine, tmp_path, path, body, streamed):
        file = tmp_path / "audit.jsonl"
        gateway = await start(audit="full", audit_file=file)
        system = {"instructions": "be short"} if path == RESPONSES else {"system": "be short"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            await http.post(path, json={**body, **system, "stream": streamed})
        gateway.app.state.pipeline.audit.close()
        (record,) = [json.loads(line) for line in file.read_text().splitlines()]
        asked = record["prompt"]["input" if path == RESPONSES else "messages"][0]["content"]
        assert asked[0] == {"type": asked[0]["type"], "digest": record["images"][0]}
        assert asked[1]["text"] == "What is this?"
        assert "be short" in record["prompt"].values()
        assert (record["output"], record["prompt_tokens"], record["completion_tokens"]) == ("answer 1", 10, 5)
        assert record["finish_reason"] == ("completed" if path == RESPONSES else "end_turn")
        assert "base64" not in file.read_text()


async def test_unknown_paths_of_anthropic_s_api_have_its_shape(http):
    response = await http.post("/v1/messages/count_tokens", json={})
    assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")


async def test_an_answer_that_refuses_or_calls_tools_is_passed_on(http, engine):
    call = {"type": "function_call", "call_id": "c", "name": "save", "arguments": "{}", "id": "fc_1"}

    async def script(*_):
        return web.json_response(response_answer("", output=[call]))

    engine.script = script
    assert (await http.post(RESPONSES, json=responses(tools=[FUNCTION]))).json()["output"] == [call]
