"""Large bodies are read a few at a time, and nobody's slowness is another's."""

from __future__ import annotations

import asyncio

from gateway import places
from gateway.places import LEAST_BYTES, Place, Places


async def entered(place: Place, log: list[str], name: str, hold: asyncio.Event) -> None:
    async with place:
        log.append(name)
        await hold.wait()


async def test_places_are_given_in_order_of_arrival(monkeypatch):
    monkeypatch.setattr(places, "LOOK_S", 3600)
    log, holds = [], {name: asyncio.Event() for name in "abcd"}
    shared = Places(2)
    tasks = [asyncio.create_task(entered(Place(shared), log, name, holds[name])) for name in "abcd"]
    await asyncio.sleep(0)
    assert log == ["a", "b"]
    holds["b"].set()
    await tasks[1]
    await asyncio.sleep(0)
    assert log == ["a", "b", "c"]
    for hold in holds.values():
        hold.set()
    await asyncio.gather(*tasks)
    assert log == ["a", "b", "c", "d"]


async def test_who_does_not_keep_up_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(places, "LOOK_S", 0.01)
    shared = Places(1)
    async with Place(shared):  # sends nothing
        async with asyncio.timeout(5), Place(shared):
            pass
        async with asyncio.timeout(5), Place(shared):  # and there is one place still, not two
            waiting = asyncio.create_task(shared.take())
            await asyncio.sleep(0)
            assert not waiting.done()
        await waiting
        shared.give_back()


async def test_who_keeps_up_keeps_the_place(monkeypatch):
    monkeypatch.setattr(places, "LOOK_S", 0.005)
    shared = Places(1)
    async with Place(shared) as fast:
        waiting = asyncio.create_task(shared.take())
        for _ in range(10):
            fast.received += LEAST_BYTES * 100
            await asyncio.sleep(0.001)
        monkeypatch.setattr(places, "LOOK_S", 3600)
        assert not waiting.done()
    await waiting


async def test_who_leaves_while_waiting_or_in_the_moment_of_its_turn_takes_nothing_along():
    shared = Places(1)
    await shared.take()
    leaving, late, staying = (asyncio.create_task(shared.take()) for _ in range(3))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    shared.give_back()  # it is late's turn, which has left in the same moment
    late.cancel()
    async with asyncio.timeout(5):
        await staying
    assert late.cancelled()
    shared.give_back()
    await shared.take()
