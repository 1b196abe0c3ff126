from __future__ import annotations

import asyncio

import pytest

from gateway.flights import Flight


async def reading(flight, sink):
    """A reader that has got all there is."""
    task = asyncio.ensure_future(flight.pour(sink))
    await asyncio.sleep(0)
    return task


async def test_every_reader_gets_all_pieces_in_order_however_late():
    flight = Flight()
    early, late, last = [], [], []
    tasks = [await reading(flight, early.append)]
    flight.add(b"1")
    assert early == [b"1"]  # In the very call: nobody was woken.
    tasks.append(await reading(flight, late.append))
    flight.add(b"2")
    flight.complete()
    tasks.append(await reading(flight, last.append))
    await asyncio.gather(*tasks)
    assert early == late == last == [b"1", b"2"]


async def test_a_slow_reader_holds_nobody_back_and_reads_up():
    flight = Flight()
    go_on = asyncio.Event()
    slow, quick = [], []

    def sink(piece):
        slow.append(piece)
        return None if go_on.is_set() else go_on.wait()

    tasks = [await reading(flight, sink), await reading(flight, quick.append)]
    for piece in (b"1", b"2", b"3"):
        flight.add(piece)
        await asyncio.sleep(0)
    assert slow == [b"1"]
    assert quick == [b"1", b"2", b"3"]
    go_on.set()
    while len(slow) < 3:
        await asyncio.sleep(0)
    flight.add(b"4")
    flight.complete()
    await asyncio.gather(*tasks)
    assert slow == quick == [b"1", b"2", b"3", b"4"]


async def test_a_slow_reader_gets_what_came_while_it_read_up_and_the_end():
    flight = Flight()
    go_on = asyncio.Event()
    got = []

    def sink(piece):
        got.append(piece)
        return go_on.wait() if piece == b"1" else None

    task = await reading(flight, sink)
    flight.add(b"1")
    flight.add(b"2")
    flight.complete()
    go_on.set()
    await task
    assert got == [b"1", b"2"]


async def test_a_reader_that_fails_fails_alone():
    flight = Flight()
    got = []

    def sink(_piece):
        raise ZeroDivisionError

    broken, well = await reading(flight, sink), await reading(flight, got.append)
    flight.add(b"1")
    flight.add(b"2")
    flight.complete()
    await well
    assert got == [b"1", b"2"]
    with pytest.raises(ZeroDivisionError):
        await broken


async def test_a_reader_that_has_left_gets_nothing_more():
    flight = Flight()
    got, others = [], []
    gone, there = await reading(flight, got.append), await reading(flight, others.append)
    gone.cancel()
    flight.add(b"1")  # Before the cancelled task has run, and after.
    await asyncio.gather(gone, return_exceptions=True)
    flight.add(b"2")
    flight.complete()
    await there
    assert (got, others) == ([], [b"1", b"2"])
