from __future__ import annotations

import asyncio

import pytest

from gateway.streams import Pieces, Rest


def started(work):
    return Rest(work, work.send(None))


async def test_work_that_waits_goes_on_where_it_was():
    steps = []
    first, second = asyncio.Event(), asyncio.Event()

    async def work():
        steps.append("began")
        await first.wait()
        steps.append("between")
        await second.wait()
        await asyncio.sleep(0)
        steps.append("done")

    rest = started(work())
    assert steps == ["began"]
    waiting = asyncio.ensure_future(_awaited(rest))
    await asyncio.sleep(0)
    first.set()
    while len(steps) < 2:
        await asyncio.sleep(0)
    second.set()
    await waiting
    assert steps == ["began", "between", "done"]


async def test_what_it_waits_for_may_come_before_anyone_awaits_the_rest():
    event = asyncio.Event()
    rest = started(event.wait())
    event.set()
    await asyncio.sleep(0)
    await rest


async def test_a_failure_shows_where_it_happens():
    async def work():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise ZeroDivisionError

    rest = started(work())
    with pytest.raises(ZeroDivisionError):
        await rest


async def test_cancelling_the_rest_cancels_the_work():
    seen = []

    async def work():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    waiting = asyncio.ensure_future(_awaited(started(work())))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert seen == ["cancelled"]


async def test_work_may_end_well_though_it_is_cancelled():
    async def work():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    waiting = asyncio.ensure_future(_awaited(started(work())))
    await asyncio.sleep(0)
    waiting.cancel()
    await waiting


async def test_the_next_piece_waits_for_the_pause():
    got = []

    async def pieces():
        yield b"1"
        yield b"2"

    async def pause():
        await asyncio.sleep(0)
        got.append("paused")

    def sink(piece):
        got.append(piece)
        return pause()

    await Pieces(pieces()).pour(sink)
    assert got == [b"1", "paused", b"2", "paused"]


async def _awaited(rest):
    await rest
