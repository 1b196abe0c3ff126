"""Stores: bounded, honest about time, and never the reason why a request fails. Redis is a real server."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stores import ENTRY_OVERHEAD_BYTES, MemoryStore, RedisStore, StoreError, TieredStore
from tests.support.redis_server import RedisServer
from tests.unit.gateway.images.servers import raw_server

GROWTH = """
import asyncio, msgspec, psutil
from gateway.stores import MemoryStore
def resident(): return psutil.Process().memory_info().rss
encode = msgspec.msgpack.Encoder().encode
async def fill(store, numbers):
    for number in numbers:
        answer = encode(("miss", number, b"x" * (600 + number * 37 % 900)))
        other = b"y" * (700 + number * 53 % 500)  # What else a request takes and gives back.
        await store.put(b"%032d" % number, answer, 1e6)
store = MemoryStore(1 << 30)
asyncio.run(fill(store, range(2_000)))
resident_before, used_before = resident(), store.bytes_used
asyncio.run(fill(store, range(2_000, 42_000)))
print(resident() - resident_before, store.bytes_used - used_before)
"""
EVERY_BYTE = bytes(range(256)) + b"\r\n$5\r\n\x00"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestMemory:
    @pytest.fixture
    def store(self, clock) -> MemoryStore:
        return MemoryStore(100_000, clock)

    async def test_a_value_comes_back_until_its_time_is_over(self, store, clock):
        await store.put(b"k", EVERY_BYTE, 10)
        clock.now_s += 9.99
        assert await store.get(b"k") == EVERY_BYTE
        clock.now_s += 0.01
        assert await store.get(b"k") is None
        assert (store.bytes_used, len(store), store.evictions) == (0, 0, 0)

    async def test_a_prefix_is_forgotten_and_nothing_else(self, store):
        for key in (b"a:1", b"a:2", b"ab:1", b"b:a:1"):
            await store.put(key, b"v", 10)
        store.forget(b"a:")
        assert [await store.get(key) for key in (b"a:1", b"a:2", b"ab:1", b"b:a:1")] == [None, None, b"v", b"v"]
        assert store.bytes_used == 4 + 1 + 5 + 1 + 2 * ENTRY_OVERHEAD_BYTES
        store.forget(b"")
        assert (len(store), store.bytes_used) == (0, 0)

    async def test_an_unknown_key_is_a_miss(self, store):
        assert await store.get(b"k") is None

    async def test_the_value_put_last_counts_with_its_own_time(self, store, clock):
        await store.put(b"k", b"old", 10)
        await store.put(b"k", b"new", 100)
        clock.now_s += 50

        assert await store.get(b"k") == b"new"
        assert store.bytes_used == 1 + 3 + ENTRY_OVERHEAD_BYTES

    @pytest.mark.parametrize(("value", "ttl_s"), [(bytes(12_500), 10), (b"new", 0), (b"new", -1)])
    async def test_a_value_that_is_not_kept_does_not_leave_an_old_one_behind(self, store, value, ttl_s):
        await store.put(b"k", b"old", 10)
        await store.put(b"k", value, ttl_s)

        assert await store.get(b"k") is None
        assert store.bytes_used == 0

    async def test_a_value_over_an_eighth_of_the_store_pushes_nothing_out(self, store):
        for number in range(10):
            await store.put(b"%d" % number, b"small", 10)
        await store.put(b"big", bytes(12_500), 10)
        assert len(store) == 10

        largest = 12_500 - len(b"big") - ENTRY_OVERHEAD_BYTES
        await store.put(b"big", bytes(largest), 10)
        assert await store.get(b"big") == bytes(largest)

    async def test_the_least_recently_used_value_makes_room(self):
        store = MemoryStore(10 * (100 + 1 + ENTRY_OVERHEAD_BYTES))
        for number in range(10):
            await store.put(b"%d" % number, bytes(100), 10)
        await store.get(b"0")
        await store.put(b"x", bytes(100), 10)

        assert store.evictions == 1
        assert await store.get(b"1") is None
        assert await store.get(b"0") == bytes(100)

    @settings(max_examples=50)
    @given(puts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2000), st.sampled_from([0, 1, 5])), max_size=80))
    def test_the_bound_holds_and_the_count_is_exact_after_any_use(self, puts):
        async def use() -> None:
            clock = Clock()
            store = MemoryStore(8_000, clock)
            newest: dict[bytes, bytes] = {}
            for number, size, ttl_s in puts:
                key, value = b"%d" % number, random.Random(size).randbytes(size)
                newest[key] = value
                await store.put(key, value, ttl_s)
                clock.now_s += 0.5
                assert store.bytes_used <= 8_000
                other = b"%d" % (size % 31)
                assert await store.get(other) in {None, newest.get(other)}
            kept = [(key, value) for key, value in newest.items() if key in store._entries]
            assert store.bytes_used == sum(len(key) + len(value) + ENTRY_OVERHEAD_BYTES for key, value in kept)
            await store.aclose()
            assert (len(store), store.bytes_used) == (0, 0)

        asyncio.run(use())

    async def test_the_bytes_counted_are_at_least_the_bytes_used(self):
        store = MemoryStore(10_000_000)
        tracemalloc.start()
        try:
            for number in range(5_000):
                await store.put(b"key" + number.to_bytes(29, "big"), number.to_bytes(50, "big"), 10.0 + number)
            used = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

        assert used <= store.bytes_used <= 2 * used

    def test_the_process_grows_by_what_the_store_says(self):
        """Resident memory, which tracemalloc does not see: an encoder's results are cut out of larger blocks."""
        run = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
        grown, used = map(int, run.stdout.split())
        assert 0.8 * used < grown < 1.1 * used  # 1.36 when they are kept as they come


class TestRedis:
    @pytest.fixture
    async def store(self, redis_server):
        store = RedisStore(redis_server.url, timeout_s=5)
        yield store
        await store.aclose()

    async def test_any_bytes_come_back_as_they_were(self, store):
        await store.put(EVERY_BYTE, EVERY_BYTE, 10)

        assert await store.get(EVERY_BYTE) == EVERY_BYTE
        assert await store.get(b"other") is None

    async def test_keys_are_under_the_prefix_so_that_the_server_can_be_shared(self, store, redis_server):
        await store.put(b"k", b"v", 10)

        assert redis_server.command("EXISTS", "qwen3vl:cache:k") == ":1"

    async def test_a_value_ends_by_itself(self, store, redis_server):
        await store.put(b"k", b"v", 90.5)
        await store.put(b"forever", b"v", float("inf"))

        assert 90_000 < int(redis_server.command("PTTL", "qwen3vl:cache:k")[1:]) <= 90_500
        assert int(redis_server.command("PTTL", "qwen3vl:cache:forever")[1:]) > 0

    async def test_the_time_left_comes_with_the_value(self, store):
        await store.put(b"k", b"v", 100)
        value, ttl_s = await store.get_with_ttl(b"k")

        assert value == b"v"
        assert 90 < ttl_s <= 100
        assert await store.get_with_ttl(b"other") is None

    async def test_a_value_without_an_end_is_not_ours_and_a_miss(self, store, redis_server):
        redis_server.command("SET", "qwen3vl:cache:k", "v")

        assert await store.get_with_ttl(b"k") is None

    async def test_no_time_left_forgets_the_value(self, store):
        await store.put(b"k", b"v", 10)
        await store.put(b"k", b"v", 0)

        assert await store.get(b"k") is None

    async def test_an_option_in_the_url_cannot_make_bytes_text(self, redis_server):
        store = RedisStore(redis_server.url + "?decode_responses=true&socket_timeout=1", timeout_s=5)
        await store.put(b"k", b"\xff", 10)
        assert await store.get(b"k") == b"\xff"
        await store.aclose()

    async def test_more_calls_at_once_than_connections_all_succeed(self, redis_server):
        store = RedisStore(redis_server.url, timeout_s=10, max_connections=4)
        await asyncio.gather(*(store.put(b"%d" % number, b"v%d" % number, 10) for number in range(200)))
        found = await asyncio.gather(*(store.get_with_ttl(b"%d" % number) for number in range(200)))

        assert [value for value, _ in found] == [b"v%d" % number for number in range(200)]
        assert int(redis_server.command("CLIENT", "LIST")[1:]) > 0
        assert len(store._link._pool._available_connections) <= 4
        await store.aclose()

    async def test_a_client_that_leaves_never_gives_its_answer_to_the_next(self, redis_server):
        store = RedisStore(redis_server.url, timeout_s=5, max_connections=1)
        await store.put(b"mine", b"mine", 100)
        await store.put(b"theirs", b"theirs", 100)
        ask = [store.get, store.get_with_ttl]
        for number in range(120):
            task = asyncio.get_running_loop().create_task(ask[number % 2](b"theirs"))
            # Cancelled at each step of the call in turn: before it is sent, on its way, when it is answered.
            for _ in range(number % 20):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert await store.get(b"mine") == b"mine"
            assert (await store.get_with_ttl(b"mine"))[0] == b"mine"
        await store.aclose()


class TestRedisFaults:
    @pytest.mark.parametrize("operation", ["get", "get_with_ttl", "put"])
    async def test_a_server_that_is_away_is_a_store_error_and_a_restarted_one_is_found_again(self, operation):
        with RedisServer() as server:
            store = RedisStore(server.url, timeout_s=5)
            arguments = (b"k", b"v", 10) if operation == "put" else (b"k",)
            await getattr(store, operation)(*arguments)
            server.kill()
            with pytest.raises(StoreError, match=f"{operation[:3]} at redis://127.0.0.1:{server.port} failed"):
                await getattr(store, operation)(*arguments)
            server.restart()
            # At once, although the pool holds a connection to the server that was killed.
            await getattr(store, operation)(*arguments)
            await store.aclose()

    async def test_a_hung_server_costs_one_timeout_and_a_late_answer_is_never_taken_for_another(self):
        with RedisServer() as server:
            store = RedisStore(server.url, timeout_s=5)
            await store.put(b"a", b"A", 100)
            await store.put(b"b", b"B", 100)
            store._link._timeout_s = 0.05
            server.pause()
            started = time.monotonic()
            with pytest.raises(StoreError, match="TimeoutError"):
                await store.get(b"a")
            assert time.monotonic() - started < 4
            server.resume()
            store._link._timeout_s = 5

            assert await store.get(b"b") == b"B"
            await store.aclose()

    async def test_an_address_where_nothing_answers_is_a_store_error(self):
        store = RedisStore("redis://127.0.0.1:1/0", timeout_s=5)
        with pytest.raises(StoreError, match="ConnectionError"):
            await store.get(b"k")
        await store.aclose()

    async def test_a_refused_command_is_a_store_error(self, redis_server):
        redis_server.command("LPUSH", "qwen3vl:cache:k", "x")
        store = RedisStore(redis_server.url, timeout_s=5)
        with pytest.raises(StoreError, match="ResponseError"):
            await store.get(b"k")
        with pytest.raises(StoreError, match="ResponseError"):
            await store.get_with_ttl(b"k")
        await store.aclose()


class TestRedisSecrets:
    PASSWORD = "hunter2-the-password"

    async def test_a_password_opens_the_server_and_is_never_shown(self):
        with RedisServer(password=self.PASSWORD) as server:
            store = RedisStore(server.url, timeout_s=5)
            await store.put(b"k", b"v", 10)
            assert await store.get(b"k") == b"v"
            assert repr(store) == str(store) == f"RedisStore(redis://127.0.0.1:{server.port})"
            await store.aclose()

            wrong = RedisStore(server.url.replace(self.PASSWORD, "wrong-" + self.PASSWORD), timeout_s=5)
            with pytest.raises(StoreError, match="AuthenticationError") as error:
                await wrong.get(b"k")
            assert self.PASSWORD not in str(error.value)
            await wrong.aclose()

    async def test_a_server_that_repeats_the_password_does_not_get_it_into_the_error(self):
        async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received = await reader.readuntil(self.PASSWORD.encode())
            writer.write(b"-ERR unknown command 'AUTH', with args beginning with: " + received[-20:] + b"\r\n")
            await writer.drain()
            await reader.read()

        async with raw_server(repeat) as port:
            store = RedisStore(f"redis://:{self.PASSWORD}@127.0.0.1:{port}", timeout_s=5)
            with pytest.raises(StoreError) as error:
                await store.get(b"k")
            await store.aclose()

        assert self.PASSWORD not in str(error.value)
        assert error.value.__suppress_context__

    @pytest.mark.parametrize(
        "url",
        [
            "redis://:hunter2/half@127.0.0.1:6379/0",
            "redis://user:12#hunter2@127.0.0.1:6379/0",
            "redis://user:12?hunter2@127.0.0.1:6379/0",
            "redis://user:12/hunter2@127.0.0.1:6379/0",
            "redis://127.0.0.1:hunter2",
            "http://:hunter2@127.0.0.1:6379",
            "redis://127.0.0.1?hunter2=1",
            "redis://127.0.0.1?db=hunter2",
            "hunter2",
        ],
    )
    def test_a_bad_url_is_refused_at_once_and_not_repeated(self, url):
        with pytest.raises(ValueError, match="redis://user:password@host:6379/0") as error:
            RedisStore(url)

        assert "hunter2" not in str(error.value)
        assert error.value.__suppress_context__

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("redis://user:p%40ss@cache.example/3", "redis://cache.example:6379"),
            ("rediss://:p@[2001:db8::1]:7000", "rediss://2001:db8::1:7000"),
            ("unix:///run/redis.sock?password=p", "/run/redis.sock"),
        ],
    )
    def test_only_the_place_of_the_server_is_shown(self, url, shown):
        assert repr(RedisStore(url)) == f"RedisStore({shown})"


class FlakyFar:
    """A far store that fails when told to, and counts its calls."""

    def __init__(self) -> None:
        self.values: dict[bytes, tuple[bytes, float]] = {}
        self.fails = False
        self.calls = 0
        self.gate: asyncio.Event | None = None
        self.closed = False

    async def _call(self) -> None:
        self.calls += 1
        if self.gate:
            await self.gate.wait()
        if self.fails:
            raise StoreError

    async def get(self, key: bytes) -> bytes | None:
        raise NotImplementedError

    async def get_with_ttl(self, key: bytes) -> tuple[bytes, float] | None:
        await self._call()
        return self.values.get(key)

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        await self._call()
        self.values[key] = (value, ttl_s)

    async def aclose(self) -> None:
        self.closed = True


class TestTiers:
    @pytest.fixture
    def near(self, clock) -> MemoryStore:
        return MemoryStore(100_000, clock)

    @pytest.fixture
    def far(self) -> FlakyFar:
        return FlakyFar()

    @pytest.fixture
    def errors(self) -> list[str]:
        return []

    @pytest.fixture
    def store(self, near, far, errors, clock) -> TieredStore:
        return TieredStore(near, far, errors.append, pause_s=1, clock=clock)

    async def test_a_value_is_put_near_and_far(self, store, near, far):
        await store.put(b"k", b"v", 10)

        assert await near.get(b"k") == b"v"
        assert far.values == {b"k": (b"v", 10)}

    async def test_a_near_value_costs_no_round_trip(self, store, near, far):
        await near.put(b"k", b"v", 10)

        assert await store.get(b"k") == b"v"
        assert far.calls == 0

    async def test_a_far_value_is_kept_near_for_the_time_it_has_left(self, store, near, far, clock):
        far.values[b"k"] = (b"v", 3)

        assert await store.get(b"k") == b"v"
        clock.now_s += 2.9
        assert await near.get(b"k") == b"v"
        clock.now_s += 0.2
        assert await near.get(b"k") is None

    async def test_a_value_that_nobody_has_is_a_miss_and_no_error(self, store, errors):
        assert await store.get(b"k") is None
        assert errors == []

    async def test_a_failing_far_store_is_a_miss_that_is_counted(self, store, far, errors, clock):
        far.fails = True
        assert await store.get(b"k") is None
        clock.now_s += 1
        await store.put(b"k", b"v", 10)

        assert errors == ["get", "put"]
        assert await store.get(b"k") == b"v"

    async def test_a_dead_far_store_is_left_alone_for_a_moment(self, store, far, errors, clock):
        far.fails = True
        for _ in range(100):
            await store.get(b"k")
            await store.put(b"other", b"v", 10)
        assert (far.calls, errors) == (1, ["get"])
        clock.now_s += 0.99
        await store.get(b"k")
        assert far.calls == 1
        clock.now_s += 0.01
        await store.get(b"k")
        assert far.calls == 2

    async def test_a_far_store_that_is_back_is_used_again_at_once(self, store, far, clock):
        far.fails = True
        await store.get(b"k")
        far.fails = False
        clock.now_s += 1
        await store.put(b"k", b"v", 10)
        await store.get(b"x")
        await store.get(b"y")

        assert far.calls == 4

    async def test_one_request_probes_a_hung_far_store_while_the_others_go_on_without_it(self, store, far, clock):
        far.fails = True
        await store.get(b"k")
        clock.now_s += 1
        far.gate = asyncio.Event()
        probe = asyncio.get_running_loop().create_task(store.get(b"k"))
        await asyncio.sleep(0)
        assert [await store.get(b"k") for _ in range(20)] == [None] * 20
        assert far.calls == 2
        far.gate.set()
        assert await probe is None

    async def test_both_are_closed(self, store, near, far):
        await store.put(b"k", b"v", 10)
        await store.aclose()

        assert far.closed
        assert len(near) == 0

    async def test_replicas_share_answers_through_redis_and_go_on_when_it_dies(self, clock):
        errors: list[str] = []
        with RedisServer() as server:
            one, two = (
                TieredStore(MemoryStore(100_000), RedisStore(server.url, timeout_s=5), errors.append, clock=clock)
                for _ in range(2)
            )
            await one.put(b"k", EVERY_BYTE, 100)
            assert await two.get(b"k") == EVERY_BYTE

            server.kill()
            assert await two.get(b"k") == EVERY_BYTE
            await one.put(b"new", b"v", 100)
            assert await two.get(b"new") is None
            assert errors == ["put", "get"]

            server.restart()
            clock.now_s += 1
            await one.put(b"new", b"v", 100)
            assert await two.get(b"new") == b"v"
            assert errors == ["put", "get"]
            await one.aclose()
            await two.aclose()


class TestRedisServerFixture:
    def test_a_missing_server_is_a_failure_that_says_what_to_do(self, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(FileNotFoundError, match="redis-server is missing: run `make system`"):
            RedisServer().__enter__()

    def test_a_server_that_does_not_start_shows_its_log(self):
        with pytest.raises(RuntimeError, match="Bad directive or wrong number of arguments"):
            RedisServer("--no-such-option", "1").__enter__()

    def test_a_stopped_server_is_gone_and_a_restarted_one_is_empty(self):
        with RedisServer() as server:
            server.command("SET", "k", "v")
            server.stop()
            with pytest.raises(ConnectionError):
                server.command("PING")
            server.restart()
            assert server.command("EXISTS", "k") == ":0"
