"""The forms of the APIs: whatever a client sends is refused or safe, whatever an engine sends is read or left alone."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.apis import CHAT, MESSAGES, RESPONSES, api_of, api_of_path
from gateway.apis.answers import Usage, answer_of, document_of, is_complete, usage_of
from gateway.apis.wire import messages_body, responses_event
from gateway.audit import prompt_of, without_pictures
from gateway.body import asks_for_usage, check_fields, choose_model
from gateway.errors import EngineTimeout, GatewayError, InvalidRequest
from gateway.pricing import prompt_text_tokens
from gateway.stages import Operation
from tests.support.engine import (
    DONE,
    chat_answer,
    chunk,
    event,
    message_answer,
    message_events,
    response_answer,
    response_events,
)

FIELDS = """type role content text image_url url source data media_type output input messages system tools tool_choice
store detail uuid model stream stream_options include_usage prompt instructions name call_id"""
WORDS_OF_APIS = """text image image_url input_image input_text output_text tool_result tool_use message user assistant
function_call_output system function base64 url image/png http://a data:image/png;base64,AAAA"""
NAMES = st.sampled_from(FIELDS.split())
WORDS = st.sampled_from(WORDS_OF_APIS.split())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=30,
)
PARTS = st.lists(st.dictionaries(NAMES, VALUES, max_size=6), max_size=3)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": WORDS | VALUES, "content": PARTS | VALUES}, optional={"type": WORDS, "output": PARTS}
    ),
    max_size=3,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=4) | st.fixed_dictionaries(
    {}, optional={"messages": TURNS, "input": TURNS, "tools": PARTS, "system": PARTS, "stream_options": VALUES}
)
MEDIA = {"image_url", "video_url", "source", "uuid", "file_id", "data"}


def texts_of(api, body, found):
    """The parts of a body that are no picture, where vLLM looks for media."""
    slots = {id(at.slot) for at in found}
    for turn in body.get("input" if api is RESPONSES else "messages") or ():
        for name in ("content", "output") if api is RESPONSES else ("content",):
            if isinstance(turn, dict) and isinstance(turn.get(name), list):
                yield from (part for part in turn[name] if id(part) not in slots)


@pytest.mark.parametrize("api", [CHAT, RESPONSES, MESSAGES], ids=["chat", "responses", "messages"])
@given(body=BODIES)
def test_any_body_is_refused_with_a_reason_or_holds_known_parts_only(api, body):
    with contextlib.suppress(GatewayError):
        check_fields(body)
        api.check(body)
        choose_model(body, SimpleNamespace(models=("m",)))
        asks_for_usage(body)
    found = []
    with contextlib.suppress(InvalidRequest):
        found = api.pictures(body)
        for at in found:
            assert isinstance(at.url, str)
            assert not MEDIA & at.slot.keys()
        if api is not MESSAGES:  # vLLM reads no other fields of its blocks.
            assert not any(MEDIA & part.keys() for part in texts_of(api, body, found))
    assert prompt_text_tokens(body) >= 0
    orjson.dumps(without_pictures(prompt_of(body), ["d"] * len(found)))


def test_a_price_counts_the_texts_and_not_the_pictures():
    base64 = "A" * 100_000
    url = f"data:image/png;base64,{base64}"
    inputs = [
        {"role": "user", "content": [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "a"}]}
    ]
    result = {
        "type": "tool_result",
        "content": [{"type": "image", "source": {"data": base64}}, {"type": "text", "text": "a"}],
    }
    for body in ({"input": inputs}, {"messages": [{"role": "user", "content": [result]}]}):
        assert 0 < prompt_text_tokens(body) < 50
    words = "word " * 100
    for body in ({"input": words}, {"instructions": words}, {"system": [{"type": "text", "text": words}]}):
        assert prompt_text_tokens(body) > 100


def test_a_body_nested_deeper_than_python_calls_is_priced():
    deep = "a"
    for _ in range(1020):
        deep = [deep]
    assert prompt_text_tokens({"messages": [{"role": "user", "content": deep}]}) > 0


def test_paths_and_operations_have_their_api():
    assert [api_of(operation) for operation in (None, Operation.PREDICT, Operation.RESPONSES)] == [
        CHAT,
        CHAT,
        RESPONSES,
    ]
    assert api_of_path("/v1/messages/batches") is MESSAGES
    assert api_of_path("/v1/message") is CHAT


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (chat_answer("hi"), ("hi", {"prompt_tokens": 1, "completion_tokens": 1}, "stop")),
            (response_answer("hi"), ("hi", {"prompt_tokens": 10, "completion_tokens": 5}, "completed")),
            (message_answer("hi"), ("hi", {"prompt_tokens": 10, "completion_tokens": 5}, "end_turn")),
        ],
    )
    def test_whole_ones_are_read(self, answer, expected):
        assert answer_of(orjson.dumps(answer)) == expected

    @pytest.mark.parametrize(
        ("events", "expected"),
        [
            ([chunk("h"), chunk("i"), DONE], ("hi", {}, None)),
            (response_events("h", "i"), ("hi", {"prompt_tokens": 10, "completion_tokens": 5}, "completed")),
            (message_events("h", "i"), ("hi", {"prompt_tokens": 10, "completion_tokens": 5}, "end_turn")),
        ],
    )
    def test_streams_are_read_once(self, events, expected):
        assert answer_of(b"".join(events)) == expected

    @pytest.mark.parametrize("output", [b'{"response":"x"}', b'{"delta":[]}', b'{"type":"message","content":null}'])
    def test_a_strange_one_is_empty(self, output):
        assert answer_of(output) == ("", {}, None)

    def test_a_function_s_arguments_are_no_text(self):
        delta = event("response.function_call_arguments.delta", delta="{}")
        call = event("response.completed", response=response_answer("", output=[{"type": "function_call"}]))
        assert answer_of(delta + call)[0] == ""

    @pytest.mark.parametrize(
        "output",
        [b"{}", b'{"usage":{}}', b'{"usage":{"prompt_tokens":true}}', b"[1]", b"", b'{"usage":{"input_tokens":1}}'],
    )
    def test_an_answer_without_a_count_has_no_usage(self, output):
        assert usage_of(document_of(output)) is None

    def test_the_responses_api_s_cached_tokens_are_within_its_count(self):
        usage = {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 1}
        assert usage_of({"usage": usage}) == Usage(10, 1)


class TestComplete:
    @pytest.mark.parametrize(
        ("body", "streamed"),
        [
            (orjson.dumps(chat_answer("a")), False),
            (orjson.dumps(message_answer("a")), False),
            (chunk("a") + DONE, True),
            (b"".join(message_events("a")), True),
        ],
    )
    def test_answers_that_came_to_their_end_are(self, body, streamed):
        assert is_complete(body, streamed=streamed)

    @pytest.mark.parametrize(
        ("body", "streamed"),
        [
            (orjson.dumps(chat_answer("a", "abort")), False),
            (orjson.dumps(message_answer("a", stop_reason=None)), False),
            (orjson.dumps(response_answer("a")), False),
            (b"{}", False),
            (b"", False),
            (chunk("a"), True),
            (b"".join(message_events("a")[:-1]), True),
            (b"".join(message_events("a", stop_reason=None)), True),
            (b"".join([*message_events("a")[:3], event("error"), *message_events("a")[3:]]), True),
            (b"".join(response_events("a")), True),
            (b"", True),
        ],
    )
    def test_others_are_not(self, body, streamed):
        assert not is_complete(body, streamed=streamed)

    def test_a_tool_s_argument_is_no_reason_to_stop(self):
        call = {"type": "tool_use", "name": "f", "input": {"stop_reason": "end_turn"}}
        assert not is_complete(orjson.dumps(message_answer("", content=[call], stop_reason=None)), streamed=False)


def test_errors_in_each_shape():
    error = EngineTimeout("slow", param="input")
    expected = {"type": "error", "error": {"type": "timeout_error", "message": "input: slow"}}
    assert orjson.loads(messages_body(error)) == expected
    for tail, number in [(b"", 0), (b'"sequence_number":7,"type":"x"}\n\n', 8)]:
        data = orjson.loads(responses_event(error, tail).split(b"data: ")[1])
        assert data == {
            "type": "error",
            "code": "engine_timeout",
            "message": "slow",
            "param": "input",
            "sequence_number": number,
        }
