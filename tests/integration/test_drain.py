"""The way out of the gateway's process, alone and behind a load balancer under load."""

from __future__ import annotations

import asyncio
import signal
import ssl

import httpx
import pytest
from aiohttp import web

from tests.support.balancer import Balancer
from tests.support.engine import DONE, chat_answer, chunk
from tests.support.gateway import KEY
from tests.support.processes import GatewayProcess

CHAT = "/v1/chat/completions"
HEADERS = {"authorization": f"Bearer {KEY}"}
TLS = ssl.create_default_context()
"""One for all clients: to make it takes 20 ms of CPU, and they are made by the hundred."""


def text(content, **more):
    return {"messages": [{"role": "user", "content": content}], "temperature": 1, **more}


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_is_unready_at_once_serves_on_then_refuses_and_finishes_what_it_has(tmp_path, engine, workers):
    finish = asyncio.Event()

    async def script(request, body):
        if not body.get("stream"):
            return web.json_response(chat_answer("short"))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("first"))
        await finish.wait()
        await response.write(chunk("second") + DONE)
        return response

    engine.script = script
    async with GatewayProcess(tmp_path, engine.url, workers=workers, drain_delay_s=3, drain_timeout_s=60) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, headers=HEADERS, timeout=30, verify=TLS) as http:
            async with asyncio.timeout(30):
                while (await http.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.05)
            before = await http.post(CHAT, json=text("a"))
            assert "connection" not in before.headers
            async with http.stream("POST", CHAT, json=text("long", stream=True)) as response:
                pieces = response.aiter_bytes()
                body = await anext(pieces)
                gateway.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(10):
                    # With several workers each hears of it from the parent: all of them have to say so.
                    unready = 0
                    while unready < 10:
                        async with httpx.AsyncClient(base_url=gateway.url, verify=TLS) as fresh:
                            said = await fresh.get("/readyz")
                        unready = unready + 1 if said.status_code == 503 else 0
                assert said.json() == {"status": "draining"}
                late = await http.post(CHAT, json=text("b"))
                assert (late.status_code, late.headers["connection"]) == (200, "close")
                async with asyncio.timeout(30):
                    while True:
                        try:
                            async with httpx.AsyncClient(base_url=gateway.url, verify=TLS) as fresh:
                                await fresh.get("/readyz")
                        except httpx.ConnectError:
                            break
                        except httpx.TransportError:
                            pass  # accepted by the kernel in the moment of closing
                        await asyncio.sleep(0.05)
                assert gateway.process.poll() is None
                finish.set()
                async for piece in pieces:
                    body += piece
            assert body.endswith(DONE)
        assert await gateway.ended() == 0


async def test_the_drain_is_bounded_and_what_is_left_is_told_so(tmp_path, engine):
    async def script(request, _):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("first"))
        await asyncio.sleep(600)

    engine.script = script

    async def silence(*_):
        await asyncio.sleep(600)

    async with GatewayProcess(tmp_path, engine.url, drain_timeout_s=1) as gateway:
        async with gateway.http.stream("POST", CHAT, json=text("x", stream=True)) as response:
            pieces = response.aiter_bytes()
            await anext(pieces)
            engine.script = silence
            waiting = asyncio.create_task(gateway.http.post(CHAT, json=text("y")))
            async with asyncio.timeout(10):
                while len(engine.requests) < 2:
                    await asyncio.sleep(0.01)
            gateway.process.send_signal(signal.SIGTERM)
            rest = b"".join([piece async for piece in pieces])
            assert b'"code":"stopping"' in rest
            answer = await waiting
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
            assert await gateway.ended() == 0
        await asyncio.wait_for(engine.aborted.wait(), 10)


async def test_sigint_waits_for_no_balancer(tmp_path, engine):
    async with GatewayProcess(tmp_path, engine.url, drain_delay_s=600) as gateway:
        gateway.process.send_signal(signal.SIGINT)
        assert await gateway.ended() == 0


async def test_a_second_sigterm_changes_nothing(tmp_path, engine):
    async with GatewayProcess(tmp_path, engine.url, drain_delay_s=2) as gateway:
        for _ in range(2):
            gateway.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while (await gateway.http.get("/readyz")).json() != {"status": "draining"}:
                    await asyncio.sleep(0.02)
        assert await gateway.ended() == 0


@pytest.mark.timeout(420)
async def test_a_rolling_restart_under_load_fails_no_request_in_five_runs(tmp_path, engine):
    async def script(request, body):
        await asyncio.sleep(0.02)
        if not body.get("stream"):
            return web.json_response(chat_answer("whole"))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for word in range(20):
            await response.write(chunk(f"{word}"))
            await asyncio.sleep(0.05)
        await response.write(DONE)
        return response

    engine.script = script
    outcomes = []
    over = asyncio.Event()

    async def client(url, number):
        # Half of the clients keep their connections, half open one for each request.
        turn = 0
        http = httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=60, verify=TLS)
        while not over.is_set():
            streamed = turn % 2 == 0
            try:
                answer = await http.post(CHAT, json=text(f"{number} {turn}", stream=streamed))
                right = answer.text.endswith(DONE.decode()) if streamed else "whole" in answer.text
                outcomes.append((answer.status_code, right and "error" not in answer.text))
            except httpx.HTTPError as exc:
                outcomes.append((repr(exc), False))
            turn += 1
            if number % 2:
                await http.aclose()
                http = httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=60, verify=TLS)
            await asyncio.sleep(0.02)
        await http.aclose()

    settings = {"drain_delay_s": 2, "drain_timeout_s": 30}
    async with (
        GatewayProcess(tmp_path, engine.url, **settings) as one,
        GatewayProcess(tmp_path, engine.url, **settings) as two,
        Balancer([one.port, two.port]) as balancer,
    ):
        await both_ready(balancer)
        clients = [asyncio.create_task(client(balancer.url, number)) for number in range(8)]
        for _ in range(5):
            for gateway in (one, two):
                gateway.process.send_signal(signal.SIGTERM)
                assert await gateway.ended() == 0
                gateway.start()
                await both_ready(balancer)
        over.set()
        await asyncio.gather(*clients)
        assert balancer.refused == 0
    assert set(outcomes) == {(200, True)}, [outcome for outcome in outcomes if outcome != (200, True)]
    assert len(outcomes) > 100


async def both_ready(balancer):
    async with asyncio.timeout(60):
        while len(balancer.ready) < 2:
            await asyncio.sleep(0.05)
