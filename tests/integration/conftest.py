from __future__ import annotations

import contextlib

import httpx
import pytest

from tests.support.engine import ScriptedEngine
from tests.support.gateway import running
from tests.support.redis_server import RedisServer


@pytest.fixture
async def engine():
    scripted = await ScriptedEngine().start()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def start(tmp_path, engine):
    """Start a gateway in front of `engine`, with settings as keywords; stopped at the end of the test."""
    async with contextlib.AsyncExitStack() as held:

        async def go(engines=None, **settings):
            return await held.enter_async_context(running(tmp_path, engines or [engine.url], **settings))

        yield go


@pytest.fixture
async def gateway(start):
    return await start()


@pytest.fixture
async def http(gateway):
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=10) as client:
        yield client


@pytest.fixture
def redis_server():
    """A Redis of the test's own: it may be killed."""
    with RedisServer() as server:
        yield server
