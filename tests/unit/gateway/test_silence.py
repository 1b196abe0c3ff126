from __future__ import annotations

import asyncio

import pytest

from gateway.errors import EngineTimeout
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.silence import attended, is_comment

FIRST = b"data: 1\n\n"
PING = b": ping\n\n"


async def script(*steps):
    for step in steps:
        if isinstance(step, bytes):
            yield step
        else:
            await asyncio.sleep(step)


async def test_an_engine_that_falls_silent_after_its_first_token_is_a_timeout():
    chunks = attended(script(FIRST, 60), Endpoint("http://e"), 0.02)
    assert await anext(chunks) == FIRST
    with pytest.raises(EngineTimeout):
        await anext(chunks)
    assert not asyncio.current_task().cancelling()


async def test_comments_are_no_signs_of_life():
    endpoint = Endpoint("http://e")
    seen = []
    with pytest.raises(EngineTimeout):
        async for chunk in attended(script(PING, FIRST, *[PING, 0.01] * 1000), endpoint, 0.05):
            seen.append(chunk)
    assert seen.count(PING) > 1
    assert endpoint.answers == 1


async def test_before_the_first_token_it_does_not_count():
    assert [c async for c in attended(script(PING, 0.05, FIRST), Endpoint("http://e"), 0.01)] == [PING, FIRST]


async def test_a_client_that_reads_slowly_is_not_the_engine_s_silence():
    seen = []
    async for chunk in attended(script(FIRST, FIRST, FIRST), Endpoint("http://e"), 0.01):
        seen.append(chunk)
        await asyncio.sleep(0.03)
    assert len(seen) == 3


async def test_an_engine_that_is_slow_but_not_silent_goes_on():
    steps = [FIRST, 0.02] * 10
    assert len([c async for c in attended(script(*steps), Endpoint("http://e"), 0.5)]) == 10


async def test_being_cancelled_from_outside_is_no_timeout():
    async def read():
        return [c async for c in attended(script(FIRST, 60), Endpoint("http://e"), 30)]

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("chunk", "comment"), [(PING, True), (PING * 2, True), (FIRST, False), (PING + FIRST, False), (b'": 1', False)]
)
def test_a_comment_is_told_from_an_event(chunk, comment):
    assert is_comment(chunk) is comment
