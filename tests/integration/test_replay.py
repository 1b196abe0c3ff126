"""A replayed answer is the recorded one, whatever is in it; what failed or was cut off is never replayed."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest
from aiohttp import web

from tests.support.engine import DONE, chat_answer, chunk, stream
from tests.support.gateway import KEY
from tests.support.pictures import data_url, png, question

CHAT = "/v1/chat/completions"
CALL = {"id": "call_1", "type": "function", "function": {"name": "tag", "arguments": '{"style": "décor \\"A\\""}'}}
LOGPROBS = {
    "content": [
        {"token": "红", "logprob": -0.125, "bytes": [231, 186, 162], "top_logprobs": [
            {"token": "粉", "logprob": -2.5, "bytes": [231, 178, 137]}
        ]}
    ],
    "refusal": None,
}  # fmt: skip
USAGE = {
    "prompt_tokens": 321,
    "completion_tokens": 12,
    "total_tokens": 333,
    "prompt_tokens_details": {"cached_tokens": 300},
}
MESSAGE = {"role": "assistant", "content": "红裙", "reasoning_content": "It is\n\nred.", "tool_calls": [CALL]}
WHOLE = {
    "id": "chatcmpl-9",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "scripted",
    "system_fingerprint": "vllm-x",
    "choices": [
        {"index": 0, "message": MESSAGE, "logprobs": LOGPROBS, "finish_reason": "tool_calls", "stop_reason": 151645},
        {"index": 1, "message": {"role": "assistant", "content": "b"}, "logprobs": None, "finish_reason": "length"},
    ],
    "usage": USAGE,
}


def event(delta, finish=None, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    base = {"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    return b"data: " + json.dumps(base | {"choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


EVENTS = [
    event({"role": "assistant", "content": ""}),
    event({"reasoning_content": "It is\n\nred."}),
    event({"content": "红"}, logprobs=LOGPROBS),
    event({"tool_calls": [{"index": 0, **CALL}]}),
    b": a comment\n\n",
    event({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}),
    event({}, "tool_calls", stop_reason=151645),
    b'data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"scripted","choices":[],"usage":'
    + json.dumps(USAGE).encode()
    + b"}\n\n",
    DONE,
]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
"""A client that is not shown the usage gets one event less."""


def cut(content, size):
    """Pieces that end anywhere: within an event, and within a character."""
    return [content[i : i + size] for i in range(0, len(content), size)]


@pytest.fixture
def body():
    return question(data_url(png()), logprobs=True, top_logprobs=1, n=2)


class TestFaithful:
    async def test_usage_tools_reasoning_logprobs_and_finish_reasons_are_replayed(self, http, engine, body):
        async def script(*_):
            return web.json_response(WHOLE)

        engine.script = script
        first, second = [await http.post(CHAT, json=body) for _ in range(2)]
        assert [response.headers["x-cache"] for response in (first, second)] == ["miss", "hit"]
        assert second.json() == WHOLE
        assert second.content == first.content
        assert second.headers["content-type"] == first.headers["content-type"]

    @pytest.mark.parametrize("size", [1, 7, 100, 100_000])
    async def test_a_stream_is_replayed_event_by_event_however_it_came(self, http, engine, body, size):
        async def script(request, _):
            return await stream(request, cut(b"".join(EVENTS), size))

        engine.script = script
        first, second = [await http.post(CHAT, json=body | STREAMED) for _ in range(2)]
        assert [response.headers["x-cache"] for response in (first, second)] == ["miss", "hit"]
        assert first.content == second.content == b"".join(EVENTS)
        assert second.headers["content-type"] == first.headers["content-type"]

    async def test_the_sdk_reads_the_same_from_both(self, gateway, engine, body):
        async def script(request, asked):
            if asked.get("stream"):
                return await stream(request, cut(b"".join(EVENTS), 50))
            return web.json_response(WHOLE)

        engine.script = script
        async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=KEY, max_retries=0) as sdk:
            whole = [await sdk.chat.completions.create(**body) for _ in range(2)]
            streams = [await sdk.chat.completions.create(**body, **STREAMED) for _ in range(2)]
            streamed = [[piece async for piece in stream] for stream in streams]
        assert len(engine.requests) == 2
        assert whole[0] == whole[1]
        assert whole[1].choices[0].message.tool_calls[0].function.name == "tag"
        assert whole[1].choices[0].logprobs.content[0].top_logprobs[0].token == "粉"
        assert streamed[0] == streamed[1]
        assert streamed[1][-1].usage.total_tokens == 333
        assert streamed[1][-2].choices[0].finish_reason == "tool_calls"

    async def test_it_comes_through_redis_unchanged(self, start, engine, body, redis_server):
        async def script(request, _):
            return await stream(request, EVENTS)

        engine.script = script
        one, two = [await start(redis_url=redis_server.url) for _ in range(2)]
        async with httpx.AsyncClient(headers=one.headers) as http:
            await http.post(one.url + CHAT, json=body | STREAMED)
            async with asyncio.timeout(10):
                while redis_server.command("KEYS", "qwen3vl:cache:*") != "*1":
                    await asyncio.sleep(0.01)
            replayed = await http.post(two.url + CHAT, json=body | STREAMED)
        assert (replayed.headers["x-cache"], replayed.content) == ("hit", b"".join(EVENTS))


class TestNeverKept:
    @pytest.mark.parametrize(
        "pieces",
        [
            [chunk("x"), b'data: {"error":{"message":"lost","type":"InternalServerError","code":500}}\n\n', DONE],
            [chunk("x"), b'data: {"error": {"message": "lost", "code": 500}}\n\n', DONE],
            [chunk("w"), chunk("x").replace(b"null", b'"abort"'), DONE],
            [chunk("w"), chunk("x").replace(b"null", b'"error"'), DONE],
            [chunk("x")],
            [DONE, chunk("x")],
        ],
        ids=["error event", "error event, spaced", "abort", "error", "no end", "more after the end"],
    )
    async def test_a_stream_that_failed_is_asked_for_again(self, http, engine, pieces):
        async def script(request, _):
            return await stream(request, pieces)

        engine.script = script
        body = question(data_url(png()), stream=True)
        assert [(await http.post(CHAT, json=body)).headers["x-cache"] for _ in range(2)] == ["miss", "miss"]
        assert len(engine.requests) == 2

    @pytest.mark.parametrize(("reason", "status"), [("abort", 503), ("error", 200)])
    async def test_an_answer_that_was_cut_off_is_asked_for_again(self, http, engine, reason, status):
        async def script(*_):
            text = json.dumps(chat_answer("x", reason), separators=(",", ":"))
            return web.Response(text=text, content_type="application/json")

        engine.script = script
        body = question(data_url(png()))
        for asked in (1, 2):
            response = await http.post(CHAT, json=body)
            # An engine that gave up has answered nothing, and there is no other to ask.
            assert (response.status_code, response.headers["x-cache"] == "hit") == (status, False)
            assert len(engine.requests) >= asked

    async def test_a_text_about_errors_is_no_error(self, http, engine):
        async def script(request, _):
            return await stream(request, [chunk('data: {"error": "finish_reason":"abort"}\n\ndata: [DONE]'), DONE])

        engine.script = script
        body = question(data_url(png()), stream=True)
        assert [(await http.post(CHAT, json=body)).headers["x-cache"] for _ in range(2)] == ["miss", "hit"]

    async def test_a_stream_whose_last_reader_left_is_asked_for_again(self, gateway, engine):
        async def endless(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(chunk("first"))
            await asyncio.sleep(60)
            return response

        engine.script = endless
        body = question(data_url(png()), stream=True)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as http:
            async with http.stream("POST", CHAT, json=body) as response:
                await anext(response.aiter_bytes())
            await asyncio.wait_for(engine.aborted.wait(), 5)
            engine.script = None
            assert (await http.post(CHAT, json=body)).headers["x-cache"] == "miss"


class TestFollowers:
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_followers_go_on_when_the_leader_leaves_before_the_first_byte(self, gateway, http, engine, streamed):
        go = asyncio.Event()

        async def script(request, _):
            await go.wait()
            return await stream(request, EVENTS) if streamed else web.json_response(WHOLE)

        engine.script = script
        body = question(data_url(png()), **(STREAMED if streamed else {}))
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers) as leaver:
            leader = asyncio.create_task(leaver.post(CHAT, json=body))
            async with asyncio.timeout(5):
                while not engine.requests:
                    await asyncio.sleep(0.005)
            followers = [asyncio.create_task(http.post(CHAT, json=body)) for _ in range(5)]
            (flight,) = gateway.app.state.pipeline.flights._under_way.values()
            async with asyncio.timeout(5):
                while flight._readers < 6:
                    await asyncio.sleep(0.005)
            leader.cancel()
            await asyncio.gather(leader, return_exceptions=True)
        async with asyncio.timeout(5):
            while flight._readers > 5:
                await asyncio.sleep(0.005)
        go.set()
        responses = await asyncio.gather(*followers)
        expected = b"".join(EVENTS) if streamed else json.dumps(WHOLE).encode()
        assert {response.content for response in responses} == {expected}
        assert len(engine.requests) == 1
        assert not engine.aborted.is_set()

    async def test_those_who_join_at_any_chunk_get_every_chunk(self, http, engine):
        steps = asyncio.Semaphore(0)

        async def script(request, _):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            for piece in EVENTS:
                await response.write(piece)
                await steps.acquire()
            return response

        engine.script = script
        body = question(data_url(png()), **STREAMED)
        readers = []

        async def read(begun):
            async with http.stream("POST", CHAT, json=body) as response:
                content = b""
                async for piece in response.aiter_bytes():
                    content += piece
                    begun.set()
                return content

        for _ in EVENTS:
            begun = asyncio.Event()
            readers.append(asyncio.create_task(read(begun)))
            await asyncio.wait_for(begun.wait(), 5)
            steps.release()
        assert set(await asyncio.gather(*readers)) == {b"".join(EVENTS)}
        assert len(engine.requests) == 1
