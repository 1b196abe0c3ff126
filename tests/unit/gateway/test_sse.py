from __future__ import annotations

import asyncio

import pytest

from gateway.apis import CHAT, MESSAGES, RESPONSES
from gateway.apis.answers import Usage
from gateway.errors import EngineMisbehaved, EngineRefused, EngineTimeout
from gateway.sse import Aborted, Relay, Watched, first_event, refusal
from gateway.streams import Pieces

DONE = b"data: [DONE]\n\n"


def relay(head, chunks, api=CHAT):
    return Relay(head, Pieces(chunks), api)


def watched(events, api, on_usage, *, hides_usage):
    return Watched(Pieces(events), api, on_usage, hides_usage=hides_usage)


async def pieces(*items):
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


async def collect(stream):
    chunks = []
    await stream.pour(chunks.append)
    return chunks


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
    assert await collect(relay(b"", pieces(b"data: [DO", b"NE]\n\n"))) == [DONE]


async def test_a_broken_stream_ends_with_an_error_event_of_its_own():
    *_, last = await collect(relay(b"data: 1\n\n", pieces(EngineTimeout("slow"))))
    assert last.startswith(b'data: {"error":{"message":"slow"')
    *_, last = await collect(relay(b"data: {half", pieces(EngineTimeout("slow"))))
    assert last.startswith(b'data: {"error"')


@pytest.mark.parametrize("last", [b"data: [DONE]", EngineTimeout("slow")], ids=["ends", "breaks"])
async def test_a_slow_client_is_waited_for_before_each_next_piece(last):
    order = []

    async def pause():
        order.append("waits")
        await asyncio.sleep(0)
        order.append("goes on")

    def sink(piece):
        order.append(piece[:7])
        return pause()

    await relay(b"data: 1\n\n", pieces(b"data: 2\n\n", last)).pour(sink)
    waited = ["waits", "goes on"]
    assert order == [b"data: 1", *waited, b"data: 2", *waited, order[6], *waited]


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


async def test_an_error_event_before_any_other_is_the_engine_s_fault():
    with pytest.raises(EngineMisbehaved):
        await first_event(pieces(b'event: error\ndata: {"type":"error"}\n\n'))


@pytest.mark.parametrize(
    ("api", "end"),
    [
        (RESPONSES, b"event: response.completed\ndata: {}\n\n"),
        (RESPONSES, b"event: response.failed\ndata: {}\n\n"),
        (MESSAGES, b"event: message_stop\ndata: {}\n\n"),
    ],
)
async def test_each_api_s_stream_has_an_end_of_its_own_wherever_it_is_cut(api, end):
    whole = b"event: ping\ndata: {}\n\n" + end
    for cut in range(len(whole) + 1):
        assert b"".join(await collect(relay(whole[:cut], pieces(whole[cut:]), api))) == whole
    *_, last = await collect(relay(b"event: ping\ndata: {}\n\n", pieces(DONE), api))
    assert last.startswith(b"event: error\ndata: {")


async def test_a_text_that_looks_like_the_end_is_none():
    text = b'data: {"text":"\\n\\ndata: [DONE]\\n\\nevent: message_stop\\n"}\n\n'
    for api in (CHAT, MESSAGES, RESPONSES):
        *_, last = await collect(relay(b"", pieces(text), api))
        assert b"before the answer was complete" in last


async def test_an_end_without_its_blank_line_gets_one():
    assert await collect(relay(b"data: 1\n\n", pieces(b"data: [DONE]"))) == [b"data: 1\n\n", DONE]


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n'
NO_USAGE = b'data: {"choices":[],"prompt_filter_results":[]}\n\n'
TEXT = b'data: {"choices":[{"delta":{"content":"\\"choices\\":[],\\"usage\\":{"}}]}\n\n'


@pytest.mark.parametrize(
    ("hides", "given", "shown"),
    [
        (True, [TEXT, USAGE, DONE], [TEXT, DONE]),
        (False, [TEXT, USAGE, DONE], [TEXT, USAGE, DONE]),
        (True, [TEXT + USAGE + DONE], [TEXT + DONE]),
        (True, [TEXT, USAGE + DONE], [TEXT, DONE]),
        (True, [NO_USAGE, USAGE, DONE], [NO_USAGE, DONE]),
    ],
)
async def test_the_usage_is_told_and_hidden_from_whom_did_not_ask(hides, given, shown):
    told = []
    assert await collect(watched(pieces(*given), CHAT, told.append, hides_usage=hides)) == shown
    assert told == [Usage(7, 2)]


async def test_usage_is_read_in_each_api_s_form():
    told = []
    done = b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":4,"output_tokens":1}}}\n\n'
    delta = (
        b'event: message_delta\ndata: {"usage":{"input_tokens":1,"cache_read_input_tokens":3,"output_tokens":1}}\n\n'
    )
    for api, last in [(RESPONSES, done), (MESSAGES, delta)]:
        assert await collect(watched(pieces(last), api, told.append, hides_usage=False)) == [last]
    assert told == [Usage(4, 1)] * 2


@pytest.mark.parametrize("usage", [b'"x"', b"null", b'{"prompt_tokens":"many"}', b"{", b'{"input_tokens":[]}'])
async def test_a_usage_that_cannot_be_read_is_passed_on(usage):
    last = b'data: {"choices":[],"usage":' + usage + b"}\n\n"
    told = []
    assert await collect(watched(pieces(last), CHAT, told.append, hides_usage=True)) == [last]
    assert told == []
