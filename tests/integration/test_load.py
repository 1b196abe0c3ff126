"""The load test itself: Locust as a process, a real gateway, an engine that tells what it was asked."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from pathlib import Path

import httpx
import openai
import pytest
from aiohttp import web

from loadtest.load import page, pictures, plan, results, scenario, wire
from tests.support.demo import free_ports
from tests.support.engine import DONE, chat_answer, chunk, stream
from tests.support.gateway import KEY
from tests.support.simulated_engine import digest

ROOT = Path(__file__).parents[2]
# What the machine does meanwhile is not what is tested: no time is bounded.
LOAD = """
title = "three seconds"
phases = [{ lasts_s = 3, per_s = 15 }]
settle_s = 0
[[traffic]]
name = "one"
pictures = 5
earlier_turns = [1, 1]
[[traffic]]
name = "cached"
cacheable = true
pictures = 1
[[slo]]
of = "e2e_s"
percentile = 99
most = 100
[[slo]]
of = "lateness_s"
percentile = 99
most = 100
"""
RAMP = """
title = "ramp"
settle_s = 0
[ramp]
first_per_s = 10
unloaded_s = 1
feeling_s = 1
factor = 2
step_s = 1
least_requests = 5
most_per_s = 20
[[traffic]]
name = "one"
pictures = 2
[[slo]]
of = "lateness_s"
percentile = 99
most = 100
"""


def picture_of(body):
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    (url,) = [part["image_url"]["url"] for parts in contents for part in parts if part["type"] == "image_url"]
    return url


async def answer(request, body, text, breaks=False):
    if not body.get("stream"):
        return web.json_response(chat_answer(text))
    return await stream(request, [chunk(word) for word in text.partition(" ")] + ([] if breaks else [DONE]))


def words_of(body):
    seen = digest(base64.b64decode(picture_of(body).partition(",")[2]))
    text = next(part["text"] for part in body["messages"][-1]["content"] if part["type"] == "text")
    return f"{seen} salt {text}"


async def echo(request, body):
    return await answer(request, body, words_of(body))


async def load(folder, url, text=LOAD, *options, key=KEY, command="run"):
    """Run it as `make load` does; exit code, output."""
    (folder / "load.toml").write_text(text)
    argv = [
        sys.executable,
        "-m",
        "loadtest.load",
        command,
        str(folder / "load.toml"),
        "--url",
        url,
        "--out",
        str(folder / "out"),
    ]
    child = await asyncio.create_subprocess_exec(
        *argv,
        "--answers",
        "digest",
        *options,
        cwd=ROOT,
        env={**os.environ, "LOAD_KEY": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode, printed.decode()


async def test_a_service_that_answers_right_meets_its_objectives(tmp_path, engine, gateway):
    engine.script = echo
    code, printed = await load(tmp_path, gateway.url)
    assert code == 0, printed
    summary = results.read(tmp_path / "out")
    planned = plan.requests([scenario.Phase(3, 15)], scenario.load(str(tmp_path / "load.toml")).traffic, "1/0")
    everything = summary["figures"]["all"]
    assert everything["sent"] == everything["answered"] == everything["right"] == len(planned)
    assert summary["figures"]["cached"]["cached"] > 0
    assert summary["figures"]["one"]["cached"] == 0
    assert everything["ttft_s"]["p50"] < everything["e2e_s"]["p99"]
    assert "objectives met" in (tmp_path / "out" / results.REPORT).read_text()
    assert (tmp_path / "out" / "locust_stats.csv").exists()
    assert page.changes(summary, summary)


async def test_an_answer_about_another_picture_is_found_and_fails_the_run(tmp_path, engine, gateway):
    pictures_seen = []

    async def crossed(request, body):
        """Under load every fourth answer is about the first picture that anybody sent; alone all are right."""
        pictures_seen.append(words_of(body))
        under_load = "no-cache" not in request.headers.get("cache-control", "") and len(pictures_seen) % 4 == 0
        text = words_of(body)
        return await answer(
            request, body, pictures_seen[0].partition(" ")[0] + text[text.index(" ") :] if under_load else text
        )

    engine.script = crossed
    code, printed = await load(tmp_path, gateway.url)
    assert code == 1, printed
    summary = results.read(tmp_path / "out")
    assert summary["figures"]["all"]["right"] < summary["figures"]["all"]["answered"]
    (wrong,) = [each for each in summary["objectives"] if each["of"] == "wrong"]
    assert not wrong["met"]
    assert summary["wrong"]


async def test_refusals_and_broken_streams_are_failures_by_name(tmp_path, engine, gateway):
    async def half(request, body):
        if body.get("stream"):
            return await answer(request, body, words_of(body), breaks=True)
        return web.json_response({"error": {"message": "no", "code": 400, "type": "bad"}}, status=400)

    engine.script = half
    code, printed = await load(tmp_path, gateway.url)
    assert code == 1, printed
    table = results.read(tmp_path / "out")["figures"]["all"]
    assert table["answered"] == 0
    assert any(fault.startswith("400") for fault in table["faults"])
    assert len(table["faults"]) >= 2


async def test_two_generators_send_the_plan_of_one(tmp_path, engine, gateway):
    engine.script = echo
    code, printed = await load(tmp_path, gateway.url, LOAD, "--workers", "2")
    assert code == 0, printed
    numbers = [json.loads(line)["number"] for line in (tmp_path / "out" / results.REQUESTS).read_text().splitlines()]
    planned = plan.requests([scenario.Phase(3, 15)], scenario.load(str(tmp_path / "load.toml")).traffic, "1/0")
    assert sorted(numbers) == [one.number for one in planned]


async def test_a_ramp_goes_up_and_names_the_capacity(tmp_path, engine, gateway):
    engine.script = echo
    code, printed = await load(tmp_path, gateway.url, RAMP)
    assert code == 0, printed
    assert results.read(tmp_path / "out")["capacity_per_s"] == 20
    kinds = [step["kind"] for step in results.read(tmp_path / "out")["steps"]]
    assert list(dict.fromkeys(kinds)) == ["unloaded", "feeling", "level"]
    code, printed = await load(tmp_path, gateway.url, RAMP, "--at-least-per-s", "30")
    assert code == 1, printed


async def test_a_ramp_that_is_asked_twice_says_how_far_apart_the_two_are(tmp_path, engine, gateway):
    engine.script = echo
    code, printed = await load(tmp_path, gateway.url, RAMP, command="twice")
    assert code == 0, printed
    assert "capacity 20 and 20 requests/s: 0.0% apart, within 10%" in printed
    assert (tmp_path / "out" / "second" / page.COMPARISON).exists()


@pytest.mark.parametrize("key", ["sk-wrong", KEY])
async def test_a_service_that_cannot_be_tested_is_misuse(tmp_path, engine, gateway, key):
    engine.models = {"data": []} if key == KEY else engine.models
    code, printed = await load(tmp_path, gateway.url, key=key)
    assert code == 2, printed
    assert ("is KEY right?" if key != KEY else "lists no model") in printed


async def test_the_wire_is_that_of_the_sdk(engine):
    """The same question by the OpenAI SDK and by the load test: the same JSON, the same header fields."""
    engine.script = echo
    traffic = scenario.Traffic(name="a", pictures=1)
    some = pictures.Pool(scenario.Scenario(title="t", traffic=(traffic,)))
    planned = plan.Planned(0, 0.0, 0, 0, streamed=True, earlier_turns=0, max_tokens=9)
    body = wire.body("m", traffic, planned, some.asked(0, 0), 5)
    async with openai.AsyncOpenAI(base_url=engine.url + "/v1", api_key="sk-x") as client:
        async for _ in await client.chat.completions.create(**json.loads(body)):
            pass
    async with httpx.AsyncClient(headers={}) as plain:
        await plain.post(engine.url + wire.PATH, content=body, headers=wire.headers("sk-x"))
    assert engine.requests[0] == engine.requests[1]
    by_sdk, ours = ({name.lower(): value for name, value in headers.items()} for headers in engine.headers)
    assert set(by_sdk) == set(ours)
    for name in (
        "accept",
        "authorization",
        "content-type",
        "connection",
        "x-stainless-lang",
        "x-stainless-retry-count",
    ):
        assert ours[name] == by_sdk[name]


async def test_a_master_and_workers_on_other_machines_do_the_same(tmp_path, engine, gateway):
    engine.script = echo
    port = str(free_ports(1)[0])
    worker = await asyncio.create_subprocess_exec(
        *[
            sys.executable,
            "-m",
            "loadtest.load",
            "worker",
            "--master-host",
            "127.0.0.1",
            "--master-port",
            port,
            "--url",
            gateway.url,
        ],
        cwd=ROOT,
        env={**os.environ, "LOAD_KEY": KEY},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        code, printed = await load(tmp_path, gateway.url, LOAD, "--expect-workers", "1", "--master-port", port)
        assert code == 0, printed
        async with asyncio.timeout(60):
            await worker.wait()
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    assert results.read(tmp_path / "out")["generator"]["workers"] == 1
