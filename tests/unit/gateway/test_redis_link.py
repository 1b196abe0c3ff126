"""Deadlines on the way to Redis: a hung server costs one, an event loop that was held up none. Redis is a real server."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.redis_link import HELD_UP_S, MAX_HELD_UP, BlockingLink, LinkError, RedisLink
from tests.support.redis_server import RedisServer


async def begun(link):
    """A call that waits for its answer."""
    task = asyncio.create_task(link.call("x", lambda client: client.ping()))
    for _ in range(20):
        await asyncio.sleep(0)
    return task


async def test_an_answer_that_came_while_the_event_loop_was_busy_counts(redis_server):
    link = RedisLink(redis_server.url, timeout_s=5, max_connections=2)
    await link.call("x", lambda client: client.ping())
    link._timeout_s = 0.1
    task = await begun(link)
    time.sleep(0.1 + 2 * HELD_UP_S)  # noqa: ASYNC251 - the busy event loop
    assert await task
    await link.aclose()


async def test_a_busy_event_loop_does_not_wait_for_a_hung_server_for_ever():
    with RedisServer() as server:
        link = RedisLink(server.url, timeout_s=5, max_connections=2)
        await link.call("x", lambda client: client.ping())
        server.pause()
        link._timeout_s = 0.01
        task = await begun(link)
        rounds = 0
        while not task.done():
            rounds += 1
            assert rounds <= MAX_HELD_UP + 2
            time.sleep(0.01 + 2 * HELD_UP_S)  # noqa: ASYNC251 - the busy event loop
            for _ in range(20):
                await asyncio.sleep(0)
        with pytest.raises(LinkError, match="TimeoutError"):
            await task
        server.resume()
        await link.aclose()


def test_a_blocking_link_shows_no_password_and_bounds_a_call():
    with RedisServer(password="hunter2") as server:
        link = BlockingLink(server.url, timeout_s=1)
        assert link.call("x", lambda client: client.ping())
        assert repr(link) == f"BlockingLink(redis://127.0.0.1:{server.port})"
        server.pause()
        with pytest.raises(LinkError, match=r"x at redis://127\.0\.0\.1:\d+ failed: TimeoutError"):
            link.call("x", lambda client: client.ping())
        server.resume()
        assert link.call("x", lambda client: client.ping())
        link.close()
        wrong = BlockingLink(server.url.replace("hunter2", "wrong"), timeout_s=5)
        with pytest.raises(LinkError) as caught:
            wrong.call("x", lambda client: client.ping())
        wrong.close()
    assert "hunter2" not in str(caught.value)
