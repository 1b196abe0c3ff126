"""Engines as processes that are stopped and killed while the gateway is under load."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from functools import partial

import httpx
import openai
import pytest

from gateway.settings import Settings
from gateway.upstream.probe import COUNT_S
from tests.support import waiting
from tests.support.engine_process import EngineProcess
from tests.support.gateway import KEY

CHAT = "/v1/chat/completions"


def text(content, **more):
    return {"model": "scripted", "messages": [{"role": "user", "content": content}], "temperature": 1, **more}


def endpoints(gateway):
    return gateway.app.state.pipeline.upstream._endpoints.all


until = partial(waiting.until, deadline_s=30)


@pytest.fixture
async def pair():
    async with EngineProcess() as one, EngineProcess() as two:
        yield [one, two]


async def test_an_engine_that_hangs_is_ejected_and_no_request_that_had_not_started_fails(start, pair, tmp_path):
    defaults = Settings(keys_file=tmp_path / "keys.json")
    assert defaults.engine_probe_interval_s + 6 / 5 * defaults.engine_probe_timeout_s + COUNT_S < 10
    gateway = await start(
        engines=[engine.url for engine in pair], engine_probe_interval_s=defaults.engine_probe_interval_s
    )
    statuses, stopped = [], asyncio.Event()

    async def client(http, number):
        turn = 0
        while not stopped.is_set():
            answer = await http.post(CHAT, json=text(f"{number} {turn}", stream=turn % 2 == 0, max_tokens=3))
            statuses.append(answer.status_code if "error" not in answer.text else answer.text)
            turn += 1

    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60, limits=limits) as http:
        await until(lambda: all(endpoint.proven for endpoint in endpoints(gateway)))
        clients = [asyncio.create_task(client(http, number)) for number in range(6)]
        await until(lambda: len(statuses) > 20)
        # Streams that have begun there will break; so the engine is stopped in a moment without any: clients pause.
        stopped.set()
        await asyncio.gather(*clients)
        stopped.clear()
        pair[0].signal(signal.SIGSTOP)
        clients = [asyncio.create_task(client(http, number)) for number in range(6)]
        await until(lambda: endpoints(gateway)[0].ejected)
        served = len(statuses)
        await until(lambda: len(statuses) > served + 20)
        pair[0].signal(signal.SIGCONT)
        await until(lambda: endpoints(gateway)[0].proven)
        stopped.set()
        await asyncio.gather(*clients)
    assert set(statuses) == {200}


async def test_an_engine_killed_in_the_middle_of_a_stream_is_an_api_error_in_the_sdk(start, pair):
    gateway = await start(engines=[engine.url for engine in pair])
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=30) as sdk:
        chunks = await sdk.chat.completions.create(**text("x", stream=True, max_tokens=200))
        first = await anext(aiter(chunks))
        assert first.choices[0].delta.content == "word 0 "
        [busy] = [number for number, endpoint in enumerate(endpoints(gateway)) if endpoint.in_flight]
        pair[busy].signal(signal.SIGKILL)
        with pytest.raises(openai.APIError, match="broke off") as caught:
            async for _ in chunks:
                pass
        assert caught.value.body["code"] == "engine_error"
        # The other engine goes on, and the dead one costs no client anything.
        for number in range(6):
            answer = await sdk.chat.completions.create(**text(str(number)))
            assert answer.choices[0].message.content == "whole"


async def test_an_engine_killed_before_the_first_token_costs_its_clients_only_time(start, pair):
    gateway = await start(engines=[engine.url for engine in pair])
    async with contextlib.AsyncExitStack() as held:
        http = await held.enter_async_context(
            httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=30)
        )
        pair[0].signal(signal.SIGSTOP)
        asks = [asyncio.create_task(http.post(CHAT, json=text(str(i), stream=True, max_tokens=2))) for i in range(16)]
        await until(lambda: sum(ask.done() for ask in asks) + endpoints(gateway)[0].in_flight == 16)
        assert endpoints(gateway)[0].in_flight
        pair[0].signal(signal.SIGKILL)
        assert [(await ask).status_code for ask in asks] == [200] * 16
