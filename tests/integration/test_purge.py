"""`python -m gateway cache` against two gateways that share a Redis, all of them processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys

import httpx
import pytest

from gateway import cache_cli
from gateway.cache import Entry, made_at
from gateway.generations import begin_generation
from gateway.redis_link import BlockingLink
from tests.support.command import gateway_command
from tests.support.gateway import KEY, OTHER_KEY
from tests.support.pictures import data_url, png, question
from tests.support.pressure import CHAT, keys_file
from tests.support.processes import engine_process, gateway_processes


def command(*words, url=None):
    return gateway_command("cache", *words, **({"GATEWAY_REDIS_URL": url} if url else {}))


def command_at(terminal, *words, url):
    """As a process of its own: what it does depends on whom it talks to."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    argv = [sys.executable, "-m", "gateway", "cache", *words]
    environ |= {"GATEWAY_REDIS_URL": url}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environ, stdin=terminal, timeout=60)


async def asked(http, gateway, text, key=KEY, **headers):
    headers = {"authorization": f"Bearer {key}", **headers}
    response = await http.post(gateway.url + CHAT, json=question(data_url(png()), text), headers=headers)
    return response.headers["x-cache"]


async def until_hit(http, gateway, text, key=KEY):
    async with asyncio.timeout(10):
        while await asked(http, gateway, text, key) != "hit":
            await asyncio.sleep(0.01)


@pytest.fixture
async def replicas(tmp_path, redis_server):
    async with (
        engine_process(tmp_path) as engine,
        gateway_processes(tmp_path, 2, engine.url, keys_file(tmp_path), redis_url=redis_server.url) as gateways,
        httpx.AsyncClient(timeout=20) as http,
    ):
        yield gateways, http


async def test_stats_tell_and_purge_reaches_every_replica_s_memory(replicas, redis_server):
    (one, two), http = replicas
    for text in ("first", "second"):
        await asked(http, one, text)
        await until_hit(http, two, text)  # and so in the memory of both
    await asked(http, one, "theirs", OTHER_KEY)
    await until_hit(http, two, "theirs", OTHER_KEY)

    async with asyncio.timeout(10):  # hits are told with the next look
        while True:
            run = await asyncio.to_thread(command, "stats", "--json", url=redis_server.url)
            tenants = {one["tenant"]: one for one in json.loads(run.stdout)["tenants"]}
            if [tenant["hits"] for tenant in tenants.values()] == [2, 1]:
                break
    assert [tenant["answers"] for tenant in tenants.values()] == [2, 1]
    assert tenants["one"]["answer_bytes"] > 2 * tenants["two"]["answer_bytes"] * 0.9 > 0
    assert 0 <= tenants["one"]["oldest_answer_s"] < 120
    table = (await asyncio.to_thread(command, "stats", "--tenant", "one", url=redis_server.url)).stdout
    assert table.splitlines()[1].split()[:2] == ["one", "2"]
    assert len(table.splitlines()) == 2

    purge = await asyncio.to_thread(command, "purge", "--tenant", "one", url=redis_server.url)
    assert (purge.returncode, purge.stdout.split(":")[0]) == (0, "purged one")
    assert "2 entries" in purge.stdout
    for gateway in (one, two):
        assert await asked(http, gateway, "theirs", OTHER_KEY) == "hit"
        assert await asked(http, gateway, "first", **{"cache-control": "only-if-cached"}) == "bypass"
    assert await asked(http, one, "first") == "miss"
    await until_hit(http, two, "first")

    purge = await asyncio.to_thread(command, "purge", "--all", "--json", url=redis_server.url)
    assert json.loads(purge.stdout) == {"tenant": None, "removed_entries": 2}
    assert await asked(http, two, "theirs", OTHER_KEY) == "miss"


async def test_a_replica_cut_off_from_redis_gives_nothing_kept_before_after_two_seconds(replicas, redis_server):
    (one, _), http = replicas
    await asked(http, one, "x")
    redis_server.pause()
    only = {"cache-control": "only-if-cached"}
    async with asyncio.timeout(10):
        while await asked(http, one, "x", **only) == "hit":
            await asyncio.sleep(0.02)
    assert await asked(http, one, "x") == "miss"  # the engine still answers
    assert await asked(http, one, "x") == "hit"  # and what is kept since is given
    redis_server.resume()
    async with asyncio.timeout(10):  # nothing was purged: what was kept before is good again
        while await asked(http, one, "x", **only) != "hit":
            await asyncio.sleep(0.02)


async def test_an_answer_begun_before_a_purge_is_not_kept_after_it(tmp_path, redis_server):
    async with (
        engine_process(tmp_path) as engine,
        gateway_processes(tmp_path, 1, engine.url, keys_file(tmp_path), redis_url=redis_server.url) as (gateway,),
        httpx.AsyncClient(timeout=20) as http,
    ):
        slow = asyncio.create_task(asked(http, gateway, "slow 3.0 s"))
        async with asyncio.timeout(10):
            while not await gateway.metric("gateway_engine_in_flight_requests"):
                await asyncio.sleep(0.01)
        link = BlockingLink(redis_server.url, timeout_s=5)
        await asyncio.to_thread(begin_generation, link, "one")
        link.close()
        assert await slow == "miss"
        assert redis_server.command("KEYS", "qwen3vl:cache:*") == "*0"
        assert await asked(http, gateway, "slow 3.0 s", **{"cache-control": "only-if-cached"}) == "bypass"


class TestCommandLine:
    @pytest.mark.parametrize(
        "words",
        [("purge",), ("stats", "--tenant", "*"), ("purge", "--tenant", "a", "--all"), ("purge", "--tenant", "a:b"), ()],
    )
    def test_wrong_usage_is_2(self, words):
        assert command(*words, url="redis://127.0.0.1:1").returncode == 2

    @pytest.mark.parametrize("words", [("stats",), ("purge", "--all")])
    def test_without_redis_the_next_step_is_told(self, words):
        run = command(*words)
        assert (run.returncode, run.stdout) == (1, "")
        assert "rollout restart" in run.stderr

    def test_a_redis_that_is_away_is_1_and_a_purge_says_that_nothing_is_certain(self):
        run = command("purge", "--all", url="redis://:hunter2@127.0.0.1:1")
        assert run.returncode == 1
        assert "run it again" in run.stderr
        assert "hunter2" not in run.stderr

    def test_a_bad_url_is_1_and_not_repeated(self):
        run = command("stats", url="http://hunter2")
        assert run.returncode == 1
        assert "hunter2" not in run.stderr

    def test_help_says_when_it_holds(self):
        run = command("purge", "--help")
        assert "--yes" in run.stdout
        assert "2 seconds" in run.stdout

    @pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"\n", 1), (b"y\n", 0)])
    def test_it_asks_at_a_terminal_only(self, redis_server, answer, code):
        master, terminal = pty.openpty()
        try:
            os.write(master, answer)
            run = command_at(terminal, "purge", "--all", url=redis_server.url)
        finally:
            os.close(master)
            os.close(terminal)
        assert run.returncode == code
        assert "EVERY tenant" in run.stderr
        assert ("nothing was purged" in run.stderr) == bool(code)

    def test_yes_asks_nothing_and_an_unknown_tenant_is_an_empty_row(self, redis_server, monkeypatch, capsys):
        monkeypatch.setenv("GATEWAY_REDIS_URL", redis_server.url)
        monkeypatch.setattr(cache_cli.time, "sleep", lambda _: None)
        assert cache_cli.run(parsed("purge", "--tenant", "nobody", "--yes")) == 0
        assert "purged nobody: 0 entries" in capsys.readouterr().out
        assert cache_cli.run(parsed("stats", "--tenant", "nobody", "--json")) == 0
        (row,) = json.loads(capsys.readouterr().out)["tenants"]
        assert (row["answers"], row["pictures"], row["oldest_answer_s"]) == (0, 0, None)

    def test_pictures_are_counted_by_what_they_are(self, redis_server, monkeypatch, capsys):
        monkeypatch.setenv("GATEWAY_REDIS_URL", redis_server.url)
        for name in ("picture:ab", "picture:ab/01", "picture:cd", "picture:cd/02"):
            redis_server.command("SET", f"qwen3vl:image:shop:g:{name}", "12345", "PX", "60000")
        redis_server.command("SET", "qwen3vl:cache:shop:g:broken", "no-entry-at-all", "PX", "60000")
        assert cache_cli.run(parsed("stats")) == 0
        assert capsys.readouterr().out.splitlines()[1].split() == ["shop", "1", "15", "0", "-", "2", "20"]


def parsed(*words):
    from gateway.__main__ import parser

    return parser().parse_args(["cache", *words])


def test_the_head_of_an_entry_tells_when_it_was_made():
    import msgspec

    whole = msgspec.msgpack.encode(Entry(1234.5, b"application/json", False, b"{}"))
    assert made_at(whole[:10]) == 1234.5
    assert made_at(whole[:9]) is None
    assert made_at(b"0123456789") is None
