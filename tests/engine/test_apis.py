"""The same questions through all three APIs: real vLLM, real gateway, real pictures."""

from __future__ import annotations

import base64
import json
import random

import httpx
import pytest

from serving.demo.questions import ask
from serving.demo.scenes import UNSEEN_SEED, jpeg, scene
from tests.support.gateway import KEY, OTHER_KEY, key_record, write_keys
from tests.support.pictures import data_url

pytestmark = pytest.mark.timeout(300)  # whoever asks first for the demo waits for its start

MODEL = "qwen3-vl-demo"
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
SEEDS = range(300, 304)


def drawn(seed):
    picture = scene(UNSEEN_SEED + seed, products=1)
    asked = ask(picture, "caption", "en", random.Random(seed))
    return jpeg(picture), asked.text, asked.answer


def body(path, picture, text, **more):
    url = data_url(picture, "image/jpeg")
    head = {"model": MODEL, "temperature": 0, **more}
    if path == RESPONSES:
        parts = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": text}]
        return {**head, "max_output_tokens": 96, "input": [{"role": "user", "content": parts}]}
    image = {"type": "image_url", "image_url": {"url": url}}
    if path == MESSAGES:
        data = base64.b64encode(picture).decode()
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": data}}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": text}]}]
    return {**head, "max_tokens": 96, "messages": messages}


def text_of(path, answer):
    if path == RESPONSES:
        return answer["output"][0]["content"][0]["text"]
    return answer["content"][0]["text"] if path == MESSAGES else answer["choices"][0]["message"]["content"]


def streamed_text_of(stream):
    """The text in a stream of any of the APIs."""
    pieces = []
    for line in stream.splitlines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line.removeprefix("data: "))
        if event.get("choices"):
            pieces.append(event["choices"][0]["delta"].get("content") or "")
        elif event.get("type") == "response.output_text.delta":
            pieces.append(event["delta"])
        elif event.get("type") == "content_block_delta":
            pieces.append(event["delta"]["text"])
    return "".join(pieces)


@pytest.fixture
async def http(demo):
    url = demo.base_url.removesuffix("/v1")
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer sk-demo"}, timeout=60) as client:
        yield client


async def test_the_same_question_has_the_same_right_answer_in_each_api(http):
    right = 0
    for seed in SEEDS:
        picture, text, answer = drawn(seed)
        answers = []
        for path in (CHAT, RESPONSES, MESSAGES):
            plain = await http.post(path, json=body(path, picture, text))
            assert plain.status_code == 200, plain.text
            streamed = await http.post(path, json=body(path, picture, text, stream=True))
            assert streamed.headers["content-type"] == "text/event-stream"
            answers += [text_of(path, plain.json()), streamed_text_of(streamed.text)]
        assert len(set(answers)) == 1
        right += answers[0] == answer
    assert right >= 3


async def test_the_sdk_reads_a_response_and_its_stream(client):
    picture, text, _ = drawn(SEEDS[0])
    request = body(RESPONSES, picture, text)
    plain = client.responses.create(**request)
    *_, last = client.responses.create(**request, stream=True)
    assert last.type == "response.completed"
    assert last.response.output_text == plain.output_text
    assert last.response.usage.total_tokens == plain.usage.total_tokens > 64  # the picture's alone


async def test_too_long_a_prompt_is_refused_in_each_shape(http):
    words = "red dress " * 3000
    for path, request in [
        (RESPONSES, {"model": MODEL, "input": words}),
        (MESSAGES, {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": words}]}),
    ]:
        for stream in (False, True):
            response = await http.post(path, json={**request, "stream": stream})
            assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
            assert ("type" in response.json()) is (path == MESSAGES)


async def test_an_unknown_model_is_not_found_in_each_api(http):
    for path in (RESPONSES, MESSAGES):
        response = await http.post(path, json={**body(path, *drawn(SEEDS[0])[:2]), "model": "gpt-4o"})
        assert response.status_code == 404


async def test_tool_results_may_hold_pictures(http):
    picture, text, _ = drawn(SEEDS[0])
    url = data_url(picture, "image/jpeg")
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": url}]}
    asked = {"role": "user", "content": text}
    response = await http.post(RESPONSES, json={"model": MODEL, "temperature": 0, "input": [call, result, asked]})
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["input_tokens"] > 64


async def test_what_is_settled_is_what_the_engine_counted_streamed_or_not(gateway_with, tmp_path):
    keys = write_keys(
        tmp_path / "k.json",
        key_record(KEY, "one", tokens_per_minute=100_000, cache="never"),
        key_record(OTHER_KEY, "two", tokens_per_minute=100_000, cache="never"),
    )
    gateway = (await gateway_with(keys_file=keys)).gateway
    picture, text, _ = drawn(SEEDS[0])
    spent = {}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        for key, stream in [(KEY, False), (OTHER_KEY, True)]:
            headers = {"authorization": f"Bearer {key}"}
            for path in (CHAT, RESPONSES, MESSAGES):
                # Asked for nothing about usage: the gateway counts it all the same.
                response = await http.post(path, json=body(path, picture, text, stream=stream), headers=headers)
                assert response.status_code == 200
                assert '"choices":[]' not in response.text
            completion = {"model": MODEL, "prompt": "red", "max_tokens": 4, "temperature": 0, "stream": stream}
            await http.post("/v1/completions", json=completion, headers=headers)
            # The price of one more, the same for both, is still open here.
            last = await http.post(CHAT, json=body(CHAT, picture, text), headers=headers)
            spent[stream] = 100_000 - int(last.headers["x-ratelimit-remaining-tokens"])
    assert spent[False] == spent[True]


async def test_the_engine_recognises_a_picture_of_the_responses_api_by_its_name(gateway_with, demo):
    gateway = (await gateway_with(cache_policy="never")).gateway
    picture, _, _ = drawn(399)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http:
        for path, text in [(CHAT, "What?"), (RESPONSES, "Which colour is it?")]:
            before = await mm_hits(demo)
            assert (await http.post(path, json=body(path, picture, text))).status_code == 200
        assert await mm_hits(demo) == before + 1


async def mm_hits(demo):
    async with httpx.AsyncClient() as http:
        lines = (await http.get(f"{demo.engine_url}/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:mm_cache_hits_total"))
