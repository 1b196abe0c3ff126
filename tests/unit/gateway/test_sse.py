from __future__ import annotations

import pytest

from gateway.errors import EngineMisbehaved, EngineRefused, EngineTimeout
from gateway.sse import Aborted, first_event, refusal, relay

DONE = b"data: [DONE]\n\n"


async def pieces(*items):
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


async def collect(chunks):
    return [chunk async for chunk in chunks]


async def test_the_first_event_may_come_in_pieces():
    assert await first_event(pieces(b"da", b'ta: {"a"', b":1}\n", b"\nrest")) == b'data: {"a":1}\n\nrest'


async def test_comments_are_no_events():
    assert await first_event(pieces(b": ping\n\n", b": ping\n\ndata: 1\n\n")) == b": ping\n\n: ping\n\ndata: 1\n\n"


async def test_an_empty_stream_has_no_first_event():
    assert await first_event(pieces()) == b""


async def test_a_first_event_without_end_is_not_held_for_ever(monkeypatch):
    monkeypatch.setattr("gateway.sse.MAX_FIRST_EVENT_BYTES", 10)
    assert await first_event(pieces(b"data: " + b"x" * 20, b"y")) == b"data: " + b"x" * 20


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (b'data: {"error":{"message":"m","code":400}}\n\n', 400),
        (b'data: {"error":{"message":"m","code":503}}\n\n', 503),
        (b'data: {"error":{"message":"m","code":"odd"}}\n\n', 502),
        (b'data: {"error":{"message":"m","code":200}}\n\n', 502),
    ],
)
async def test_a_first_event_that_is_an_error_is_raised_with_its_status(event, status):
    with pytest.raises(EngineRefused) as caught:
        await first_event(pieces(b": ping\n\n" + event))
    assert caught.value.status == status


async def test_an_error_that_cannot_be_read_is_the_engine_s_fault():
    with pytest.raises(EngineMisbehaved):
        await first_event(pieces(b'data: {"error"\n\n'))


async def test_a_complete_stream_passes_unchanged():
    assert await collect(relay(b"data: 1\n\n", pieces(b"data: 2\n\n", DONE))) == [b"data: 1\n\n", b"data: 2\n\n", DONE]


async def test_the_end_may_come_with_the_head_or_in_pieces():
    assert await collect(relay(DONE, pieces())) == [DONE]
    assert await collect(relay(b"", pieces(b"data: [DO", b"NE]\n\n"))) == [b"data: [DO", b"NE]\n\n"]


async def test_a_broken_stream_ends_with_an_error_event_of_its_own():
    *_, last = await collect(relay(b"data: 1\n\n", pieces(EngineTimeout("slow"))))
    assert last.startswith(b'data: {"error":{"message":"slow"')
    *_, last = await collect(relay(b"data: {half", pieces(EngineTimeout("slow"))))
    assert last.startswith(b'\n\ndata: {"error"')


def test_a_refusal_keeps_the_engine_s_param_and_string_code():
    error = refusal(400, b'{"error":{"message":"m","param":"n","code":"c"}}')
    assert (error.status, error.message, error.param, error.reason) == (400, "m", "n", "c")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b'{"error":null}', b'{"error":{"message":1}}'])
def test_a_refusal_without_reason_is_502(body):
    assert refusal(500, body).status == 502


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
ABORT = b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"abort"}]}\n\n'


async def test_the_role_alone_is_not_yet_an_answer():
    assert await first_event(pieces(ROLE, WORD, b"rest")) == ROLE + WORD
    assert await first_event(pieces(ROLE + ROLE, WORD)) == ROLE + ROLE + WORD
    assert await first_event(pieces(ROLE)) == ROLE


@pytest.mark.parametrize(
    "event",
    [
        ROLE.replace(b'"content":""', b'"content":"a"'),
        ROLE.replace(b'"content":""', b'"reasoning":""'),
        ROLE.replace(b"null", b'"stop"'),
        b'data: {"role":"assistant"\n\n',
        b'data: {"choices":[7],"role":"assistant"}\n\n',
    ],
)
async def test_a_role_with_anything_else_is_an_answer(event):
    assert await first_event(pieces(event, b"more")) == event


@pytest.mark.parametrize("before", [b"", b": ping\n\n", ROLE])
async def test_a_request_given_up_before_its_first_token_is_told_apart(before):
    with pytest.raises(Aborted):
        await first_event(pieces(before, ABORT, DONE))


async def test_a_refusal_after_the_role_still_gets_its_status():
    with pytest.raises(EngineRefused) as caught:
        await first_event(pieces(ROLE, b'data: {"error":{"message":"m","code":400}}\n\n'))
    assert caught.value.status == 400


async def test_a_text_about_aborts_is_none():
    event = rb'data: {"choices":[{"delta":{"content":"\"finish_reason\":\"abort\""}}]}' + b"\n\n"
    assert await first_event(pieces(event)) == event
