from __future__ import annotations

import asyncio

import pytest

from gateway.disconnect import CancelledWhenGone, ClientGone


class Client:
    """An ASGI `receive`: says what it was given, then waits to leave."""

    def __init__(self, *messages):
        self.messages = list(messages)
        self.left = asyncio.Event()
        self.asked = 0
        self.closed = False

    async def receive(self):
        self.asked += 1
        if self.messages:
            await asyncio.sleep(0)
            return self.messages.pop(0)
        try:
            await self.left.wait()
        except GeneratorExit:
            self.closed = True
            raise
        return {"type": "http.disconnect"}


async def work(client, *, until):
    with CancelledWhenGone(client.receive):
        await until.wait()
    return "done"


async def asked_of(client, times):
    async with asyncio.timeout(10):
        while client.asked < times:
            await asyncio.sleep(0)


async def test_a_client_that_leaves_ends_the_work():
    client = Client()
    task = asyncio.create_task(work(client, until=asyncio.Event()))
    await asked_of(client, 1)
    client.left.set()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(task, 10)


async def test_what_is_no_disconnect_is_read_over():
    client = Client({"type": "http.request"}, {"type": "http.request"})
    task = asyncio.create_task(work(client, until=asyncio.Event()))
    await asked_of(client, 3)
    client.left.set()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(task, 10)


async def test_work_that_ends_first_stops_the_look():
    client, done = Client(), asyncio.Event()
    task = asyncio.create_task(work(client, until=done))
    await asked_of(client, 1)
    done.set()
    assert await asyncio.wait_for(task, 10) == "done"
    assert client.closed
    client.left.set()
    await asyncio.sleep(0)
    assert client.asked == 1


async def test_work_that_never_waits_never_looks():
    client, done = Client(), asyncio.Event()
    done.set()
    assert await work(client, until=done) == "done"
    await asyncio.sleep(0)
    assert client.asked == 0


async def test_a_client_that_leaves_as_the_work_ends_cancels_nothing_else():
    client, done = Client(), asyncio.Event()

    async def both():
        result = await work(client, until=done)
        await asyncio.sleep(0)
        return result

    task = asyncio.create_task(both())
    await asked_of(client, 1)
    done.set()
    client.left.set()  # Its news comes when nobody asks any more.
    assert await asyncio.wait_for(task, 10) == "done"


async def test_a_cancellation_from_elsewhere_is_not_taken_for_the_client():
    client = Client()
    task = asyncio.create_task(work(client, until=asyncio.Event()))
    await asked_of(client, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
