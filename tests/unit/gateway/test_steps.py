"""The small decisions of the steps, where no socket is needed."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from gateway.apis import chat
from gateway.apis.wire import chat_event
from gateway.body import PREDICT_MAX_TOKENS, chat_of_predict
from gateway.cache import is_deterministic
from gateway.errors import EngineMisbehaved, GatewayError, InvalidRequest, body_of
from gateway.http_server.head import joined
from gateway.loop_lag import watch_loop_lag
from gateway.prepare import together
from gateway.routes import predict_of_chat
from gateway.steps import StepTimer
from gateway.telemetry import LOOP_LAG
from gateway.upstream.dispatch import shown_models


class TestTogether:
    async def test_results_keep_their_order(self):
        async def after(turns, value):
            for _ in range(turns):
                await asyncio.sleep(0)
            return value

        assert await together([after(5, "a"), after(1, "b"), after(3, "c")]) == ("a", "b", "c")

    async def test_the_first_failure_is_raised_as_it_is_and_ends_the_others(self):
        ended = asyncio.Event()

        async def fails():
            raise InvalidRequest("no")

        async def waits():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.set()
                raise

        with pytest.raises(InvalidRequest, match="no"):
            await together([waits(), fails()])
        assert ended.is_set()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({}, False),
        ({"temperature": None}, False),
        ({"temperature": 1}, False),
    ],
)
def test_only_greedy_decoding_asked_for_is_deterministic(body, expected):
    assert is_deterministic(body) is expected


def test_predict_becomes_a_chat_at_temperature_0():
    chat = chat_of_predict({"image": "QUJD", "prompt": "what?"})
    (part, text) = chat["messages"][0]["content"]
    assert part["image_url"]["url"].endswith(";base64,QUJD")
    assert text["text"] == "what?"
    assert (chat["temperature"], chat["max_tokens"]) == (0, PREDICT_MAX_TOKENS)


def test_a_message_with_plain_text_has_no_pictures():
    assert chat.pictures({"messages": [{"role": "user", "content": "hello"}, {"role": "assistant"}]}) == []
    assert chat.pictures({}) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":[]}'])
def test_a_chat_answer_that_cannot_be_read_is_the_engine_s_fault(body):
    with pytest.raises(EngineMisbehaved):
        predict_of_chat(body, 0.1)


def test_a_list_of_models_that_cannot_be_read_is_the_engine_s_fault():
    with pytest.raises(EngineMisbehaved):
        shown_models(b"{}")


def test_repeated_headers_are_joined_in_order():
    assert joined([(b"x-forwarded-for", b"1.1.1.1"), (b"a", b"b"), (b"x-forwarded-for", b"2.2.2.2")]) == {
        b"x-forwarded-for": b"1.1.1.1, 2.2.2.2",
        b"a": b"b",
    }


def test_errors_have_openai_s_shape_as_body_and_as_event():
    error = InvalidRequest("why", param="messages[0]", code="bad")
    expected = {"error": {"message": "why", "type": "invalid_request_error", "param": "messages[0]", "code": "bad"}}
    assert orjson.loads(body_of(error)) == expected
    assert chat_event(error, b"") == b"data: " + body_of(error) + b"\n\n"


def test_every_error_has_a_status_of_its_kind():
    def below(cls):
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    for cls in below(GatewayError):
        assert 400 <= cls.status < 600, cls
        assert (cls.type == "server_error") == (cls.status >= 500), cls


def timer_at(*ticks):
    at = iter(ticks)
    return StepTimer(clock=lambda: next(at))


def test_a_step_ends_where_the_next_begins_and_the_last_where_the_timer_is_left():
    timer = timer_at(0.0, 1.0, 1.25, 1.75)
    timer.enter("auth")
    timer.enter("body")
    timer.leave()
    timer.leave()  # There is none to end: no time is read.
    assert timer.server_timing() == b"auth;dur=250.00, body;dur=500.00"
    assert timer.steps == [("auth", 1.0, 0.25), ("body", 1.25, 0.5)]


def test_milliseconds_for_people_have_two_decimals():
    timer = timer_at(0.0, 1.0, 1.000_123_4)
    timer.enter("auth")
    timer.leave()
    assert timer.ms() == {"auth": 0.12}
    assert timer.server_timing() == b"auth;dur=0.12"


def test_what_passes_between_two_steps_is_none_of_theirs():
    timer = timer_at(0.0, 1.0, 1.25, 2.0, 2.5)
    timer.enter("cache")
    timer.leave()
    timer.enter("limits")
    timer.leave()
    assert timer.server_timing() == b"cache;dur=250.00, limits;dur=500.00"


def test_a_part_of_a_step_is_told_apart_from_the_rest_of_it():
    timer = timer_at(0.0, 1.0, 1.25, 1.25, 1.75)
    timer.enter("decode")
    timer.part("encode", 0.1)
    timer.enter("engine")
    timer.leave()
    assert timer.server_timing() == b"decode;dur=150.00, encode;dur=100.00, engine;dur=500.00"


async def test_a_blocked_event_loop_shows_in_its_lag():
    def slow():
        samples = next(iter(LOOP_LAG.collect())).samples
        count = {s.labels.get("le"): s.value for s in samples if s.name.endswith("_bucket")}
        return count["+Inf"] - count["0.025"]

    before = slow()
    task = asyncio.create_task(watch_loop_lag(0.001))
    await asyncio.sleep(0.002)
    time.sleep(0.06)  # noqa: ASYNC251 - what must never happen on the loop
    async with asyncio.timeout(5):
        while slow() == before:
            await asyncio.sleep(0.001)
    task.cancel()
