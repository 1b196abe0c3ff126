from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from gateway.drain import CLOSE, ClosingConnections, Drain


@pytest.fixture
def stopped():
    """What the server would do at SIGTERM, noted instead."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


async def term(condition):
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_it_begins_at_once_and_stops_the_server_after_its_delay(stopped):
    drain = Drain()
    drain.on_sigterm(0.05)
    await term(lambda: drain.begun)
    assert not stopped
    await term(lambda: stopped)
    await asyncio.sleep(0.1)
    assert stopped == [signal.SIGTERM]


async def test_without_a_delay_the_server_stops_at_once(stopped):
    drain = Drain()
    drain.on_sigterm(0)
    await term(lambda: stopped)
    assert drain.begun


async def test_a_server_that_leaves_signals_alone_is_left_alone(stopped):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    drain = Drain()
    drain.on_sigterm(0)
    await term(lambda: drain.begun)


async def test_outside_the_main_thread_signals_stay_as_they_are(stopped):
    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=Drain().on_sigterm, args=(0,))
    thread.start()
    thread.join(5)
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("begun", [False, True])
async def test_answers_close_their_connections_once_it_has_begun(begun):
    drain, sent = Drain(), []
    drain.begun = begun

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    await ClosingConnections(app, drain)({"type": "http"}, None, send)
    assert sent[0]["headers"] == [(b"a", b"b"), *([CLOSE] if begun else [])]
    assert sent[1] == {"type": "http.response.body", "body": b""}
