"""The limits' counts: exact, all or nothing, bounded; the same in memory and in a real Redis."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.limit_redis import MAX_BATCH, RedisLimitStore
from gateway.limit_stores import DAY_S, Limits, LimitStoreError, MemoryLimitStore, Meter
from tests.support.redis_server import RedisServer

START_S = 1_800_000_000.25  # 17 January 2027, 08:00:00.25 UTC
MIDNIGHT_S = (int(START_S) // DAY_S + 1) * DAY_S
TEST_TIME = "redis.call('LRANGE', 'clock', 0, 1)"


class Clock:
    """The time of the store: in this process, and in Redis when there is a server."""

    def __init__(self, server: RedisServer | None = None) -> None:
        self._server = server
        self._us = 0
        self.set(START_S)

    def __call__(self) -> float:
        return self._us / 1e6

    def set(self, now_s: float) -> None:
        self._us = round(now_s * 1e6)
        if self._server is not None:
            self._server.command("DEL", "clock")
            self._server.command("RPUSH", "clock", *(str(part) for part in divmod(self._us, 1_000_000)))

    def advance(self, seconds: float) -> None:
        self.set(self() + seconds)


def redis_store(server, **options) -> RedisLimitStore:
    lost = options.pop("lost", [])
    defaults = {"timeout_s": 5, "server_time": TEST_TIME}
    return RedisLimitStore(server.url, lambda: lost.append(1), **(defaults | options))


@pytest.fixture(params=["memory", "redis"])
def kind(request):
    return request.param


@pytest.fixture
def clock(kind, request):
    return Clock(request.getfixturevalue("redis_server") if kind == "redis" else None)


@pytest.fixture
async def store(kind, clock, request):
    store = MemoryLimitStore(clock) if kind == "memory" else redis_store(request.getfixturevalue("redis_server"))
    yield store
    await store.aclose()


async def told(store) -> None:
    """Until what was finished has been told: at once in memory."""
    if isinstance(store, RedisLimitStore) and store._sender is not None:
        await store._sender


async def ask(store, limits, tokens=0, times=1):
    return [(await store.admit("k", limits, tokens)).refused_by for _ in range(times)]


class TestBothStores:
    async def test_a_cold_key_takes_exactly_its_requests_at_once(self, store):
        verdicts = await asyncio.gather(*(store.admit("k", Limits(requests_per_minute=100), 0) for _ in range(250)))
        assert [verdict.refused_by for verdict in verdicts].count(None) == 100
        assert {verdict.refused_by for verdict in verdicts} == {None, "requests"}

    async def test_what_was_taken_comes_back_after_60_to_61_seconds_as_told(self, store, clock):
        limits = Limits(requests_per_minute=2)
        assert await ask(store, limits, times=2) == [None, None]
        refused = await store.admit("k", limits, 0)
        assert (refused.refused_by, refused.wait_ms, refused.charge) == ("requests", 60_750, None)
        clock.advance(60.749)
        assert await ask(store, limits) == ["requests"]
        clock.advance(0.001)
        assert await ask(store, limits, times=3) == [None, None, "requests"]

    async def test_the_wait_is_until_enough_has_come_back_not_all(self, store, clock):
        limits = Limits(tokens_per_minute=100)
        for tokens in (10, 20, 70):
            await store.admit("k", limits, tokens)
            clock.advance(10)
        waits = {}
        for tokens in (10, 11, 30, 31, 100, 101):
            waits[tokens] = (await store.admit("k", limits, tokens)).wait_ms
        assert waits == {10: 30_750, 11: 40_750, 30: 40_750, 31: 50_750, 100: 50_750, 101: 61_000}

    async def test_keys_do_not_share_their_limits(self, store):
        limits = Limits(requests_per_minute=1)
        assert (await store.admit("a", limits, 0)).refused_by is None
        assert (await store.admit("b", limits, 0)).refused_by is None

    @pytest.mark.parametrize(
        ("small", "which"),
        [
            (Limits(requests_per_minute=1), "requests"),
            (Limits(tokens_per_minute=10), "tokens"),
            (Limits(concurrent_requests=1), "concurrency"),
            (Limits(tokens_per_day=10), "daily_tokens"),
        ],
    )
    async def test_a_refusal_by_one_limit_takes_nothing_from_any(self, store, small, which):
        first = await store.admit("k", small.or_else(Limits(1000, 1000, 1000, 1000)), 10)
        assert first.refused_by is None
        for _ in range(5):
            verdict = await store.admit("k", small.or_else(Limits(1000, 1000, 1000, 1000)), 10)
            assert verdict.refused_by == which
        # All is there but what the first took: were a refusal charged, one of these would not fit.
        assert await ask(store, Limits(2, 20, 2, 20), 10, times=2) == [None, "daily_tokens"]

    async def test_the_limit_with_the_longest_wait_is_named(self, store):
        limits = Limits(1, 10, 1, 10)
        await store.admit("k", limits, 10)
        assert (await store.admit("k", limits, 10)).refused_by == "daily_tokens"
        assert (await store.admit("k", Limits(1, 10, 1), 10)).refused_by == "requests"
        assert (await store.admit("k", Limits(None, 10, 1), 10)).refused_by == "tokens"

    async def test_meters_tell_what_is_left_and_when_all_is_back(self, store, clock):
        limits = Limits(requests_per_minute=10, tokens_per_minute=1000)
        first = await store.admit("k", limits, 0)
        assert (first.requests, first.tokens) == (Meter(10, 9, 60_750), Meter(1000, 1000, 0))
        clock.advance(1.5)
        second = await store.admit("k", limits, 300)
        assert (second.requests, second.tokens) == (Meter(10, 8, 60_250), Meter(1000, 700, 60_250))
        assert (await store.admit("k", Limits(concurrent_requests=9), 5)).requests is None

    async def test_a_request_without_tokens_passes_where_none_are_left(self, store):
        limits = Limits(tokens_per_minute=10, tokens_per_day=10)
        assert await ask(store, limits, 10) == [None]
        lowered = Limits(tokens_per_minute=5, tokens_per_day=5)
        assert await ask(store, lowered, 0) == [None]
        assert await ask(store, lowered, 1) == ["daily_tokens"]

    async def test_a_place_is_free_again_when_its_request_ends(self, store):
        limits = Limits(concurrent_requests=2)
        first, second = await store.admit("k", limits, 0), await store.admit("k", limits, 0)
        refused = await store.admit("k", limits, 0)
        assert (refused.refused_by, refused.wait_ms) == ("concurrency", 1000)
        store.finish(first.charge, 0)
        await told(store)
        assert await ask(store, limits, times=2) == [None, "concurrency"]
        store.finish(second.charge, 0)

    async def test_what_was_not_used_comes_back_at_once(self, store):
        limits = Limits(tokens_per_minute=1000, tokens_per_day=1000)
        verdict = await store.admit("k", limits, 900)
        assert await ask(store, limits, 101) == ["daily_tokens"]
        store.finish(verdict.charge, 100)
        await told(store)
        assert await ask(store, limits, 900) == [None]
        assert await ask(store, limits, 1) == ["daily_tokens"]

    async def test_what_was_used_beyond_the_estimate_is_charged(self, store, clock):
        limits = Limits(tokens_per_minute=1000, tokens_per_day=5000)
        verdict = await store.admit("k", limits, 100)
        # Even when the estimate itself has left the window.
        clock.advance(100)
        store.finish(verdict.charge, 700)
        await told(store)
        assert (await store.admit("k", limits, 401)).refused_by == "tokens"
        assert (await store.admit("k", limits, 400)).tokens == Meter(1000, 0, 60_750)
        clock.advance(61)
        assert await ask(store, Limits(tokens_per_day=5000), 3901) == ["daily_tokens"]
        assert await ask(store, Limits(tokens_per_day=5000), 3900) == [None]

    async def test_what_has_left_the_window_is_not_given_back_to_it(self, store, clock):
        limits = Limits(tokens_per_minute=1000)
        old = await store.admit("k", limits, 900)
        clock.advance(61)
        await store.admit("k", limits, 800)
        store.finish(old.charge, 0)
        await told(store)
        assert await ask(store, limits, 201) == ["tokens"]
        assert await ask(store, limits, 200) == [None]

    async def test_a_charge_by_the_day_alone_is_settled_by_the_day_alone(self, store):
        verdict = await store.admit("k", Limits(tokens_per_day=100), 100)
        store.finish(verdict.charge, 60)
        more = await store.admit("k", Limits(tokens_per_day=100), 10)
        store.finish(more.charge, 40)
        same = await store.admit("k", Limits(tokens_per_day=101), 1)
        store.finish(same.charge, 1)
        await told(store)
        assert await ask(store, Limits(tokens_per_day=101), 1) == ["daily_tokens"]
        assert await ask(store, Limits(tokens_per_minute=100), 100) == [None]

    async def test_the_budget_is_new_at_midnight_utc_and_yesterday_gives_nothing_back(self, store, clock):
        limits = Limits(tokens_per_day=100)
        clock.set(MIDNIGHT_S - 0.5)
        verdict = await store.admit("k", limits, 100)
        refused = await store.admit("k", limits, 1)
        assert (refused.refused_by, refused.wait_ms) == ("daily_tokens", 500)
        clock.set(MIDNIGHT_S)
        assert await ask(store, limits, 100) == [None]
        store.finish(verdict.charge, 0)
        await told(store)
        assert await ask(store, limits, 1) == ["daily_tokens"]

    async def test_a_clock_that_steps_back_a_little_stands_still(self, store, clock):
        limits = Limits(requests_per_minute=2)
        await ask(store, limits)
        clock.advance(-30)
        assert await ask(store, limits, times=2) == [None, "requests"]
        clock.advance(30 + 60.75)
        assert await ask(store, limits, times=3) == [None, None, "requests"]

    async def test_a_clock_that_was_far_ahead_does_not_lock_a_key_out(self, store, clock):
        limits = Limits(requests_per_minute=1, tokens_per_minute=10)
        turns_s = 61 * 10_000  # Whole turns of the ring: the same bucket, of another time.
        clock.advance(turns_s)
        verdict = await store.admit("k", limits, 10)
        clock.advance(-turns_s)
        assert await ask(store, limits, 10) == [None]
        store.finish(verdict.charge, 0)  # Charged in what is now the future: gives nothing back here.
        await told(store)
        assert await ask(store, Limits(tokens_per_minute=10), 1) == ["tokens"]

    async def test_a_refusal_after_the_rings_have_turned_keeps_the_sums_right(self, store, clock):
        limits = Limits(requests_per_minute=10, concurrent_requests=1)
        held = await store.admit("k", limits, 0)
        clock.advance(61)
        if isinstance(store, RedisLimitStore):
            store._renew_all()  # The clock was moved past the lease's end; nobody purges before it is renewed.
        assert await ask(store, limits) == ["concurrency"]
        store.finish(held.charge, 0)
        await told(store)
        assert (await store.admit("k", limits, 0)).requests == Meter(10, 9, 60_750)

    async def test_an_end_after_the_rings_have_turned_keeps_the_sums_right(self, store, clock):
        limits = Limits(requests_per_minute=10, tokens_per_minute=10, concurrent_requests=10)
        held = await store.admit("k", limits, 5)
        clock.advance(61)
        store.finish(held.charge, 5)
        await told(store)
        again = await store.admit("k", limits, 0)
        assert (again.requests.remaining, again.tokens.remaining) == (9, 10)

    async def test_after_the_end_nothing_raises(self, store):
        verdict = await store.admit("k", Limits(concurrent_requests=1), 0)
        await store.aclose()
        store.finish(verdict.charge, 0)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "admit", "finish", "tick", "back"]),
        st.integers(0, 60),
        st.sampled_from([0.0, 0.001, 0.4, 1.0, 7.3, 59.999, 61.0, 62.0, 40_000.0]),
    ),
    max_size=40,
)
LIMITS = st.builds(Limits, *(st.none() | st.integers(1, top) for top in (6, 150, 4, 400)))


async def run(store, clock, limits, operations):
    """What the store answers to the operations, in order."""
    answers, held = [], []
    for name, amount, seconds in operations:
        number = amount
        if name == "admit":
            # The limiter never asks for more than the whole limit.
            number = min(number, limits.tokens_per_minute or 60, limits.tokens_per_day or 60)
            verdict = await store.admit("k", limits, number)
            answers.append((verdict.refused_by, verdict.wait_ms, verdict.requests, verdict.tokens))
            held += [verdict.charge] if verdict.charge else []
        elif name == "finish" and held:
            store.finish(held.pop(number % len(held)), number)
            await told(store)
        elif name == "tick":
            clock.advance(seconds)
        elif name == "back":
            clock.advance(-min(seconds, 62))
    await store.aclose()
    return answers


class TestProperties:
    @given(limits=LIMITS, operations=OPERATIONS)
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_redis_and_memory_answer_alike(self, redis_server, limits, operations):
        redis_server.flush()
        # Leases end by Redis's clock, which jumps here: they are given longer than all jumps together.
        far = redis_store(redis_server, lease_ttl_s=10_000_000)
        theirs = asyncio.run(run(far, Clock(redis_server), limits, operations))
        clock = Clock()
        assert theirs == asyncio.run(run(MemoryLimitStore(clock), clock, limits, operations))

    @given(
        limit=st.integers(1, 40),
        arrivals=st.lists(st.tuples(st.floats(0, 25), st.integers(1, 40)), min_size=1, max_size=120),
    )
    @settings(max_examples=150, deadline=None)
    def test_never_more_than_the_limit_in_any_60_seconds(self, limit, arrivals):
        clock = Clock()
        store = MemoryLimitStore(clock)
        taken: list[tuple[float, int]] = []

        async def go():
            for pause_s, tokens in arrivals:
                clock.advance(pause_s)
                if (await store.admit("k", Limits(tokens_per_minute=limit), tokens)).refused_by is None:
                    taken.append((clock(), tokens))

        asyncio.run(go())
        for end_s, _ in taken:
            assert sum(tokens for at_s, tokens in taken if end_s - 60 < at_s <= end_s) <= limit

    @given(
        limit=st.integers(1, 40),
        arrivals=st.lists(st.tuples(st.floats(0, 25), st.integers(1, 40)), min_size=1, max_size=120),
    )
    @settings(max_examples=150, deadline=None)
    def test_what_fits_a_window_of_61_seconds_is_never_refused(self, limit, arrivals):
        clock = Clock()
        store = MemoryLimitStore(clock)
        taken: list[tuple[float, int]] = []

        async def go():
            for pause_s, tokens in arrivals:
                clock.advance(pause_s)
                used = sum(amount for at_s, amount in taken if clock() - 61 < at_s)
                verdict = await store.admit("k", Limits(tokens_per_minute=limit), tokens)
                assert verdict.refused_by is None or used + tokens > limit
                if verdict.refused_by is None:
                    taken.append((clock(), tokens))

        asyncio.run(go())

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 80), st.floats(0, 70)), max_size=60))
    @settings(max_examples=100, deadline=None)
    def test_what_comes_back_is_never_more_than_what_was_charged(self, requests):
        clock = Clock()
        store = MemoryLimitStore(clock)
        limits = Limits(tokens_per_minute=10**6, tokens_per_day=10**6)

        async def go():
            for charged, actual, pause_s in requests:
                verdict = await store.admit("k", limits, charged)
                clock.advance(pause_s)
                before = (await store.admit("k", limits, 0)).tokens.remaining
                store.finish(verdict.charge, actual)
                after = (await store.admit("k", limits, 0)).tokens.remaining
                assert after - before <= charged
                assert after <= 10**6
            await store.aclose()

        asyncio.run(go())


class TestMemory:
    async def test_a_key_takes_the_same_memory_whatever_its_traffic(self):
        clock = Clock()
        store = MemoryLimitStore(clock)
        limits = Limits(10**9, 10**9, 10**9, 10**9)

        async def minutes(number):
            for _ in range(number * 200):
                verdict = await store.admit("k", limits, 12_345)
                store.finish(verdict.charge, 10_000)
                clock.advance(0.3)

        await minutes(2)
        tracemalloc.start()
        await minutes(4)
        grown_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown_bytes < 10_000

    async def test_keys_that_are_gone_are_forgotten_but_not_those_in_use(self):
        clock = Clock()
        store = MemoryLimitStore(clock)
        running = await store.admit("running", Limits(concurrent_requests=1), 0)
        await store.admit("spent", Limits(tokens_per_day=5), 5)
        for number in range(3000):
            await store.admit(f"k{number}", Limits(requests_per_minute=1), 0)
            clock.advance(0.2)
        assert len(store) < 1100
        assert (await store.admit("running", Limits(concurrent_requests=1), 0)).refused_by == "concurrency"
        assert (await store.admit("spent", Limits(tokens_per_day=5), 1)).refused_by == "daily_tokens"
        store.finish(running.charge, 0)


class TestRedis:
    @pytest.fixture
    def kind(self):
        return "redis"

    async def test_one_admission_is_one_command(self, store, redis_server):
        limits = Limits(10, 10, 10, 10)
        await store.admit("k", limits, 1)
        before = calls(redis_server, "evalsha"), calls(redis_server, "script|load")
        await store.admit("k", limits, 1)
        assert (calls(redis_server, "evalsha"), calls(redis_server, "script|load")) == (before[0] + 1, before[1])

    async def test_a_keys_data_is_in_one_slot_and_bounded_and_ends(self, store, clock, redis_server):
        limits = Limits(10**6, 10**6, 10**6, 10**9)
        for _ in range(150):
            verdict = await store.admit("k", limits, 7)
            store.finish(verdict.charge, 3)
            clock.advance(1)
        await told(store)
        assert 2 * 60 <= int(redis_server.command("HLEN", "qwen3vl:limits:{k}:book")[1:]) <= 2 * 61 + 8
        assert redis_server.command("EXISTS", "qwen3vl:limits:{k}:leases") == ":0"
        left_s = int(redis_server.command("TTL", "qwen3vl:limits:{k}:book")[1:])
        assert MIDNIGHT_S - clock() < left_s <= MIDNIGHT_S - clock() + 63
        await store.admit("place", Limits(concurrent_requests=1), 0)
        assert 0 < int(redis_server.command("PTTL", "qwen3vl:limits:{place}:leases")[1:]) <= 30_000
        await store.admit("minute", Limits(requests_per_minute=1), 0)
        assert 0 < int(redis_server.command("PTTL", "qwen3vl:limits:{minute}:book")[1:]) <= 62_000
        assert redis_server.command("DBSIZE") == ":5"

    async def test_the_places_of_a_gateway_that_died_come_back_by_themselves(self, store, clock, redis_server):
        limits = Limits(concurrent_requests=1)
        dead = redis_store(redis_server)
        await dead.admit("k", limits, 0)
        await dead._link.aclose()
        clock.advance(29.999)
        assert await ask(store, limits) == ["concurrency"]
        clock.advance(0.001)
        assert await ask(store, limits) == [None]
        await dead.aclose()

    async def test_a_lease_lasts_as_long_as_its_request_but_not_for_ever(self, clock, redis_server):
        limits = Limits(concurrent_requests=1)
        here = Clock()
        store = redis_store(redis_server, clock=here, max_hold_s=100)
        verdict = await store.admit("k", limits, 0)
        for _ in range(9):
            here.advance(11)
            clock.advance(11)
            store._tick()
            store._tick()  # Not due again so soon.
            await told(store)
        assert await ask(store, limits) == ["concurrency"]
        here.advance(11)
        clock.advance(31)
        store._tick()
        await told(store)
        assert await ask(store, limits) == [None]
        store.finish(verdict.charge, 0)
        await store.aclose()

    async def test_a_lease_that_has_ended_is_not_renewed(self, store, redis_server):
        limits = Limits(concurrent_requests=1)
        verdict = await store.admit("k", limits, 0)
        store.finish(verdict.charge, 0)
        store._held[verdict.charge.lease] = ("k", store._clock())
        store._renew_all()
        await told(store)
        assert await ask(store, limits) == [None]

    async def test_the_timer_renews_by_itself(self, redis_server):
        store = RedisLimitStore(redis_server.url, lambda: None, timeout_s=5, lease_ttl_s=1.5)
        limits = Limits(concurrent_requests=1)
        verdict = await store.admit("k", limits, 0)
        before = calls(redis_server, "zadd")
        while calls(redis_server, "zadd") < before + 2:
            await asyncio.sleep(0.01)
        assert await ask(store, limits) == ["concurrency"]
        store.finish(verdict.charge, 0)
        await store.aclose()

    async def test_a_cancelled_admission_takes_nothing_that_stays(self, store, redis_server):
        limits = Limits(tokens_per_minute=100, concurrent_requests=3, tokens_per_day=100)
        await store.admit("k", Limits(requests_per_minute=9), 0)
        redis_server.pause()
        try:
            under_way = [asyncio.create_task(store.admit("k", limits, 40)) for _ in range(3)]
            while not store._queue:
                await asyncio.sleep(0)
            while store._queue:
                await asyncio.sleep(0)
            late = asyncio.create_task(store.admit("k", limits, 40))
            while not store._queue:
                await asyncio.sleep(0)
            for task in [*under_way, late]:
                task.cancel()
            await asyncio.gather(*under_way, late, return_exceptions=True)
        finally:
            redis_server.resume()
        await told(store)
        assert await ask(store, limits, 25, times=4) == [None, None, None, "concurrency"]
        assert await ask(store, Limits(tokens_per_day=100), 25) == [None]

    async def test_a_client_that_leaves_as_the_answer_comes_takes_nothing_either(self, store, monkeypatch):
        limits = Limits(tokens_per_minute=100, concurrent_requests=1)
        await store.admit("k", Limits(requests_per_minute=9), 0)
        task = asyncio.create_task(store.admit("k", limits, 100))
        answered = store._answered

        def then_leaves(job, reply):
            answered(job, reply)
            task.cancel()

        with monkeypatch.context() as patched:
            patched.setattr(store, "_answered", then_leaves)
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
        await told(store)
        assert await ask(store, limits, 100) == [None]

    async def test_a_defect_in_sending_leaves_nobody_waiting(self, store, monkeypatch):
        async def broken(*_):
            raise RuntimeError("defect")

        with monkeypatch.context() as patched:
            patched.setattr(store, "_run", broken)
            with pytest.raises(LimitStoreError, match="the sender has ended"):
                await store.admit("k", Limits(concurrent_requests=1), 0)
            with pytest.raises(RuntimeError, match="defect"):
                await store._sender
        assert await ask(store, Limits(concurrent_requests=1)) == [None]

    async def test_a_queue_of_cancelled_admissions_sends_nothing(self, store):
        tasks = [asyncio.create_task(store.admit("k", Limits(requests_per_minute=1), 0)) for _ in range(MAX_BATCH)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await told(store)
        assert await ask(store, Limits(requests_per_minute=1)) == [None]

    async def test_an_error_of_the_servers_is_told_without_its_words(self, store, redis_server):
        redis_server.command("SET", "qwen3vl:limits:{k}:book", "secret")
        with pytest.raises(LimitStoreError, match=r"limits at redis://127\.0\.0\.1:\d+ failed: ResponseError$"):
            await store.admit("k", Limits(1, 1, 1, 1), 1)
        assert (await store.admit("other", Limits(requests_per_minute=1), 0)).refused_by is None
        redis_server.command("DEL", "qwen3vl:limits:{k}:book")

    @pytest.mark.parametrize("url", ["redis://h:port", "http://h", "redis://:p@ss/w#rd@h", "redis://h?nonsense=1"])
    def test_a_bad_url_is_refused_without_repeating_it(self, url):
        with pytest.raises(ValueError, match="write it like redis://user:password@host") as raised:
            RedisLimitStore(url, lambda: None)
        assert url not in str(raised.value)

    def test_no_password_is_shown(self):
        for url, where in [("redis://:pw@h:1/0", "redis://h:1"), ("unix://:pw@/run/redis.sock", "/run/redis.sock")]:
            store = RedisLimitStore(url, lambda: None)
            assert repr(store) == f"RedisLimitStore({where})"
            assert repr(store._link) == f"RedisLink({where})"


def round_trips(store) -> list[int]:
    """How many jobs each round trip from now on has."""
    trips: list[int] = []
    run = store._run

    def counted(jobs, client):
        trips.append(len(jobs))
        return run(jobs, client)

    store._run = counted
    return trips


class TestRedisAway:
    async def test_a_hung_redis_costs_one_timeout_not_one_each(self):
        with RedisServer() as server:
            store = RedisLimitStore(server.url, lambda: None, timeout_s=0.2, pause_s=60)
            await store.admit("k", Limits(requests_per_minute=1000), 0)
            trips = round_trips(store)
            server.pause()
            for _ in range(50):
                with pytest.raises(LimitStoreError):
                    await store.admit("k", Limits(1, 1, 1, 1), 0)
            assert len(trips) == 1
            server.resume()
            await store.aclose()

    async def test_those_in_the_queue_do_not_wait_for_a_timeout_each(self):
        with RedisServer() as server:
            store = RedisLimitStore(server.url, lambda: None, timeout_s=0.2, pause_s=60)
            await store.admit("k", Limits(requests_per_minute=1000), 0)
            trips = round_trips(store)
            server.pause()
            waiting = [store.admit("k", Limits(requests_per_minute=1000), 0) for _ in range(5 * MAX_BATCH)]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(result) for result in results} == {LimitStoreError}
            assert len(trips) == 1
            server.resume()
            await store.aclose()

    async def test_an_admission_that_redis_did_too_late_keeps_no_place(self):
        with RedisServer() as server:
            store = RedisLimitStore(server.url, lambda: None, timeout_s=0.5, pause_s=0.02)
            await store.admit("other", Limits(requests_per_minute=9), 0)
            limits = Limits(concurrent_requests=1)
            server.pause()
            with pytest.raises(LimitStoreError):
                await store.admit("k", limits, 0)
            server.resume()
            async with asyncio.timeout(10):  # Far less than a lease.
                while store._postponed or not store._sender.done():
                    await asyncio.sleep(0.005)
            assert server.command("EXISTS", "qwen3vl:limits:{k}:book") == ":1"
            assert server.command("EXISTS", "qwen3vl:limits:{k}:leases") == ":0"
            await store.aclose()

    async def test_an_end_that_could_not_be_told_is_told_later_and_counts_once(self):
        lost: list[int] = []
        with RedisServer() as server:
            store = RedisLimitStore(server.url, lambda: lost.append(1), timeout_s=0.1, pause_s=0.02)
            limits = Limits(tokens_per_minute=1000, concurrent_requests=2)
            first, second = await store.admit("k", limits, 100), await store.admit("k", limits, 300)
            server.pause()
            store.finish(first.charge, 0)  # Reaches Redis, which answers nobody.
            while not store._postponed:
                await asyncio.sleep(0.005)
            server.resume()  # Redis does what it was told, and is told again.
            while store._postponed or not store._sender.done():
                await asyncio.sleep(0.005)
            verdict = await store.admit("k", limits, 0)
            assert (verdict.refused_by, verdict.tokens.remaining) == (None, 700)
            store.finish(second.charge, 300)
            store.finish(verdict.charge, 0)
            await store.aclose()
        assert lost == []

    async def test_what_cannot_be_told_in_time_is_given_up_and_counted(self):
        lost: list[int] = []
        clock = Clock()
        with RedisServer() as server:
            store = RedisLimitStore(server.url, lambda: lost.append(1), timeout_s=1, pause_s=5, clock=clock)
            verdicts = [await store.admit("k", Limits(concurrent_requests=9), 0) for _ in range(3)]
            server.kill()
            for verdict in verdicts[:2]:
                store.finish(verdict.charge, 0)
            await told(store)
            with pytest.raises(LimitStoreError, match="left alone"):
                await store.admit("k", Limits(1), 0)
            clock.advance(1)
            store._tick()  # Within the pause.
            assert (len(store._postponed), lost) == (2, [])
            clock.advance(29)
            store._tick()
            assert (len(store._postponed), lost) == (0, [1, 1])
            store.finish(verdicts[2].charge, 0)
            await store.aclose()
            assert lost == [1, 1, 1]
            store.finish(verdicts[2].charge, 0)
            assert lost == [1, 1, 1, 1]
            with pytest.raises(LimitStoreError):
                await store.admit("k", Limits(1), 0)

    async def test_a_redis_that_was_restarted_gives_nothing_back_that_it_did_not_take(self):
        with RedisServer() as server:
            store = RedisLimitStore(server.url, lambda: None, timeout_s=5, pause_s=0)
            limits = Limits(tokens_per_minute=1000, tokens_per_day=1000)
            before = await store.admit("k", limits, 900)
            server.restart()
            while True:
                try:
                    await store.admit("k", limits, 500)
                    break
                except LimitStoreError:  # The connection from before.
                    await asyncio.sleep(0)
            # As if its lease had outlived the restart.
            server.command("ZADD", "qwen3vl:limits:{k}:leases", "9999999999999", before.charge.lease)
            store.finish(before.charge, 0)
            await told(store)
            assert (await store.admit("k", limits, 0)).tokens.remaining == 500
            await store.aclose()


def calls(server, command) -> int:
    """How often the server has run a command."""
    import socket

    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"INFO commandstats\r\n")
        file = connection.makefile("rb")
        text = file.read(int(file.readline()[1:])).decode()
    for line in text.splitlines():
        if line.startswith(f"cmdstat_{command}:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0
