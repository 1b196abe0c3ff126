"""What production profiles switch on besides answering, on real vLLM: schemas, tools, thoughts, adapters, names.

The demo checkpoint has learnt to write the tags of a product as JSON, so a tool that takes them can be called in earnest;
of tools as such it knows nothing, so it calls one only when forced to, and in one of ten or so gets lost in white space.
"""

from __future__ import annotations

import json
import random

import openai
import pytest

from serving.demo.questions import ask, tags_schema
from serving.demo.scenes import UNSEEN_SEED, jpeg, scene
from tests.support.pictures import data_url

pytestmark = pytest.mark.timeout(300)  # whoever asks first for the demo waits for its start

MODEL = "qwen3-vl-demo"
SAVE = {"type": "function", "function": {"name": "save_tags", "strict": True, "parameters": tags_schema()}}
NAMED = {"type": "function", "function": {"name": "save_tags"}}


def question(seed, kind="tags", language="en"):
    picture = scene(UNSEEN_SEED + seed, products=1)
    asked = ask(picture, kind, language, random.Random(seed))
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(jpeg(picture), "image/jpeg")}},
        {"type": "text", "text": asked.text},
    ]
    request = {"model": MODEL, "messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": 160}
    return request, asked.answer


def fits_the_schema(value):
    tag = tags_schema()["properties"]["items"]["items"]["properties"]
    return value.keys() == {"items"} and all(
        item.keys() == tag.keys() and all(item[name] in tag[name]["enum"] for name in tag) for item in value["items"]
    )


class TestStructuredOutput:
    def test_an_answer_follows_its_schema_whatever_is_asked(self, client):
        request, _ = question(60, kind="caption")  # asks for a sentence, and gets an object
        schema = {"type": "json_schema", "json_schema": {"name": "tags", "strict": True, "schema": tags_schema()}}
        reply = client.chat.completions.create(**request, response_format=schema).choices[0]
        assert reply.finish_reason == "stop"
        assert fits_the_schema(json.loads(reply.message.content))

    def test_a_choice_is_one_of_those_offered(self, client):
        request, _ = question(61, kind="caption")
        reply = client.chat.completions.create(**request, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
        assert reply.choices[0].message.content in {"yes", "no"}


class TestTools:
    @pytest.mark.parametrize("choice", [NAMED, "required"])
    def test_forced_calls_have_valid_arguments_and_most_are_right(self, client, choice):
        right = 0
        for seed in range(62, 67):
            request, answer = question(seed)
            reply = client.chat.completions.create(**request, tools=[SAVE], tool_choice=choice).choices[0]
            for call in reply.message.tool_calls or []:
                assert call.function.name == "save_tags"
                arguments = json.loads(call.function.arguments)
                assert fits_the_schema(arguments)
                right += arguments == json.loads(answer)
        assert right >= 3

    def test_a_forced_call_streams_its_arguments(self, client):
        request, answer = question(63)
        chunks = client.chat.completions.create(**request, tools=[SAVE], tool_choice=NAMED, stream=True)
        calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
        assert calls[0].function.name == "save_tags"
        assert json.loads("".join(call.function.arguments or "" for call in calls)) == json.loads(answer)

    def test_offered_tools_may_be_left_alone(self, client):
        request, answer = question(64, kind="caption")
        message = client.chat.completions.create(**request, tools=[SAVE], tool_choice="auto").choices[0].message
        assert (message.content, message.tool_calls) == (answer, None)

    def test_a_tool_that_is_not_offered_is_a_bad_request(self, client):
        request, _ = question(65)
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(
                **request, tools=[SAVE], tool_choice={"type": "function", "function": {"name": "other"}}
            )
