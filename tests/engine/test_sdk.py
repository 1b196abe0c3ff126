"""The OpenAI SDK against the running demo: real vLLM, real gateway, real pictures."""

from __future__ import annotations

import asyncio
import base64
import json
import random

import httpx
import openai
import pytest
from aiohttp import web

from serving.demo.questions import ask, tags_schema
from serving.demo.scenes import UNSEEN_SEED, jpeg, scene
from tests.support.gateway import KEY
from tests.support.pictures import data_url

MODEL = "qwen3-vl-demo"


def drawn(seed, kind="caption", language="en", products=1):
    picture = scene(UNSEEN_SEED + seed, products=products)
    question = ask(picture, kind, language, random.Random(seed))
    return jpeg(picture), question


def messages(url, text):
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def arguments(seed, kind="caption", language="en", **more):
    picture, question = drawn(seed, kind, language)
    return {
        "model": MODEL,
        "messages": messages(data_url(picture, "image/jpeg"), question.text),
        "temperature": 0,
        "max_tokens": 96,
        **more,
    }, question.answer


class TestAnswers:
    @pytest.mark.parametrize("language", ["en", "zh"])
    @pytest.mark.parametrize("kind", ["caption", "product", "colour", "pattern", "count"])
    def test_most_answers_about_one_product_are_right(self, client, kind, language):
        right = 0
        for seed in range(5):
            request, answer = arguments(seed, kind, language)
            right += client.chat.completions.create(**request).choices[0].message.content == answer
        assert right >= 4

    @pytest.mark.parametrize("streamed", [False, True])
    def test_the_engines_own_id_carries_the_gateways_request_id(self, client, streamed):
        request, _ = arguments(52 + streamed, max_tokens=7 + streamed)  # nobody else's: a kept answer has another id
        answer = client.chat.completions.with_raw_response.create(**request, stream=streamed)
        named = {part.id for part in answer.parse()} if streamed else {answer.parse().id}
        assert named == {f"chatcmpl-{answer.headers['x-request-id']}"}

    def test_a_stream_gives_the_same_text_piece_by_piece(self, client):
        request, answer = arguments(50)
        plain = client.chat.completions.create(**request).choices[0].message.content
        chunks = list(client.chat.completions.create(**request, stream=True))
        pieces = [
            chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content
        ]
        assert len(pieces) > 3
        assert "".join(pieces) == plain == answer

    def test_tags_come_as_json_under_a_schema(self, client):
        request, answer = arguments(51, "tags")
        schema = {"type": "json_schema", "json_schema": {"name": "tags", "schema": tags_schema()}}
        reply = client.chat.completions.create(**request, response_format=schema).choices[0].message.content
        assert json.loads(reply) == json.loads(answer)

    def test_a_question_without_its_picture_is_told_so(self, client):
        question = ask(scene(UNSEEN_SEED), "no_picture", "en", random.Random(1))
        reply = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": question.text}], temperature=0, max_tokens=96
        )
        assert reply.choices[0].message.content == question.answer

    def test_models_and_text_completions_work(self, client):
        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.completions.create(model=MODEL, prompt="red dress", max_tokens=4).usage.completion_tokens > 0

    def test_predict_answers_simply(self, demo):
        picture, question = drawn(52)
        body = {"image": base64.b64encode(picture).decode(), "prompt": question.text}
        reply = httpx.post(
            f"http://127.0.0.1:{demo.port}/predict", json=body, headers={"authorization": "Bearer sk-demo"}, timeout=60
        ).json()
        assert reply["result"] == question.answer
        assert reply["inference_time_ms"] > 0


class TestErrors:
    def test_a_wrong_key_is_an_authentication_error(self, demo):
        client = openai.OpenAI(base_url=demo.base_url, api_key="sk-wrong", max_retries=0)
        with client, pytest.raises(openai.AuthenticationError):
            client.models.list()

    def test_a_disallowed_address_is_a_permission_error(self, client):
        with pytest.raises(openai.PermissionDeniedError):
            client.models.list(extra_headers={"x-forwarded-for": "203.0.113.9"})

    def test_a_broken_picture_is_a_bad_request_that_names_the_part(self, client):
        picture, _ = drawn(53)
        request = {"model": MODEL, "messages": messages(data_url(picture[:500], "image/jpeg"), "What is this?")}
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**request)
        assert caught.value.param == "messages[0].content[0].image_url.url"

    def test_a_model_that_is_not_there_is_not_found(self, client):
        request, _ = arguments(54)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**request | {"model": "gpt-4o"})

    def test_too_long_a_prompt_is_a_bad_request_streamed_or_not(self, client):
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "red dress " * 3000}], stream=stream
                )

    def test_the_engine_is_closed_to_whoever_goes_around_the_gateway(self, demo):
        assert httpx.get(f"{demo.engine_url}/v1/models").status_code == 401


class TestCache:
    def test_the_second_identical_request_is_a_hit(self, client):
        request, _ = arguments(55)
        first = client.chat.completions.with_raw_response.create(**request)
        second = client.chat.completions.with_raw_response.create(**request)
        assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
        assert second.parse() == first.parse()

    def test_a_replayed_stream_has_the_same_chunks(self, client):
        request, _ = arguments(56, stream=True)
        assert list(client.chat.completions.create(**request)) == list(client.chat.completions.create(**request))


class TestAsync:
    async def test_plain_and_streamed(self, demo):
        request, answer = arguments(57)
        async with openai.AsyncOpenAI(base_url=demo.base_url, api_key="sk-demo", max_retries=0) as client:
            plain = await client.chat.completions.create(**request)
            stream = await client.chat.completions.create(**request, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert plain.choices[0].message.content == "".join(pieces) == answer

    async def test_32_at_once_never_get_each_other_s_answers(self, gateway_with):
        demo = await gateway_with(cache_policy="never")
        requests = [arguments(100 + i)[0] for i in range(64)]
        async with openai.AsyncOpenAI(base_url=demo.base_url, api_key=KEY, max_retries=0, timeout=60) as client:

            async def text(request):
                return (await client.chat.completions.create(**request)).choices[0].message.content

            alone = [await text(request) for request in requests]
            assert len(set(alone)) > 32
            gate = asyncio.Semaphore(32)

            async def crowded(request):
                async with gate:
                    return await text(request)

            assert await asyncio.gather(*(crowded(request) for request in requests)) == alone

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_64_identical_at_once_are_one_question_to_the_engine_and_64_right_answers(self, demo, streamed):
        request, answer = arguments(200 + streamed)
        async with openai.AsyncOpenAI(base_url=demo.base_url, api_key="sk-demo", max_retries=0, timeout=60) as client:

            async def text():
                reply = await client.chat.completions.create(**request, stream=streamed)
                if not streamed:
                    return reply.choices[0].message.content, reply.usage.prompt_tokens
                pieces = [chunk.choices[0].delta.content or "" async for chunk in reply if chunk.choices]
                return "".join(pieces), None

            before = await metric(demo, "vllm:prompt_tokens_total")
            found = await asyncio.gather(*(text() for _ in range(64)))
            asked = await metric(demo, "vllm:prompt_tokens_total") - before
            assert [words for words, _ in found] == [answer] * 64
            prompt = (await client.chat.completions.create(**request)).usage.prompt_tokens
        # The gateway's probes ask for a token or two of prompt now and then.
        assert prompt <= asked < 2 * prompt


class TestPicturesByUrl:
    async def test_a_picture_is_fetched_from_an_allowed_host_only(self, gateway_with):
        picture, question = drawn(58)

        async def serve(_):
            return web.Response(body=picture, content_type="image/jpeg")

        app = web.Application()
        app.router.add_get("/p.jpg", serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        try:
            # Loopback is never public; the seam stands in for a public host, which this machine cannot reach.
            demo = await gateway_with(image_allowed_hosts=("127.0.0.1",), image_address_allowed=lambda _: True)
            async with openai.AsyncOpenAI(base_url=demo.base_url, api_key=KEY, max_retries=0) as client:
                request = {"model": MODEL, "temperature": 0, "max_tokens": 96}
                by_url = await client.chat.completions.create(
                    **request, messages=messages(f"http://127.0.0.1:{port}/p.jpg", question.text)
                )
                by_data = await client.chat.completions.with_raw_response.create(
                    **request, messages=messages(data_url(picture, "image/jpeg"), question.text)
                )
                assert by_url.choices[0].message.content == question.answer
                assert by_data.headers["x-cache"] == "hit"  # the same content, whatever its URL
                with pytest.raises(openai.BadRequestError, match="allow"):
                    await client.chat.completions.create(
                        **request, messages=messages(f"http://localhost:{port}/p.jpg", question.text)
                    )
        finally:
            await runner.cleanup()


async def test_a_client_that_leaves_stops_the_engine_s_work(demo):
    longest = 1900
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": longest,
        "stream": True,
    }
    request |= {"temperature": 1, "extra_body": {"ignore_eos": True}}
    made = {}
    async with openai.AsyncOpenAI(base_url=demo.base_url, api_key="sk-demo", max_retries=0) as client:
        for leaves in (False, True):
            before = await tokens_when_idle(demo)
            stream = await client.chat.completions.create(**request)
            async for _ in stream:
                if leaves:
                    break
            await stream.close()
            made[leaves] = await tokens_when_idle(demo) - before
    assert made[False] >= longest
    # How many are made until the news arrives depends on how busy the machine is; all of them are when it never does.
    assert 0 < made[True] < longest


async def tokens_when_idle(demo):
    """Tokens made by the engine so far, once it makes no more but for the gateway's probes."""
    last = None
    async with asyncio.timeout(30):
        while True:
            now = await metric(demo, "vllm:generation_tokens_total")
            if last is not None and now - last <= 2 and not await metric(demo, "vllm:num_requests_running"):
                return now
            last = now
            await asyncio.sleep(0.3)


async def metric(demo, name):
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{demo.engine_url}/metrics")).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))
