"""Every hostile input through a real gateway process, in parallel and again: refused as it says, and nothing else happens."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import subprocess
import sys
from collections import Counter

import httpx
import psutil
import pytest

from tests.security.corpus import MAX_BYTES, at, corpus
from tests.security.hostile_files import PAYLOAD, harmless
from tests.security.hostile_servers import FETCH_TIMEOUT_S, SECRET, hostile_servers
from tests.support.engine import ScriptedEngine
from tests.support.gateway import KEY, key_record, write_keys
from tests.support.pictures import data_url, png, question
from tests.support.ports import free_ports

CHAT = "/v1/chat/completions"
AT_ONCE = 32
MAX_GROWTH_BYTES = 48 << 20


@contextlib.asynccontextmanager
async def gateway_process(tmp_path, engine):
    (port,) = free_ports(1)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | {
        "GATEWAY_PORT": str(port),
        "GATEWAY_ENGINES": engine.url,
        "GATEWAY_KEYS_FILE": str(write_keys(tmp_path / "keys.json", key_record(KEY, "one"))),
        "GATEWAY_IMAGE_ALLOWED_HOSTS": "*",
        "GATEWAY_IMAGE_MAX_BYTES": str(MAX_BYTES),
        "GATEWAY_IMAGE_FETCH_TIMEOUT_S": str(FETCH_TIMEOUT_S),
    }
    log = tmp_path / "gateway.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it only starts
            [sys.executable, "-m", "tests.security.gateway_process"], env=environ, stdout=output, stderr=output
        )
    limits = httpx.Limits(max_connections=AT_ONCE)
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, limits=limits
    ) as http:
        try:
            async with asyncio.timeout(30):
                while True:
                    assert process.poll() is None, log.read_text()
                    with contextlib.suppress(httpx.TransportError):
                        await http.get("/healthz")
                        break
                    await asyncio.sleep(0.05)
            yield http, process, log
        finally:
            if process.poll() is None:
                process.terminate()
            await asyncio.to_thread(process.wait, 20)


async def send(http, gate, case):
    """What is wrong with the answer; None if it is the right one."""
    async with gate:
        try:
            response = await http.post(CHAT, json=case.body)
        except httpx.TransportError as exc:
            return f"{case.name}: no answer at all, {exc!r}"
    error = response.json().get("error", {})
    got = (response.status_code, error.get("code"), error.get("param"))
    if got == (case.status, case.code, case.param) and case.words in error["message"]:
        return None
    return f"{case.name}: expected {case.code} {case.words!r}, got {got} {error.get('message')!r}"


async def run(http, cases):
    """The corpus twice at once."""
    gate = asyncio.Semaphore(AT_ONCE)
    wrong = await asyncio.gather(*(send(http, gate, case) for case in [*cases, *cases]))
    return sorted({one for one in wrong if one is not None})


def test_the_corpus_is_as_large_as_it_claims():
    cases = corpus(1)
    assert len(cases) >= 150
    assert [name for name, count in Counter(case.name for case in cases).items() if count > 1] == []


@pytest.mark.timeout(180)
async def test_every_hostile_input_is_refused_with_its_part_and_reason_and_the_process_survives(tmp_path):
    engine = await ScriptedEngine().start()
    try:
        async with hostile_servers() as (port, inside), gateway_process(tmp_path, engine) as (http, process, log):
            cases = corpus(port)
            wrong = await run(http, cases)
            assert process.poll() is None, log.read_text()
            assert wrong == [], "\n".join(wrong)
            before = psutil.Process(process.pid).memory_info().rss
            wrong = await run(http, cases)
            assert wrong == [], "\n".join(wrong)
            grown = psutil.Process(process.pid).memory_info().rss - before
            assert process.poll() is None
            assert grown < MAX_GROWTH_BYTES
            assert (inside, engine.requests) == ([], [])
            assert (await http.post(CHAT, json=question(data_url(png())))).status_code == 200
        text = log.read_text()
        assert "Traceback" not in text
        assert SECRET.decode(errors="ignore") not in text
        assert process.returncode == 0
    finally:
        await engine.stop()


async def test_strange_but_sound_pictures_lose_all_but_their_pixels(tmp_path):
    engine = await ScriptedEngine().start()
    try:
        async with gateway_process(tmp_path, engine) as (http, _, _):
            for name, data in harmless().items():
                response = await http.post(CHAT, json=question(at(data_url(data))["image_url"]["url"], name))
                assert response.status_code == 200, (name, response.text)
        for body in engine.requests:
            part = body["messages"][0]["content"][0]
            assert PAYLOAD not in base64.b64decode(part["image_url"]["url"].partition(",")[2])
    finally:
        await engine.stop()
