from __future__ import annotations

import asyncio
from functools import partial

import pytest
import uvloop

from gateway.upstream.http1 import Http1Client
from tests.support.aiohttp_client import AiohttpClient


def pytest_asyncio_loop_factories(config, item):
    """uvloop is what the gateway runs on, asyncio's own loop what a test or a debugger may."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


CLIENTS = {"aiohttp": AiohttpClient, "http1": Http1Client}


@pytest.fixture(params=CLIENTS)
def make_client(request):
    """The reference and the gateway's own: every test here holds for both."""
    return partial(CLIENTS[request.param], connect_timeout_s=5.0, idle_timeout_s=5.0)


@pytest.fixture
async def client(make_client):
    one = make_client()
    yield one
    await one.aclose()
