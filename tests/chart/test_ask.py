"""The programs that ask, in the chart's test pod and under `make cluster-test`, before a real gateway."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from aiohttp import web

from tests.support import chart
from tests.support.engine import ScriptedEngine, chat_answer
from tests.support.gateway import KEY, running

FILES = chart.CHART / "files" / "test"
PICTURE = FILES / "picture.jpg"
LOAD = chart.ROOT / "tests" / "cluster" / "load.py"


@pytest.fixture
async def engine():
    scripted = await ScriptedEngine().start()
    yield scripted
    await scripted.stop()


def saying(text):
    async def script(_request, _body):
        return web.json_response(chat_answer(text))

    return script


async def start(*argv, key=KEY):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-B", *map(str, argv), env={"API_KEY": key}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )  # fmt: skip


async def ask(url, timeout_s=5, key=KEY):
    process = await start(FILES / "ask.py", "--url", url, "--picture", PICTURE, "--timeout-s", timeout_s, key=key)
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_the_right_answer_is_a_success(tmp_path, engine):
    engine.script = saying("The shirt is red.")
    async with running(tmp_path, [engine.url]) as gateway:
        code, output = await ask(gateway.url)
    assert code == 0, output
    assert "right" in output
    (request,) = engine.requests
    assert request["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/")
    assert request["temperature"] == 0


async def test_a_wrong_answer_is_a_failure_at_once(tmp_path, engine):
    engine.script = saying("It is a blue hat, and rather bored.")
    async with running(tmp_path, [engine.url]) as gateway:
        code, output = await ask(gateway.url, timeout_s=60)
    assert code == 1
    assert "wrong" in output


async def test_an_engine_that_comes_late_is_waited_for(tmp_path, engine):
    calls = 0

    async def script(_request, _body):
        nonlocal calls
        calls += 1
        return web.json_response({}, status=503) if calls == 1 else web.json_response(chat_answer("Red."))

    engine.script = script
    async with running(tmp_path, [engine.url], engine_retry_ratio=0) as gateway:
        code, output = await ask(gateway.url, timeout_s=60)
    assert code == 0, output
    assert "no answer yet: status 50" in output


async def test_a_wrong_key_is_told_and_never_printed(tmp_path, engine):
    async with running(tmp_path, [engine.url]) as gateway:
        code, output = await ask(gateway.url, timeout_s=0, key="sk-wrong-one")
    assert code == 1
    assert "status 401" in output
    assert "sk-wrong-one" not in output


async def under_load(url, tmp_path, until):
    (tmp_path / "ask.py").write_bytes((FILES / "ask.py").read_bytes())
    (tmp_path / "load.py").write_bytes(LOAD.read_bytes())
    # The folder of the script is where Python looks for `ask`, unless it is isolated.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-B", str(tmp_path / "load.py"), url, str(PICTURE), str(tmp_path / "stop"), env={"API_KEY": KEY}, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    async with asyncio.timeout(30):
        while not until():
            await asyncio.sleep(0.01)
        (tmp_path / "stop").touch()
        output, _ = await process.communicate()
    return process.returncode, json.loads(output.decode().splitlines()[-1])


async def test_the_load_counts_its_answers(tmp_path, engine):
    engine.script = saying("Red.")
    # With the gateway's cache on, as in the cluster: the load must reach the engine all the same.
    async with running(tmp_path, [engine.url]) as gateway:
        code, outcome = await under_load(gateway.url, tmp_path, lambda: len(engine.requests) >= 5)
    assert code == 0
    assert outcome["answers"] >= 5
    assert outcome["failures"] == []


async def test_the_load_tells_of_each_answer_that_did_not_come(tmp_path, engine):
    failed = asyncio.Event()

    async def script(_request, _body):
        if len(engine.requests) == 3:
            failed.set()
            return web.json_response({"error": {"message": "no", "type": "x", "code": 500}}, status=500)
        return web.json_response(chat_answer("Red."))

    engine.script = script
    async with running(tmp_path, [engine.url], engine_retry_ratio=0) as gateway:
        code, outcome = await under_load(gateway.url, tmp_path, lambda: failed.is_set() and len(engine.requests) > 5)
    assert code == 1
    assert len(outcome["failures"]) >= 1
