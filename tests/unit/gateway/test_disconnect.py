from __future__ import annotations

import asyncio

import pytest

from gateway.asgi import EXTENSION, wire_of
from gateway.disconnect import CancelledWhenGone, ClientGone


class Client:
    """As the connection offers it: calls once, when the client leaves."""

    def __init__(self):
        self.call = None
        self.gone = False

    def when_gone(self, call):
        self.call = call
        if self.gone:
            self.leave()

    def leave(self):
        self.gone = True
        call, self.call = self.call, None
        if call is not None:
            call()


async def work(client, *, until):
    with CancelledWhenGone(client):
        await until.wait()
    return "done"


async def begun(client, *, until=None):
    task = asyncio.create_task(work(client, until=until or asyncio.Event()))
    await asyncio.sleep(0)
    assert client.call is not None
    return task


async def test_a_client_that_leaves_ends_the_work():
    client = Client()
    task = await begun(client)
    client.leave()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(task, 10)


async def test_a_client_that_has_left_already_ends_the_work_where_it_first_waits():
    client = Client()
    client.leave()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(work(client, until=asyncio.Event()), 10)


async def test_nobody_is_told_once_the_work_has_ended():
    client, done = Client(), asyncio.Event()
    task = await begun(client, until=done)
    done.set()
    assert await asyncio.wait_for(task, 10) == "done"
    assert client.call is None


async def test_a_client_that_leaves_as_the_work_ends_cancels_nothing_else():
    client, done = Client(), asyncio.Event()

    async def both():
        result = await work(client, until=done)
        await asyncio.sleep(0)
        return result

    task = asyncio.create_task(both())
    await asyncio.sleep(0)
    done.set()
    await asyncio.sleep(0)
    client.leave()
    assert await asyncio.wait_for(task, 10) == "done"


async def test_a_cancellation_from_elsewhere_is_not_taken_for_the_client():
    task = await begun(Client())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_goes_on_when_the_client_leaves_as_well():
    client = Client()
    task = await begun(client)
    task.cancel()
    client.leave()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_server_without_the_extension_is_none_for_this_application():
    with pytest.raises(KeyError, match=EXTENSION.replace(".", r"\.")):
        wire_of({"extensions": {}})
