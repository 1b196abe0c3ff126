"""Generations of names: a purge reaches every process, and not knowing means not giving. Redis is a real server."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gateway.generations import EFFECTIVE_S, LOOK_INTERVAL_S, STALE_S, Generation, SharedGenerations, begin_generation
from gateway.redis_link import BlockingLink, LinkError
from gateway.stores import MemoryStore
from tests.support.redis_server import RedisServer


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def process(redis_server, clock):
    """Another process's generations, which look when told to."""
    made = []

    def go(server=redis_server, memories=()):
        made.append(SharedGenerations(server.url, list(memories), clock=clock))
        made[-1].look()
        return made[-1]

    yield go
    for one in made:
        one._link.close()


def purge(server, tenant=None):
    link = BlockingLink(server.url, timeout_s=5)
    begin_generation(link, tenant)
    link.close()


def test_without_redis_a_tenant_s_names_are_its_own_and_always_current():
    one = Generation()
    assert one.space("a") != one.space("b")
    assert not one.space("ab").startswith(one.space("a"))
    assert one.is_current(one.space("a") + b"x")
    one.hit("a")


class TestPurge:
    def test_processes_agree_on_names_until_a_purge_and_after_it(self, process, redis_server):
        one, two = process(), process()
        before = {tenant: one.space(tenant) for tenant in ("a", "b")}
        assert before == {tenant: two.space(tenant) for tenant in ("a", "b")}
        purge(redis_server, "a")
        for each in (one, two):
            each.look()
        assert one.space("a") == two.space("a") != before["a"]
        assert one.space("b") == two.space("b") == before["b"]
        assert not one.is_current(before["a"] + b"x")
        assert one.is_current(before["b"] + b"x")

    def test_a_purge_of_everybody_and_a_second_one_are_new_generations(self, process, redis_server):
        one = process()
        seen = {one.space("a")}
        for tenant in ("a", "a", None, None, "a"):
            purge(redis_server, tenant)
            one.look()
            seen.add(one.space("a"))
        assert len(seen) == 6

    async def test_memory_is_freed_of_the_tenant_and_of_nobody_else(self, process, redis_server):
        memory = MemoryStore(100_000)
        one = process(memories=[memory])
        one._loop = asyncio.get_running_loop()
        names = [one.space(tenant) + b"x" for tenant in ("a", "a2", "b")]
        for name in names:
            await memory.put(name, b"v", 60)
        purge(redis_server, "a")
        one.look()
        await asyncio.sleep(0)
        assert [await memory.get(name) for name in names] == [None, b"v", b"v"]
        purge(redis_server)
        one.look()
        await asyncio.sleep(0)
        assert (len(memory), memory.bytes_used) == (0, 0)

    def test_looks_are_often_enough_for_the_promise(self):
        assert LOOK_INTERVAL_S < STALE_S < EFFECTIVE_S <= 2


class TestNotKnowing:
    def test_a_process_that_cannot_hear_of_a_purge_gives_nothing_of_before(self, process, clock):
        with RedisServer() as server:
            one = process(server)
            before = one.space("a")
            server.kill()
            clock.now_s += STALE_S
            one.look()
            assert one.space("a") == before
            clock.now_s += 0.01
            alone = one.space("a")
            assert alone != before
            clock.now_s += 1000
            one.look()
            assert one.space("a") == alone  # what is kept meanwhile is given again

    def test_without_a_purge_the_names_of_before_hold_again_when_redis_is_back(self, process, clock):
        with RedisServer() as server:
            one = process(server)
            before = one.space("a")
            server.pause()
            clock.now_s += STALE_S + 1
            assert one.space("a") != before
            server.resume()
            one.look()
            assert one.space("a") == before

    def test_a_redis_that_lost_its_data_lost_the_purges_so_everything_is_new(self, process, redis_server):
        one = process()
        before = one.space("a")
        purge(redis_server, "a")
        redis_server.flush()
        one.look()
        assert one.space("a") != before

    def test_a_late_answer_counts_from_when_it_was_asked_for(self, process, clock, monkeypatch):
        one = process()
        before = one.space("a")
        call = one._link.call

        def slow(*arguments):
            answer = call(*arguments)
            clock.now_s += STALE_S + 1
            return answer

        monkeypatch.setattr(one._link, "call", slow)
        one.look()
        assert one.space("a") != before

    def test_a_purge_that_redis_does_not_hear_is_an_error(self):
        with pytest.raises(LinkError, match=r"purge at redis://127\.0\.0\.1:1 failed: ConnectionError"):
            begin_generation(BlockingLink("redis://127.0.0.1:1", timeout_s=1), "a")


class TestHits:
    def test_hits_are_told_once_and_survive_an_outage(self, process):
        with RedisServer() as server:
            one = process(server)
            for tenant in "aab":
                one.hit(tenant)
            one.look()
            one.look()
            assert server.command("HINCRBY", "qwen3vl:hits", "a", "0") == ":2"
            assert server.command("HINCRBY", "qwen3vl:hits", "b", "0") == ":1"
            server.kill()
            one.hit("a")
            one.look()
            server.restart()
            one.look()
            assert server.command("HINCRBY", "qwen3vl:hits", "a", "0") == ":1"


async def test_it_looks_by_itself_and_ends(redis_server):
    one = SharedGenerations(redis_server.url, [], interval_s=0.01)
    await one.start()
    before = one.space("a")
    purge(redis_server, "a")
    async with asyncio.timeout(10):
        while one.space("a") == before:
            await asyncio.sleep(0.005)
    await one.aclose()
    assert not [thread for thread in threading.enumerate() if thread.name == "generations"]


def test_a_bad_url_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match="write it like redis://") as caught:
        SharedGenerations("redis://:se/cret@h", [])
    assert "se/cret" not in str(caught.value)
