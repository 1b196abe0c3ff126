"""What the gateway must show before two real vLLM (CPU, demo checkpoint): many pictures, one that hangs, one that dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import openai
import pytest

from gateway.settings import Settings
from serving.demo.scenes import UNSEEN_SEED, jpeg, scene
from tests.support import waiting
from tests.support.demo import die_with_parent
from tests.support.gateway import KEY, OTHER_KEY, running
from tests.support.pictures import data_url, question
from tests.support.ports import free_port
from tests.support.pressure import Clients, keys_file
from tests.support.processes import gateway_processes

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
START_DEADLINE_S = 400
MODEL = "qwen3-vl-demo"
ENGINE_KEY = "engine-key"
EJECTED_S = 10
"""Within this an engine that hangs is out."""


class Engine:
    """`python -m serving run --profile cpu`, which becomes vLLM with processes of its own: signals go to all of them."""

    def __init__(self, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"engine-{self.port}.log"
        argv = [sys.executable, "-m", "serving", "run", "--profile", "cpu", "--port", str(self.port), "--no-report"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env={**os.environ, "VLLM_API_KEY": ENGINE_KEY},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call into libc, no locks
            )

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def wait_ready(self):
        end = time.monotonic() + START_DEADLINE_S
        while True:
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < end, self.log.read_text(errors="replace")[-4000:]
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.2)

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait(60)

    async def answered(self, http):
        """Requests that it has brought to an end."""
        lines = (await http.get(f"{self.url}/metrics")).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:request_success_total{"))


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    both = [Engine(folder), Engine(folder)]
    try:
        for one in both:
            one.wait_ready()
        yield both
    finally:
        for one in both:
            one.end()


def text(content, **more):
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 1, **more}


async def test_2000_mixed_requests_each_get_their_own_picture_s_answer(tmp_path, figures, redis_server, engines):
    count, kinds = 2000, 50
    asks = [
        question(data_url(jpeg(scene(UNSEEN_SEED + 9000 + kind)), "image/jpeg"), "What's in this picture?", model=MODEL)
        for kind in range(kinds)
    ]
    order = random.Random(count)
    jobs = [(order.randrange(kinds), order.choice((KEY, OTHER_KEY)), order.random() < 0.5) for _ in range(count)]
    gate = asyncio.Semaphore(64)
    urls = ",".join(engine.url for engine in engines)
    settings = {"redis_url": redis_server.url, "engine_api_key": ENGINE_KEY, "engine_max_in_flight": 16}
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {ENGINE_KEY}"}, timeout=60) as http:
        # What each picture's answer is, an engine says that nobody else is asking.
        alone = [
            (await http.post(f"{engines[0].url}/v1/chat/completions", json=ask)).json()["choices"][0]["message"][
                "content"
            ]
            for ask in asks
        ]
        assert len(set(alone)) > kinds / 2
        before = sum([await engine.answered(http) for engine in engines])
        async with (
            gateway_processes(tmp_path, 2, urls, keys_file(tmp_path), **settings) as gateways,
            Clients(gateways) as clients,
        ):

            async def one(number, picture, key, stream):
                async with gate:
                    return await clients.ask(gateways[number % 2], {**asks[picture], "stream": stream}, key)

            begun_s = time.perf_counter()
            outcomes = await asyncio.gather(*(one(number, *job) for number, job in enumerate(jobs)))
            spent_s = time.perf_counter() - begun_s
            refused = [(jobs[number], outcome) for number, outcome in enumerate(outcomes) if outcome.status != 200]
            assert refused == [], [
                file.read_text()[-4000:] for file in (*(g.log for g in gateways), *(e.log for e in engines))
            ]
            assert [outcome.text for outcome in outcomes] == [alone[picture] for picture, *_ in jobs]
            # Nobody's first question was answered with what another had asked before.
            asked = {job[:2] for job, outcome in zip(jobs, outcomes, strict=True) if outcome.cache != "hit"}
            assert asked == {job[:2] for job in jobs}
            assert clients.sent == clients.answered == count
            await clients.account()
        hits = sum(outcome.cache == "hit" for outcome in outcomes)
        async with asyncio.timeout(20):  # vLLM counts a moment after the answer is out
            while (answered := sum([await engine.answered(http) for engine in engines]) - before) < count - hits:
                await asyncio.sleep(0.1)
    assert answered == count - hits
    figures(
        f"real vLLM: {count} mixed over {kinds} pictures, two tenants, 2 gateways, 2 engines: all match, none crossed, "
        f"{hits} from the cache, {answered:.0f} engine requests, {count / spent_s:.0f} requests/s"
    )


def endpoints(gateway):
    return gateway.app.state.pipeline.upstream._endpoints.all


until = partial(waiting.until, deadline_s=60)


async def test_one_that_hangs_is_ejected_and_no_request_that_had_not_started_fails(tmp_path, figures, engines):
    statuses, stopped = [], asyncio.Event()
    urls = [engine.url for engine in engines]
    interval_s = Settings(keys_file=tmp_path / "keys.json").engine_probe_interval_s

    async def client(http, number):
        turn = 0
        while not stopped.is_set():
            body = text(f"{number} {turn}", stream=turn % 2 == 0, max_tokens=8)
            answer = await http.post("/v1/chat/completions", json=body)
            statuses.append(answer.status_code if "error" not in answer.text else answer.text)
            turn += 1

    async with (
        running(tmp_path, urls, engine_api_key=ENGINE_KEY, engine_probe_interval_s=interval_s) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http,
    ):
        await until(lambda: all(endpoint.proven for endpoint in endpoints(gateway)))
        clients = [asyncio.create_task(client(http, number)) for number in range(6)]
        await until(lambda: len(statuses) > 20)
        # Streams that have begun there would break: it is stopped in a moment without any.
        stopped.set()
        await asyncio.gather(*clients)
        stopped.clear()
        engines[0].signal(signal.SIGSTOP)
        try:
            begun_s = time.monotonic()
            clients = [asyncio.create_task(client(http, number)) for number in range(6)]
            await until(lambda: endpoints(gateway)[0].ejected)
            spent_s = time.monotonic() - begun_s
            served = len(statuses)
            await until(lambda: len(statuses) > served + 20)
        finally:
            engines[0].signal(signal.SIGCONT)
        await until(lambda: endpoints(gateway)[0].proven)
        stopped.set()
        await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert spent_s < EJECTED_S
    figures(
        f"real vLLM stopped (SIGSTOP): out after {spent_s:.1f} s, {len(statuses)} requests, 0 failed, back by itself"
    )


async def test_one_that_is_killed_in_the_middle_of_a_stream_is_an_sse_error_event(tmp_path, figures, engines):
    urls = [engine.url for engine in engines]
    async with (
        running(tmp_path, urls, engine_api_key=ENGINE_KEY) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=60) as sdk,
    ):
        request = text("hello", stream=True, max_tokens=1900, extra_body={"ignore_eos": True})
        chunks = await sdk.chat.completions.create(**request)
        for _ in range(5):
            assert await anext(chunks)
        [busy] = [number for number, endpoint in enumerate(endpoints(gateway)) if endpoint.in_flight]
        engines[busy].signal(signal.SIGKILL)
        rest = []

        async def read_on():
            async for chunk in chunks:
                rest.append(chunk)  # noqa: PERF401 - counted up to where it fails

        with pytest.raises(openai.APIError, match="broke off") as caught:
            await read_on()
        assert caught.value.body["code"] == "engine_error"
        for number in range(6):  # the other one goes on, and the dead one costs no client anything
            answer = await sdk.chat.completions.create(**text(str(number), max_tokens=4))
            assert answer.choices[0].finish_reason in {"stop", "length"}
    figures(
        f"real vLLM killed after {5 + len(rest)} chunks of a stream: an error event in OpenAI's shape, the next 6 answered"
    )
