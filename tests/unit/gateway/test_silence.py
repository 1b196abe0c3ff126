from __future__ import annotations

import asyncio

import pytest

from gateway.errors import EngineTimeout
from gateway.streams import Pieces
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.silence import Attended, attended, is_comment

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

    async def read():
        async for chunk in attended(script(PING, FIRST, *[PING, 0.01] * 1000), endpoint, 0.05):
            seen.append(chunk)  # noqa: PERF401 - what has come before the error counts

    with pytest.raises(EngineTimeout):
        await read()
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


class Answer:
    """As much of an engine's answer as is poured."""

    def __init__(self, *steps):
        self._steps = script(*steps)

    async def pour(self, sink):
        await Pieces(self._steps).pour(sink)


class TestTheRestOfAnAnswer:
    async def test_an_engine_that_falls_silent_is_a_timeout(self):
        seen = []
        with pytest.raises(EngineTimeout):
            await Attended(Answer(FIRST, 60), Endpoint("http://e"), 0.02).pour(seen.append)
        assert seen == [FIRST]
        assert not asyncio.current_task().cancelling()

    async def test_comments_are_no_signs_of_life(self):
        endpoint, seen = Endpoint("http://e"), []
        with pytest.raises(EngineTimeout):
            await Attended(Answer(FIRST, *[PING, 0.01] * 1000), endpoint, 0.05).pour(seen.append)
        assert PING in seen
        assert endpoint.answers == 1

    async def test_an_engine_that_is_slow_but_not_silent_goes_on(self):
        endpoint, seen = Endpoint("http://e"), []
        await Attended(Answer(*[FIRST, 0.1] * 8), endpoint, 0.5).pour(seen.append)
        assert len(seen) == endpoint.answers == 8

    async def test_a_client_that_reads_slowly_is_not_the_engine_s_silence(self):
        seen = []

        def sink(piece):
            seen.append(piece)
            return asyncio.sleep(0.1)

        await Attended(Answer(FIRST, FIRST, FIRST), Endpoint("http://e"), 0.03).pour(sink)
        assert len(seen) == 3

    @pytest.mark.parametrize("pause", [False, True], ids=["waits for the engine", "waits for the client"])
    async def test_being_cancelled_from_outside_is_no_timeout(self, pause):
        seen = []

        def sink(piece):
            seen.append(piece)
            return asyncio.sleep(60) if pause else None

        task = asyncio.create_task(Attended(Answer(FIRST, 60), Endpoint("http://e"), 30).pour(sink))
        while not seen:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
