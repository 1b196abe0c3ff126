"""The small decisions of the steps, where no socket is needed."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from gateway.body import PREDICT_MAX_TOKENS, chat_of_predict, image_parts
from gateway.cache import is_deterministic
from gateway.errors import EngineMisbehaved, GatewayError, InvalidRequest, body_of, event_of
from gateway.prepare import together
from gateway.routes import joined, predict_of_chat
from gateway.telemetry import LOOP_LAG, StepTimer, watch_loop_lag
from gateway.upstream.dispatch import attempts, shown_models
from gateway.upstream.endpoints import PAUSE_S, Endpoints


class TestEndpoints:
    def test_the_least_busy_comes_first_and_equals_take_turns(self):
        endpoints = Endpoints(["http://a", "http://b"])
        first = endpoints.in_order()[0]
        with endpoints.lease(first):
            assert endpoints.in_order()[0] is not first
        assert endpoints.in_order()[0] is not first

    def test_a_paused_one_is_the_last_resort_until_its_time_is_up(self):
        now = 0.0
        endpoints = Endpoints(["http://a", "http://b"], clock=lambda: now)
        bad, good = endpoints.in_order()
        endpoints.pause(bad)
        good.in_flight = 99
        assert endpoints.in_order() == [good, bad]
        now = PAUSE_S + 0.1
        assert endpoints.in_order() == [bad, good]

    def test_a_lease_ends_with_its_block_even_by_an_error(self):
        endpoints = Endpoints(["http://a"])
        with pytest.raises(RuntimeError), endpoints.lease(endpoints.in_order()[0]):
            raise RuntimeError
        assert endpoints.in_order()[0].in_flight == 0

    def test_the_best_engine_is_asked_again_at_the_end(self):
        order = Endpoints(["http://a", "http://b"]).in_order()
        assert list(attempts(order)) == [*order, order[0]]
        assert list(attempts([])) == []


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
    assert image_parts({"messages": [{"role": "user", "content": "hello"}, {"role": "assistant"}]}) == []
    assert image_parts({}) == []


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
    assert event_of(error) == b"data: " + body_of(error) + b"\n\n"


def test_every_error_has_a_status_of_its_kind():
    def below(cls):
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    for cls in below(GatewayError):
        assert 400 <= cls.status < 600, cls
        assert (cls.type == "server_error") == (cls.status >= 500), cls


def test_the_timer_keeps_steps_in_order_and_counts_failed_ones():
    ticks = iter([0.0, 1.0, 1.25, 2.0, 2.5])
    timer = StepTimer(clock=lambda: next(ticks))
    with timer.step("auth"):
        pass
    with pytest.raises(InvalidRequest), timer.step("body"):
        raise InvalidRequest("no")
    assert timer.server_timing() == b"auth;dur=250.00, body;dur=500.00"


def test_a_part_of_a_step_is_told_apart_from_the_rest_of_it():
    ticks = iter([0.0, 1.0, 1.25, 2.0, 2.5])
    timer = StepTimer(clock=lambda: next(ticks))
    with timer.step("decode"):
        timer.part("encode", 0.1)
    with timer.step("engine"):
        pass
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
