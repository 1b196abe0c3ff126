from __future__ import annotations

import asyncio

import pytest

from gateway.disconnect import CancelledWhenGone, ClientGone
from gateway.errors import EngineTimeout, InternalError, Stopping
from gateway.flights import Flight, Flights
from gateway.stages import EVENT_STREAM, JSON, Reply


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


class Work:
    """An engine's answer that comes when it is let."""

    def __init__(self):
        self.release = asyncio.Event()
        self.error = None
        self.asked = 0
        self.ended = []
        self.kept = []
        self.keeping = asyncio.Event()
        self.keeping.set()

    async def start(self):
        self.asked += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        if self.error is not None:
            raise self.error
        return Reply(b"answer", JSON, release=lambda: self.ended.append("released"))

    async def keep(self, key, reply, body):
        await self.keeping.wait()
        self.kept.append((key, body))


class Wire:
    def when_gone(self, call):
        self.leave = call


async def asking(flights, work):
    """A request under way, and how its client leaves."""
    wire = Wire()

    async def request():
        with CancelledWhenGone(wire) as block:
            reply = await flights.join(b"key", work.start, block)
            return reply.body, reply.cache

    task = asyncio.ensure_future(request())
    await asyncio.sleep(0)
    return task, wire


async def test_whole_answers_of_identical_requests_are_one():
    work = Work()
    flights = Flights(work.keep)
    tasks = [(await asking(flights, work))[0] for _ in range(3)]
    work.release.set()
    assert await asyncio.gather(*tasks) == [(b"answer", "miss"), (b"answer", "hit"), (b"answer", "hit")]
    assert (work.asked, work.ended, work.kept) == (1, ["released"], [(b"key", b"answer")])
    assert (await (await asking(flights, work))[0])[1] == "miss"  # Its key is free again.


async def test_the_first_client_leaves_and_the_others_are_answered():
    work = Work()
    flights = Flights(work.keep)
    (first, wire), (second, _) = await asking(flights, work), await asking(flights, work)
    wire.leave()
    await asyncio.sleep(0)
    third, _ = await asking(flights, work)
    work.release.set()
    with pytest.raises(ClientGone):
        await first
    assert await asyncio.gather(second, third) == [(b"answer", "hit")] * 2
    assert (work.asked, work.kept) == (1, [(b"key", b"answer")])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_the_work_ends_when_all_clients_have_left(order):
    work = Work()
    flights = Flights(work.keep)
    both = [await asking(flights, work) for _ in range(2)]
    for one in order:
        assert not work.ended
        both[one][1].leave()
        await asyncio.sleep(0)
    for task, _ in both:
        with pytest.raises(ClientGone):
            await asyncio.wait_for(task, 5)
    assert work.ended == ["cancelled"]
    work.release.set()
    assert (await (await asking(flights, work))[0])[1] == "miss"


async def test_who_comes_as_the_only_client_leaves_begins_anew():
    work = Work()
    flights = Flights(work.keep)
    first, wire = await asking(flights, work)
    wire.leave()
    second, _ = await asking(flights, work)
    work.release.set()
    assert await second == (b"answer", "miss")
    with pytest.raises(ClientGone):
        await first


@pytest.mark.parametrize("error", [EngineTimeout("too long"), ZeroDivisionError()])
async def test_all_are_told_that_there_is_no_answer(error, caplog):
    work = Work()
    flights = Flights(work.keep)
    tasks = [(await asking(flights, work))[0] for _ in range(2)]
    work.error = error
    work.release.set()
    for told in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(told, EngineTimeout if isinstance(error, EngineTimeout) else InternalError)
    assert len(caplog.records) == (0 if isinstance(error, EngineTimeout) else 1)
    assert not work.kept


async def test_who_waits_for_one_that_the_server_ends_is_told_to_try_again():
    work = Work()
    flights = Flights(work.keep)
    first, second = [(await asking(flights, work))[0] for _ in range(2)]
    first.cancel()
    with pytest.raises(Stopping):
        await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_nobody_waits_for_a_store_that_is_far():
    work = Work()
    work.keeping.clear()
    flights = Flights(work.keep, keeps_far=True)
    work.release.set()
    assert await (await asking(flights, work))[0] == (b"answer", "miss")
    assert await (await asking(flights, work))[0] == (b"answer", "hit")
    work.keeping.set()
    await flights.aclose()
    assert work.asked == 1


async def test_an_answer_that_cannot_be_kept_is_given(caplog):
    work = Work()

    async def keep(*_):
        raise ZeroDivisionError

    work.release.set()
    flights = Flights(keep)
    assert await (await asking(flights, work))[0] == (b"answer", "miss")
    assert [record.message for record in caplog.records] == ["an answer was not kept"]
    assert (await (await asking(flights, work))[0])[1] == "miss"


class Tokens:
    """A stream that ends when it is let."""

    def __init__(self):
        self.poured = False
        self.end = asyncio.Event()

    async def pour(self, sink):
        self.poured = True
        sink(b"1")
        await self.end.wait()
        sink(b"2")


class Streaming(Work):
    def __init__(self):
        super().__init__()
        self.tokens = Tokens()

    async def start(self):
        reply = await super().start()
        return Reply(self.tokens, EVENT_STREAM, release=reply.release)


async def reading_along(flights, work):
    """A request that reads its stream, and how its client leaves."""
    wire, got = Wire(), []

    async def request():
        with CancelledWhenGone(wire) as block:
            reply = await flights.join(b"key", work.start, block)
            try:
                await reply.body.pour(got.append)
            finally:
                reply.release()
            return got, reply.cache

    task = asyncio.ensure_future(request())
    await asyncio.sleep(0)
    return task, wire, got


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_a_stream_goes_on_for_the_others_whenever_the_first_client_leaves():
    for before_its_first_event in (True, False):
        work = Streaming()
        flights = Flights(work.keep)
        (first, wire, got), (second, _, others) = [await reading_along(flights, work) for _ in range(2)]
        if before_its_first_event:
            wire.leave()
        work.release.set()
        await until(lambda others=others: others == [b"1"])
        if not before_its_first_event:
            assert got == [b"1"]
            wire.leave()
        with pytest.raises(ClientGone):
            await first
        work.tokens.end.set()
        assert await second == ([b"1", b"2"], "hit")
        assert (work.asked, work.ended, work.kept) == (1, ["released"] * 2, [(b"key", b"12")])


async def test_a_stream_ends_when_its_last_reader_has_left():
    work = Streaming()
    flights = Flights(work.keep)
    task, wire, got = await reading_along(flights, work)
    work.release.set()
    await until(lambda: got == [b"1"])
    wire.leave()
    with pytest.raises(ClientGone):
        await task
    await until(lambda: work.ended)
    assert not work.kept


async def test_a_stream_whose_only_client_leaves_as_it_begins_is_given_back():
    work = Streaming()
    flights = Flights(work.keep)
    wire, ended = Wire(), []

    async def start():
        wire.leave()  # In the very turn in which the engine answers.
        return Reply(work.tokens, EVENT_STREAM, release=lambda: ended.append("released"))

    async def request():
        with CancelledWhenGone(wire) as block:
            await flights.join(b"key", start, block)

    with pytest.raises((ClientGone, asyncio.CancelledError)):
        await asyncio.ensure_future(request())
    await until(lambda: ended)
    assert not work.tokens.poured
    assert not work.kept
