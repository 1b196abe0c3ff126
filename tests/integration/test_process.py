"""The gateway as a process: start, faults at start, several workers, metrics, logs, the way out."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys

import pytest
from aiohttp import web

from tests.support.engine import DONE, chunk
from tests.support.gateway import KEY
from tests.support.pictures import data_url, png, question
from tests.support.processes import GatewayProcess

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_serves_counts_and_stops(tmp_path, engine, workers):
    async with GatewayProcess(tmp_path, engine.url, workers=workers) as gateway:
        for i in range(6):
            assert (await gateway.http.post(CHAT, json=question(data_url(png()), str(i)))).status_code == 200
        line = 'gateway_requests_total{cache="miss",operation="/v1/chat/completions",status="200"} 6.0'
        async with asyncio.timeout(20):
            while line not in await gateway.metrics():  # Several workers publish what they count once a second.
                assert workers > 1
                await asyncio.sleep(0.05)
        assert (await gateway.http.get("/metrics")).status_code == 404
    assert gateway.process.returncode == 0


async def test_several_workers_that_count_limits_apart_say_so_once(tmp_path, engine):
    async with GatewayProcess(tmp_path, engine.url, workers=2, requests_per_minute=5) as gateway:
        assert gateway.log.read_text().count("GATEWAY_REDIS_URL") == 1


async def test_logs_are_json_and_hold_no_secret(tmp_path, engine):
    async with GatewayProcess(tmp_path, engine.url) as gateway:
        response = await gateway.http.post(
            CHAT, json=question(data_url(png()), "a private question"), headers={"x-request-id": "mine-1"}
        )
        await gateway.http.post(CHAT, json=question(data_url(png())), headers={"authorization": "Bearer sk-guess"})
    text = gateway.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    access = [line for line in lines if line.get("logger") == "gateway.access"]
    assert access[0]["request_id"] == response.headers["x-request-id"]
    assert access[0]["client_request_id"] == "mine-1"
    assert (access[0]["tenant"], access[0]["key_id"], access[0]["status"]) == ("one", "k_one", 200)
    assert (access[1]["tenant"], access[1]["status"]) == (None, 401)
    for secret in (KEY, "sk-guess", "a private question", "base64"):
        assert secret not in text


async def test_a_stream_in_flight_survives_sigterm(tmp_path, engine):
    asked_to_stop = asyncio.Event()

    async def script(request, _):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("first"))
        await asked_to_stop.wait()
        await response.write(chunk("second") + DONE)
        return response

    engine.script = script
    async with GatewayProcess(tmp_path, engine.url) as gateway:
        async with gateway.http.stream("POST", CHAT, json=question(data_url(png()), stream=True)) as response:
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if not asked_to_stop.is_set():
                    gateway.process.send_signal(signal.SIGTERM)
                    asked_to_stop.set()
        assert body.endswith(DONE)
        assert await gateway.ended() == 0


class TestFaultsAtStart:
    @pytest.mark.parametrize("taken", ["port", "metrics_port"])
    async def test_a_port_in_use_ends_it_at_once(self, tmp_path, taken):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            gateway = GatewayProcess(tmp_path, "http://127.0.0.1:9", **{taken: other.getsockname()[1]})
            assert await gateway.ended() == 3
            await gateway.http.aclose()
        assert "address already in use" in gateway.log.read_text().lower()

    @pytest.mark.parametrize(
        ("setting", "value", "message"),
        [
            ("keys_file", "/nowhere/keys.json", "keys create"),
            ("cache_ttl_s", "soon", "GATEWAY_CACHE_TTL_S"),
            ("redis_url", "http://x", "redis"),
        ],
    )
    async def test_a_bad_configuration_is_exit_78_and_one_line(self, tmp_path, setting, value, message):
        gateway = GatewayProcess(tmp_path, "http://127.0.0.1:9", **{setting: value})
        assert await gateway.ended() == 78
        await gateway.http.aclose()
        assert message in gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text()


def test_the_command_line_explains_itself():
    run = subprocess.run([sys.executable, "-m", "gateway", "--help"], capture_output=True, text=True, check=True)
    for command in ("serve", "keys", "settings"):
        assert command in run.stdout
